"""Workers and the start of their processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from penstock.machine import resident_bytes
from penstock.orchestrator.actors.solver_actor import SolverActor
from penstock.orchestrator.cluster.nodes import PLACE_WITHIN_S, is_placed, solver_options, waits_for
from penstock.orchestrator.ledger.ledger import Ledger
from penstock.orchestrator.run.logs import last_line
from penstock.orchestrator.run.supervision import Place
from penstock.orchestrator.solving import Solving
from penstock.status import WorkerStatus

START_WITHIN_S = 300.0  # from the first line of a worker's log; 64 that start at once on two cores take 120 s
NAMED = 3  # workers in a line


@dataclass(eq=False)
class Worker:
    """A worker, from the request for its process to its end."""

    name: str
    place: Place
    where: Path | None
    """The file in which it notes its simulation, see `say_where`."""
    actor: Any
    preparing: Any
    """Reference to what `SolverActor.prepare` returns, available once the worker is ready for leases."""
    asked_at: float
    """Monotonic time at which Ray was asked for its process."""
    serving: Any = None
    """Reference to the end of `SolverActor.serve`; None until the worker is ready."""
    began_at: float | None = None
    """When its process was first seen."""
    pid: int | None = None
    leases: dict[int, Ledger] = field(default_factory=dict)
    """Ledgers of its open leases by number, in the order of work."""
    ended: int = 0
    """Leases that ended since leases were last given out."""
    hung_s: float | None = None
    """How long it had been silent when it was killed for that."""
    outgrown_bytes: int | None = None
    """Memory at which it stopped solving."""
    death: str | None = None
    """How it died; what it had sent by then is still taken."""
    is_cut: bool = False
    """Whether only its connection to the learner broke: it lives, and the learner may be what died."""

    @property
    def waits(self) -> bool:
        """Whether it was reported to wait for its process, and does."""
        return self.began_at is None and self.asked_at == math.inf

    @property
    def takes_leases(self) -> bool:
        """Whether it is ready and will solve what it is given."""
        return self.pid is not None and self.hung_s is None and self.outgrown_bytes is None and self.death is None


def status_of(place: Place, worker: Worker | None, silent_seconds: float) -> WorkerStatus:
    """The status of a place.

    Args:
        place: the place.
        worker: the worker that fills it; None if there is none just now.
        silent_seconds: silence of the worker in seconds; 0 if it is not reported.

    Returns:
        The status.
    """
    is_ready = worker is not None and worker.pid is not None
    is_here = is_ready and worker.where is not None
    return WorkerStatus(
        place=place.number,
        is_ready=is_ready,
        silent_seconds=silent_seconds,
        simulations=place.simulations,
        restarts=place.restarts,
        resident_bytes=resident_bytes(worker.pid) if is_here else None,
    )


class Starter:
    """Starts workers.

    Args:
        ray: the module, imported.
        solving: what the workers' processes are built from.
        logs: folder of their logs.
        session_folder: a temporary folder on this machine if all workers are on it, else None.
        max_bytes: bound on the private memory of each.
        tell: prints a line for the user.
    """

    def __init__(
        self,
        ray: Any,
        solving: Solving,
        logs: Path,
        session_folder: Path | None,
        max_bytes: float,
        tell: Callable[[str], None],
    ):
        self._ray = ray
        self._solving = solving
        self._logs = logs
        self._session_folder = session_folder
        self._max_bytes = max_bytes
        self._tell = tell
        self._numbers = count()
        self._options = solver_options(solving.config.solver.ranks, is_joined=session_folder is None)

    def start(self, place: Place) -> Worker:
        """Ask for the process of a new worker.

        Args:
            place: the place that it fills.

        Returns:
            The worker, which gets ready by and by.
        """
        name = f"solver-{next(self._numbers)}"
        where = None if self._session_folder is None else self._session_folder / f"{name}.where"
        actor = self._ray.remote(max_restarts=0, **self._options)(SolverActor)
        actor = actor.remote(self._solving, self.log_of(name), self._max_bytes, where)
        return Worker(name, place, where, actor, actor.prepare.remote(), asked_at=time.monotonic())

    def log_of(self, name: str) -> Path:
        """The log of a worker."""
        return self._logs / f"{name}.log"

    def last_words(self, worker: Worker) -> str:
        """How the log of a worker ends, as a clause for people."""
        return f"its log ends: {last_line(self.log_of(worker.name))}"

    def watch(self, starting: Iterable[Worker]) -> Iterator[Worker]:
        """Say which workers wait for their processes, and why: each once, all in one line.

        Args:
            starting: workers that are not ready.

        Yields:
            Those whose processes began too long ago.
        """
        now, waiting = time.monotonic(), []
        for worker in starting:
            if worker.began_at is None and self.log_of(worker.name).exists():
                worker.began_at = now
            if worker.began_at is not None and now - worker.began_at > START_WITHIN_S:
                yield worker
            elif worker.began_at is None and now - worker.asked_at > PLACE_WITHIN_S:
                waiting.append(worker)
        if waiting := [worker for worker in waiting if not is_placed(self._ray, worker.actor)]:
            for worker in waiting:
                worker.asked_at = math.inf
            names = ", ".join(worker.name for worker in waiting[:NAMED])
            more = f" and {len(waiting) - NAMED} more" if len(waiting) > NAMED else ""
            verb, who = ("wait", "each") if len(waiting) > 1 else ("waits", "it")
            self._tell(f"{names}{more} {verb}: {waits_for(self._ray, self._options, who)}")
