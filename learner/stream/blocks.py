"""How a run whose order repeats is cut: blocks of simulations on lanes. The one arithmetic of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Block b are the ids from b size to (b + 1) size - 1, or to the limit, and belongs to lane b mod num_lanes.

    So the leases of a lane are always the same, whatever dies and whatever was delivered of a block in progress.
    """

    size: int
    num_lanes: int
    limit: int | None = None
    """Ids are below it; None for no end."""

    def ids(self, block: int) -> range:
        """Empty beyond the limit."""
        start, stop = block * self.size, (block + 1) * self.size
        return range(start, stop) if self.limit is None else range(min(start, self.limit), min(stop, self.limit))

    def block_of(self, simulation: int) -> int:
        return simulation // self.size

    def first_of(self, lane: int, at_least: int = 0) -> int:
        """The lane's first block from that one on."""
        return at_least + (lane - at_least) % self.num_lanes

    def is_of(self, block: int, lane: int) -> bool:
        return block % self.num_lanes == lane
