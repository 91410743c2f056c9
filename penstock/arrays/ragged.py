"""Rows of different lengths, unpadded, as samples travel whose points vary.

Axes:  N rows, C channels, L the entries of a row, which are a sample's points or edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Ragged:
    """Arrays [C, L], one after another, each with a different L.

    They are indexed along N as an array [N, C, L] would be.
    """

    values: np.ndarray
    """All rows, [sum of C L]."""
    counts: np.ndarray
    """The length L of each row, int64 [N]."""
    channels: int
    """The number of channels, C."""

    @classmethod
    def of(cls, rows: Sequence[np.ndarray]) -> Ragged:
        """The rows of separate arrays.

        Args:
            rows: arrays [C, L], at least one.

        Returns:
            The rows, one after another.
        """
        counts = np.array([row.shape[1] for row in rows], np.int64)
        return cls(np.concatenate([row.ravel() for row in rows]), counts, len(rows[0]))

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.values.nbytes

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self.values.dtype

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.counts * self.channels)])

    def row(self, number: int) -> np.ndarray:
        """One row [C, L], a view."""
        return self.values[self._starts[number] : self._starts[number + 1]].reshape(self.channels, -1)

    def __getitem__(self, rows: slice | np.ndarray) -> Ragged:
        """Some of the rows; a slice gives a view."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                values = self.values[self._starts[start] : self._starts[max(start, stop)]]
                return Ragged(values, self.counts[rows], self.channels)
        picked = np.arange(len(self))[rows]
        if not len(picked):
            return Ragged(self.values[:0], self.counts[:0], self.channels)
        return Ragged.of([self.row(number) for number in picked])

    def padded(self, length: int | None = None) -> np.ndarray:
        """The rows as one array, padded with 0 at their ends.

        Args:
            length: length L of every row; None for that of the longest one.

        Returns:
            Array [N, C, L].
        """
        length = int(self.counts.max(initial=0)) if length is None else length
        array = np.zeros((len(self), self.channels, length), self.dtype)
        for number, count in enumerate(self.counts):
            array[number, :, :count] = self.row(number)
        return array


Rows = np.ndarray | Ragged
"""One of a chunk's arrays: [N, C, *], or ragged."""


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of several arrays, in their order.

    Args:
        parts: arrays of one kind, at least one.

    Returns:
        One array of that kind; of a single part, that part.
    """
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Ragged):
        values = np.concatenate([part.values for part in parts])
        return Ragged(values, np.concatenate([part.counts for part in parts]), parts[0].channels)
    return np.concatenate(parts)


def padded(rows: Rows) -> np.ndarray:
    """The rows as one array [N, C, *], padded with 0 if they are ragged."""
    return rows.padded() if isinstance(rows, Ragged) else rows
