"""What a run's driver spends on its bookkeeping, by the number of workers."""

from __future__ import annotations

import pickle
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.consumer import WINDOW
from benchmarks.problems import config_of
from penstock.id_set import IdSet
from penstock.messages import Lease, LeaseEnd, SolveRecord
from penstock.orchestrator.ledger.designs import InOrder
from penstock.orchestrator.ledger.ledger import Ledger
from penstock.orchestrator.run.supervision import MemoryKills
from penstock.orchestrator.run.workers import Taker, WorkerPool
from penstock.orchestrator.solving import Solving
from penstock.orchestrator.store.journal import Journal
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.views.prometheus.metrics import Metrics
from penstock.status import Account, BufferStatus, Ended, LearnerStatus, News, Ready, TrainingStatus
from penstock.transport.endpoint import Endpoint


@dataclass(frozen=True, kw_only=True)
class Tick:
    """The driver's bookkeeping of one second, on average."""

    num_workers: int
    num_samples: float
    num_leases: float
    cpu_s: float
    """CPU time of the driver's thread."""
    status_bytes: float
    """The learner's status, pickled."""


class _Never(Exception):
    """Stands for Ray's errors, of which none occurs."""


@dataclass(eq=False)
class _Reference:
    """What a call of an actor returns."""

    value: Any = None
    """None for a call that does not end."""


class _Ray:
    """Ray as far as `WorkerPool` uses it, with actors that are ready when they are told and never end."""

    exceptions = SimpleNamespace(RayTaskError=_Never, RayError=_Never)
    are_ready = False

    def remote(self, **options: Any) -> Any:
        prepare = SimpleNamespace(remote=lambda: _Reference(Ready(pid=1, conditions={})))
        serve = SimpleNamespace(remote=lambda *arguments: _Reference())
        actor = SimpleNamespace(prepare=prepare, serve=serve)
        return lambda cls: SimpleNamespace(remote=lambda *arguments: actor)

    def wait(self, references: Sequence[_Reference], **options: Any) -> tuple[list[_Reference], list[_Reference]]:
        ended, others = [], []
        for reference in references:
            (ended if self.are_ready and reference.value is not None else others).append(reference)
        return ended, others

    def get(self, reference: _Reference) -> Any:
        return reference.value


class _Workers:
    """The workers and the learner, as the driver sees them: leases go in, a status comes out."""

    def __init__(self):
        self.delivered = IdSet()
        self._leases: dict[str, deque[Lease]] = {}
        self._next: dict[str, int] = {}  # in the first lease
        self.num_solved = 0

    def submit(self, lease: Lease, name: str) -> None:
        self._leases.setdefault(name, deque()).append(lease)

    def solve(self, num_each: int) -> list[LeaseEnd]:
        """Let each worker deliver that many simulations.

        Returns the ends of leases.
        """
        ends, solved = [], []
        for name, leases in self._leases.items():
            left = num_each
            while left and leases:
                first = self._next.get(name, 0)
                ids = leases[0].simulations[first : first + left]
                solved.extend(ids)
                left -= len(ids)
                self._next[name] = first + len(ids)
                if self._next[name] == len(leases[0].simulations):
                    ends.append(LeaseEnd(leases.popleft().number))
                    self._next[name] = 0
        self.delivered.update(np.array(solved, np.int64))
        self.num_solved += len(solved)
        return ends

    def status(self, ends: Sequence[LeaseEnd], num_new: int) -> LearnerStatus:
        solves = (
            SolveRecord(strategy="direct", seconds=0.001 * (1 + number % 50), iterations=0, relative_residual=1e-12)
            for number in range(num_new)  # each an object, because pickle writes a repeated one only once
        )
        return LearnerStatus(
            training=TrainingStatus(
                state="training",
                step=1,
                progress=0.5,
                trained=1,
                loss=1.0,
                learning_rate=1e-3,
                warning=None,
                validation=None,
                wait_seconds=0.0,
                seconds=1.0,
            ),
            account=Account(
                training=Ended(self.delivered.to_intervals()),
                validation=Ended(),
                unique=self.num_solved,
                dropped=0,
                retried=0,
                solver_blocked_seconds=0.0,
            ),
            buffer=BufferStatus(samples=1, capacity=1, bias=None),
            news=News(solves=tuple(solves), lease_ends=tuple(ends)),
            silences={leases[0].number: 0.1 for leases in self._leases.values() if leases},
        )


def tick_of(num_workers: int, samples_each: int, num_ticks: int) -> Tick:
    """Measure the driver's bookkeeping without Ray and without a console.

    All else that its loop does with a status is done: the account, ends of leases, silences, the record and the
    metrics of every solve, new leases. Actors are stubs.

    Args:
        num_workers: number of workers.
        samples_each: samples per second of each, one solve per sample.
        num_ticks: ticks that count, after one that does not.
    """
    solving = Solving.of(config_of("darcy", workers=num_workers))
    workers = _Workers()
    with tempfile.TemporaryDirectory() as place, chdir(place):
        folder = RunFolder.create(solving.config, is_latest=False)
        pool = WorkerPool(
            *(ray := _Ray(), solving, folder, num_workers),
            most=num_workers,
            session_folder=None,
            memory_kills=MemoryKills(),
            tell=lambda line: None,
        )
        pool.connect(Taker(workers.submit, lambda *arguments: None, lambda *arguments: None, 1, lambda _: Endpoint("")))
        ray.are_ready = True
        ledger, journal, metrics = Ledger(InOrder("training")), Journal(folder, "direct"), Metrics()
        pool.look_after_starting()
        pool.lease_ahead(ledger, WINDOW, ())
        cpu_s, num_leases, num_bytes, num_samples = 0.0, 0, 0, 0
        for number in range(1 + num_ticks):
            before = workers.num_solved
            ends = workers.solve(samples_each)
            sent = pickle.dumps(workers.status(ends, workers.num_solved - before), protocol=5)
            began = time.thread_time()
            status: LearnerStatus = pickle.loads(sent)
            pool.look_after_starting()
            ledger.settle(status.account.training, None)
            pool.close_leases(status.news.lease_ends)
            pool.look_after_serving()
            pool.watch(status.silences, has_progress=True)
            record = journal.record(status, ledger, pool.num_ready, pool.silent)
            metrics.update(record, status.news.solves)
            metrics.processes.show(pool.statuses(), status.ranks, None)
            pool.lease_ahead(ledger, WINDOW, ())
            if number:
                cpu_s += time.thread_time() - began
                num_leases += len(ends)
                num_bytes += len(sent)
                num_samples += workers.num_solved - before
    return Tick(
        num_workers=num_workers,
        num_samples=num_samples / num_ticks,
        num_leases=num_leases / num_ticks,
        cpu_s=cpu_s / num_ticks,
        status_bytes=num_bytes / num_ticks,
    )
