"""Launching runs, and what is done with their jobs."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from penstock.errors import PenstockError, describe
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.history.merged_logs import MergedLogs
from penstock.orchestrator.launch.job import FILE, Job, State
from penstock.orchestrator.launch.launcher import LAUNCHERS, OUTPUT, Launcher
from penstock.orchestrator.store.run_folder import RUNS, RunFolder
from penstock.registry import load_class, nearest

FOLLOW_S = 0.3


def launcher_class(where: str) -> type[Launcher]:
    """The launcher of a name. Raises PenstockError."""
    if where not in LAUNCHERS:
        raise PenstockError(f"{where!r}: runs are launched {', '.join(LAUNCHERS)}: {nearest(where, LAUNCHERS)}")
    return load_class(where, LAUNCHERS, "launcher")


def plans_of(config: Config, cls: type[Launcher], num_seeds: int) -> list[Config]:
    """The checked configurations of a job's runs, one for each seed.

    Raises:
        PenstockError: a run would fail, or the launcher takes one run alone.
    """
    from penstock.orchestrator.plan import resolve  # PyTorch, which the commands of jobs do without
    from penstock.orchestrator.run.checks import require_startable

    if num_seeds > 1 and not cls.takes_seeds:
        raise PenstockError("--seeds: only `launch slurm` takes several, as a job array; launch one run for each seed")
    plan = resolve(cls.adapted(config))
    require_startable(plan)
    first = plan.config
    if num_seeds == 1:
        return [first]
    seeds = range(first.seed, first.seed + num_seeds)
    return [first.model_copy(update={"seed": seed, "name": f"{first.name}-seed{seed}"}) for seed in seeds]


def dry_run(config: Config, where: str, num_seeds: int) -> str:
    """What `launch` would submit.

    Args:
        config: the configuration.
        where: name of a launcher.
        num_seeds: number of runs, which differ in their seeds.

    Returns:
        The script or manifest, for folders that are not made.

    Raises:
        PenstockError: see `plans_of`.
    """
    cls = launcher_class(where)
    configs = plans_of(config, cls, num_seeds)
    return cls(configs[0]).text(_folders_to_be(configs))


def _folders_to_be(configs: Sequence[Config]) -> list[Path]:
    return [RUNS.resolve() / f"{config.name}-<UTC>" for config in configs]


def launch(config: Config, where: str, num_seeds: int) -> list[tuple[RunFolder, Job]]:
    """Make the run folders and submit their job.

    Args:
        config: the configuration.
        where: name of a launcher.
        num_seeds: number of runs, which differ in their seeds.

    Returns:
        The folders and their jobs.

    Raises:
        PenstockError: the run would fail, can't be launched so from here, or was refused.
    """
    cls = launcher_class(where)
    configs = plans_of(config, cls, num_seeds)
    launcher = cls(configs[0])
    launcher.require_ready()
    launcher.text(_folders_to_be(configs))  # what it refuses leaves no folder
    folders = [RunFolder.create(each) for each in configs]
    try:
        for folder in folders:
            folder.update_run(state="submitted", cause=None)
        (folders[0].path / launcher.FILE).write_text(launcher.text([folder.path for folder in folders]))
        ids = launcher.submit(folders)
    except BaseException as error:
        cause = str(error) if isinstance(error, PenstockError) else f"launching it failed: {describe(error)}"
        for folder in folders:
            with suppress(PenstockError):  # the first fault is the one to report
                folder.update_run(state="failed", cause=cause)
        raise
    now = datetime.now(UTC).isoformat(timespec="seconds")
    jobs = [(folder, Job(where, job_id, now)) for folder, job_id in zip(folders, ids, strict=True)]
    for folder, job in jobs:
        job.save(folder)
    return jobs


def launched() -> Iterator[RunFolder]:
    """The runs under runs/ that were launched, by name."""
    for path in sorted(RUNS.glob(f"*/{FILE}")):
        if not path.parent.is_symlink():
            yield RunFolder(path.parent.resolve())


def state_of(folder: RunFolder, job: Job) -> State:
    """Where a job is. Raises PenstockError if what runs it does not answer."""
    if folder.driver_here() is not None:  # also of one that was gone on with by hand
        return State.RUNNING
    if _is_done(folder, job):
        return State.GONE
    return launcher_class(job.launcher)(folder.config()).state(job, folder)


def _is_done(folder: RunFolder, job: Job) -> bool:
    """Whether a job has nothing left to do, by its run's state alone."""
    state = folder.read("run.json").get("state")
    return state == "ended" or (state == "failed" and not launcher_class(job.launcher).begins_again)


