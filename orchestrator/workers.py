"""The solver workers of a run: started, given leases, replaced when they die."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from penstock.errors import PenstockError
from penstock.orchestrator import conditions
from penstock.orchestrator.blueprint import Blueprint
from penstock.orchestrator.ledger import Ledger
from penstock.orchestrator.logs import last_line
from penstock.orchestrator.run_folder import RunFolder
from penstock.orchestrator.solver_actor import SolverActor
from penstock.sample import Decision, Lease

logger = logging.getLogger(__name__)

LEASES_AHEAD = 2
START_WITHIN_S = 300.0  # from the first line of its log on; 64 workers that start at once on two cores take 120 s
PLACE_WITHIN_S = 60.0  # before a word is said
DEATHS_IN_A_ROW = 5  # workers that die before anything is delivered: the solver crashes, replacing it goes nowhere


@dataclass(eq=False)
class Worker:
    name: str
    actor: Any
    preparing: Any
    """Reference to what `SolverActor.prepare` returns, there once it is ready for leases."""
    asked_at: float
    """Monotonic time at which Ray was asked for its process."""
    began_at: float | None = None
    """When its process was first seen."""
    pid: int | None = None
    leases: dict[int, Ledger] = field(default_factory=dict)
    """Open leases by number, in the order they are worked on, with the ledger that each one is of."""
    ended: int = 0
    """Leases that ended since the last ones were given out."""


class WorkerPool:
    """Keeps `size` workers alive and busy. Never waits: a worker that is starting is looked at again later."""

    def __init__(
        self, ray, blueprint: Blueprint, folder: RunFolder, learner: Any, size: int, *, tell: Callable[[str], None]
    ):
        self._ray = ray
        self._blueprint = blueprint
        self._folder = folder
        self._learner = learner
        self._tell = tell
        self._deterministic = blueprint.config.deterministic
        self._num_started = 0
        self._num_leases = 0
        self._deaths_in_a_row = 0
        self._workers = [self._start() for _ in range(size)]

    @property
    def num_ready(self) -> int:
        return sum(worker.pid is not None for worker in self._workers)

    def look_after_starting(self) -> None:
        """Take workers that have become ready; replace those that died before. Raises what their `prepare` raised."""
        for worker in [worker for worker in self._workers if worker.pid is None]:
            ready, _ = self._ray.wait([worker.preparing], timeout=0)
            if not ready:
                self._watch_start(worker)
                continue
            try:
                facts = self._ray.get(worker.preparing)
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except self._ray.exceptions.RayError as error:
                self._fail_start(worker, str(error).splitlines()[0])
                continue
            if self._deterministic:
                conditions.require_same(self._folder, "solver", facts["conditions"])
            worker.pid = facts["pid"]
            self._folder.event("worker started", worker=worker.name, pid=worker.pid)
            self._write_pids()

    def _watch_start(self, worker: Worker) -> None:
        """Say when Ray finds no place for a worker; replace one whose process runs and does not become ready."""
        now = time.monotonic()
        if worker.began_at is None and self._log_of(worker).exists():
            worker.began_at = now
        if worker.began_at is not None and now - worker.began_at > START_WITHIN_S:
            self._fail_start(worker, f"not ready after {START_WITHIN_S:.0f} s")
        elif worker.began_at is None and now - worker.asked_at > PLACE_WITHIN_S:
            worker.asked_at = math.inf  # it is said once
            self._tell(f"{worker.name} still waits for Ray to start its process: are there CPUs free?")

    def _fail_start(self, worker: Worker, why: str) -> None:
        error = f"while starting: {why}; its log ends: {last_line(self._log_of(worker))}"
        self._tell(f"{worker.name} died {error}")
        self._replace(worker, error)

    def _log_of(self, worker: Worker) -> Path:
        return self._folder.logs / f"{worker.name}.log"

    def lease_ahead(self, ledger: Ledger, window: int, decisions: tuple[Decision, ...]) -> None:
        """Give every ready worker the leases it will end until the next time, and two more.

        It will end as many as it did since the last time, or twice as many if it ran out of them.
        decisions: what is known of strategies. The first worker alone may try out others: one decision serves all.
        """
        ready = [worker for worker in self._workers if worker.pid is not None]
        wanted = {
            worker: LEASES_AHEAD + worker.ended * (1 if worker.leases else 2) - len(worker.leases) for worker in ready
        }
        for worker in ready:
            worker.ended = 0
        while any(count > 0 for count in wanted.values()):
            for worker in ready:  # in turns: a ledger that ends soon keeps all workers busy
                if wanted[worker] <= 0:
                    continue
                lease = self._next_lease(ledger, window, worker, len(ready))
                if lease is None:
                    wanted[worker] = 0
                    continue
                wanted[worker] -= 1
                self._num_leases += 1
                worker.leases[lease.number] = ledger
                lease = replace(lease, decisions=decisions, may_try=worker is ready[0])
                self._learner.lease.remote(lease, worker.actor)

    def _next_lease(self, ledger: Ledger, window: int, worker: Worker, num_ready: int) -> Lease | None:
        if self._deterministic:  # whoever is ready now has no say in who solves what
            return ledger.lease_block(self._num_leases, window, self._workers.index(worker), len(self._workers))
        return ledger.lease(self._num_leases, math.ceil(min(window, ledger.num_left / num_ready)))

    def close_leases(self, ends: list[tuple[int, str | None]]) -> None:
        """Book the leases that ended, each with None or how its worker died; dead workers are replaced."""
        for number, error in ends:
            worker = next((worker for worker in self._workers if number in worker.leases), None)
            if worker is None:
                continue  # of a worker that was replaced, with all its leases
            if error is not None:
                self._replace(worker, error)
                continue
            worker.leases.pop(number).end_lease(number)
            worker.ended += 1
            self._deaths_in_a_row = 0

    def _start(self) -> Worker:
        name = f"solver-{self._num_started}"
        self._num_started += 1
        actor = self._ray.remote(num_cpus=1, max_restarts=0)(SolverActor)
        actor = actor.remote(self._blueprint, self._folder.logs / f"{name}.log")
        return Worker(name, actor, actor.prepare.remote(), asked_at=time.monotonic())

    def _replace(self, worker: Worker, error: str) -> None:
        """Give the worker's simulations back and start another. Raises PenstockError when that goes nowhere."""
        self._ray.kill(worker.actor)  # a process that still lives would keep its core, and work on what others now do
        running = next(iter(worker.leases), None)
        for number, ledger in worker.leases.items():
            # Blocks are solved whole: no simulation of one can be left out because a worker died over it.
            died = number == running and not self._deterministic
            if given_up := ledger.end_lease(number, died=died):
                self._learner.give_up.remote(ledger.design, given_up)
        worker.leases.clear()
        self._deaths_in_a_row += 1
        logger.warning("%s (pid %s) died: %s; its open simulations are done again", worker.name, worker.pid, error)
        self._folder.event("worker died", worker=worker.name, pid=worker.pid, error=error)
        if self._deaths_in_a_row >= DEATHS_IN_A_ROW:
            raise PenstockError(
                f"{self._deaths_in_a_row} solver workers died one after another, the last one so: {error}; "
                f"see {self._log_of(worker)}",
                exit_code=3,
            )
        self._workers[self._workers.index(worker)] = self._start()
        self._write_pids()

    def _write_pids(self) -> None:
        self._folder.update_run(solver_pids={w.name: w.pid for w in self._workers if w.pid is not None})
