"""Cells of a regular grid and the values at their corners."""

from __future__ import annotations

from itertools import product

import numpy as np


def cell_means(corners: np.ndarray) -> np.ndarray:
    """The mean over the 2^d corners of every cell.

    Args:
        corners: values at the grid's vertices, [n + 1] * d.

    Returns:
        Values of the cells, [n] * d.
    """
    shifts = product((slice(None, -1), slice(1, None)), repeat=corners.ndim)
    return sum(corners[shift] for shift in shifts) / 2**corners.ndim


def at_corner(corner: tuple[int, ...], num_cells: int) -> tuple[slice, ...]:
    """The index that picks this corner of all cells from values at the vertices.

    Args:
        corner: 0 or 1 along each axis.
        num_cells: n, along each axis.
    """
    return tuple(slice(offset, offset + num_cells) for offset in corner)
