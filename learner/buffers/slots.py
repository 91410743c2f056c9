"""Sets and queues of slots, which add and take without looking at other slots."""

from __future__ import annotations

from collections import deque

import numpy as np

FEW = 40  # a swap takes 0.2 us, `Generator.choice` at least 5 us, and 10 us when the caches hold samples instead


class SlotSet:
    """A set of slots in a dense array.

    Gaps from slots that are taken out of the middle are filled from the end. All operations except `remove` take a time
    that grows with the number of slots concerned, not with the size of the set.

    Args:
        num_slots: number of slots of the buffer; those in the set are some of 0 to num_slots - 1.
    """

    def __init__(self, num_slots: int):
        self._slots = np.empty(num_slots, np.int64)
        self._view = memoryview(self._slots)  # reads and writes single slots three times as fast as NumPy
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def slots(self) -> np.ndarray:
        """The slots in the set, int64, as a view.

        Their order depends on past calls alone.
        """
        return self._slots[: self._count]

    def add(self, slots: np.ndarray) -> None:
        """Add slots that are not in the set."""
        end = self._count + len(slots)
        self._slots[self._count : end] = slots
        self._count = end

    put_back = add

    def take_random(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Remove random slots and return them.

        Args:
            count: number of slots; all are taken if the set has fewer.
            random: random generator.

        Returns:
            The slots, int64. Each subset of that size is equally likely, but not each order.
        """
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
        """Remove the slots at the end of the array and return them.

        Args:
            count: number of slots; all are taken if the set has fewer.

        Returns:
            The slots, int64.
        """
        rest = max(0, self._count - count)
        taken = self._slots[rest : self._count].copy()
        self._count = rest
        return taken

    def remove(self, slots: np.ndarray) -> None:
        """Remove those of the slots that are in the set; it looks at the whole set."""
        kept = self.slots[~np.isin(self.slots, slots)]
        self.clear()
        self.add(kept)

    def clear(self) -> None:
        """Remove all slots."""
        self._count = 0


class SlotQueue:
    """Slots in the order in which they were added."""

    def __init__(self):
        self._slots: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def slots(self) -> np.ndarray:
        """The slots in their order, int64, as a copy."""
        return np.array(self._slots, np.int64)

    def add(self, slots: np.ndarray) -> None:
        """Add slots at the end."""
        self._slots.extend(slots.tolist())

    def put_back(self, slots: np.ndarray) -> None:
        """Add slots at the front, in their order."""
        self._slots.extendleft(slots[::-1].tolist())

    def take_first(self, count: int) -> np.ndarray:
        """Remove the first slots and return them.

        Args:
            count: number of slots; all are taken if the queue has fewer.

        Returns:
            The slots, int64.
        """
        return np.array([self._slots.popleft() for _ in range(min(count, len(self._slots)))], np.int64)

    def remove(self, slots: np.ndarray) -> None:
        """Remove those of the slots that are in the queue; it looks at the whole queue."""
        kept = self.slots[~np.isin(self.slots, slots)]
        self.clear()
        self.add(kept)

    def clear(self) -> None:
        """Remove all slots."""
        self._slots.clear()
