"""Five-point finite differences on a square.

Axes:  F the five points of the stencil, X and Y inner points of the grid; arrays are indexed [x, y].
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from penstock.solvers.discretisation.differences.stencil import StencilMatrix
from penstock.solvers.problem import GridDofs, LinearSystem

OFFSETS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))


class FivePoint:
    """Systems that couple each of n x n inner points with its four neighbours.

    Points are h = L / (n + 1) apart, and values on the boundary are zero. One matrix and one vector are made once and
    overwritten by every `system`.

    Args:
        resolution: n.
        family: name of the systems.
        is_spd: whether all matrices are symmetric positive definite.
        extent: L, the side of the square.
    """

    def __init__(self, resolution: int, *, family: str, is_spd: bool, extent: float = 1.0):
        self.family = family
        self.is_spd = is_spd
        spacing = extent / (resolution + 1)
        self.grid = GridDofs(
            shape=(resolution, resolution), spacing=(spacing, spacing), permutation=np.arange(resolution**2)
        )
        self._matrix = StencilMatrix(self.grid.shape, OFFSETS, is_spd=is_spd)
        self._vector = self._matrix.mat.createVecLeft()

    def system(
        self, values_FXY: np.ndarray, right_hand_side: np.ndarray, *, guess: np.ndarray | None = None
    ) -> LinearSystem:
        """The system with these entries.

        Args:
            values_FXY: entries of the matrix, each at the point of its row.
            right_hand_side: b, [X, Y].
            guess: initial guess, [X, Y].

        Returns:
            The system, whose A and b the next call overwrites.
        """
        self.overwrite(values_FXY)
        return self.with_load(right_hand_side, guess=guess)

    def overwrite(self, values_FXY: np.ndarray) -> None:
        """Set the entries of the matrix, each at the point of its row."""
        self._matrix.overwrite(values_FXY)

    def with_load(self, right_hand_side: np.ndarray, *, guess: np.ndarray | None = None) -> LinearSystem:
        """The system with the entries set last, for a matrix that stays the same.

        Args:
            right_hand_side: b, [X, Y].
            guess: initial guess, [X, Y].
        """
        self._vector.array = right_hand_side.ravel()
        system = LinearSystem(
            A=self._matrix.mat,
            b=self._vector,
            is_spd=self.is_spd,
            family=self.family,
            grid=self.grid,
        )
        if guess is not None:
            system.guess = self._vector.duplicate()
            system.guess.array = guess.ravel()
        return system


def neighbours(padded: np.ndarray) -> Iterator[np.ndarray]:
    """The four neighbours of all inner points, in the order of `OFFSETS`.

    Args:
        padded: values at the inner points and around them, [X + 2, Y + 2].

    Yields:
        Four arrays [X, Y].
    """
    yield from (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
