"""The number of workers of a run that goes, by command or by reuse."""

from __future__ import annotations

import time
from collections.abc import Callable

from penstock.errors import PenstockError
from penstock.orchestrator.config.solver import Steered
from penstock.orchestrator.plan import Plan
from penstock.orchestrator.resources.bounds import bytes_in_flight, require_memory_for_workers, require_room
from penstock.orchestrator.resources.cores import Split
from penstock.orchestrator.resources.memory import least_memory, size
from penstock.orchestrator.resources.steering import Steering
from penstock.orchestrator.run.workers import WorkerPool
from penstock.orchestrator.store.requests import asked_for_workers
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.record import Record


class Scaling:
    """Changes the number of a pool's workers, and says so.

    Args:
        plan: the plan of the run.
        folder: the run folder, where requests are.
        workers: the pool.
        split: how the CPUs were shared at the start.
        tell: prints a line for the user.
    """

    def __init__(self, plan: Plan, folder: RunFolder, workers: WorkerPool, split: Split, tell: Callable[[str], None]):
        self._plan = plan
        self._folder = folder
        self._workers = workers
        self._split = split
        self._most = split.most
        self._tell = tell
        given = plan.config.solver.workers
        self._steering = Steering(given) if isinstance(given, Steered) else None

    def look(self, record: Record, *, is_steady: bool) -> None:
        """Do what was asked, or what reuse asks for.

        Args:
            record: where the run stands.
            is_steady: whether it trains while there is more to solve.
        """
        num = None
        try:
            if (num := asked_for_workers(self._folder)) is not None:
                self._require_possible(num)
        except PenstockError as error:
            self._tell(f"penstock scale: {self._workers.num_workers} solver workers as before: {error}")
            self._folder.event("scaling refused", asked=num, why=str(error))
            return
        if num is not None:
            self._change(num, "penstock scale")
        elif self._steering is not None:
            num_at_work = self._workers.num_at_work
            if not is_steady or not num_at_work:
                self._steering.pause()
                return
            found = self._steering.look(
                time.monotonic(),
                num_at_work,
                unique=record.unique,
                trained=record.trained,
                simulations=record.delivered + record.failed,
            )
            if found is not None:
                num, reuse = found
                self._change(num, f"reuse {reuse:.3g}, and solver.workers asks for {self._steering.target:g}")

    def _require_possible(self, num: int) -> None:
        """Raise PenstockError if ranks need more or this machine has no room."""
        if num < (ranks := self._plan.config.training.ranks):
            raise PenstockError(f"{num} can't serve {ranks} learner ranks (training.ranks): give {ranks} or more")
        require_room(self._plan, num)
        if self._split.learner.node_id is None:
            self._split.require_cores(self._plan.config.solver, num)
            require_memory_for_workers(self._plan, least_memory(), max(0, num - self._workers.num_workers))

    def _change(self, num: int, why: str) -> None:
        before = self._workers.num_workers
        if num == before:
            return
        self._workers.resize(num)
        bound = ""
        if num > self._most:
            data_bytes = self._folder.read("run.json").get("data_bytes", 0)
            data_bytes += bytes_in_flight(self._plan, num - self._most)
            self._folder.update_run(data_bytes=data_bytes)
            self._most = num
            bound = f"; in flight now at most {size(bytes_in_flight(self._plan, num))}"
        self._tell(f"{num} solver worker{'s' if num > 1 else ''}, {before} before ({why}){bound}")
        self._folder.event("workers scaled", workers=num, before=before, why=why)
