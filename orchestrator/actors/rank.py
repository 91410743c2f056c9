"""One MPI rank of a worker, a process that mpiexec starts to run `main`.

Leases come from `Ranks` in ranks.py to the first rank, and from there to the others. Chunks go back the same way.
"""

from __future__ import annotations

import logging
import socket
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NoReturn

from penstock.errors import PenstockError
from penstock.machine import end_with_parent
from penstock.messages import Lease
from penstock.orchestrator.actors.local_worker import conditions_here, make_local_worker, start_petsc
from penstock.orchestrator.run.logs import Formatter
from penstock.orchestrator.solving import Solving
from penstock.solvers.worker import SolverWorker

if TYPE_CHECKING:
    from mpi4py import MPI

IDLE_S = 0.001  # between looks for a lease: MPI itself waits at full speed


@dataclass(frozen=True)
class Job:
    """What the ranks are started for."""

    solving: Solving
    max_bytes: float
    """Bound on the private memory of one rank."""
    log_level: int
    failure_level: int
    """Log level of failed simulations."""


@dataclass(frozen=True)
class Begun:
    """The first rank begins a simulation, or is between two.

    See `on_begin` of `SolverWorker`.
    """

    lease_number: int
    simulation: int | None


@dataclass(frozen=True)
class Ended:
    """A lease is complete."""


class Rank:
    """A process among those that solve leases together.

    Args:
        ranks: all of them.
        link: to the process that started the ranks; None on all ranks but the first.
    """

    def __init__(self, ranks: MPI.Comm, link: Connection | None):
        self._ranks = ranks
        self._comm = ranks.Dup()  # so what they agree on can't be mixed up with what a problem sends
        self._link = link

    def run(self) -> None:
        """Solve leases until there are no more.

        Raises:
            ConnectionError: who started the ranks is gone, wants no more of a lease, or knows why they can't start.
        """
        job: Job = self._next()
        level = job.log_level if self._link else max(job.log_level, logging.ERROR)
        handler = logging.StreamHandler()
        handler.setFormatter(Formatter(f"%(asctime)s %(levelname)s rank {self._comm.rank}, %(name)s: %(message)s"))
        logging.basicConfig(level=level, handlers=[handler])
        # A simulation fails on all ranks, and the first one says so.
        failure_level = logging.CRITICAL if self._link is None else job.failure_level
        logging.getLogger(SolverWorker.__module__).setLevel(failure_level)
        options: dict[str, Any] = {"agree": self._comm.bcast}
        if self._link is not None:
            options |= {"max_bytes": job.max_bytes, "on_begin": lambda *where: self._tell(Begun(*where))}
        error = None
        try:
            start_petsc()  # all ranks do this together, so before one may fail
            job.solving.problem.comm = self._ranks
            worker = make_local_worker(job.solving, **options)
        except PenstockError as raised:
            error = raised
        if errors := [each for each in self._comm.allgather(error) if each]:  # one rank alone may have failed
            self._refuse(errors[0])
        self._tell(conditions_here())
        lease: Lease | None
        while (lease := self._next()) is not None:
            try:
                for chunk in worker.stream(lease):
                    self._tell(chunk)
                    self._wait_until_taken()
            except PenstockError as error:  # on all ranks
                self._refuse(error)
            self._tell(Ended())

    def _refuse(self, error: PenstockError) -> NoReturn:
        """Tell why the ranks can't go on, and end."""
        self._tell(error)
        self._next()  # until it is read
        # One that PETSc serves and one that it does not would wait for each other in MPI_Finalize.
        raise ConnectionResetError

    def _tell(self, message: Any) -> None:
        if self._link is not None:
            self._link.send(message)

    def _wait_until_taken(self) -> None:
        if self._link is not None:
            try:
                self._link.recv()
            except EOFError as error:
                raise ConnectionResetError from error

    def _next(self) -> Any:
        """What the first rank receives next; None if there is nothing more to come."""
        message = None
        if self._link is not None:
            with suppress(EOFError):
                message = self._link.recv()
        all_here = self._comm.Ibarrier()
        while not all_here.Test():
            time.sleep(IDLE_S)
        return self._comm.bcast(message)


def main(address: str) -> None:
    """Be a rank.

    Args:
        address: the Unix socket at which the first rank calls.
    """
    end_with_parent()  # mpiexec's proxy, which dies with mpiexec
    from mpi4py import MPI

    try:
        link = None
        if MPI.COMM_WORLD.rank == 0:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(address)
            link = Connection(connection.detach())
        Rank(MPI.COMM_WORLD, link).run()
    except ConnectionError:  # nobody waits for the ranks
        MPI.COMM_WORLD.Abort(0)
    except BaseException:  # a rank that ended alone would leave the others waiting
        traceback.print_exc()
        sys.stderr.flush()
        MPI.COMM_WORLD.Abort(1)
