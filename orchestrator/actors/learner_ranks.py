"""The learner's ranks: processes that train together, for the driver one learner."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from penstock.errors import PenstockError
from penstock.id_set import IdSet
from penstock.learner.ranks.group import RankLost
from penstock.messages import Lease
from penstock.orchestrator.actors.learner_process import LearnerDied, LearnerProcess
from penstock.orchestrator.run.starting import Worker
from penstock.orchestrator.run.workers import Taker
from penstock.status import Ended, IntakeTimes, LearnerStatus, News, Prepared
from penstock.transport.endpoint import Endpoint

EXPLAINED_WITHIN_S = 10.0  # why a rank was lost, by the one that was

SUMS = ("unique", "dropped", "retried", "solver_blocked_seconds", "solver_seconds", "solver_unleased_seconds")


class LearnerRanks:
    """Learner processes with the methods of one `LearnerProcess`.

    Each worker belongs to one of them, by the number of its place. Rank 0 gathers the validation set. If one dies, the
    others are of no use: `status` raises LearnerDied, and the driver ends them all and places others.

    Args:
        processes: the processes by rank.
    """

    def __init__(self, processes: Sequence[LearnerProcess]):
        self._processes = list(processes)
        self._prepared: list[Prepared | None] = [None] * len(processes)
        self._statuses: list[LearnerStatus | None] = [None] * len(processes)  # of those that have answered
        self._takers: list[Taker] = []
        self._rank_of: dict[str, int] = {}  # of each worker, by its name

    def placed(self, timeout_s: float) -> bool:
        """Whether Ray has given all of them a process."""
        return all(process.placed(timeout_s / len(self._processes)) for process in self._processes)

    def waits_for(self) -> str | None:
        """What one of them waits for, as a clause; None once all have a process."""
        return next(filter(None, (process.waits_for() for process in self._processes)), None)

    def prepared(self, timeout_s: float) -> Prepared | None:
        """What they report once all are built and restored; None if that takes longer."""
        self._ask(self._prepared, lambda process, left: process.prepared(left), timeout_s)
        if None in self._prepared:
            return None
        first = self._prepared[0]
        return replace(
            first,
            pids=tuple(prepared.pid for prepared in self._prepared),
            device=f"{first.device}, {len(self._processes)} ranks",
            buffer_bytes=sum(prepared.buffer_bytes for prepared in self._prepared),
            training=_joined([prepared.training for prepared in self._prepared]),
        )

    def taker(self, worker_bytes: int, endpoint: Endpoint) -> Taker:
        """The ranks as what takes the samples.

        Args:
            worker_bytes: bound on the bytes of each worker's chunks under way.
            endpoint: where rank 0 said that it receives.

        Returns:
            The taker.
        """
        self._takers = [
            process.taker(worker_bytes, prepared.endpoint)
            for process, prepared in zip(self._processes, self._prepared, strict=True)
        ]
        return Taker(self._submit, self._bury, self._give_up, worker_bytes, self._endpoint_of, self._takes)

    def _endpoint_of(self, worker: Worker) -> Endpoint:
        rank = worker.place.number % len(self._processes)
        self._rank_of[worker.name] = rank
        return self._takers[rank].endpoint_of(worker)

    def _takes(self, worker: str, design: str) -> bool:
        return design == "training" or self._rank_of[worker] == 0

    def _submit(self, lease: Lease, worker: str) -> None:
        self._takers[self._rank_of[worker]].submit(lease, worker)

    def _bury(self, worker: str, error: str) -> None:
        if worker in self._rank_of:
            self._takers[self._rank_of[worker]].bury(worker, error)

    def _give_up(self, design: str, failed: Mapping[int, str]) -> None:
        self._takers[0].give_up(design, failed)

    def start(self) -> None:
        """Begin training; leases may be given from here on."""
        for process in self._processes:
            process.start()

    def stop(self) -> None:
        """Have them write a checkpoint at the next step, and end."""
        for process in self._processes:
            process.stop()

    def kill(self) -> None:
        """End those that live."""
        for process in self._processes:
            process.kill()

    def status(self, timeout_s: float) -> LearnerStatus | None:
        """The status of all; None if one does not answer in time.

        Raises:
            LearnerDied: a rank has died, or lost the others.
            PenstockError: the training of a rank has failed.
        """
        self._ask(self._statuses, lambda process, left: process.status(left), timeout_s)
        if None in self._statuses:
            return None
        statuses, self._statuses = self._statuses, [None] * len(self._processes)
        return _merged(statuses)

    def _ask(self, answers: list, ask: Callable[[LearnerProcess, float], Any], timeout_s: float) -> None:
        """Ask those that have not answered.

        The fault of a rank comes before that of one that misses it.
        """
        deadline, lost = time.monotonic() + timeout_s, None
        for rank, process in enumerate(self._processes):
            if answers[rank] is None:
                try:
                    answers[rank] = ask(process, max(0.0, deadline - time.monotonic()))
                except LearnerDied as death:
                    raise LearnerDied(f"{death}: rank {rank} of {len(self._processes)}") from death
                except RankLost as error:
                    lost = error
        if lost is not None:
            raise self._explained(lost)

    def _explained(self, lost: RankLost) -> PenstockError:
        deadline = time.monotonic() + EXPLAINED_WITHIN_S
        while time.monotonic() < deadline:
            for rank, process in enumerate(self._processes):
                try:
                    process.status(0.5)
                except LearnerDied as death:
                    return LearnerDied(f"{death}: rank {rank} of {len(self._processes)}")
                except RankLost:
                    continue
                except PenstockError as error:
                    return error
        return LearnerDied(str(lost))


def _joined(parts: Sequence[Ended]) -> Ended:
    """How simulations have ended on any rank."""
    delivered = IdSet()
    for start, end in (interval for part in parts for interval in part.delivered):
        delivered.update(np.arange(start, end))
    failed = {id_: reason for part in parts for id_, reason in part.failed.items() if id_ not in delivered}
    return Ended(delivered.to_intervals(), failed)


def _merged(statuses: Sequence[LearnerStatus]) -> LearnerStatus:
    """The status of the ranks together; of what is the same on all, that of rank 0."""
    first, accounts = statuses[0], [status.account for status in statuses]
    news = News()
    for status in statuses:
        news += status.news
    return replace(
        first,
        training=replace(
            first.training,
            trained=sum(status.training.trained for status in statuses),
            wait_seconds=sum(status.training.wait_seconds for status in statuses) / len(statuses),
        ),
        account=replace(
            first.account,
            training=_joined([account.training for account in accounts]),
            **{name: sum(getattr(account, name) for account in accounts) for name in SUMS},
            intake=IntakeTimes(
                **{
                    each.name: sum(getattr(account.intake, each.name) for account in accounts) / len(accounts)
                    for each in fields(IntakeTimes)
                }
            ),
        ),
        buffer=replace(
            first.buffer,
            samples=sum(status.buffer.samples for status in statuses),
            capacity=sum(status.buffer.capacity for status in statuses),
        ),
        news=news,
        silences={number: seconds for status in statuses for number, seconds in status.silences.items()},
        ranks=tuple(rank for status in statuses for rank in status.ranks),
        is_done=all(status.is_done for status in statuses),
    )
