"""A discrete-event model of the stream: workers, receivers of the ranks, and the driver."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from math import ceil, inf

import numpy as np

from benchmarks.scale.fleet import rows_per_chunk
from penstock.messages import CHUNKS_UNDER_WAY
from penstock.orchestrator.run.workers import LEASES_AHEAD

TICK_S = 1.0  # of the driver
BACK = 0.98  # of the rate before a loss, over `OVER_S`, counts as all of it
OVER_S = 4


@dataclass(frozen=True)
class Cost:
    """Seconds, linear in what a message holds."""

    chunk: float = 0.0
    sample: float = 0.0
    megabyte: float = 0.0

    def of(self, num_rows: int, num_bytes: float) -> float:
        """Seconds of one chunk."""
        return self.chunk + self.sample * num_rows + self.megabyte * num_bytes / 1e6


@dataclass(frozen=True)
class DriverCost:
    """Seconds of the driver's bookkeeping."""

    tick: float = 0.0
    worker: float = 0.0
    """Per tick and worker."""
    sample: float = 0.0
    lease: float = 0.0


@dataclass(frozen=True)
class Metadata:
    """Bytes beside the samples."""

    chunk: float = 0.0
    sample: float = 0.0
    """Of a chunk's header, per sample."""
    lease: float = 0.0
    simulation: float = 0.0
    """Of a lease, per simulation."""


@dataclass(frozen=True, kw_only=True)
class Constants:
    """What a calibration measures."""

    worker: Cost = Cost()
    """Time of a worker beside the pause."""
    take: Cost = Cost()
    """Time of the thread that takes."""
    carry: Cost = Cost()
    """Time of ZeroMQ's thread beside it."""
    driver: DriverCost = DriverCost()
    metadata: Metadata = Metadata()
    start_s: float = 0.0
    """Time until a process that was asked for is ready."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A run to be simulated."""

    num_workers: int
    num_ranks: int = 1
    sample_bytes: int
    pause_s: float
    """Seconds of a simulation, of one sample."""
    window: int = 64
    limit: int | None = None
    """Simulations in all; None for no end."""
    warm_up_s: float = 5.0
    seconds: float = 5.0
    """Time that counts, before any loss."""
    lost_share: float = 0.0
    """Share of the workers that die after it, all at once."""
    notice_s: float = 0.0
    """Time until the driver hears of it."""
    after_s: float = 0.0
    """Time that is simulated after it."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a simulation gives."""

    rate: float
    """Unique samples per second."""
    take_load: float
    """Cores of the busiest rank's thread that takes."""
    carry_load: float
    """Cores of its ZeroMQ thread."""
    driver_load: float
    rank_messages: float
    """Per second at the busiest rank, both ways."""
    driver_messages: float
    """Leases and statuses per second."""
    metadata_bytes: float
    """Largest size of open leases and of headers under way."""
    bytes_under_way: float
    """Largest size of samples sent and not taken."""
    back_after_s: float
    """From the loss until the rate is back; infinite if it is not."""
    delivered: list[tuple[int, int]]
    """First simulation and number of each chunk taken."""
    returned: int
    """Simulations of dead workers that were given out again."""


@dataclass(eq=False)
class _Lease:
    first: int
    size: int
    sent: int = 0


@dataclass(eq=False)
class _Worker:
    rank: _Rank
    delay_s: float
    """Before its first chunk: workers don't send in step."""
    window: int
    """Simulations of its first lease: nor do their leases end at the same time."""
    is_alive: bool = True
    leases: deque[_Lease] = field(default_factory=deque)
    """The driver's view: open until their end was heard."""
    making: _Lease | None = None
    under_way: int = 0
    waiting: Callable[[], None] | None = None
    """Sends the chunk for which the ring had no place."""
    ended: int = 0


@dataclass(eq=False)
class _Rank:
    carries_until: float = 0.0
    takes_until: float = 0.0
    carry_s: float = 0.0
    take_s: float = 0.0
    messages: int = 0


