"""The stream of a run's workers without its learner: into this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from penstock.learner.stream.deliveries import Deliveries
from penstock.messages import Chunk, LeaseEnd
from penstock.orchestrator.cluster.receiving import receiver_on
from penstock.orchestrator.ledger.ledger import Ledger
from penstock.orchestrator.resources.bounds import bytes_in_flight
from penstock.orchestrator.run.on_ray import on_ray
from penstock.orchestrator.run.stopping import StopRequests
from penstock.orchestrator.run.supervision import MemoryKills
from penstock.orchestrator.run.workers import Taker, WorkerPool
from penstock.orchestrator.solving import Solving
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.store.strategies import Choices

TICK_S = 1.0
STREAM_TIMEOUT_S = 0.2
# Workers that are ready wait for the others for this long, so that rates are those of all of them.
BEGIN_WITHIN_S = 10.0


@dataclass(frozen=True)
class Chunks:
    """Chunks as they come, and of whom."""

    num_workers: int | None
    """Workers that Ray starts; None for this process itself."""
    stream: Iterator[Chunk]


@contextmanager
def gathered(solving: Solving, ledger: Ledger, *, tell: Callable[[str], None]) -> Iterator[Chunks]:
    """The chunks of workers that Ray starts, as a run's learner would take them.

    Workers are leased to, watched and replaced as in a run, with their logs in a folder under runs/. To be called in
    the environment of `set_environment`; within the block only what was made before prints, see `on_ray`.

    Args:
        solving: what the workers are built from.
        ledger: gives out the simulations, up to its limit.
        tell: prints a line for the user.

    Yields:
        The chunks, in which each of the ledger's simulations ends once and each of its samples is once.
        Their stream raises PenstockError where workers die again and again, or Ray itself does, and SystemExit after a
        signal.

    Raises:
        PenstockError: Ray can't be started or joined.
        SystemExit: a signal came while it started.
    """
    folder = RunFolder.create(solving.config, is_latest=False)
    requests = StopRequests(folder)
    with (
        folder.hold(),  # so that it reads as one that is going; never None, because the folder is new
        on_ray(solving.config, folder, requests, has_learner=False, tell=tell) as session,
    ):
        num_workers = session.split.most  # no learner, whose pace a smaller number could follow
        who = "1 solver worker, which logs" if num_workers == 1 else f"{num_workers} solver workers, which log"
        tell(f"{who} to {folder.logs}, tracebacks too")
        gathering = _Gathering(solving, ledger, folder, num_workers, session.folder, session.watch.check, tell)
        try:
            yield Chunks(num_workers, gathering.chunks(requests))
        finally:
            gathering.close()


class _Gathering:
    """Leases, takes, accounts and watches: what a run has driver and learner for."""

    def __init__(
        self,
        solving: Solving,
        ledger: Ledger,
        folder: RunFolder,
        num_workers: int,
        session_folder: Path | None,
        check: Callable[[], None],
        tell: Callable[[str], None],
    ):
        import ray  # in the environment of `set_environment`

        self._ledger = ledger
        self._check = check
        self._layout = solving.problem.layout
        self._window = solving.config.solver.window
        self._num_workers = num_workers
        self._stream = stream = receiver_on(session_folder)
        worker_bytes = bytes_in_flight(solving, 1)
        self._workers = WorkerPool(
            *(ray, solving, folder, num_workers),
            most=num_workers,
            session_folder=session_folder,
            memory_kills=MemoryKills(),
            tell=tell,
        )
        self._workers.connect(Taker(stream.submit, stream.bury, self._give_up, worker_bytes, lambda _: stream.endpoint))
        self._choices = Choices(folder)
        self._account = Deliveries(ledger.ended)
        self._num_before = ledger.num_ended
        self._begins_by: float | None = None  # once a worker is ready
        self._given_up: dict[int, str] = {}  # not in a chunk yet

    def chunks(self, requests: StopRequests) -> Iterator[Chunk]:
        """The chunks, until all simulations have ended; a signal raises SystemExit."""
        looked_at = -TICK_S
        while self._account.num_ended < self._ledger.limit:
            if request := requests.look():
                raise SystemExit(request.exit_code)
            if time.monotonic() - looked_at >= TICK_S:
                looked_at = time.monotonic()
                self._check()
                self._look_after_workers()
            item = self._stream.next(STREAM_TIMEOUT_S)
            if isinstance(item, LeaseEnd):
                self._settle()
                self._workers.close_leases([item])
                self._lease_ahead()
            elif item is not None:
                self._choices.take(item.decisions)
                yield self._account.accept(item)
            if self._given_up:
                yield self._account.accept(self._failures())

    def close(self) -> None:
        """Take no more."""
        self._stream.close()

    def _look_after_workers(self) -> None:
        self._settle()
        self._workers.look_after_starting()
        self._workers.look_after_serving()
        self._workers.watch(self._stream.silences(), has_progress=self._has_progress)
        self._lease_ahead()

    def _settle(self) -> None:
        self._ledger.settle(self._account.ended)

    @property
    def _has_progress(self) -> bool:
        return self._account.num_ended > self._num_before

    def _lease_ahead(self) -> None:
        if self._may_begin():
            # The first simulations also build what is kept for all, and say how long others will take; and where all
            # fail, few should.
            window = self._window if self._account.ended.num_delivered else 1
            self._workers.lease_ahead(self._ledger, window, self._choices.decisions)

    def _may_begin(self) -> bool:
        num_ready, now = self._workers.num_ready, time.monotonic()
        if num_ready and self._begins_by is None:
            self._begins_by = now + BEGIN_WITHIN_S
        return num_ready == self._num_workers or (self._begins_by is not None and now >= self._begins_by)

    def _give_up(self, design: str, failed: Mapping[int, str]) -> None:
        self._given_up |= failed

    def _failures(self) -> Chunk:
        """A chunk without samples, for what was given up."""
        failed, self._given_up = self._given_up, {}
        none = np.empty(0, np.int64)
        return Chunk(arrays=self._layout.empty(), simulations=none, steps=none, failed=failed)
