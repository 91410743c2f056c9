"""Whether the owner of a file lives: a lock of the kernel's, which ends with the process that took it."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO


def hold(path: Path) -> IO[str] | None:
    """The file, locked until it is closed or the process dies; None where another process has it locked.

    The lock is seen in every process namespace and, over NFS, on every host, where process ids say nothing. Raises
    OSError where the file can't be made, or the file system has no locks (Lustre mounted without `flock`).
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
