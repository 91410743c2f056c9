"""`penstock launch slurm`: a run as one Slurm job, or runs as a job array."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from penstock.errors import PenstockError
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.config.launch import SlurmNodesSection
from penstock.orchestrator.launch.job import Job, State
from penstock.orchestrator.launch.launcher import OUTPUT, Launcher
from penstock.orchestrator.store.run_folder import RunFolder

ANSWERS_WITHIN_S = 60.0
CPUS_OF_A_SHARED_NODE = 8
END_SIGNAL_S = 60  # before the time is over; Slurm may be up to a minute early
SEEDS = "seeds"
"""Folder in the first run folder of a job array, with a link to each one by the index of its task."""
STATES = {
    State.WAITING: {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"},
    State.RUNNING: {"RUNNING", "COMPLETING", "CONFIGURING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED"},
}
UNSET = "set +eu +o pipefail # which a prologue may have set"
UNKNOWN_JOB = "Invalid job id"


class Slurm(Launcher):
    """A Slurm job, whose nodes make up a Ray cluster for its length. See `Launcher`."""

    FILE = "job.sbatch"
    WALLTIME = "launch.slurm.time"
    REQUEUE = "launch.slurm.requeue"
    begins_again = True  # where a node was lost, or the site requeues
    takes_seeds = True

    @classmethod
    def adapted(cls, config: Config) -> Config:
        """The configuration of a run that joins a cluster.

        So that nothing is checked against this machine's cores and devices.
        """
        return config.model_copy(update={"cluster": config.cluster.model_copy(update={"address": "auto"})})

    def require_ready(self) -> None:
        """Slurm's commands must be here. See `Launcher.require_ready`."""
        if shutil.which("sbatch") is None:
            raise _no_slurm("sbatch")

    def text(self, folders: Sequence[Path]) -> str:
        """A script of bash for sbatch; see `Launcher.text`."""
        first = folders[0]
        script = shlex.quote(str(first / self.FILE))
        folder = shlex.quote(str(first))
        if len(folders) > 1:
            folder = f'$(realpath {folder}/{SEEDS}/"$SLURM_ARRAY_TASK_ID")'
        variables = [
            f"folder={folder}",
            f"script={script}",
            f"python={shlex.quote(sys.executable)}",
            f"requeue={str(self.config.launch.slurm.requeue).lower()}",
        ]
        if not all(nodes.exclusive for nodes in self._groups()):
            # Ray would look at the memory of the whole node; Slurm bounds the job's.
            variables.append("export RAY_memory_monitor_refresh_ms=0")
        prologue = self.config.launch.prologue.rstrip("\n")
        body = (files("penstock.deploy") / "slurm" / "job.sh").read_text()
        header = [f"#SBATCH {option}" for option in self._options(folders)]
        return "\n".join(["#!/bin/bash", *header, "", *filter(None, [prologue]), UNSET, *variables, "", body])

    def _groups(self) -> list[SlurmNodesSection]:
        slurm = self.config.launch.slurm
        return [slurm.solvers] if slurm.learner is None else [slurm.learner, slurm.solvers]

    def _options(self, folders: Sequence[Path]) -> Iterator[str]:
        """What is asked of sbatch; after `hetjob`, for the nodes without the learner."""
        slurm, groups = self.config.launch.slurm, self._groups()
        if len(folders) > 1 and len(groups) > 1:
            raise PenstockError(
                "--seeds: Slurm has no arrays of heterogeneous jobs: leave out launch.slurm.learner, or launch one run "
                "for each seed"
            )
        first = str(folders[0])
        if re.search(r"[\\\n\r]", first):
            raise PenstockError(f"{first!r}: Slurm can't write to a folder with such a name: rename it")
        seed = ""
        if len(folders) > 1:
            seed = f"/{SEEDS}/%a"
            yield f"--array=0-{len(folders) - 1}"
        yield f"--output={_quoted(f'{first.replace("%", "%%")}{seed}/logs/{OUTPUT}')}"
        yield "--open-mode=append"
        yield f"--signal=B:USR1@{END_SIGNAL_S}"
        for index, nodes in enumerate(groups):
            if index > 0:
                yield "hetjob"
            yield f"--job-name={_quoted(self.config.name)}"
            yield f"--chdir={_quoted(str(Path.cwd()))}"
            yield "--requeue" if slurm.requeue else "--no-requeue"
            yield "--no-kill"  # a node that is lost is not the end of the run
            if slurm.account is not None:
                yield f"--account={_quoted(slurm.account)}"
            if slurm.qos is not None:
                yield f"--qos={_quoted(slurm.qos)}"
            if slurm.time is not None:
                yield f"--time={_clock(slurm.time)}"
            yield from _options_of(nodes)
            yield from slurm.options

    def submit(self, folders: Sequence[RunFolder]) -> list[str]:
        """Have sbatch take the script. See `Launcher.submit`."""
        first = folders[0].path
        if len(folders) > 1:
            (first / SEEDS).mkdir()
            for index, folder in enumerate(folders):
                (first / SEEDS / str(index)).symlink_to(os.path.relpath(folder.path, first / SEEDS))
        answer = _slurm("sbatch", "--parsable", str(first / self.FILE))
        job_id = answer.strip().partition(";")[0]  # the name of a cluster may follow
        return [job_id] if len(folders) == 1 else [f"{job_id}_{index}" for index in range(len(folders))]

    def state(self, job: Job, folder: RunFolder) -> State:
        """See `Launcher.state`."""
        try:
            words = set(_slurm("squeue", "--noheader", f"--jobs={job.id}", "--format=%T").split())
        except PenstockError as error:
            if UNKNOWN_JOB in str(error):
                return State.GONE
            raise
        return next((state for state in (State.RUNNING, State.WAITING) if words & STATES[state]), State.GONE)

    def stop(self, job: Job, folder: RunFolder) -> None:
        """See `Launcher.stop`."""
        _slurm("scancel", "--state=PENDING", job.id)
        if self.state(job, folder) is State.RUNNING:  # perhaps since a moment ago
            _slurm("scancel", "--batch", "--signal=USR2", job.id)

    @classmethod
    def resume_command(cls, job: Job, folder: RunFolder) -> str:
        """See `Launcher.resume_command`.

        The job says the same itself, see deploy/slurm/job.sh.
        """
        first, options = folder.path, ""
        for link in folder.path.parent.glob(f"*/{SEEDS}/*"):
            if link.resolve() == folder.path:  # a task of an array, whose script is in the first folder
                first, options = link.parent.parent, f"--array={link.name} "
        return f"sbatch {options}{shlex.quote(os.path.relpath(first / cls.FILE))}"


