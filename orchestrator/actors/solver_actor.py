"""A solver's process, as a plain class that workers.py wraps for Ray. No torch.

The actor only owns the process; what it runs is the `SolverWorker` in solvers/worker.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from penstock.messages import LeaseEnd
from penstock.orchestrator.actors.local_worker import conditions_here, make_local_worker
from penstock.orchestrator.actors.ranks import Ranks
from penstock.orchestrator.run.logs import begin_actor
from penstock.orchestrator.solving import Solving
from penstock.solvers.worker import SolverWorker
from penstock.status import Ready
from penstock.transport.endpoint import Endpoint
from penstock.transport.sender import Sender

WHERE_BYTES = 48


def make_worker(solving: Solving, **options: Any) -> SolverWorker | Ranks:
    """A worker with the run's strategy for training, direct for everything else.

    It solves in this process, or on `solver.ranks` others.

    Args:
        solving: the problem, and how it is solved.
        **options: `max_bytes` and `on_begin` of `SolverWorker`.

    Returns:
        The worker.

    Raises:
        PenstockError: see `make_local_worker` and `Ranks`.
    """
    return (make_local_worker if solving.config.solver.ranks == 1 else Ranks)(solving, **options)


def say_where(file: Path) -> Callable[[int, int | None], None]:
    """A function that notes in a file which simulation a worker is in.

    So the driver can find out about a worker that hangs or died. A call takes about 1 us.

    Args:
        file: the file, on this machine.

    Returns:
        The `on_begin` of a `SolverWorker`: it writes "<lease> <simulation>", and "<lease>" between simulations.
    """
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)

    def say(lease_number: int, simulation: int | None) -> None:
        text = f"{lease_number} {'' if simulation is None else simulation}"
        os.pwrite(descriptor, text.ljust(WHERE_BYTES).encode(), 0)

    return say


def read_where(file: Path) -> tuple[int, int | None] | None:
    """What `say_where` wrote last.

    Args:
        file: the file.

    Returns:
        Lease number and simulation, None between simulations; None if nothing was written yet.
    """
    try:
        numbers = [int(word) for word in file.read_text().split()]
    except OSError:
        return None
    return (numbers[0], numbers[1] if len(numbers) > 1 else None) if numbers else None


class SolverActor:
    """One solver process: leases in, chunks out.

    Args:
        solving: the problem, and how it is solved.
        log: the process's log file.
        max_bytes: bound on the process's private memory.
        where: file for `say_where`; None if the driver may be on another machine.
    """

    def __init__(self, solving: Solving, log: Path, max_bytes: float, where: Path | None):
        begin_actor(log)
        self._solving = solving
        self._options = {"max_bytes": max_bytes} | ({} if where is None else {"on_begin": say_where(where)})

    def prepare(self) -> Ready:
        """Build the worker.

        Returns:
            Process id, and what results depend on besides the configuration.

        Raises:
            PenstockError: see `make_worker`.
            WorkerDied: one of its ranks died.
        """
        self._worker = make_worker(self._solving, **self._options)
        is_local = self._solving.config.solver.ranks == 1
        return Ready(pid=os.getpid(), conditions=conditions_here() if is_local else self._worker.conditions)

    def serve(self, name: str, endpoint: Endpoint, num_bytes: int) -> None:
        """Solve leases and send their chunks, until the learner ends the stream.

        May be called again, for another learner: the worker keeps what it has learnt.

        Args:
            name: name of the worker.
            endpoint: where the learner receives.
            num_bytes: bound on the bytes of chunks under way.

        Raises:
            ConnectionLost: the connection to the learner broke.
            WorkerDied: one of its ranks died.
        """
        outgrown_bytes = None
        with Sender(endpoint, name, num_bytes) as sender:
            for lease in sender.leases():
                with closing(self._worker.stream(lease)) as chunks:  # now, and not when the error is forgotten
                    for chunk in chunks:
                        outgrown_bytes = chunk.outgrown_bytes
                        if not sender.send(chunk):
                            return
                sender.send(LeaseEnd(lease.number, outgrown_bytes=outgrown_bytes))
