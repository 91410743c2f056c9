"""The solver workers of a run: started, given leases, replaced when they die."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penstock.errors import ConnectionLost, PenstockError, WorkerDied
from penstock.messages import Decision, Lease, LeaseEnd
from penstock.orchestrator.actors.solver_actor import read_where
from penstock.orchestrator.ledger import conditions
from penstock.orchestrator.ledger.ledger import DEATHS, Ledger
from penstock.orchestrator.resources.memory import size
from penstock.orchestrator.run.starting import START_WITHIN_S, Starter, Worker, status_of
from penstock.orchestrator.run.supervision import MemoryKills, Place, Silences, in_turns, memory_bound
from penstock.orchestrator.solving import Solving
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.status import Ready, Silence, WorkerStatus
from penstock.transport.endpoint import Endpoint

logger = logging.getLogger(__name__)

LEASES_AHEAD = 2
HANGS = 2  # after which a simulation is given up


@dataclass(eq=False)
class Taker:
    """What takes the samples of a pool's workers: the learner, or this process."""

    submit: Callable[[Lease, str], Any]
    """Takes a lease for the worker of a name."""
    bury: Callable[[str, str], Any]
    """Takes the name of a worker that has died, and how."""
    give_up: Callable[[str, Mapping[int, str]], Any]
    """Takes a design, and the reasons by id of its simulations that have failed because their workers died."""
    worker_bytes: int
    """Bound on the bytes of each worker's chunks under way."""
    endpoint_of: Callable[[Worker], Endpoint]
    """Gives the place where a worker connects."""
    takes: Callable[[str, str], bool] = lambda worker, design: True
    """Whether it takes simulations of a design from the worker of a name."""


