"""Launching runs, and what is done with their jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from penstock.errors import PenstockError
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.launch.job import Job, State
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
    return cls(configs[0]).text([RUNS.resolve() / f"{config.name}-<UTC>" for config in configs])


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
    folders = [RunFolder.create(each) for each in configs]
    for folder in folders:
        folder.update_run(state="submitted", cause=None)
    (folders[0].path / launcher.FILE).write_text(launcher.text([folder.path for folder in folders]))
    try:
        ids = launcher.submit(folders)
    except PenstockError as error:
        for folder in folders:
            folder.update_run(state="failed", cause=str(error))
        raise
    now = datetime.now(UTC).isoformat(timespec="seconds")
    jobs = [(folder, Job(where, job_id, now)) for folder, job_id in zip(folders, ids, strict=True)]
    for folder, job in jobs:
        job.save(folder)
    return jobs


def launched() -> Iterator[tuple[RunFolder, Job]]:
    """The runs under runs/ that were launched, the oldest first."""
    for path in sorted(RUNS.glob("*/run.json"), key=lambda path: path.parent.name):
        if path.parent.is_symlink():
            continue
        folder = RunFolder(path.parent.resolve())
        if job := Job.of(folder):
            yield folder, job


def state_of(folder: RunFolder, job: Job) -> State:
    """Where a job is. Raises PenstockError if what runs it does not answer."""
    return launcher_class(job.launcher)(folder.config()).state(job, folder)


def stop(folder: RunFolder) -> str:
    """Have a run end with a checkpoint; a job that waits is withdrawn.

    Args:
        folder: the run folder, of a run that was launched or runs on this machine.

    Returns:
        What was done, in a line.

    Raises:
        PenstockError: nothing of it runs.
    """
    run, job = folder.read("run.json"), Job.of(folder)
    if job is None:
        if folder.driver_here() is None:
            raise PenstockError(f"{folder.path.name} is not running on this machine, and it was not launched")
        job = Job("local", str(run["driver_pid"]), "")
    launcher = launcher_class(job.launcher)(folder.config())
    if (state := launcher.state(job, folder)) is State.GONE:
        raise PenstockError(f"{folder.path.name} is not running: {run.get('cause') or 'its job is gone'}")
    launcher.stop(job, folder)
    if state is State.WAITING:
        folder.update_run(state="stopped", cause="withdrawn before it began")
        return f"{job.launcher} job {job.id} was withdrawn"
    return f"{job.launcher} job {job.id} writes a checkpoint and ends"


def follow(folder: RunFolder, write: Callable[[str], None], *, to_the_end: bool) -> None:
    """Write the output of a run's job.

    Args:
        folder: the run folder.
        write: takes text.
        to_the_end: whether to wait for more until the job is gone.

    Raises:
        PenstockError: it has no output.
    """
    if (job := Job.of(folder)) is None:
        raise PenstockError(f"{folder.path.name} was not launched: it printed where it was started; see {folder.logs}")
    launcher, told = launcher_class(job.launcher)(folder.config()), 0
    while True:
        is_gone = not to_the_end or launcher.state(job, folder) is State.GONE  # read before its last words are
        output = launcher.output(job, folder)
        write(output[told:])
        told = len(output)
        if is_gone:
            break
        time.sleep(FOLLOW_S)
    if not told:
        raise PenstockError(f"{job.launcher} job {job.id} has printed nothing yet: {_relative(folder.logs / OUTPUT)}")


def _relative(path: Path) -> Path:
    with suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path
