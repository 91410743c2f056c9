"""The slots in one state: added to and taken from without a look at the others."""

from __future__ import annotations

from collections import deque

import numpy as np

FEW = 40  # a swap takes 0.2 us, `Generator.choice` 5 us at least, and 10 when the caches hold samples instead


class SlotSet:
    """Some of the slots 0 to num_slots - 1, in a dense array; what is taken from its middle is filled from its end.

    All operations but `remove` take a time that grows with the slots concerned, not with those in the set.
    """

    def __init__(self, num_slots: int):
        self._slots = np.empty(num_slots, np.int64)
        self._view = memoryview(self._slots)  # single ones are read and written three times as fast as by NumPy
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

    def take_random(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Removes and returns `count`, or all there are if fewer: each such set equally likely, its order not."""
        count = min(count, self._count)
        rest = self._count - count
        if count <= FEW:  # the first steps of Fisher and Yates' shuffle, from the end
            view, last = self._view, self._count
            for fraction in random.random(count).tolist():
                place = int(fraction * last)
                last -= 1
                view[place], view[last] = view[last], view[place]
        else:
            places = random.choice(self._count, count, replace=False, shuffle=False)
            taken = self._slots[places]
            self._slots[places] = -1
            tail = self._slots[rest : self._count]
            self._slots[places[places < rest]] = tail[tail >= 0]
            tail[:] = taken
        return self.take_last(count)

    def take_last(self, count: int) -> np.ndarray:
        """Removes and returns the `count` that were added last, or all there are if fewer."""
        rest = max(0, self._count - count)
        taken = self._slots[rest : self._count].copy()
        self._count = rest
        return taken

    def remove(self, slots: np.ndarray) -> None:
        """Those of these that are in; it looks at all."""
        kept = self.slots[~np.isin(self.slots, slots)]
        self.clear()
        self.add(kept)

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

    def remove(self, slots: np.ndarray) -> None:
        """Those of these that are in; it looks at all."""
        kept = self.slots[~np.isin(self.slots, slots)]
        self.clear()
        self.add(kept)

    def clear(self) -> None:
        self._slots.clear()
