"""Structured triangulations.

Axes:  P points, Q quadrilaterals; arrays are indexed [x, y].
"""

from __future__ import annotations

import numpy as np


def square(resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """The unit square as n x n squares of two triangles each.

    Diagonals point to the middle, so that no triangle has two edges on the boundary, which would leave it one node with
    an unknown velocity.

    Args:
        resolution: n.

    Returns:
        Points [(n + 1)², 2], that at (i, j) / n in place i (n + 1) + j; and triangles [2 n², 3].
    """
    n = resolution
    numbers = np.arange((n + 1) ** 2).reshape(n + 1, n + 1)
    points = np.stack(np.nonzero(numbers >= 0), axis=1) / n
    i, j = np.indices((n, n)).reshape(2, -1)
    climbs = (i < n / 2) == (j < n / 2)
    return points, halves(quadrilaterals(numbers), climbs)


def quadrilaterals(numbers: np.ndarray) -> np.ndarray:
    """The quadrilaterals [Q, 4] between the points with these numbers [X, Y].

    Their corners are in positive order if x and y are.
    """
    corners = numbers[:-1, :-1], numbers[1:, :-1], numbers[1:, 1:], numbers[:-1, 1:]
    return np.stack(corners, axis=-1).reshape(-1, 4)


def halves(corners: np.ndarray, climbs: np.ndarray) -> np.ndarray:
    """Two triangles [2 Q, 3] of each quadrilateral [Q, 4].

    It is cut from its first corner to its third where `climbs`, bool [Q], else from its second to its fourth.
    """
    corners = np.where(climbs[:, None], corners, np.roll(corners, 1, axis=1))
    return np.concatenate([corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]])


def graded(num_cells: int, growth: float) -> np.ndarray:
    """Fractions from 0 to 1, whose distances grow geometrically by about this factor."""
    return (growth ** (np.arange(num_cells + 1) / num_cells) - 1) / (growth - 1)
