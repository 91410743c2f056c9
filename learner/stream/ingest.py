"""The way from the stream into the buffer.

Second copies of samples are dropped, and the end of every simulation is recorded once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from penstock.arrays.ragged import Rows, padded
from penstock.layout import Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.normalization import Normalization, RunningMoments, constants
from penstock.learner.ranks.group import ALONE, Group
from penstock.learner.stream.deliveries import Deliveries
from penstock.learner.stream.rate_limiter import RateLimiter
from penstock.learner.stream.remarks import Growth, few_simulations
from penstock.learner.stream.stream import Stream
from penstock.learner.stream.timesheet import Timesheet
from penstock.messages import BLOCKED, Chunk, Decision, LeaseEnd, Restart, SolveRecord
from penstock.status import IntakeTimes, News

STREAM_TIMEOUT_S = 0.2  # how soon an idle ingest thread sees should_stop()
GIVE_UP_TIMEOUT_S = 0.2  # a put is done by then; a pause may last as long as a checkpoint takes to write


@dataclass
class Arrival:
    """A chunk on its way into the buffer."""

    chunk: Chunk
    rows: np.ndarray
    """Numbers of its rows that are new and not in yet, int64."""


@dataclass
class Counts:
    """Counts of what has come in so far."""

    unique: int = 0
    """Samples put into the buffer."""
    forgotten: int = 0
    """Samples of simulations that failed half-way and were removed before any was drawn.

    They are counted in `unique` too. Occurs only where a slot of the buffer holds a whole simulation.
    """
    dropped: int = 0
    """Second copies of samples."""
    retried: int = 0
    """Simulations that were tried again by their worker: a system by a more robust strategy, or a program."""
    blocked_before: float = 0.0
    """Time that workers waited for room, summed over workers, up to the checkpoint that this learner went on from."""
    solver_seconds: float = 0.0
    """Time that workers were at work for, summed over workers; a checkpoint does not keep it, nor the next."""


class _Unsaid:
    """News of the solvers, kept until somebody asks for it.

    It has a separate lock, which no checkpoint holds.
    """

    def __init__(self):
        self._solves: list[SolveRecord] = []
        self._decisions: list[Decision] = []
        self._restarts: list[Restart] = []
        self._lease_ends: list[LeaseEnd] = []
        self._lock = threading.Lock()

    def add(self, item: Chunk | LeaseEnd) -> None:
        with self._lock:
            if isinstance(item, LeaseEnd):
                self._lease_ends.append(item)
            else:
                self._solves.extend(item.solves)
                self._decisions.extend(item.decisions)
                self._restarts.extend(item.restarts)

    def drain(self) -> News:
        with self._lock:
            news = News(
                solves=tuple(self._solves),
                decisions=tuple(self._decisions),
                restarts=tuple(self._restarts),
                lease_ends=tuple(self._lease_ends),
            )
            self._solves, self._decisions, self._restarts, self._lease_ends = [], [], [], []
        return news


class Ingest:
    """Takes chunks from a stream and puts their samples into the buffer.

    `start` runs its loop in a thread. A simulation is delivered when all its samples are in slots. Rows go in and ends
    are recorded under one lock, which `pause` takes and `resume` gives back: a state saved in between agrees with the
    buffer saved in between. The lock is never held while waiting for a slot, because the thread that would free one may
    be the one that wants to save.

    Args:
        stream: source of the chunks.
        buffer: where the samples go.
        layout: layout of the samples.
        rate_limiter: holds ingestion back; None never does.
        limit: number of simulations after whose end the buffer's stream has ended; None for no end.
    """

    def __init__(
        self,
        stream: Stream,
        buffer: Buffer,
        layout: Layout,
        rate_limiter: RateLimiter | None = None,
        limit: int | None = None,
    ):
        self.stream = stream
        self.buffer = buffer
        self.layout = layout
        self.rate_limiter = rate_limiter
        self.limit = limit
        self.deliveries = Deliveries()
        self.counts = Counts()
        self.times = Timesheet(*(each.name for each in fields(IntakeTimes)))
        """What the time of the thread that takes goes to, by the names in `IntakeTimes`."""
        self.moments = RunningMoments(buffer.unit.num_steps)
        """Statistics of the samples up to the one that reached the watermark, and of those put together with it."""
        self._growth = Growth(layout)  # of the same samples
        self._given_up: dict[int, str] = {}  # not recorded yet
        self._news = _Unsaid()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def waits_for_training(self) -> bool:
        """Whether samples wait until batches are drawn.

        They wait for room in the buffer, or because of the rate limiter.
        """
        return self.buffer.put_is_waiting or (self.rate_limiter is not None and not self.rate_limiter.may_ingest())

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Take from the stream until should_stop().

        Args:
            should_stop: asked before each item, and while waiting.
        """

        def training_waits_or_stop() -> bool:
            return self.buffer.draw_is_waiting or not self.buffer.reached_watermark or should_stop()

        while not should_stop():
            if self.rate_limiter is not None:
                self.times.begin("held")
                self.rate_limiter.wait_to_ingest(training_waits_or_stop)
            self.times.begin("starved")
            item = self.stream.next(STREAM_TIMEOUT_S)
            if item is not None:
                self.times.begin("taking")
                self.take(item, should_stop)
        self.times.begin(None)

    def take(self, item: Chunk | LeaseEnd, should_stop: Callable[[], bool] | None = None) -> bool:
        """Put a chunk's new samples into the buffer, and record its simulations' ends.

        Args:
            item: a chunk; of the end of a lease only the news is kept.
            should_stop: ends the wait for slots.

        Returns:
            False if should_stop() or the buffer's close came before the last row was in; then no end is recorded.
        """
        arrival = self.begin(item)
        while arrival is not None and not self.put_now(arrival, should_stop):
            with self.times.during("full"):
                if not self.buffer.wait_for_slot(should_stop):
                    return False
        return True

    def begin(self, item: Chunk | LeaseEnd) -> Arrival | None:
        """Keep the news of solvers in an item, and find the rows that are to be put.

        Args:
            item: a chunk or the end of a lease.

        Returns:
            The chunk with those rows. None for the end of a lease, and for a chunk of another design than "training": a
            validation lease that a dead worker had begun may come a second time while training goes on, and its
            simulations have the same ids.
        """
        self._news.add(item)
        if isinstance(item, LeaseEnd) or item.design != "training":
            return None
        with self._unpaused():
            self.counts.retried += item.retried
            self.counts.solver_seconds += sum(item.seconds.values())
            rows = self.deliveries.new_rows(item)
            self.counts.dropped += len(item) - len(rows)
        return Arrival(item, rows)

    def put_now(self, arrival: Arrival, should_stop: Callable[[], bool] | None = None) -> bool:
        """Put the rows that have slots now.

        Args:
            arrival: the chunk, which is left with the other rows.
            should_stop: if it returns True, nothing is put.

        Returns:
            True once all rows are in and the ends of the chunk are recorded.
        """
        with self._unpaused():
            if should_stop is not None and should_stop():  # nothing may go in after the last checkpoint
                return False
            simulations = arrival.chunk.simulations[arrival.rows]
            arrival.rows = arrival.rows[self.deliveries.goes_on(simulations)]  # some may have been given up meanwhile
            arrival.rows = arrival.rows[self._put_rows(arrival.chunk, arrival.rows) :]
            if len(arrival.rows):
                return False
            self._write_ends(arrival.chunk)
            return True

    @contextmanager
    def _unpaused(self) -> Iterator[None]:
        """The lock, whose wait is that for the end of a pause."""
        if not self._lock.acquire(blocking=False):
            with self.times.during("paused"):
                self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def _put_rows(self, chunk: Chunk, rows: np.ndarray) -> int:
        if not len(rows):
            return 0
        # Rows without a gap between them are passed as a slice, because picking them would copy them once more.
        at = slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] == len(rows) - 1 else rows
        arrays = {name: chunk.arrays[name][at] for name in self.layout.shapes}
        if not self.buffer.reached_watermark:
            # before the put, so that whoever waits for the watermark finds them complete
            self._update_moments(arrays, chunk.steps[at])
        simulations, steps = chunk.simulations[at], chunk.steps[at]
        count = self.buffer.put_now(arrays, simulations, steps, quantiles=chunk.quantiles[at])
        ending = chunk.finished if count == len(rows) else ()  # their end is recorded next
        self.deliveries.take(simulations[:count], steps[:count], ending=ending)
        self.counts.unique += count
        return count

    def _update_moments(self, arrays: Mapping[str, Rows], steps: np.ndarray) -> None:
        dense = {name: padded(rows) for name, rows in arrays.items()}
        blocks = (*self.layout.input_blocks, *self.layout.output_blocks)
        values = {block.name: dense[block.name] for block in blocks}
        weights = {block.name: self.layout.weights_of(block, dense) for block in blocks}
        self.moments.update(values, steps, weights)
        self._growth.update(dense, steps)

    def normalization(self, group: Group = ALONE) -> tuple[Normalization, list[str]]:
        """Return the normalisation by the samples up to the watermark, with remarks.

        Args:
            group: the ranks whose samples count, each of which calls this.

        Returns:
            The normalisation, and lines for people about constants, growth and too few simulations.

        Raises:
            PenstockError: no output varies.
        """
        buffer, sources = self.buffer, self.buffer.unit.sources(self.layout)
        moments = RunningMoments(buffer.unit.num_steps)
        for state in group.gather_json(self.moments.state()):
            moments.join(state)
        remarks = constants(moments, sources, buffer.layout)
        num_simulations = int(group.gather([len(buffer.simulations_in())]).sum())
        remarks += [*self._growth.remarks(), *few_simulations(num_simulations, buffer.capacity)]
        return Normalization.from_moments(moments, buffer.layout, sources), remarks

    def _write_ends(self, chunk: Chunk) -> None:
        num_delivered = self.deliveries.finish(chunk.finished)
        self._write_failures(chunk.failed)
        self._note_the_end()
        if self.rate_limiter is not None and self.buffer.reached_watermark:
            self.rate_limiter.start()
            self.rate_limiter.add_simulations(num_delivered)

    def _write_failures(self, failed: Mapping[int, str]) -> None:
        for simulation in self.deliveries.fail(failed):
            self.counts.forgotten += self.buffer.forget(simulation)

    def _note_the_end(self) -> None:
        if self.limit is not None and self.deliveries.num_ended >= self.limit:
            self.buffer.end_of_stream()

    def give_up(self, failed: Mapping[int, str]) -> None:
        """Record simulations as failed that no chunk reports.

        During a pause, which may be long, they are kept, and recorded by the first call after it. This waits for at
        most GIVE_UP_TIMEOUT_S.

        Args:
            failed: reason by simulation id; may be empty.
        """
        self._given_up |= failed
        if self._given_up and self._lock.acquire(timeout=GIVE_UP_TIMEOUT_S):
            try:
                self._write_failures(self._given_up)
                self._note_the_end()
                self._given_up = {}
            finally:
                self._lock.release()

    # For the owner

    def drain_news(self) -> News:
        """Return solves, decisions and leases that ended since the last call.

        It returns at once, even during a pause.
        """
        return self._news.drain()

    def waits(self) -> dict[str, float]:
        """Return how long workers have waited up to now, see `Waits.seconds`.

        Waits for room go on from those that the checkpoint has.
        """
        waits = self.stream.waits()
        return waits | {BLOCKED: self.counts.blocked_before + waits[BLOCKED]}

    def pause(self) -> None:
        """Let no row in and record no end until `resume`.

        Meanwhile `state` and the buffer's state agree.
        """
        self._lock.acquire()

    def resume(self) -> None:
        """End a pause.

        Any thread may call it; the one that has written the buffer to the disk does.
        """
        self._lock.release()

    def state(self, *, with_buffer: bool = True) -> dict[str, Any]:
        """Return the account for a checkpoint, as JSON; to be called during a pause.

        Args:
            with_buffer: whether the buffer is saved too; if not, the simulations in it count as never delivered, so
                that a resumed run solves them again.

        Returns:
            The account, with counts, statistics and the rate limiter's state.
        """
        num_unique, moments, undelivered = self.counts.unique, self.moments, None
        if not with_buffer:
            num_unique, moments = num_unique - len(self.buffer), RunningMoments()
            undelivered = self.buffer.simulations_in().tolist()
        return {
            **self.deliveries.state(undelivered),
            "num_unique": num_unique,
            "num_forgotten": self.counts.forgotten,
            "num_dropped": self.counts.dropped,
            "num_retried": self.counts.retried,
            "solver_blocked_seconds": self.waits()[BLOCKED],
            "moments": moments.state(),
            "rate_limiter": self.rate_limiter.state() if self.rate_limiter is not None else None,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state()`; to be called before `start`.

        Args:
            state: the state. That of the buffer is restored separately.
        """
        self.deliveries = Deliveries.of_state(state)
        self.counts = Counts(
            unique=state["num_unique"],
            forgotten=state["num_forgotten"],
            dropped=state["num_dropped"],
            retried=state["num_retried"],
            blocked_before=state["solver_blocked_seconds"],
        )
        self.moments.load_state(state["moments"])
        if self.rate_limiter is not None and state["rate_limiter"] is not None:
            self.rate_limiter.load_state(state["rate_limiter"])
        self._note_the_end()

    # The thread

    def start(self, should_stop: Callable[[], bool]) -> None:
        """Run the loop in a thread.

        An exception ends it, closes the buffer, and is raised by `join`.

        Args:
            should_stop: ends the thread.
        """
        self._thread = threading.Thread(target=self._run_and_keep_error, args=[should_stop], name="ingest", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the thread's end.

        Args:
            timeout_s: how long to wait, in seconds; None for as long as it takes.

        Returns:
            False if the thread has not ended in time.

        Raises:
            Exception: what ended the thread.
        """
        self._thread.join(timeout_s)
        if self._error is not None:
            raise self._error
        return not self._thread.is_alive()

    def _run_and_keep_error(self, should_stop: Callable[[], bool]) -> None:
        try:
            self.run(should_stop)
        except BaseException as error:  # kept for `join`: the trainer must not wait for samples that won't come
            self._error = error
            self.buffer.close()
