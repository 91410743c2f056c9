"""Locks of files, which the kernel releases when the process ends."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO


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

    The lock is seen in every process namespace and, over NFS, on every host, where process ids mean nothing.

    Args:
        path: the file, which is made if it is missing.

    Returns:
        The open file; None if another process holds the lock.

    Raises:
        OSError: the file can't be made, or the file system has no locks (Lustre mounted without `flock`).
    """
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:
        file.close()
        raise
    return file
