"""The stream in an order that repeats: chunks of the lanes in turn."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from penstock.learner.stream.blocks import Blocks
from penstock.learner.stream.stream import Stream
from penstock.messages import Chunk, LeaseEnd

LEASE_END_TIMEOUT_S = 1.0  # for what follows a block's last chunk at once


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

    A lane is the place of a worker; it has no turn once its blocks have all ended. A block that is solved again, after
    the death of its worker or of the whole run, gives chunks again that were taken before: they come out as they come
    in but take no turn, for the ingest has all their samples and drops them.

    next(timeout_s)     the next item of the lane whose turn it is; None when timeout_s passed without one
    acknowledge()       the training chunk that came last was taken: the turn moves on
    state()             where the lanes stand; to be saved with an ingest that has taken just what was acknowledged
    """

    def __init__(self, stream: Stream, blocks: Blocks):
        self._stream = stream
        self._blocks = blocks
        self._turn = 0
        self._lanes = [Lane(blocks.first_of(lane)) for lane in range(blocks.num_lanes)]
        self._num_come = [0] * blocks.num_lanes  # training chunks of the lease at work
        self._last: Chunk | None = None  # training chunk that came
        self._lease_ends: deque[LeaseEnd] = deque()

    @property
    def has_ended(self) -> bool:
        """Every simulation below the limit was finished or failed."""
        return not any(self._blocks.ids(lane.block) for lane in self._lanes)

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
        if lane.num_ended == len(self._blocks.ids(lane.block)):
            self._lanes[self._turn] = Lane(self._blocks.first_of(self._turn, lane.block + 1))
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
            if self._blocks.ids(self._lanes[turn].block):
                return turn

    # Checkpoints

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return {"turn": self._turn, "lanes": [asdict(lane) for lane in self._lanes]}

    def load_state(self, state: dict[str, Any]) -> None:
        self._turn = state["turn"]
        self._lanes = [Lane(**lane) for lane in state["lanes"]]
