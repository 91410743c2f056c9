"""What `penstock clean` removes: run folders, and nothing else."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import typer

from penstock.errors import PenstockError
from penstock.orchestrator.history.ages import seconds_of
from penstock.orchestrator.history.listing import show
from penstock.orchestrator.history.standing import MARKS, UNREADABLE, Standing, standing, standings
from penstock.orchestrator.launch.job import Job, State
from penstock.orchestrator.launch.launching import launcher_class, state_of
from penstock.orchestrator.launch.slurm import SEEDS
from penstock.orchestrator.resources.memory import size
from penstock.orchestrator.store.locks import hold, is_held
from penstock.orchestrator.store.run_folder import RunFolder

UNFINISHED = ("submitted", "starting", "running")
FAILED = ("failed", "dead")
"""States that `--failed` takes."""
SILENT_S = 600.0
"""For how long a run of another host has to be silent: where locks are local to a host, its own is not seen here."""


def clean(runs: Path, named: Sequence[Path], *, failed: bool, older_than: str | None, is_sure: bool) -> None:
    """Show the runs that are to be removed, ask, and remove them.

    Args:
        runs: the folder that holds run folders.
        named: see `chosen`.
        failed: see `chosen`.
        older_than: for how long they have written nothing, such as "7d"; None for any.
        is_sure: whether to remove without asking; needed where there is no terminal.

    Raises:
        PenstockError: see `chosen`; or one or more could not be removed.
    """
    idle_s = None if older_than is None else seconds_of(older_than)
    found = chosen(runs, named, failed=failed, idle_s=idle_s)
    if not found:
        print(f"there is no such run under {runs}: nothing is removed")
        return
    sizes = {run.name: bytes_of(run.path) for run in found}
    show(found, {name: size(num_bytes) for name, num_bytes in sizes.items()})
    total = f"{len(found)} run{'s' if len(found) > 1 else ''}, {size(sum(sizes.values()))}"
    if not is_sure:
        if not sys.stdin.isatty():
            raise PenstockError(f"{total}: nothing is removed without --yes, where nobody can be asked")
        if not typer.confirm(f"remove {total}?"):
            print("nothing is removed")
            return
    refused = []
    for run in found:
        try:
            remove(run)
        except PenstockError as error:  # the others can be removed all the same
            refused.append(str(error))
    print(f"removed {len(found) - len(refused)} of {total}")
    if refused:
        raise PenstockError("; ".join(refused), exit_code=1)


def chosen(runs: Path, named: Sequence[Path], *, failed: bool, idle_s: float | None) -> list[Standing]:
    """The runs that are to be removed.

    Args:
        runs: the folder that holds run folders.
        named: paths or names of runs; all of them if there are none.
        failed: whether to take only those that failed or died.
        idle_s: take only those that have written nothing for this number of seconds; None for any.

    Returns:
        The runs, each once. Without names, those that wait, start or run are left out.

    Raises:
        PenstockError: a name is not that of a run folder in `runs`, or its run would be removed and is not over.
    """
    if named and (failed or idle_s is not None):  # names from a pattern of the shell, with `latest` among them
        paths = [_inside(runs, path) for path in named if not _place(runs, path).is_symlink()]
    else:
        paths = [_inside(runs, path) for path in named]
    found = [standing(path) for path in dict.fromkeys(path.resolve() for path in paths)]
    if not named:
        found = [run for run in standings(runs) if run.state not in UNFINISHED]
    if failed:
        found = [run for run in found if run.state in FAILED]
    if idle_s is not None:
        found = [run for run in found if run.idle_s is not None and run.idle_s >= idle_s]
    for run in found:
        if run.state in UNFINISHED:
            raise PenstockError(f"{run.name} is {run.state}: stop it first with `penstock stop {run.path}`")
    return found


def _place(runs: Path, path: Path) -> Path:
    return runs / path if path.name == str(path) else path


def _inside(runs: Path, path: Path) -> Path:
    """The run folder of a path or name, directly in `runs`.

    Raises PenstockError for anything else: what is removed must be what was meant.
    """
    if ".." in path.parts:
        raise PenstockError(f"{path}: a path with `..` is not taken: name the run folder itself")
    place = _place(runs, path)
    if place.is_symlink():
        raise PenstockError(f"{place} is a link to {os.readlink(place)}: name the run folder itself")
    if not place.is_dir():
        raise PenstockError(f"{place}: there is no such run folder")
    if place.resolve().parent != runs.resolve():
        raise PenstockError(f"{place} is not in {runs.resolve()}, which holds the runs: see --folder")
    if not any((place / mark).is_file() for mark in MARKS):
        raise PenstockError(f"{place} is not a run folder: it has none of {', '.join(MARKS)}")
    return place


def bytes_of(path: Path) -> int:
    """Bytes that a folder takes on the disk; links are not followed."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):  # it goes meanwhile
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


