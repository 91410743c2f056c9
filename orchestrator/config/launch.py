"""The keys that say where a run has its place, and with what it is launched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from penstock.orchestrator.config.kuberay import KubeRaySection
from penstock.orchestrator.config.sections import Section

CLOCK = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>[0-5]\d):(?P<seconds>[0-5]\d)")


def _seconds(value: Any) -> Any:
    """Seconds of a walltime; YAML itself reads 4:00:00 as 14,400, and 4:00 as 240."""
    if not isinstance(value, str):
        return value
    if value.isdecimal():
        return int(value)
    if not (match := CLOCK.fullmatch(value)):
        raise ValueError("give seconds, h:mm:ss as 4:00:00, or d-hh:mm:ss as 1-12:00:00")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return 86400 * days + 3600 * hours + 60 * minutes + seconds


Walltime = Annotated[Annotated[int, Field(gt=0)] | None, BeforeValidator(_seconds)]
"""A time in seconds, which may be written as batch systems write it."""


class ClusterSection(Section):
    """Where Ray runs, and for how long."""

    address: str | None = None
    """A running Ray cluster to join, as `host:port` or `auto`.

    Absent, the run starts Ray on this machine and stops it again.
    """
    walltime: Walltime = None
    """Time after which the run must have ended, from its start on, in seconds or as `4:00:00` or `1-12:00:00`.

    Two minutes before, or a fifth of it where that is less, it writes a checkpoint and ends with exit code 75: go on
    with `penstock resume`, for which the time begins again. In a job of Slurm its end counts too, whichever is earlier.
    """


Line = Annotated[str, Field(pattern=r"^\S[^\n\r]*$")]
"""A value on one line of a script."""


class SlurmNodesSection(Section):
    """Nodes of a Slurm job that are alike."""

    nodes: int = Field(1, gt=0)
    """How many."""
    cpus_per_node: int | None = Field(None, gt=0)
    """CPUs of each node. Absent, all of an exclusive node, and 8 of a shared one."""
    memory: Line | None = None
    """Memory of each node, as `16G`. Absent, all of an exclusive node, and the partition's default of a shared one."""
    partition: Line | None = None
    """Partition."""
    constraint: Line | None = None
    """Features that the nodes must have, as `sbatch --constraint` takes them."""
    gres: Line | None = None
    """Generic resources of each node, as `gpu:1`."""
    exclusive: bool = False
    """Whether no other job may be on the nodes: [shared nodes](../clusters.md#shared-nodes)."""


class SlurmSection(Section):
    """A job of `penstock launch slurm`: [from login to result](../clusters.md#slurm)."""

    account: Line | None = None
    """Account that pays."""
    qos: Line | None = None
    """Quality of service."""
    time: Walltime = None
    """Walltime of each life of the job, in seconds or as `4:00:00`. Absent, the partition's default.

    `--walltime` sets it too.
    """
    requeue: bool = False
    """Whether a job whose time is over, or that has to make way, goes on by itself until the run has ended.

    `--requeue` sets it too.
    """
    solvers: SlurmNodesSection = SlurmNodesSection()
    """Where solvers run."""
    learner: SlurmNodesSection | None = None
    """Where the learner runs, with the keys of `launch.slurm.solvers`. Absent, on the first of the solvers' nodes."""
    options: Sequence[Line] = []
    """Further options of sbatch, as `--reservation=NAME`; each becomes a line of the script."""

    @model_validator(mode="after")
    def _options_are_options(self):
        for option in self.options:
            if not option.startswith("-"):
                raise ValueError(f"options: {option!r} is no option of sbatch: give --name=value")
        return self


class LaunchSection(Section):
    """With what `penstock launch` starts the run; `train` does not look at it."""

    prologue: str = ""
    """Lines of shell that every node runs before penstock: modules, a conda or virtual environment."""
    kuberay: KubeRaySection = KubeRaySection()
    slurm: SlurmSection = SlurmSection()
    """A Slurm job."""