class WorkerPool:
    """Keeps workers alive and busy.

    It never waits: a worker that is starting is looked at again later. `connect` comes before everything else.

    Args:
        ray: the module, imported.
        solving: what the workers' processes are built from.
        folder: the run folder.
        size: number of workers at the start.
        most: number of workers at the most, which share the memory.
        session_folder: a temporary folder on this machine if all workers are on it, else None.
        memory_kills: watches for kills by the kernel.
        tell: prints a line for the user.
    """

    def __init__(
        self,
        ray: Any,
        solving: Solving,
        folder: RunFolder,
        size: int,
        *,
        most: int,
        session_folder: Path | None,
        memory_kills: MemoryKills,
        tell: Callable[[str], None],
    ):
        config = solving.config.solver
        self._ray = ray
        self._solving = solving
        self._folder = folder
        self._taker: Taker | None = None
        self._tell = tell
        self._num_leases = 0
        self._silences = Silences(None if config.timeout_s == "auto" else config.timeout_s)
        max_bytes = math.inf
        if session_folder is not None or config.memory_mb != "auto":  # the share of another machine is not known
            max_bytes = memory_bound(None if config.memory_mb == "auto" else config.memory_mb, most)
        self._starter = Starter(ray, solving, folder.logs, session_folder, max_bytes, tell)
        self._memory_kills = memory_kills
        self._places = [Place(number) for number in range(size)]  # those that are open
        self._workers: list[Worker] = []  # in the order of their places
        self.silent: list[Silence] = []
        """Silences that are long enough to be reported."""
        self.look_after_starting()

    def connect(self, taker: Taker) -> None:
        """Have samples go to a taker from here on, who knows of no lease.

        What was leased before is void. Workers that are at work live on, and keep what they have learnt.

        Args:
            taker: the taker.

        Raises:
            PenstockError: a worker had died, and its place is given up.
        """
        self._taker = taker
        for worker in list(self._workers):
            worker.leases.clear()
            worker.ended = 0
            self._silences.forget(worker.name)
            if worker.death is not None and not worker.is_cut:
                self._replace(worker, worker.death)
            elif worker.outgrown_bytes is not None:
                self._renew(worker)
            elif not worker.place.is_open:
                self._retire(worker)
            elif worker.pid is not None:
                worker.death, worker.is_cut = None, False
                self._serve(worker)

    def make_room(self, most: int) -> None:
        """End workers so that a new taker finds its place.

        They are those that start, which are started again later, and those beyond a number. What was leased is void,
        as with `connect`, which must follow.

        Args:
            most: the number.
        """
        for worker in self._workers:
            worker.leases.clear()
        self.resize(min(most, self.num_workers))
        for worker in [worker for worker in self._workers if worker.pid is None]:
            self._empty(worker, 0.0)

    def _serve(self, worker: Worker) -> None:
        endpoint = self._taker.endpoint_of(worker)
        worker.serving = worker.actor.serve.remote(worker.name, endpoint, self._taker.worker_bytes)

    @property
    def num_workers(self) -> int:
        """Number of workers that the pool is to have."""
        return len(self._places)

    @property
    def num_at_work(self) -> int | None:
        """Those of them that are at work; None while others start, are replaced or end."""
        at_work = [worker for worker in self._workers if worker.takes_leases and worker.place.is_open]
        waiting = [worker for worker in self._workers if worker.waits]
        is_settled = len(at_work) + len(waiting) == len(self._workers) == self.num_workers
        return len(at_work) if is_settled else None

    def resize(self, num: int) -> None:
        """Change the number of workers.

        Those that are too many get no more leases, and end with those that they have. They are called back where the
        number grows again meanwhile. Each learner rank keeps some as long as there are as many as ranks.

        Args:
            num: the new number.
        """
        at_work = {worker.place for worker in self._workers if worker.takes_leases}
        places = self._places + [worker.place for worker in self._workers if not worker.place.is_open]
        places.sort(key=lambda place: (place not in at_work, not place.is_open, place.number))
        places = in_turns(places, num, self._solving.config.training.ranks)
        self._places = sorted(places[:num], key=lambda place: place.number)
        for place in places:
            place.is_open = place in self._places
        for worker in [worker for worker in self._workers if not worker.place.is_open and not worker.leases]:
            self._retire(worker)

    @property
    def num_ready(self) -> int:
        """Workers that are ready for leases."""
        return sum(worker.pid is not None for worker in self._workers)

    def statuses(self) -> list[WorkerStatus]:
        """The status of each place, also of those whose workers end with their leases."""
        workers = {worker.place: worker for worker in self._workers}
        silent = {silence.worker: silence.seconds for silence in self.silent}
        return [
            status_of(place, worker := workers.get(place), silent.get(worker.name, 0.0) if worker else 0.0)
            for place in sorted({*self._places, *workers}, key=lambda place: place.number)
        ]

    def look_after_starting(self) -> None:
        """Start workers in empty places, and register those that are ready.

        Raises:
            PenstockError: a worker can't be built, or places are given up.
        """
        for place in self._places:
            if place.due is not None and time.monotonic() >= place.due:
                place.due = None
                self._workers.append(self._starter.start(place))
        self._workers.sort(key=lambda worker: worker.place.number)
        starting = {worker.preparing: worker for worker in self._workers if worker.pid is None}
        ended, others = self._ray.wait(list(starting), num_returns=len(starting), timeout=0) if starting else ([], [])
        for worker in list(self._starter.watch([starting[preparing] for preparing in others])):
            self._fail_start(worker, f"not ready after {START_WITHIN_S:.0f} s")
        for worker in [starting[preparing] for preparing in ended]:
            try:
                ready: Ready = self._ray.get(worker.preparing)
            except self._ray.exceptions.RayTaskError as error:
                if not isinstance(error.cause, WorkerDied):
                    raise error.cause from error
                self._fail_start(worker, str(error.cause))
                continue
            except self._ray.exceptions.RayError as error:
                self._fail_start(worker, str(error).splitlines()[0])
                continue
            if self._solving.order.must_repeat:
                conditions.require_same(self._folder, "solver", ready.conditions)
            worker.pid = ready.pid
            self._serve(worker)
            self._folder.event("worker started", worker=worker.name, pid=worker.pid)
        if ended:
            self._write_pids()

    def look_after_serving(self) -> None:
        """Notice workers that have died; to be called when the learner has answered.

        Each is replaced once its stream has ended. One that was cut off without a lease is replaced by the next call,
        when the learner has answered again: so it is not the learner that died.

        Raises:
            Exception: what a worker's code raised outside of simulations; no other worker would fare better.
            PenstockError: a place is given up.
        """
        for worker in [worker for worker in self._workers if worker.is_cut and not worker.leases]:
            self._replace(worker, worker.death)
        serving = {
            worker.serving: worker for worker in self._workers if worker.serving is not None and not worker.death
        }
        for ended in self._ray.wait(list(serving), num_returns=len(serving), timeout=0)[0] if serving else ():
            try:
                self._ray.get(ended)
            except self._ray.exceptions.RayTaskError as error:
                if not isinstance(error.cause, WorkerDied):
                    raise error.cause from error
                serving[ended].is_cut = isinstance(error.cause, ConnectionLost)
                self._bury(serving[ended], str(error.cause))
            except self._ray.exceptions.RayError as error:
                self._bury(serving[ended], _one_line(error))

    def _bury(self, worker: Worker, how: str) -> None:
        worker.death = how
        if worker.leases:
            self._taker.bury(worker.name, how)
        elif not worker.is_cut:
            self._replace(worker, how)

    def _fail_start(self, worker: Worker, why: str) -> None:
        self._replace(worker, f"{why}; {self._starter.last_words(worker)}", " while starting")

    def lease_ahead(self, ledger: Ledger, window: int, decisions: tuple[Decision, ...]) -> None:
        """Give every ready worker the leases it will end until the next call, plus two.

        A worker is expected to end as many as it did since the last call, or twice as many if it ran out of them.

        Args:
            ledger: where the ids come from.
            window: ids per lease.
            decisions: what is known of strategies. The first worker alone may try out others: one decision serves all.
        """
        ready = [worker for worker in self._workers if worker.takes_leases and worker.place.is_open]
        ready = [worker for worker in ready if self._taker.takes(worker.name, ledger.design.name)]
        wanted = {
            worker: LEASES_AHEAD + worker.ended * (1 if worker.leases else 2) - len(worker.leases) for worker in ready
        }
        for worker in ready:
            worker.ended = 0
        while any(count > 0 for count in wanted.values()):
            for worker in ready:  # in turns, so that the last leases of a ledger are spread over all workers
                if wanted[worker] <= 0:
                    continue
                lease = self._solving.order.lease(
                    ledger, self._num_leases, worker.place.number, window=window, num_ready=len(ready)
                )
                if lease is None:
                    wanted[worker] = 0
                    continue
                wanted[worker] -= 1
                self._num_leases += 1
                worker.leases[lease.number] = ledger
                lease = replace(lease, decisions=decisions, may_try=worker is ready[0])
                self._taker.submit(lease, worker.name)

    def close_leases(self, ends: Iterable[LeaseEnd]) -> None:
        """Close leases that ended; replace workers that died or have grown too large.

        Args:
            ends: the ends of leases, as the stream reports them.

        Raises:
            PenstockError: a place is given up.
        """
        holders = {number: worker for worker in self._workers for number in worker.leases}
        for end in ends:
            worker = holders.get(end.lease_number)
            if worker is None or end.lease_number not in worker.leases:
                continue  # its worker was replaced, and all of its leases were closed then
            if end.error is not None:
                self._replace(worker, end.error)
                continue
            self._close(worker, end.lease_number)
            worker.ended += 1
            if worker.death is not None and not worker.leases:
                self._replace(worker, worker.death)
                continue
            worker.outgrown_bytes = worker.outgrown_bytes or end.outgrown_bytes
            if worker.outgrown_bytes is not None and not worker.leases:
                self._renew(worker)
            elif not worker.place.is_open and not worker.leases:
                self._retire(worker)

    def watch(self, silences: Mapping[int, float], *, has_progress: bool) -> None:
        """Report silent workers, and kill those that are silent for too long.

        Their deaths are noticed as others are.

        Args:
            silences: as `Receiver.silences` returns them.
            has_progress: whether a simulation has ended since this process of the run began.
        """
        self._memory_kills.look(time.monotonic())
        if has_progress:
            self._silences.progress()
        spoken_of, self.silent = {silence.worker for silence in self.silent}, []
        # All are looked at before any is judged, because a silence that has just ended says how long others may take.
        for worker, silence in [(worker, self._look(worker, silences)) for worker in self._workers]:
            if silence is None or silence.seconds <= self._silences.word_after_s:
                continue
            self.silent.append(silence)
            if worker.name not in spoken_of:
                self._tell(str(silence))
                details = {"seconds": silence.seconds, "simulation": silence.simulation}
                self._folder.event("worker silent", worker=worker.name, **details)
            if silence.seconds > self._silences.timeout_s:
                worker.hung_s = silence.seconds
                self._ray.kill(worker.actor)  # Ray's raylet sends SIGKILL if it does not end by itself

    def _look(self, worker: Worker, silences: Mapping[int, float]) -> Silence | None:
        """How long a worker has been silent; None if it is idle, or killed already."""
        number = next(iter(worker.leases), None)
        if number not in silences or worker.hung_s is not None:
            return None
        where = None if worker.where is None else read_where(worker.where)
        seconds = self._silences.look(worker.name, silences[number], where and str(where), time.monotonic())
        return Silence(worker.name, seconds, where[1] if where else None)

    def _close(self, worker: Worker, number: int, **death: Any) -> None:
        """Close a lease; its open simulations are given out again or have failed."""
        ledger = worker.leases.pop(number)
        worker.place.ended(ledger.num_ended_of(number))
        if given_up := ledger.end_lease(number, **death):
            self._taker.give_up(ledger.design.name, given_up)

    def _renew(self, worker: Worker) -> None:
        """Start another worker in the place of one that has grown too large."""
        grown_to = size(worker.outgrown_bytes)
        worker.place.restarts += 1
        self._tell(f"{worker.name} has grown to {grown_to} (solver.memory_mb): another one replaces it")
        self._folder.event("worker outgrown", worker=worker.name, pid=worker.pid, bytes=worker.outgrown_bytes)
        self._empty(worker, 0.0)

    def _replace(self, worker: Worker, error: str, when: str = "") -> None:
        """Give the worker's simulations back and start another worker.

        Raises:
            PenstockError: the place is given up.
        """
        running, simulation = self._where(worker)
        reason, tries = "its worker died", DEATHS
        if worker.hung_s is not None:
            who = self._solving.problem.command if self._solving.problem.is_external else "it"
            error = f"{who} was silent for {worker.hung_s:.0f} s, which is too long (solver.timeout_s)"
            reason = f"took longer than {self._silences.timeout_s:.0f} s (solver.timeout_s)"
            tries = DEATHS if simulation is None else HANGS
        elif self._memory_kills.is_recent(time.monotonic()):
            error = f"the kernel killed it because memory ran out ({error})"
        is_repeat = False
        if simulation is not None:
            when = f" in simulation {simulation}"
            is_repeat = worker.leases[running].num_deaths(simulation) > 0
        for number, ledger in list(worker.leases.items()):
            ledger.num_lost += len(ledger.open_ids(number))
            blamed = self._blamed(worker, number, simulation) if number == running else ()
            self._close(worker, number, blamed=blamed, reason=reason, tries=tries)
        worker.place.died(is_repeat=is_repeat)
        worker.place.restarts += 1
        logger.warning("%s (pid %s) died%s: %s; its simulations are done again", worker.name, worker.pid, when, error)
        self._folder.event("worker died", worker=worker.name, pid=worker.pid, error=f"{when}: {error}".strip(": "))
        if worker.place.is_hopeless:
            raise PenstockError(
                f"solver workers die again and again, the last one, {worker.name},{when or ' so'}: {error}; "
                f"see {self._starter.log_of(worker.name)}",
                exit_code=3,
            )
        pause_s = worker.place.pause_s if worker.place.is_open else 0.0
        self._tell(f"{worker.name} died{when}: {error}" + (f"; the next starts in {pause_s:.0f} s" if pause_s else ""))
        self._empty(worker, pause_s)

    def _where(self, worker: Worker) -> tuple[int | None, int | None]:
        """The lease and the simulation that a worker is in or died in.

        None where not known. It may be in a later lease than the first of those whose ends have come.
        """
        number = next(iter(worker.leases), None)
        where = None if worker.where is None else read_where(worker.where)
        if where is None or where[0] not in worker.leases:
            return number, None
        number, simulation = where
        return number, simulation if simulation in worker.leases[number].open_ids(number) else None

    def _blamed(self, worker: Worker, number: int, simulation: int | None) -> Sequence[int]:
        """The simulations of its current lease that may have killed a worker."""
        if worker.where is None:  # it may be on another machine
            return self._solving.order.blamed(worker.leases[number].open_ids(number))
        return self._solving.order.blamed([] if simulation is None else [simulation])

    def _empty(self, worker: Worker, pause_s: float) -> None:
        """End the worker if it lives, and schedule the next one in its place."""
        self._end(worker, "it was replaced")
        worker.place.due = time.monotonic() + pause_s

    def _retire(self, worker: Worker) -> None:
        """End a worker that is one too many, and has nothing left to do."""
        self._end(worker, "it was one too many")
        self._folder.event("worker retired", worker=worker.name, pid=worker.pid)

    def _end(self, worker: Worker, why: str) -> None:
        self._ray.kill(worker.actor)  # if alive, it would keep its core and solve what others now solve
        if self._taker is not None:
            self._taker.bury(worker.name, why)
        self._silences.forget(worker.name)
        self._workers.remove(worker)
        self._write_pids()

    def _write_pids(self) -> None:
        self._folder.update_run(solver_pids={w.name: w.pid for w in self._workers if w.pid is not None})


def _one_line(error: Exception) -> str:
    """Ray's last line, up to the guesses at causes that follow the fact."""
    if "low on memory" in str(error):
        return "Ray killed it because the machine ran low on memory"
    return str(error).strip().splitlines()[-1].split("Worker exit detail: ")[-1].split(" Some common causes")[0].strip()
