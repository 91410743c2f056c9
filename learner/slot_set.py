"""The slots in one state: added to and taken from without a look at all the others."""

from __future__ import annotations

from collections import deque

import numpy as np


class SlotSet:
    """Some of the slots 0 to num_slots - 1, in a dense array; what is taken from its middle is filled from its end.

    All operations take a time that grows with the slots concerned, not with those in the set.
    """

    def __init__(self, num_slots: int):
        self._slots = np.empty(num_slots, np.int64)
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
        self._count = end

    put_back = add

    def take(self, places: np.ndarray) -> np.ndarray:
        """Removes and returns what stands at these places of `slots`, which must be distinct."""
        rest = self._count - len(places)
        taken = self._slots[places]
        self._slots[places] = -1
        tail = self._slots[rest : self._count]
        self._slots[places[places < rest]] = tail[tail >= 0]
        self._count = rest
        return taken

    def take_last(self, count: int) -> np.ndarray:
        """Removes and returns the `count` that were added last, or all there are if fewer."""
        rest = max(0, self._count - count)
        taken = self._slots[rest : self._count].copy()
        self._count = rest
        return taken

    def clear(self) -> None:
        self._count = 0


class SlotQueue:
    """Slots in the order in which they were added."""

    def __init__(self):
        self._slots: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def slots(self) -> np.ndarray:
        """int64: the first one first."""
        return np.array(self._slots, np.int64)

    def add(self, slots: np.ndarray) -> None:
        self._slots.extend(slots.tolist())

    def put_back(self, slots: np.ndarray) -> None:
        """To the front, in their order."""
        self._slots.extendleft(slots[::-1].tolist())

    def take_first(self, count: int) -> np.ndarray:
        """Removes and returns the first `count`, or all there are if fewer."""
        return np.array([self._slots.popleft() for _ in range(min(count, len(self._slots)))], np.int64)

    def clear(self) -> None:
        self._slots.clear()
