"""Locks of files, which the kernel releases when the process ends."""

from __future__ import annotations

import fcntl
import random
import time
from pathlib import Path
from typing import IO

LOOKS_WITHIN_S = 1.0  # a look takes microseconds, over a network milliseconds
AGAIN_S = 0.02


def is_held(path: Path) -> bool:
    """Whether a process has locked a file by `hold`.

    Args:
        path: the file, which is only read.

    Returns:
        Whether it has; False where that can't be known: there is no such file, it can't be read, or the file system
        has no locks.
    """
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def hold(path: Path) -> IO[str] | None:
    """Lock a file until it is closed or the process dies.

    The lock is seen in every process namespace and, over NFS, on every host, where process ids mean nothing. A look by
    `is_held` is waited for.

    Args:
        path: the file, which is made if it is missing.

    Returns:
        The open file; None if another process holds the lock, or looks at it for longer than LOOKS_WITHIN_S.

    Raises:
        OSError: the file can't be made, or the file system has no locks (Lustre mounted without `flock`).
    """
    file, deadline = path.open("a+"), time.monotonic() + LOOKS_WITHIN_S
    try:
        while not _locked(file, fcntl.LOCK_EX):
            if not _locked(file, fcntl.LOCK_SH) or time.monotonic() >= deadline:  # another one holds it
                file.close()
                return None
            fcntl.flock(file, fcntl.LOCK_UN)
            time.sleep(random.uniform(0.0, AGAIN_S))  # two that begin at the same time are looks to each other
    except OSError:
        file.close()
        raise
    return file


def _locked(file: IO[str], kind: int) -> bool:
    """Try to lock a file."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
