"""What `penstock clean` removes: run folders, and nothing else."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import typer

from penstock.errors import PenstockError
from penstock.orchestrator.history.ages import seconds_of
from penstock.orchestrator.history.listing import table
from penstock.orchestrator.history.standing import MARKS, Standing, standing, standings
from penstock.orchestrator.resources.memory import size
from penstock.orchestrator.store.locks import hold
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.views.card import console

UNFINISHED = ("submitted", "starting", "running")
FAILED = ("failed", "dead")
"""States that `--failed` takes."""


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
    console().print(table(found, {name: size(num_bytes) for name, num_bytes in sizes.items()}))
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
        The runs. Without names, those that wait, start or run are left out.

    Raises:
        PenstockError: a name is not that of a run folder in `runs`, or its run is not over.
    """
    found = [standing(_inside(runs, path)) for path in named] if named else list(standings(runs))
    if not named:
        found = [run for run in found if run.state not in UNFINISHED]
    for run in found:
        if run.state in UNFINISHED:
            raise PenstockError(f"{run.name} is {run.state}: stop it first with `penstock stop {run.path}`")
    if failed:
        found = [run for run in found if run.state in FAILED]
    if idle_s is not None:
        found = [run for run in found if run.idle_s is not None and run.idle_s >= idle_s]
    return found


def _inside(runs: Path, path: Path) -> Path:
    """The run folder of a path or name, directly in `runs`.

    Raises PenstockError for anything else: what is removed must be what was meant.
    """
    if ".." in path.parts:
        raise PenstockError(f"{path}: a path with `..` is not taken: name the run folder itself")
    place = runs / path if path.name == str(path) else path
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
    """Remove a run folder, unless a driver has it.

    Its lock is held meanwhile, so none can begin in it. What names it a run folder goes last: where it is broken off,
    the rest can be removed as well.

    Raises:
        PenstockError: a driver has it, or something can't be removed.
    """
    with _locked(run):
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

    Raises PenstockError where a driver has it, or may have it.
    """
    if run.path.is_symlink():  # it was none when it was shown
        raise PenstockError(f"{run.path} is a link: it stays")
    try:
        # A record that can't be read names no driver; the lock is that of the folder all the same.
        is_free = run.state == "broken" or RunFolder(run.path).driver_here() is None
        lock = hold(run.path / "config.yaml") if (run.path / "config.yaml").is_file() else nullcontext()
    except OSError as error:  # a file system without locks
        if run.state == "dead":
            raise PenstockError(f"{run.name} may run on {run.host}, which can't be seen from here: it stays") from error
        return nullcontext()
    if lock is None or not is_free:
        raise PenstockError(f"{run.name} is running now: it stays")
    return lock
