"""MPI ranks that solve leases together, seen from the process that starts them."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from penstock.errors import PenstockError, WorkerDied
from penstock.machine import PR_SET_PDEATHSIG
from penstock.messages import Chunk, Lease
from penstock.orchestrator.actors.rank import Begun, Ended, Job, main
from penstock.orchestrator.solving import Solving
from penstock.solvers import mpi
from penstock.solvers.worker import SolverWorker

LOOK_S = 0.1  # between looks at an mpiexec whose first rank has not called yet
END_WITHIN_S = 3.0  # mpiexec ends the other ranks of a dead one in 0.1 s


class Ranks:
    """A worker like `SolverWorker`, whose simulations are distributed over MPI ranks.

    `mpiexec` starts the ranks, each of which runs rank.py. All get every lease and solve the same simulations in the
    same order; the first one sends the chunks. They come over a Unix socket, because mpiexec itself writes to standard
    output. No rank outlives this process, nor any other rank.

    Args:
        solving: the problem, and how it is solved.
        max_bytes: bound on the private memory of all ranks together; the first one is weighed, and stands for all.
        on_begin: see `SolverWorker`.

    Raises:
        PenstockError: there is no mpiexec or too few cores, or the problem or strategy refuses its options.
    """

    def __init__(
        self,
        solving: Solving,
        *,
        max_bytes: float = math.inf,
        on_begin: Callable[[int, int | None], None] = lambda lease_number, simulation: None,
    ):
        self._num = solving.config.solver.ranks
        cores = len(os.sched_getaffinity(0))
        if self._num > cores:
            raise PenstockError(f"solver.ranks = {self._num}: this machine has {cores} cores, and a rank needs its own")
        levels = [logging.getLogger(name).getEffectiveLevel() for name in (None, SolverWorker.__module__)]
        self._job = Job(solving, max_bytes / self._num, *levels)
        self._on_begin = on_begin
        self._link: Connection | None = None
        self._start()

    def stream(self, lease: Lease) -> Iterator[Chunk]:
        """Solve a lease, with new ranks where the last ones have died.

        Args:
            lease: the lease.

        Yields:
            Chunks of its samples, see `SolverWorker.stream`.

        Raises:
            PenstockError: see `SolverWorker.stream`.
            WorkerDied: a rank died, and the others with it.
        """
        if self._link is None:
            self._start()
        is_whole = False
        try:
            self._send(lease)
            while not isinstance(message := self._receive(), Ended):
                if isinstance(message, Begun):
                    self._on_begin(message.lease_number, message.simulation)
                elif isinstance(message, PenstockError):
                    raise message
                else:
                    yield message
                    self._send(None)  # the next chunk may be solved
            is_whole = True
        finally:
            if not is_whole:
                self.close()

    def close(self) -> None:
        """End the ranks."""
        self._end()
        self._link = None

    def _start(self) -> None:
        mpi.make_ready()  # mpiexec must not see the variables of a launcher that started us
        with tempfile.TemporaryDirectory(prefix="penstock-ranks-") as folder, socket.socket(socket.AF_UNIX) as listener:
            address = str(Path(folder) / "socket")
            listener.bind(address)
            listener.listen(1)
            listener.settimeout(LOOK_S)
            script = f"from {main.__module__} import main; main({address!r})"
            command = [_mpiexec(), "-n", str(self._num), sys.executable, "-P", "-c", script]
            self._process = _started(command)
            while True:
                with suppress(TimeoutError):
                    accepted, _ = listener.accept()
                    break
                if self._process.poll() is not None:
                    raise WorkerDied(f"its MPI ranks did not start (mpiexec ended with {self._process.returncode})")
        self._link = Connection(accepted.detach())
        self._end = weakref.finalize(self, _end, self._process, self._link)
        self._send(self._job)
        answer = self._receive()
        if isinstance(answer, PenstockError):
            self.close()
            raise answer
        self.conditions: dict[str, Any] = answer
        """What results depend on besides the configuration."""

    def _send(self, message: Any) -> None:
        try:
            self._link.send(message)
        except OSError as error:
            raise self._death() from error

    def _receive(self) -> Any:
        try:
            return self._link.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error

    def _death(self) -> WorkerDied:
        """The error for ranks that no longer answer; none of them is left then."""
        self.close()
        return WorkerDied(
            f"one of its {self._num} MPI ranks died, and the others with it (mpiexec ended with "
            f"{self._process.returncode})"
        )


def _mpiexec() -> str:
    """The mpiexec beside Python, or else the one on the path.

    Raises PenstockError where there is none.
    """
    path = shutil.which("mpiexec", path=Path(sys.executable).parent) or shutil.which("mpiexec")
    if path is None:
        raise PenstockError("solver.ranks: there is no mpiexec beside Python or on the path: install that of your MPI")
    return path


def _started(command: list[str]) -> subprocess.Popen:
    """The process of mpiexec, which ends with this one.

    Its ranks can import what this one can.
    """
    prctl, signals = ctypes.CDLL(None).prctl, signal.valid_signals()
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}  # a rank has one core
    started: Future[subprocess.Popen] = Future()

    def prepare() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)  # Ray's workers block some, and mpiexec would inherit that

    def start() -> None:
        try:
            started.set_result(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=2,
                    stderr=2,
                    env=os.environ | environment,
                    preexec_fn=prepare,
                    start_new_session=True,  # Ctrl-C is for this process alone
                )
            )
        except BaseException as error:
            started.set_exception(error)
        threading.Event().wait()

    # The signal comes when the thread ends that forked, so that is one that ends with this process.
    threading.Thread(target=start, name="mpiexec", daemon=True).start()
    return started.result()


def _end(process: subprocess.Popen, link: Connection) -> None:
    """End mpiexec and the ranks.

    They end by themselves when the link does, unless one hangs.
    """
    link.close()
    for end in (process.terminate, process.kill):
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_WITHIN_S)
            return
        end()
    process.wait()