def _options_of(nodes: SlurmNodesSection) -> Iterator[str]:
    """One task on each node, with its CPUs and memory."""
    yield f"--nodes={nodes.nodes}"
    yield "--ntasks-per-node=1"
    if nodes.exclusive:
        yield "--exclusive"
    if nodes.cpus_per_node is not None or not nodes.exclusive:
        yield f"--cpus-per-task={nodes.cpus_per_node or CPUS_OF_A_SHARED_NODE}"
    if nodes.memory is not None or nodes.exclusive:
        yield f"--mem={_quoted(nodes.memory or '0')}"
    for name in ("partition", "constraint", "gres"):
        if (value := getattr(nodes, name)) is not None:
            yield f"--{name}={_quoted(value)}"


def _quoted(value: str) -> str:
    """A value as a #SBATCH line has it, where a backslash escapes within all quotes."""
    return shlex.quote(value.replace("\\", "\\\\"))


def _clock(seconds: int) -> str:
    """Seconds as d-hh:mm:ss."""
    minutes, hours = seconds // 60, seconds // 3600
    return f"{hours // 24}-{hours % 24:02}:{minutes % 60:02}:{seconds % 60:02}"


def _no_slurm(command: str) -> PenstockError:
    return PenstockError(
        f"penstock launch slurm needs Slurm's {command} on this machine: call it where you submit jobs, on a login node"
    )


def _slurm(command: str, *arguments: str) -> str:
    """What a command of Slurm prints.

    Raises:
        PenstockError: it is not here, does not answer, or refuses.
    """
    # In a job, or a shell of one, these would be options of the new job.
    environment = {name: value for name, value in os.environ.items() if not re.match("SLURM_(?!CONF|CLUSTERS)", name)}
    try:
        done = subprocess.run(
            [command, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWERS_WITHIN_S,
        )
    except FileNotFoundError:
        raise _no_slurm(command) from None
    except subprocess.TimeoutExpired:
        raise PenstockError(f"Slurm's {command} has not answered within {ANSWERS_WITHIN_S:.0f} s: try again") from None
    if done.returncode:
        reason = re.sub(rf"^{command}: (error: )?", "", done.stderr, flags=re.MULTILINE).strip()
        raise PenstockError(f"Slurm's {command} refuses: {reason or f'exit code {done.returncode}'}", exit_code=2)
    return done.stdout
