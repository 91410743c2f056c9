"""The logs of a run's processes."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def log_to(path: Path, *, redirect: bool = True) -> None:
    """Log this process to a file.

    Args:
        path: the file, which is appended to.
        redirect: whether standard output and standard error of the process, native libraries included, go there too.
    """
    logging.basicConfig(
        filename=path, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    if redirect:
        sys.stdout.flush()
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)


@contextmanager
def native_stderr_to(file: IO[str]) -> Iterator[None]:
    """Within the block, send standard error to a file, native libraries included."""
    sys.stderr.flush()
    before = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)


def last_line(path: Path) -> str:
    """The last line of a process's log, for a message."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 4096))
            lines = log.read().decode(errors="replace").split("\n")
    except OSError:
        return "it has none"
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it is empty")
