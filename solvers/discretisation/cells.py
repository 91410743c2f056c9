"""From the corners of a regular grid's cells to the cells."""

from __future__ import annotations

from itertools import product

import numpy as np


def cell_means(corners: np.ndarray) -> np.ndarray:
    """[n] * d the mean over the 2^d corners of every cell, from `corners` [n + 1] * d."""
    shifts = product((slice(None, -1), slice(1, None)), repeat=corners.ndim)
    return sum(corners[shift] for shift in shifts) / 2**corners.ndim