class Simulation:
    """One run of the model.

    Args:
        scenario: what is run.
        constants: what it costs.
    """

    def __init__(self, scenario: Scenario, constants: Constants):
        self._scenario = scenario
        self._constants = constants
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._rng = np.random.default_rng(0)
        seconds_per_sample = scenario.pause_s + constants.worker.of(1, scenario.sample_bytes) - constants.worker.chunk
        self._rows = rows_per_chunk(scenario.sample_bytes, seconds_per_sample)
        self._ranks = [_Rank() for _ in range(scenario.num_ranks)]
        self._ready = [self._worker(number) for number in range(scenario.num_workers)]
        self._lost: list[int] = []  # places of dead workers that are not replaced yet
        self._next = 0
        self._returns: deque[tuple[int, int]] = deque()
        self._ticked = self._num_taken = self._num_returned = self._driver_messages = 0
        self._driver_s = 0.0
        self._metadata = self._bytes = self._most_metadata = self._most_bytes = 0.0
        self._delivered: list[tuple[int, int]] = []
        self._taken_in: list[int] = []  # samples by second

    def run(self) -> Outcome:
        """Simulate the scenario."""
        scenario = self._scenario
        marks: list[tuple] = []
        lost_at = scenario.warm_up_s + scenario.seconds
        end = lost_at + scenario.after_s
        self._at(0.0, self._tick)
        self._at(scenario.warm_up_s, lambda: marks.append(self._mark()))
        self._at(lost_at, lambda: marks.append(self._mark()))
        self._at(lost_at, self._lose)
        while self._events and self._events[0][0] <= end:
            self._now, _, do = heapq.heappop(self._events)
            do()
        before, after = (np.array(mark[:3]) for mark in marks)
        num, driver_s, driver_messages = (after - before) / scenario.seconds
        busiest = max(range(scenario.num_ranks), key=lambda rank: marks[1][3][rank][0] - marks[0][3][rank][0])
        ranks = (np.array(marks[1][3][busiest]) - marks[0][3][busiest]) / scenario.seconds
        return Outcome(
            rate=float(num),
            take_load=min(1.0, float(ranks[0])),
            carry_load=min(1.0, float(ranks[1])),
            driver_load=min(1.0, float(driver_s)),
            rank_messages=float(ranks[2]),
            driver_messages=float(driver_messages),
            metadata_bytes=self._most_metadata,
            bytes_under_way=self._most_bytes,
            back_after_s=self._back_after(num, lost_at),
            delivered=self._delivered,
            returned=self._num_returned,
        )

    def _mark(self) -> tuple:
        """The counts so far; maxima start again from here."""
        self._most_metadata, self._most_bytes = max(self._metadata, 0.0), max(self._bytes, 0.0)
        ranks = [(rank.take_s, rank.carry_s, rank.messages) for rank in self._ranks]
        return self._num_taken, self._driver_s, self._driver_messages, ranks

    def _back_after(self, rate: float, lost_at: float) -> float:
        """Seconds from the loss until the rate is back."""
        taken = self._taken_in[ceil(lost_at) :]
        for second in range(len(taken) - OVER_S):
            if sum(taken[second : second + OVER_S]) >= BACK * OVER_S * rate:
                return float(second)
        return inf

    def _at(self, time: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), do))

    def _worker(self, place: int) -> _Worker:
        delay_s = self._rows * self._scenario.pause_s * self._rng.random()
        window = int(self._rng.integers(1, self._scenario.window + 1))
        return _Worker(self._ranks[place % len(self._ranks)], delay_s, window)

    # A worker

    def _make(self, worker: _Worker) -> None:
        """Begin the next chunk, if there is a lease."""
        worker.making = next((lease for lease in worker.leases if lease.sent < lease.size), None)
        if worker.making is None or not worker.is_alive:
            return
        lease, rows = worker.making, min(self._rows, worker.making.size - worker.making.sent)
        seconds = rows * self._scenario.pause_s + self._constants.worker.of(rows, rows * self._scenario.sample_bytes)
        delay, worker.delay_s = worker.delay_s, 0.0
        self._at(self._now + delay + seconds, lambda: self._made(worker, lease, rows))

    def _made(self, worker: _Worker, lease: _Lease, rows: int) -> None:
        if not worker.is_alive:
            return
        if worker.under_way == CHUNKS_UNDER_WAY:
            worker.waiting = lambda: self._send(worker, lease, rows)
        else:
            self._send(worker, lease, rows)

    def _send(self, worker: _Worker, lease: _Lease, rows: int) -> None:
        rank, constants, num_bytes = worker.rank, self._constants, rows * self._scenario.sample_bytes
        first = lease.first + lease.sent
        lease.sent += rows
        worker.under_way += 1
        self._note(1, rows)
        carry, take = constants.carry.of(rows, num_bytes), constants.take.of(rows, num_bytes)
        rank.carries_until = max(self._now, rank.carries_until) + carry
        rank.takes_until = max(rank.carries_until, rank.takes_until) + take
        rank.carry_s += carry
        rank.take_s += take
        rank.messages += 2 + (lease.sent == lease.size)  # the chunk, the word that it was taken, the lease's end
        self._at(rank.takes_until, lambda: self._taken(worker, lease, first, rows))
        self._make(worker)

    def _taken(self, worker: _Worker, lease: _Lease, first: int, rows: int) -> None:
        self._note(-1, rows)
        self._delivered.append((first, rows))
        self._num_taken += rows
        self._taken_in.extend([0] * (int(self._now) + 1 - len(self._taken_in)))
        self._taken_in[int(self._now)] += rows
        worker.under_way -= 1
        if first + rows == lease.first + lease.size:
            worker.ended += 1
            worker.leases.remove(lease)
            self._open(-1, lease.size)
        if worker.waiting is not None and worker.is_alive:
            send, worker.waiting = worker.waiting, None
            send()

    def _note(self, sign: int, rows: int) -> None:
        """Count a chunk that is sent or taken."""
        metadata = self._constants.metadata
        self._bytes += sign * rows * self._scenario.sample_bytes
        self._metadata += sign * (metadata.chunk + rows * metadata.sample)
        self._most_bytes = max(self._most_bytes, self._bytes)
        self._most_metadata = max(self._most_metadata, self._metadata)

    def _open(self, sign: int, size: int) -> None:
        """Count a lease that is opened or closed."""
        metadata = self._constants.metadata
        self._metadata += sign * (metadata.lease + size * metadata.simulation)
        self._most_metadata = max(self._most_metadata, self._metadata)

    # The driver

    def _tick(self) -> None:
        self._replace()
        given = self._lease_ahead()
        cost = self._constants.driver
        new, self._ticked = self._num_taken - self._ticked, self._num_taken
        seconds = cost.tick + cost.worker * len(self._ready) + cost.sample * new + cost.lease * len(given)
        self._driver_s += seconds
        self._driver_messages += 2 * len(self._ranks) + len(given)
        for worker, lease in given:
            worker.rank.messages += 1
            self._at(self._now + seconds, lambda worker=worker, lease=lease: self._hear(worker, lease))
        self._at(self._now + max(TICK_S, seconds), self._tick)

    def _hear(self, worker: _Worker, lease: _Lease) -> None:
        worker.leases.append(lease)
        if worker.making is None:
            self._make(worker)

    def _lease_ahead(self) -> list[tuple[_Worker, _Lease]]:
        """The rule of `WorkerPool.lease_ahead`."""
        given: list[tuple[_Worker, _Lease]] = []
        ready = [worker for worker in self._ready if worker.is_alive]
        wanted = [LEASES_AHEAD + worker.ended * (1 if worker.leases else 2) - len(worker.leases) for worker in ready]
        for worker in ready:
            worker.ended = 0
        for turn in range(max(wanted, default=0)):
            for worker, number in zip(ready, wanted, strict=True):
                if turn < number and (lease := self._lease(worker.window, len(ready))) is not None:
                    worker.window = self._scenario.window
                    given.append((worker, lease))
        return given

    def _lease(self, size: int, num_ready: int) -> _Lease | None:
        """The next ids, at most `size` of them; None where all have been given out."""
        if self._scenario.limit is not None:
            left = self._scenario.limit - self._next + sum(number for _, number in self._returns)
            size = min(size, ceil(left / num_ready))
        if self._returns and size:
            first, number = self._returns.popleft()
            if number > size:
                self._returns.appendleft((first + size, number - size))
            size = min(size, number)
        else:
            first = self._next
            if self._scenario.limit is not None:
                size = min(size, self._scenario.limit - first)
            self._next += size
        if not size:
            return None
        self._open(1, size)
        return _Lease(first, size)

    def _lose(self) -> None:
        """Let workers die; what they have sent is still taken."""
        num = int(self._scenario.lost_share * self._scenario.num_workers)
        self._lost = list(range(num))
        for place in self._lost:
            self._ready[place].is_alive = False
        self._lost_at = self._now

    def _replace(self) -> None:
        """Give back the leases of dead workers whose streams have ended, and start others."""
        if not self._lost or self._now < self._lost_at + self._scenario.notice_s:
            return
        waiting = []
        for place in self._lost:
            worker = self._ready[place]
            if worker.under_way:
                waiting.append(place)
                continue
            for lease in worker.leases:
                self._open(-1, lease.size)
                if left := lease.size - lease.sent:
                    self._returns.append((lease.first + lease.sent, left))
                    self._num_returned += left
            worker.leases.clear()
            self._at(self._now + self._constants.start_s, lambda place=place: self._begin(place))
        self._lost = waiting

    def _begin(self, place: int) -> None:
        """A new worker is ready, and has its first leases at the next tick."""
        self._ready[place] = self._worker(place)
