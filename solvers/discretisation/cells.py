"""Cell values from the values at the corners of a regular grid's cells."""

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
