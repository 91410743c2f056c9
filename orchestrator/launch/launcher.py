"""Launchers: where a run can be launched, in one shape for all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from penstock.orchestrator.config.config import Config
from penstock.orchestrator.launch.job import Job, State
from penstock.orchestrator.store.run_folder import RunFolder

LAUNCHERS = {
    "local": "penstock.orchestrator.launch.local:Local",
    "ray": "penstock.orchestrator.launch.ray:Ray",
    "kuberay": "penstock.orchestrator.launch.kuberay:KubeRay",
    "slurm": "penstock.orchestrator.launch.slurm:Slurm",
}
"""The launchers by name, in the form that `load_class` takes."""

OUTPUT = "job.log"
"""File of a run's logs that has the output of its job."""


class Launcher(ABC):
    """Submits prepared run folders, and asks after the jobs.

    A job runs `penstock resume` on its folder, which begins a run that has no checkpoint and goes on with any other: so
    one script serves the first life of a job and each one after it.

    Args:
        config: the configuration of the run.
    """

    FILE: ClassVar[str]
    """Name, in the run folder, of what is submitted."""
    WALLTIME: ClassVar[str] = "cluster.walltime"
    """Key of the time after which a run ends with a checkpoint."""
    REQUEUE: ClassVar[str | None] = None
    """Key of whether a run goes on by itself after that, where that can be."""
    ASK_EVERY_S: ClassVar[float] = 10.0
    """How often its state is asked for at the most: schedulers have better things to do."""
    begins_again: ClassVar[bool] = False
    """Whether a job may begin again by itself after its run has failed."""
    takes_seeds: ClassVar[bool] = False
    """Whether one job may have several runs, which differ in their seeds."""

    def __init__(self, config: Config):
        self.config = config

    @classmethod
    def adapted(cls, config: Config) -> Config:
        """The configuration as the run has it where it is launched."""
        return config

    @abstractmethod
    def require_ready(self) -> None:
        """Check that runs can be launched so from here.

        Raises:
            PenstockError: a command or a key is missing; the message says which.
        """

    @abstractmethod
    def text(self, folders: Sequence[Path]) -> str:
        """What is submitted, a script or a manifest.

        Args:
            folders: the run folders, one for each seed.

        Returns:
            The text of FILE.
        """

    @abstractmethod
    def submit(self, folders: Sequence[RunFolder]) -> list[str]:
        """Submit what `text` says, which is in FILE of the first folder.

        Args:
            folders: the run folders, one for each seed.

        Returns:
            The id of each one's job.

        Raises:
            PenstockError: it was refused.
        """

    @abstractmethod
    def state(self, job: Job, folder: RunFolder) -> State:
        """Where a job is.

        Raises:
            PenstockError: what runs it does not answer.
        """

    @abstractmethod
    def stop(self, job: Job, folder: RunFolder) -> None:
        """Have a job write a checkpoint and end; one that waits is withdrawn.

        Raises:
            PenstockError: what runs it does not answer.
        """

    @classmethod
    def resume_command(cls, job: Job, folder: RunFolder) -> str | None:
        """What a person types to go on with a run whose job has ended.

        Args:
            job: the job.
            folder: the run folder.

        Returns:
            The command; None where `penstock resume` does it.
        """
        return None

    def output(self, job: Job, folder: RunFolder) -> str:
        """What a job has printed so far.

        Raises:
            PenstockError: what runs it does not answer.
        """
        path = folder.logs / OUTPUT
        return path.read_text(errors="replace") if path.exists() else ""
