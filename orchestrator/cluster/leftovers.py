"""Processes that Ray leaves on this machine."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil


def end_leftovers(folder: Path) -> list[str]:
    """Kill what a Ray that has ended has left, by the files it writes.

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
            if process.pid != os.getpid() and _writes_in(process.pid, folder):
                name = process.name()
                process.kill()
                left.append(name)
    return left


def _writes_in(pid: int, folder: Path) -> bool:
    """Whether a process has files of a folder open to write, removed ones too.

    Whoever reads a log there is left alone.
    """
    process = Path(f"/proc/{pid}")
    return any(
        int((process / "fdinfo" / link.name).read_text().split()[3], 8) & os.O_ACCMODE != os.O_RDONLY
        for link in (process / "fd").iterdir()
        if link.readlink().is_relative_to(folder)
    )
