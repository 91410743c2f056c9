"""A bounded stretch of bytes that is written and given back in turn."""

from __future__ import annotations

import mmap
import os
import secrets
from collections import deque
from collections.abc import Sequence

ALIGNMENT = 64  # of arrays, a cache line
MARK_BYTES = 16


class Ring:
    """Places for chunks in a ring of bytes, given back in the order of taking.

    The bytes may be memory that two processes share, or merely a bound on what is under way.

    Args:
        num_bytes: size of the ring.
        num_places: the most places at a time.
    """

    def __init__(self, num_bytes: int, num_places: int):
        self.num_bytes = num_bytes
        self.num_places = num_places
        self._taken: deque[tuple[int, int]] = deque()  # start and end of each place, oldest first
        self._head = 0

    def take(self, num_bytes: int) -> int | None:
        """Take a place.

        Args:
            num_bytes: its size, at least 1. What is larger than the ring gets it while nothing else is under way.

        Returns:
            Where it begins; None while there is no room for it.
        """
        if len(self._taken) == self.num_places:
            return None
        if not self._taken:
            start = 0
        else:
            start, tail = self._head, self._taken[0][0]
            if start > tail and start + num_bytes > self.num_bytes:
                start = 0  # a place is in one piece: the rest of the ring stays unused this time
                if num_bytes > tail:
                    return None
            elif start <= tail and start + num_bytes > tail:
                return None
        self._head = start + num_bytes
        self._taken.append((start, self._head))
        return start

    def give_back(self) -> None:
        """Give back the oldest place."""
        self._taken.popleft()


def places(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where arrays of these sizes begin, one after another, and the bytes of all."""
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return starts, end


class SharedMemory:
    """Memory that another process of this user can map.

    It has no name, so nothing is left of it after any death.

    Args:
        num_bytes: its size.
    """

    def __init__(self, num_bytes: int):
        self.mark = secrets.token_bytes(MARK_BYTES)
        """What the memory begins with at first, by which the other side knows it."""
        self.descriptor = os.memfd_create("penstock")
        os.ftruncate(self.descriptor, num_bytes)
        self.view = memoryview(mmap.mmap(self.descriptor, num_bytes))
        self.view[:MARK_BYTES] = self.mark

    def close(self) -> None:
        """Let go of the memory; it is freed when the other side has let go, too."""
        self.view.release()
        os.close(self.descriptor)


def memory_of(pid: int, descriptor: int, num_bytes: int, mark: bytes) -> memoryview | None:
    """Map the memory of another process, to read.

    Args:
        pid: its process.
        descriptor: its `SharedMemory.descriptor`.
        num_bytes: its size.
        mark: its `SharedMemory.mark`.

    Returns:
        The memory; None where it can't be mapped from here, or where that process is another one than was meant.
    """
    try:
        with open(f"/proc/{pid}/fd/{descriptor}", "rb") as file:
            view = memoryview(mmap.mmap(file.fileno(), num_bytes, prot=mmap.PROT_READ))
    except (OSError, ValueError):
        return None
    return view if view[:MARK_BYTES] == mark else None
