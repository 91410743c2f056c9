"""How a deterministic run is cut: into blocks of simulations, on lanes.

The ledger and the learner both go by this arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """The blocks of a run, which are leased whole, and their lanes.

    Block b has the ids from b size to (b + 1) size - 1, or up to the limit, and belongs to lane b mod num_lanes. So the
    leases of a lane are always the same, whichever workers die and whatever was delivered of a block in progress.
    """

    size: int
    """Simulations per block."""
    num_lanes: int
    """Number of lanes, one for each solver worker."""
    limit: int | None = None
    """Ids are below it; None for no end."""

    def ids(self, block: int) -> range:
        """Return the ids of a block; none beyond the limit."""
        start, stop = block * self.size, (block + 1) * self.size
        return range(start, stop) if self.limit is None else range(min(start, self.limit), min(stop, self.limit))

    def block_of(self, simulation: int) -> int:
        """Return the block that a simulation belongs to."""
        return simulation // self.size

    def first_of(self, lane: int, at_least: int = 0) -> int:
        """Return a lane's first block whose number is at least `at_least`."""
        return at_least + (lane - at_least) % self.num_lanes

    def is_of(self, block: int, lane: int) -> bool:
        """Return whether a block belongs to a lane."""
        return block % self.num_lanes == lane