def stop(folder: RunFolder) -> str:
    """Have a run end with a checkpoint; a job that waits is withdrawn.

    Args:
        folder: the run folder, of a run that was launched or runs on this machine.

    Returns:
        What was done, in a line.

    Raises:
        PenstockError: nothing of it runs, or what runs it does not answer.
    """
    name, job, run = folder.path.name, Job.of(folder), folder.read("run.json")
    if job is not None and not _is_done(folder, job):
        launcher = launcher_class(job.launcher)(folder.config())
        if (state := launcher.state(job, folder)) is not State.GONE:
            launcher.stop(job, folder)
            return f"{job.launcher} job {job.id} {_stopped(folder, run, state)}"
    if (driver := folder.driver_here()) is not None:  # not launched, or gone on with by hand
        with suppress(psutil.NoSuchProcess):
            driver.send_signal(signal.SIGTERM)
        return f"{name} writes a checkpoint and ends"
    if job is None:
        raise PenstockError(f"{name} is not running on this machine, and it was not launched")
    raise PenstockError(f"{name} is not running: {run.get('cause') or 'its job is gone'}")


def _stopped(folder: RunFolder, run: dict[str, Any], state: State) -> str:
    """What becomes of a job that was stopped; recorded where the run itself won't."""
    if run.get("state") == "submitted":
        folder.update_run(state="stopped", cause="stopped before it began")
        return "was withdrawn" if state is State.WAITING else "ends before the run began"
    if state is State.RUNNING:
        return "writes a checkpoint and ends"
    folder.update_run(state="stopped", cause="stopped while its job waited; the last checkpoint is valid")
    return "was withdrawn; the run's last checkpoint is valid"


def follow(folder: RunFolder, write: Callable[[str], None], *, to_the_end: bool) -> None:
    """Write the logs of all processes of a run by time.

    Its events and the output of its job are among them.

    Args:
        folder: the run folder.
        write: takes text.
        to_the_end: whether to wait for more until the run, and the job if it was launched, is over.

    Raises:
        PenstockError: there is nothing yet, or what runs the job does not answer.
    """
    job, logs, has_any = Job.of(folder), MergedLogs(folder), False
    launcher = None if job is None else launcher_class(job.launcher)(folder.config())
    is_over, asked_at, told = not to_the_end, -math.inf, 0
    while True:
        if not is_over and time.monotonic() - asked_at >= (launcher.ASK_EVERY_S if launcher else FOLLOW_S):
            is_over = not folder.is_running() if job is None else state_of(folder, job) is State.GONE
            asked_at = time.monotonic()  # before its last words are read
        for line in logs.news(is_all=is_over):
            has_any = True
            write(f"{line}\n")
        if launcher and not any(folder.logs.glob(OUTPUT)):  # what runs the job may have it
            output = launcher.output(job, folder)
            write(output[told:])
            has_any, told = has_any or bool(output), len(output)
        if is_over:
            break
        time.sleep(FOLLOW_S)
    if not has_any:
        raise PenstockError(f"no process of {folder.path.name} has written anything yet to {relative(folder.logs)}")


def relative(path: Path) -> Path:
    """The path as it is called from the current folder, where it lies in it."""
    with suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path
