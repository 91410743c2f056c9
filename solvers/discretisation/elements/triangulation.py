"""Boxes and blocks of quadrilaterals cut into simplices, without a mesh generator.

Axes:  P points, T cells, Q quadrilaterals, d dimensions of space; arrays are indexed [x, y].
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np


def box(num_cells: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The unit box, cut into n_1 x ... x n_d equal boxes of d! simplices each.

    The edges of these climb from the lowest corner of their box to its highest, so in two dimensions all diagonals rise
    to the right.

    Args:
        num_cells: n_i, boxes along each axis.

    Returns:
        Points [P, d], in C order of the grid of n_i + 1 points along each axis, and cells [T, d + 1].
    """
    dimension, shape = len(num_cells), np.add(num_cells, 1)
    points = np.stack(np.meshgrid(*(np.arange(n + 1) / n for n in num_cells), indexing="ij"), axis=-1)
    lowest = np.ravel_multi_index(np.indices(num_cells), shape).reshape(-1, 1)
    unit = np.eye(dimension, dtype=int)
    strides = np.ravel_multi_index(unit, shape)
    cells = []
    for order in permutations(range(dimension)):
        path = np.concatenate([[0], np.cumsum(strides[list(order)])])
        if np.linalg.det(unit[list(order)]) < 0:  # inverted
            path[-2:] = path[:-3:-1]
        cells.append(lowest + path)
    return points.reshape(-1, dimension), np.concatenate(cells)


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
