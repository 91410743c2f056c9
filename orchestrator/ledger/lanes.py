"""The order of the stream in a deterministic run."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Protocol

from penstock.sample import Chunk, LeaseEnd

LEASE_END_TIMEOUT_S = 1.0  # for what follows a block's last chunk at once


class LaneStream(Protocol):
    """A stream that can be asked for the items of one lane alone."""

    def next(self, timeout_s: float, lane: int | None = None) -> Chunk | LeaseEnd | None: ...


@dataclass
class Lane:
    """Where a lane stands."""

    block: int
    """The block in progress, the first that has not ended."""
    num_taken: int = 0
    """Its chunks that were taken."""
    num_ended: int = 0
    """Its simulations that were finished or failed in them."""


class Lanes:
    """Training chunks in an order that depends on counts alone: one of each lane in turn, however long it takes.

    A lane is the place of a worker. Blocks, and which of them are a lane's, are those of `Ledger.lease_block`. A lane
    whose blocks have all ended has no turn. A block that is solved again, after the death of its worker or of the whole
    run, gives chunks again that were taken before: they come out as they come in but take no turn, for the ingest has
    all their samples and drops them.

    next(timeout_s)     the next item of the lane whose turn it is; None when timeout_s passed without one
    acknowledge()       the training chunk that came last was taken: the turn moves on
    state()             where the lanes stand; to be saved with an ingest that has taken just what was acknowledged

    window: simulations of a block. limit: of the run, None for no end.
    """

    def __init__(self, stream: LaneStream, *, num_lanes: int, window: int, limit: int | None):
        self._stream = stream
        self._window = window
        self._limit = limit
        self._turn = 0
        self._lanes = [Lane(block) for block in range(num_lanes)]
        self._num_come = [0] * num_lanes  # training chunks of the lease at work
        self._last: Chunk | None = None  # training chunk that came
        self._lease_ends: deque[LeaseEnd] = deque()

    @property
    def has_ended(self) -> bool:
        """Every simulation below the limit was finished or failed."""
        return all(self._size(lane.block) == 0 for lane in self._lanes)

    def next(self, timeout_s: float) -> Chunk | LeaseEnd | None:
        if self._lease_ends:
            return self._lease_ends.popleft()
        item = self._stream.next(timeout_s, self._turn)
        if isinstance(item, LeaseEnd):
            self._num_come[self._turn] = 0
        elif item is not None and item.design == "training":
            self._num_come[self._turn] += 1
            self._last = item
        return item

    def acknowledge(self) -> None:
        lane = self._lanes[self._turn]
        if self._num_come[self._turn] <= lane.num_taken:
            return
        lane.num_taken += 1
        lane.num_ended += len(self._last.finished) + len(self._last.failed)
        if lane.num_ended == self._size(lane.block):
            self._lanes[self._turn] = Lane(lane.block + len(self._lanes))
            self._end_lease()
        if not self.has_ended:
            self._turn = self._next_turn()

    def _end_lease(self) -> None:
        """Take the end of a lease as soon as it can come, for with it the worker begins its next block."""
        end = self._stream.next(LEASE_END_TIMEOUT_S, self._turn)
        if end is not None:
            self._num_come[self._turn] = 0
            self._lease_ends.append(end)

    def _next_turn(self) -> int:
        turn = self._turn
        while True:
            turn = (turn + 1) % len(self._lanes)
            if self._size(self._lanes[turn].block):
                return turn

    def _size(self, block: int) -> int:
        """Simulations of a block; 0 beyond the limit."""
        if self._limit is None:
            return self._window
        return max(0, min(self._window, self._limit - block * self._window))

    # Checkpoints

    def state(self) -> dict:
        """As JSON."""
        return {"turn": self._turn, "lanes": [asdict(lane) for lane in self._lanes]}

    def load_state(self, state: dict) -> None:
        self._turn = state["turn"]
        self._lanes = [Lane(**lane) for lane in state["lanes"]]
