"""What asks a run to end: signals, and the end of its time."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from penstock.errors import PenstockError
from penstock.orchestrator.store.run_folder import RunFolder

SIGNAL_WITHIN_S = 20.0  # batch systems send SIGKILL 30 s after SIGTERM
# A checkpoint of 10 GB takes 100 s on a shared disk of 100 MB/s; a short run has a small one, and little time to lose.
WALLTIME_MARGIN_S = 120.0
WALLTIME_MARGIN_SHARE = 0.2
OUT_OF_TIME = 75  # EX_TEMPFAIL of sysexits.h: go on later


@dataclass(frozen=True)
class StopRequest:
    """That a run is to write a checkpoint and end."""

    cause: str
    """Who asked, for people."""
    exit_code: int
    """Exit code of the run."""
    within_s: float
    """Seconds that the end may take."""


class StopRequests:
    """Whatever may ask a run to end; the first request counts.

    Signals do: SIGINT, SIGTERM, and a SIGHUP that was sent by hand; a second one ends everything at once. And time
    does, a margin before it is over.

    Args:
        folder: the run folder.
        seconds_left: seconds that the run has; None for no limit.
    """

    def __init__(self, folder: RunFolder, seconds_left: float | None = None):
        self.first: StopRequest | None = None
        """The request that counts, as far as it was looked for."""
        self._folder = folder
        self._had_terminal = _has_terminal()
        self._has_signal = False
        self._due: float | None = None
        if seconds_left is not None:
            self._margin_s = max(0.0, min(WALLTIME_MARGIN_S, WALLTIME_MARGIN_SHARE * seconds_left))
            self._due = time.monotonic() + seconds_left - self._margin_s

    @property
    def due_in_s(self) -> float | None:
        """Seconds until time asks for the end; None if it never does."""
        return None if self._due is None else self._due - time.monotonic()

    def look(self) -> StopRequest | None:
        """Return the first request; None as long as there is none."""
        if self.first is None and self._due is not None and time.monotonic() >= self._due:
            cause = f"cluster.walltime: the end, {self._margin_s:.0f} s before the time is over"
            self.first = StopRequest(cause, OUT_OF_TIME, self._margin_s)
        return self.first

    def handle_signals(self, session_folder: Path | None) -> None:
        """Handle signals from here on.

        Args:
            session_folder: Ray's session folder, which the second signal removes; None if it is not this run's.
        """

        def stop(number: int, frame: Any) -> None:
            if self._has_signal:  # end at once; what is on the disk is whole in any case
                for process in psutil.Process().children(recursive=True):
                    with suppress(psutil.NoSuchProcess):  # it ended with another one of Ray's
                        process.kill()
                if session_folder is not None:
                    shutil.rmtree(session_folder, ignore_errors=True)
                with suppress(PenstockError):  # on a full disk
                    self._folder.update_run(state="stopped", cause="stopped twice, at once")
                os._exit(128 + number)
            self._folder.patience.end()
            self._has_signal = True  # a batch system's, which comes when time has asked already, changes nothing
            self.first = self.first or StopRequest(
                f"stopped by {signal.Signals(number).name}", 128 + number, SIGNAL_WITHIN_S
            )

        def hang_up(number: int, frame: Any) -> None:
            if self._had_terminal and not _has_terminal():  # it was closed or disconnected: nobody asked for the end
                with suppress(PenstockError):
                    self._folder.event("terminal closed")
            else:
                stop(number, frame)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(signal.SIGHUP, hang_up)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal; it is lost when it is closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
