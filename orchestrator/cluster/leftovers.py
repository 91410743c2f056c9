"""Processes that Ray leaves on this machine."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil


def end_leftovers(folder: Path) -> list[str]:
    """Kill what a Ray that has ended has left, by the files it has open.

    They end by themselves as a rule. But Ray's agents wait for its dead control service by the time of day: for an hour
    where the clock was set back by one.

    Args:
        folder: the session folder of that Ray.

    Returns:
        Their names. This process, which may have files open there too, is not among them.
    """
    left, folder = [], folder.resolve()
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):  # it has ended, or is another user's
            if process.pid != os.getpid() and _has_open(process.pid, folder):
                name = process.name()
                process.kill()
                left.append(name)
    return left


def _has_open(pid: int, folder: Path) -> bool:
    links = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir()]  # psutil leaves out files that are removed
    return any(link.is_relative_to(folder) for link in links)
