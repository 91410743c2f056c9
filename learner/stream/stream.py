"""The stream from solver workers to the learner, and its form inside one process.

Taking the next item acknowledges the chunk before, whose arrays may be overwritten from then on. A worker runs some
chunks ahead, then waits. The form between processes, with the same methods, is `Receiver`
(penstock/transport/receiver.py).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from penstock.messages import BLOCKED, UNLEASED, Chunk, Lease, LeaseEnd
from penstock.transport.waits import Waits

CHUNKS_AHEAD = 2


class Stream(Protocol):
    """Where chunks come from."""

    def next(self, timeout_s: float, lane: int | None = None) -> Chunk | LeaseEnd | None:
        """Return the next item of any worker, or of the worker on a lane.

        Only one thread may call it.

        Args:
            timeout_s: how long to wait, in seconds.
            lane: the lane; None for any worker.

        Returns:
            A chunk, or the end of a lease; None if nothing came in time.

        Raises:
            Exception: what the worker's code raised outside of simulations.
        """

    def waits(self) -> dict[str, float]:
        """Return how long workers have waited, up to now, see `Waits.seconds`.

        Any thread may call it.
        """


class Worker(Protocol):
    """What solves leases: `solvers.worker.SolverWorker`."""

    def stream(self, lease: Lease) -> Iterator[Chunk]:
        """Solve a lease, and yield its samples in chunks."""


@dataclass
class _Lane:
    """One worker's leases, and its items that were not taken yet."""

    leases: deque[tuple[Lease, Worker]] = field(default_factory=deque)
    items: deque[Chunk | LeaseEnd] = field(default_factory=deque)


class InProcessStream:
    """The stream from workers in threads of this process, without Ray.

    It serves notebooks, tests and benches. Each lane that has leases has a thread; only one of them solves at a time,
    because PETSc is not made for threads.
    """

    def __init__(self):
        self._lanes: dict[int, _Lane] = {}
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._solving = threading.Lock()
        self._waits = Waits()
        self._is_closed = False
        self._error: BaseException | None = None

    endpoint = None
    """No process has to connect."""

    def submit(self, lease: Lease, worker: Worker) -> None:
        """Queue a lease at a worker; returns at once.

        Args:
            lease: the lease. Those of one lane are solved one after the other.
            worker: what solves it.
        """
        with self._changed:
            if lease.lane not in self._lanes:
                self._lanes[lease.lane] = lane = _Lane()
                thread = threading.Thread(target=self._work, args=[lane], name=f"solver-{lease.lane}", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._lanes[lease.lane].leases.append((lease, worker))
            self._changed.notify_all()

    def next(self, timeout_s: float, lane: int | None = None) -> Chunk | LeaseEnd | None:
        """Return the next item of any lane, or of one lane.

        Lanes take turns, so that a fast one does not hold up the others.

        Args:
            timeout_s: how long to wait, in seconds.
            lane: the lane; None for any.

        Returns:
            A chunk, or the end of a lease; None if nothing came in time.

        Raises:
            Exception: what a worker raised, once no item is left.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or self._filled(lane) is not None, timeout_s)
            if (number := self._filled(lane)) is None:
                if self._error is not None:
                    raise self._error
                return None
            filled = self._lanes.pop(number)
            self._lanes[number] = filled  # to the end of the line
            self._changed.notify_all()
            return filled.items.popleft()

    def waits(self) -> dict[str, float]:
        """Return how long workers have waited, up to now, see `Waits.seconds`."""
        with self._changed:
            return self._waits.seconds(time.monotonic())

    def silences(self) -> dict[int, float]:
        """Return nothing: a worker in this process is not watched."""
        return {}

    def close(self) -> None:
        """Solve no more; workers in the middle of a lease leave it.

        It waits for their current chunks.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _filled(self, lane: int | None) -> int | None:
        """A lane that has items, or the given lane if it has some."""
        numbers = self._lanes if lane is None else {lane} & self._lanes.keys()
        return next((number for number in numbers if self._lanes[number].items), None)

    def _work(self, lane: _Lane) -> None:
        try:
            while (task := self._wait_for_lease(lane)) is not None:
                lease, worker = task
                chunks = worker.stream(lease)
                while (chunk := self._solve(chunks)) is not None:
                    if not self._put(lane, chunk):
                        return
                self._put(lane, LeaseEnd(lease.number))
        except BaseException as error:  # kept for `next`: its caller must not wait for ever
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _wait_for_lease(self, lane: _Lane) -> tuple[Lease, Worker] | None:
        with self._changed:
            self._wait(lane, UNLEASED, lambda: bool(lane.leases))
            return None if self._is_closed else lane.leases.popleft()

    def _solve(self, chunks: Iterator[Chunk]) -> Chunk | None:
        with self._solving:
            return next(chunks, None)

    def _put(self, lane: _Lane, item: Chunk | LeaseEnd) -> bool:
        """Wait for room and put an item in; False if the stream was closed."""
        with self._changed:
            self._wait(lane, BLOCKED, lambda: len(lane.items) < CHUNKS_AHEAD)
            lane.items.append(item)
            self._changed.notify_all()
            return not self._is_closed

    def _wait(self, lane: _Lane, what: str, is_over: Callable[[], bool]) -> None:
        """Wait for what a worker needs, or for the stream's close."""
        self._waits.begin(id(lane), what, time.monotonic())
        self._changed.wait_for(lambda: is_over() or self._is_closed)
        self._waits.end(id(lane), time.monotonic())
