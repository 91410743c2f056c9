"""The logs of a run's processes."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from penstock.machine import end_with_parent

MOST_BYTES = 8_000_000  # of a log, and of what is kept of it beside it
LOOK_EVERY_S = 2.0
RANK = re.compile(r": rank (\d+) of \d+")  # as `LearnerRanks` says which one died


class Formatter(logging.Formatter):
    """Times in UTC, in the form of the events: processes may be in several time zones."""

    converter = time.gmtime
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"


def log_to(path: Path, *, redirect: bool = True) -> None:
    """Log this process to a file, which is kept below MOST_BYTES.

    Args:
        path: the file, which is appended to.
        redirect: whether standard output and standard error of the process, native libraries included, go there too.
    """
    handler = logging.FileHandler(path, errors="backslashreplace")
    handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    if redirect:
        sys.stdout.flush()
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.close(file)
    _start_bound(path)


def begin_actor(log: Path) -> None:
    """Have an actor's process log to a file, and end with its parent.

    Args:
        log: the file.
    """
    end_with_parent()  # Ray notices late: an hour later where the clock is set back by an hour
    log_to(log)


def bound_output(path: Path) -> None:
    """Keep a file below MOST_BYTES if it is this process's standard output.

    The output must be appended to the file, as launchers do for a job.

    Args:
        path: the file, which need not exist.
    """
    with suppress(OSError):
        if os.path.samestat(os.fstat(1), path.stat()):
            _start_bound(path)


def _start_bound(path: Path) -> None:
    threading.Thread(target=_keep_bounded, args=(path,), name="log's bound", daemon=True).start()


def _keep_bounded(path: Path) -> None:
    while path.exists():
        bound_log(path)
        time.sleep(LOOK_EVERY_S)


def bound_log(path: Path, most_bytes: int = MOST_BYTES) -> None:
    """Move the end of a log that is too long to `<name>.1`.

    It takes the place of what was there. The log is emptied and not replaced, because the process's children, such as
    MPI ranks and external programs, have it open too. All append, so they go on at its beginning. What is written
    between copy and emptying is lost.

    Args:
        path: the log, which only this process and its children write.
        most_bytes: largest size of either file.
    """
    with suppress(OSError):  # of a disk that is full; it is tried again
        with path.open("rb") as log:
            if (size := os.fstat(log.fileno()).st_size) <= most_bytes:
                return
            log.seek(size - most_bytes)
            log.readline()  # the rest of a line
            path.with_name(f"{path.name}.1").write_bytes(log.read(most_bytes))
        os.truncate(path, 0)


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


def learner_log(rank: int) -> str:
    """Name of the log of a learner rank."""
    return f"learner-{rank}.log" if rank else "learner.log"


def log_of_death(death: str) -> str:
    """Name of the log of the learner that died, by what is said of its death."""
    rank = RANK.search(death)
    return learner_log(int(rank[1]) if rank else 0)


def last_line(path: Path) -> str:
    """The last line of a process's log, for a message."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 4096))
            lines = log.read().decode(errors="replace").split("\n")
    except OSError:
        return "it has none"
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it is empty")
