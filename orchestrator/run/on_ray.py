"""Ray for the length of a run: what it says, and signals that ask for an end."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import psutil

from penstock.errors import PenstockError
from penstock.orchestrator.cluster.ray_session import Session, noted_signals, ray_session
from penstock.orchestrator.run.logs import log_to, native_stderr_to
from penstock.orchestrator.store.run_folder import RunFolder


class StopSignals:
    """The signals that ask a run to end.

    They are SIGINT, SIGTERM, and a SIGHUP that was sent by hand. The first one is noted, for the loop to look at; the
    second one ends everything at once.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: RunFolder):
        self.received: signal.Signals | None = None
        """The first signal."""
        self._folder = folder
        self._had_terminal = _has_terminal()

    def handle(self, session_folder: Path | None) -> None:
        """Handle signals from here on.

        Args:
            session_folder: Ray's session folder, which the second signal removes; None if it is not this run's.
        """

        def stop(number: int, frame: Any) -> None:
            if self.received:  # end at once; what is on the disk is whole in any case
                for process in psutil.Process().children(recursive=True):
                    with suppress(psutil.NoSuchProcess):  # it ended with another one of Ray's
                        process.kill()
                if session_folder is not None:
                    shutil.rmtree(session_folder, ignore_errors=True)
                self._folder.update_run(state="stopped", cause="stopped twice, at once")
                os._exit(128 + number)
            self.received = signal.Signals(number)

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


@contextmanager
def on_ray(
    address: str | None,
    folder: RunFolder,
    signals: StopSignals,
    *,
    num_cpus: int,
    tell: Callable[[str], None],
) -> Iterator[Session]:
    """Ray for the length of a `with` block, in which this process logs to driver.log.

    Standard output and standard error go there too, so whoever prints must have a console from before.

    Args:
        address: a running cluster to join; None starts Ray on this machine.
        folder: the run folder.
        signals: handled once Ray has started; one that came before ends the start.
        num_cpus: CPUs for the actors.
        tell: prints a line for the user.

    Yields:
        The session.

    Raises:
        PenstockError: see `ray_session`; or a process of Ray died, whatever error that led to.
        SystemExit: a signal came while Ray started.
    """
    log_to(folder.logs / "driver.log", redirect=False)
    # A terminal that is closed sends SIGHUP to the whole group, and Ray's processes must survive it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        with (
            (folder.logs / "driver.log").open("a") as log,
            redirect_stdout(log),  # Ray prints when an actor dies, whatever its settings
            native_stderr_to(log),
            noted_signals() as noted,
            ray_session(address, num_cpus=num_cpus, run=folder, tell=tell) as session,
        ):
            signals.handle(session.folder)  # after ray.init, which sets handlers; its processes inherit SIGHUP blocked
            if number := noted():
                raise SystemExit(128 + number)
            try:
                yield session
            except Exception as error:
                if session.watch.fault is None or isinstance(error, PenstockError):
                    raise
                raise PenstockError(session.watch.fault, exit_code=1) from error  # its consequence
    except SystemExit as error:
        # ray.init installs a handler for SIGTERM that exits with the signal's bare number.
        raise SystemExit(143 if error.code == signal.SIGTERM else error.code) from None
