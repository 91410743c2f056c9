"""Who may write checkpoints: the holder of the staging folder.

    <folder>/.writing-<random>/<step>             being written
                               replaced-<step>    moved aside for it
                               doomed-<step>      moved aside to be removed

All that a writer does to the checkpoints themselves is a rename out of its staging folder or into it. Once the folder
is gone, each of these fails, at whatever instant: a learner that was taken for dead and lives can publish nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from penstock.errors import PenstockError

STAGING = ".writing-"
REVOKED = ".revoked"
REPLACED = "replaced-"
DOOMED = "doomed-"


def grant(folder: Path) -> Path:
    """Give the right to write, and take it from whoever had it.

    Args:
        folder: folder of the checkpoints; it is made if it is missing.

    Returns:
        A staging folder. Its name is new, so that nobody has it from before.

    Raises:
        OSError: the disk refuses.
    """
    revoke(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=STAGING, dir=folder))


def revoke(folder: Path) -> None:
    """Take the right to write from whoever has it, and clear up what was begun.

    Args:
        folder: folder of the checkpoints.

    Raises:
        OSError: the disk refuses.
    """
    for staging in folder.glob(f"{STAGING}*"):
        revoked = staging.with_suffix(REVOKED)
        if staging != revoked:  # else this was cut short before
            staging.rename(revoked)
        _put_back(revoked, folder)
        shutil.rmtree(revoked, ignore_errors=True)


def clear(staging: Path, folder: Path) -> None:
    """Clear up what a write that failed has left.

    Args:
        staging: the writer's staging folder.
        folder: folder of the checkpoints.

    Raises:
        OSError: the disk refuses, or the right to write was taken away.
    """
    _put_back(staging, folder)
    for leftover in staging.iterdir():
        shutil.rmtree(leftover)


def recover(folder: Path) -> None:
    """Restore a checkpoint that a writer had moved aside when it was killed.

    That is between its two renames. No writer may be at work.

    Args:
        folder: folder of the checkpoints.
    """
    for staging in folder.glob(f"{STAGING}*"):
        _put_back(staging, folder)


def taken_over(folder: Path) -> PenstockError:
    """The end of a learner that may write no longer."""
    return PenstockError(f"another learner has taken over {folder}: this one writes no more, and ends", exit_code=1)


def _put_back(staging: Path, folder: Path) -> None:
    for replaced in staging.glob(f"{REPLACED}*"):
        path = folder / replaced.name.removeprefix(REPLACED)
        if not path.exists():
            replaced.rename(path)