def remove(run: Standing) -> None:
    """Remove a run folder, unless a driver has it or a job will begin in it.

    Its lock is held meanwhile, so none can begin in it. What names it a run folder goes last: where it is broken off,
    the rest can be removed as well.

    Raises:
        PenstockError: a driver or a job has it, or may have it; or something can't be removed.
    """
    if run.path.is_symlink():  # it was none when it was shown
        raise PenstockError(f"{run.path} is a link: it stays")
    _require_no_jobs(run.path)
    with _locked(standing(run.path)):  # it may have begun since it was shown
        try:
            for path in sorted(run.path.iterdir(), key=lambda path: path.name in MARKS):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            run.path.rmdir()
        except OSError as error:
            raise PenstockError(
                f"{run.path} can't be removed wholly: {error.filename}: {error.strerror}", exit_code=1
            ) from error
    latest = run.path.parent / "latest"
    if latest.is_symlink() and not latest.exists():
        latest.unlink(missing_ok=True)


def _locked(run: Standing) -> AbstractContextManager:
    """The lock of a run folder.

    Args:
        run: where the run stands now.

    Returns:
        The lock; of a folder that has none, a context manager that does nothing.

    Raises:
        PenstockError: a driver or a job has the folder, or may have it.
    """
    if run.state in UNFINISHED:
        raise PenstockError(f"{run.name} is {run.state} now: it stays")
    is_far = run.state == "dead" and run.host != socket.gethostname()
    if is_far and run.idle_s is not None and run.idle_s < SILENT_S:
        raise PenstockError(
            f"{run.name} may run on {run.host}, where it wrote {run.idle_s:.0f} s ago: it stays until it has been "
            f"silent for {SILENT_S / 60:.0f} min"
        )
    config = run.path / "config.yaml"
    try:
        lock = hold(config) if config.is_file() else nullcontext()
    except OSError as error:  # a file system without locks, or a file of another user
        if run.state in ("dead", "broken"):
            host = run.host or "another host"
            raise PenstockError(f"{run.name} may run on {host}, which can't be seen from here: it stays") from error
        lock = None if is_held(config) else nullcontext()
    if lock is None:
        raise PenstockError(f"{run.name} is running now: it stays")
    return lock


def _require_no_jobs(path: Path) -> None:
    """Check that no job needs the folder of a run.

    Raises:
        PenstockError: one does, or that can't be known.
    """
    _require_no_job(standing(path))
    links = sorted((path / SEEDS).glob("*"))  # in the first folder of a job array, which also has its script
    for seed in (standing(link.resolve()) for link in links if link.is_dir() and link.resolve() != path.resolve()):
        try:
            if seed.state in UNFINISHED:
                raise PenstockError(f"{seed.name} is {seed.state}")
            _require_no_job(seed)
        except PenstockError as error:
            raise PenstockError(f"{path.name} has the script of a job array, so it stays: {error}") from error


def _require_no_job(run: Standing) -> None:
    """Check that a run's own job is gone.

    Raises:
        PenstockError: it waits or runs, or what runs it does not answer.
    """
    if run.state == "ended":
        return
    folder = RunFolder(run.path)
    try:
        if (job := Job.of(folder)) is None:
            return
        if run.state == "broken":  # what its record says can't be read
            state = launcher_class(job.launcher)(folder.config()).state(job, folder)
        else:
            state = state_of(folder, job)
    except (PenstockError, OSError, *UNREADABLE) as error:
        raise PenstockError(f"{run.name} stays, as its job may wait: {error}") from error
    if state is not State.GONE:
        raise PenstockError(
            f"{run.name}: its job {'waits' if state is State.WAITING else 'runs'}: stop it first with `penstock stop "
            f"{run.path}`"
        )
