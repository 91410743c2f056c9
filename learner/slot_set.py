"""Sets of slots that are added to, removed from and drawn from without a look at all the others."""

from __future__ import annotations

import numpy as np


class SlotSet:
    """Some of the slots 0 to len(places) - 1, in a dense array; what is removed from its middle is filled from its end.

    All operations take a time that grows with the slots concerned, not with those in the set.

    places: int64, where each slot stands in the set that it is in. Several sets share it when no slot is in two.
    """

    def __init__(self, places: np.ndarray):
        self._places = places
        self._slots = np.empty(len(places), np.int64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def slots(self) -> np.ndarray:
        """int64: a view of what is in now, in an order that depends on the past alone."""
        return self._slots[: self._count]

    def add(self, slots: np.ndarray) -> None:
        end = self._count + len(slots)
        self._slots[self._count : end] = slots
        self._places[slots] = np.arange(self._count, end)
        self._count = end

    def remove(self, slots: np.ndarray) -> None:
        rest = self._count - len(slots)
        places = self._places[slots]
        self._places[slots] = -1
        tail = self._slots[rest : self._count]
        staying = tail[self._places[tail] >= 0]
        holes = places[places < rest]
        self._slots[holes] = staying
        self._places[staying] = holes
        self._count = rest

    def clear(self) -> None:
        self._count = 0
