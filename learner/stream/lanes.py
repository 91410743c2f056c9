"""The stream of a deterministic run: chunks of the lanes in turn."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from penstock.learner.stream.blocks import Blocks
from penstock.learner.stream.stream import Stream
from penstock.messages import Chunk, LeaseEnd

LEASE_END_TIMEOUT_S = 1.0  # it follows a block's last chunk at once


@dataclass
class Lane:
    """Where a lane stands."""

    block: int
    """The block in progress: the first that has not ended."""
    num_taken: int = 0
    """Number of the block's chunks that were taken."""
    num_ended: int = 0
    """Number of the block's simulations that finished or failed in these chunks."""


class Lanes:
    """The stream's training chunks in an order that depends on counts alone.

    It takes one chunk of each lane in turn, however long that takes. A lane is the place of a worker; it has no turn
    once its blocks have all ended. If a block is solved again, after the death of its worker or of the whole run,
    chunks come again that were taken before. They are passed on but take no turn, because the ingest has all their
    samples and drops them.

    Args:
        stream: where the chunks come from.
        blocks: the blocks of the run.
    """

    def __init__(self, stream: Stream, blocks: Blocks):
        self._stream = stream
        self._blocks = blocks
        self._turn = 0
        self._lanes = [Lane(blocks.first_of(lane)) for lane in range(blocks.num_lanes)]
        self._num_come = [0] * blocks.num_lanes  # training chunks of each lane's current lease
        self._last: Chunk | None = None  # the training chunk that was passed on last
        self._lease_ends: deque[LeaseEnd] = deque()

    @property
    def has_ended(self) -> bool:
        """Whether every simulation below the limit has finished or failed."""
        return not any(self._blocks.ids(lane.block) for lane in self._lanes)

    def next(self, timeout_s: float) -> Chunk | LeaseEnd | None:
        """Return the next item of the lane whose turn it is.

        Args:
            timeout_s: how long to wait, in seconds.

        Returns:
            A chunk or the end of a lease; None if nothing came in time.
        """
        if self._lease_ends:
            return self._lease_ends.popleft()
        item = self._stream.next(timeout_s, self._turn)
        if isinstance(item, LeaseEnd):
            self._num_come[self._turn] = 0
        elif item is not None and item.design == "training":
            self._num_come[self._turn] += 1
            self._last = item
        return item

    def waits(self) -> dict[str, float]:
        """Return how long workers have waited, up to now."""
        return self._stream.waits()

    def acknowledge(self) -> None:
        """Record that the last training chunk was taken.

        The turn moves on, unless the chunk had been taken before.
        """
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
        """Take the end of a lease as soon as it comes.

        Only then does the worker begin its next block.
        """
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
        """Return where the lanes stand, as JSON.

        To be saved with an ingest that has taken exactly what was acknowledged.
        """
        return {"turn": self._turn, "lanes": [asdict(lane) for lane in self._lanes]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state()`."""
        self._turn = state["turn"]
        self._lanes = [Lane(**lane) for lane in state["lanes"]]
