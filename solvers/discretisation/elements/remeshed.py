"""P1 finite elements on a mesh that every draw brings along, without DOLFINx.

Axes:  P points, T cells, d dimensions of space.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from penstock.arrays.simplices import stiffness
from penstock.solvers.discretisation.sparse import petsc_matrix
from penstock.solvers.problem import LinearSystem, Solve


def diffusion(
    points: np.ndarray,
    cells: np.ndarray,
    *,
    load: np.ndarray,
    boundary: np.ndarray,
    boundary_values: np.ndarray,
    family: str,
    solve: Solve,
) -> np.ndarray:
    """Solve -Δu = f, u = g on the boundary.

    The unknowns of the system, which is symmetric positive definite, are the other points in their order.

    Args:
        points: coordinates [P, d].
        cells: numbers of points [T, d + 1].
        load: the integrals of f φ_i, [P].
        boundary: bool [P], the points that lie on the boundary.
        boundary_values: g, [P]; it counts on the boundary alone.
        family: name of the system.
        solve: solves one `LinearSystem`.

    Returns:
        u, [P].
    """
    rows, columns, values = stiffness(points, cells)
    K = csr_array((values, (rows, columns)), shape=(len(points), len(points)))
    u = np.where(boundary, boundary_values, 0.0)
    inner = np.flatnonzero(~boundary)
    coupling = K[inner]
    A = coupling[:, inner]
    matrix = petsc_matrix(A, is_spd=True)
    b = matrix.createVecLeft()
    b.array = load[inner] - coupling @ u
    u[inner] = solve(LinearSystem(A=matrix, b=b, is_spd=True, family=family)).x.array_r
    return u
