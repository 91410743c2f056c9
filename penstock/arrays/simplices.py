"""P1 finite elements on simplices: measures, lumped masses, stiffness.

Axes:  P points, T cells, d dimensions of space. A cell, an interval, triangle or tetrahedron, is d + 1 numbers of
points.
"""

from __future__ import annotations

from math import factorial

import numpy as np

from penstock.errors import Refused

FLAT = 1e-10  # of the longest edge's d-th power: a cell of a smaller volume is rounding alone
NAMES = {1: "interval", 2: "triangle", 3: "tetrahedron"}


def checked_cells(points: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points and cells in the types that the functions here take.

    Args:
        points: coordinates [P, d], d from 1 to 3.
        cells: numbers of points [T, d + 1], with positive orientation.

    Returns:
        The points as float64 and the cells as int64.

    Raises:
        Refused: an array is misshapen or not finite, a cell names a point that does not exist, or is degenerate or
            inverted, or a point belongs to no cell; the message gives its number.
    """
    points = np.ascontiguousarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] not in NAMES or not len(points):
        raise Refused(f"points have shape {points.shape}: give coordinates [P, d], d from 1 to 3")
    if not np.isfinite(points).all():
        raise Refused(f"point {np.flatnonzero(~np.isfinite(points).all(axis=1))[0]} is not finite")
    cells, d = np.asarray(cells), points.shape[1]
    if cells.ndim != 2 or cells.shape[1] != d + 1 or not len(cells) or cells.dtype.kind not in "iu":
        raise Refused(f"cells are {cells.dtype} {cells.shape}: give integers [T, {d + 1}], one {NAMES[d]} per row")
    cells = np.ascontiguousarray(cells, np.int64)
    beyond = np.flatnonzero(((cells < 0) | (cells >= len(points))).any(axis=1))
    if len(beyond):
        raise Refused(f"cell {beyond[0]} has the points {cells[beyond[0]].tolist()}, and there are {len(points)}")
    edges = points[cells[:, 1:]] - points[cells[:, :1]]
    determinants = np.linalg.det(edges)
    longest = np.sqrt((edges**2).sum(axis=2).max(axis=1))
    flat = np.flatnonzero(np.abs(determinants) <= FLAT * longest**d)
    if len(flat):
        raise Refused(
            f"cell {flat[0]}, with the points {cells[flat[0]].tolist()}, is degenerate: its volume is 0; remove it or "
            "move a point"
        )
    inverted = np.flatnonzero(determinants < 0)
    if len(inverted):
        raise Refused(
            f"cell {inverted[0]}, with the points {cells[inverted[0]].tolist()}, is inverted: exchange two of its "
            f"points ({len(inverted)} of {len(cells)} cells are)"
        )
    unused = np.setdiff1d(np.arange(len(points)), cells)
    if len(unused):
        raise Refused(f"point {unused[0]} belongs to no cell: leave it out ({len(unused)} of {len(points)} do)")
    return points, cells


def measures(points: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Length, area or volume of every cell, [T]."""
    edges = points[cells[:, 1:]] - points[cells[:, :1]]
    return np.abs(np.linalg.det(edges)) / factorial(points.shape[1])


def lumped_mass(points: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The integral of every P1 basis function, [P].

    They are quadrature weights, whose sum is the domain's measure.
    """
    shares = measures(points, cells) / cells.shape[1]
    return np.bincount(cells.ravel(), np.repeat(shares, cells.shape[1]), minlength=len(points))


def stiffness(
    points: np.ndarray, cells: np.ndarray, coefficient: np.ndarray | float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The integrals of a ∇φ_i·∇φ_j over all cells, as entries that are to be summed.

    Args:
        points: coordinates [P, d].
        cells: numbers of points [T, d + 1].
        coefficient: a on every cell, [T], or one number.

    Returns:
        Rows, columns and values, [T (d + 1)²] each; entries of one row and column occur more than once.
    """
    edges = points[cells[:, 1:]] - points[cells[:, :1]]
    inner = np.linalg.inv(edges)  # its columns are the gradients of the basis functions of points 1 to d
    gradients = np.concatenate([-inner.sum(axis=2, keepdims=True), inner], axis=2)
    scales = measures(points, cells) * coefficient
    values = np.einsum("tki,tkj,t->tij", gradients, gradients, scales)
    corners = cells.shape[1]
    rows = np.repeat(cells, corners, axis=1)
    columns = np.tile(cells, (1, corners))
    return rows.ravel(), columns.ravel(), values.ravel()
