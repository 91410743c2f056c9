"""Processes on this machine that a run has left, or an earlier life of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

MARK = "PENSTOCK_RUN"  # a variable of the environment, with the run's folder


@contextmanager
def marked(folder: Path) -> Iterator[None]:
    """Within the block, what this process starts is known as part of a run.

    So is all that it starts in turn.

    Args:
        folder: the run folder.
    """
    os.environ[MARK] = str(folder)
    try:
        yield
    finally:
        del os.environ[MARK]


def end_leftovers(folder: Path) -> list[str]:
    """Kill what was started within `marked` for a run, and has no more to do.

    It ends by itself as a rule. But Ray's agents wait for its dead control service by the time of day: for an hour
    where the clock was set back by one.

    Args:
        folder: the run folder, held by this process, for which no Ray runs yet or any more.

    Returns:
        Their names.
    """
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended, or is another user's
            if process.environ().get(MARK) == str(folder):
                left.append(process.name())
                process.kill()
    return left
