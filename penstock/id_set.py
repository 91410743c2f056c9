"""A compact set of simulation ids."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

import numpy as np

FEW = 8  # intervals that are walked through in the time of one search


class IdSet:
    """A set of simulation ids, kept as sorted intervals.

    Simulations end nearly in order, so a million ids take a few intervals.
    """

    def __init__(self):
        self._starts: list[int] = []
        self._ends: list[int] = []  # exclusive
        self._count = 0

    @classmethod
    def from_intervals(cls, intervals: Iterable[tuple[int, int]]) -> IdSet:
        """The set that `to_intervals` has written."""
        ids = cls()
        for start, end in intervals:
            ids._starts.append(start)
            ids._ends.append(end)
            ids._count += end - start
        return ids

    def to_intervals(self) -> list[list[int]]:
        """The intervals [[start, end], ...] for JSON, with exclusive ends."""
        return [[start, end] for start, end in zip(self._starts, self._ends, strict=True)]

    def add(self, simulation: int) -> None:
        """Add an id."""
        if simulation not in self:
            self._add_run(simulation, simulation + 1)

    def _add_run(self, start: int, end: int) -> None:
        """Add ids of which the set holds none."""
        after = bisect_right(self._starts, start)
        extends_left = after > 0 and self._ends[after - 1] == start
        extends_right = after < len(self._starts) and self._starts[after] == end
        if extends_left and extends_right:
            self._ends[after - 1] = self._ends.pop(after)
            self._starts.pop(after)
        elif extends_left:
            self._ends[after - 1] = end
        elif extends_right:
            self._starts[after] = start
        else:
            self._starts.insert(after, start)
            self._ends.insert(after, end)
        self._count += end - start

    def update(self, simulations: np.ndarray) -> None:
        """Add many ids at once, at a cost that hardly grows with their number."""
        new = np.unique(simulations[~self.contains(simulations)])
        if not len(new):
            return
        gaps = np.flatnonzero(np.diff(new) > 1)
        starts = np.concatenate([new[:1], new[gaps + 1]])
        ends = np.concatenate([new[gaps], new[-1:]]) + 1
        if self._are_few(starts):
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                self._add_run(start, end)
            return
        starts = np.sort(np.concatenate([self._starts, starts]).astype(np.int64))
        ends = np.sort(np.concatenate([self._ends, ends]).astype(np.int64))
        touching = ends[:-1] == starts[1:]
        self._starts = starts[np.append(True, ~touching)].tolist()
        self._ends = ends[np.append(~touching, True)].tolist()
        self._count += len(new)

    def __contains__(self, simulation: int) -> bool:
        before = bisect_right(self._starts, simulation) - 1
        return before >= 0 and simulation < self._ends[before]

    def contains(self, simulations: np.ndarray) -> np.ndarray:
        """Membership of many ids: bool, in the shape of `simulations`."""
        if self._are_few(simulations):
            return np.fromiter((i in self for i in simulations.tolist()), bool, len(simulations))
        before = np.searchsorted(np.array(self._starts, np.int64), simulations, side="right")
        return simulations < np.array([-1, *self._ends], np.int64)[before]  # -1 where no interval starts before

    def _are_few(self, simulations: np.ndarray) -> bool:
        """Whether a search for each is cheaper than a walk through all intervals."""
        return FEW * len(simulations) < len(self._starts)

    def __len__(self) -> int:
        return self._count

    @property
    def end(self) -> int:
        """One more than the largest id; 0 for an empty set."""
        return self._ends[-1] if self._ends else 0

    def missing(self, end: int) -> Iterator[int]:
        """The ids below `end` that the set does not hold, in order."""
        first = 0
        for start, stop in zip([*self._starts, end], [*self._ends, end], strict=True):
            yield from range(first, min(start, end))
            first = stop

    def discard(self, simulation: int) -> None:
        """Remove an id if the set holds it."""
        if simulation not in self:
            return
        at = bisect_right(self._starts, simulation) - 1
        start, end = self._starts[at], self._ends[at]
        parts = [(a, b) for a, b in ((start, simulation), (simulation + 1, end)) if a < b]
        self._starts[at : at + 1] = [a for a, _ in parts]
        self._ends[at : at + 1] = [b for _, b in parts]
        self._count -= 1
