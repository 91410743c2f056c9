"""Boxes cut into simplices, without a mesh generator.

Axes:  P points, T cells, d dimensions of space.
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
