"""P1 finite elements on a mesh that every draw brings along, without DOLFINx.

Axes:  P points, T cells.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from penstock.simplices import lumped_mass, stiffness
from penstock.solvers import mpi
from penstock.solvers.problem import LinearSystem, Solve


def diffusion(
    points: np.ndarray,
    cells: np.ndarray,
    source: np.ndarray,
    boundary_values: np.ndarray,
    is_boundary: np.ndarray,
    solve: Solve,
    *,
    family: str,
) -> np.ndarray:
    """Solve -Δu = f, u = g on the boundary.

    The load is that of the lumped mass. Unknowns are the other points, in their order.

    Args:
        points: coordinates [P, d].
        cells: numbers of points [T, d + 1].
        source: f, [P].
        boundary_values: g, [P], of which those on the boundary count.
        is_boundary: bool [P].
        solve: solves one `LinearSystem`.
        family: name of the system.

    Returns:
        u, [P].
    """
    mpi.start()
    from petsc4py import PETSc

    num_points = len(points)
    rows, columns, values = stiffness(points, cells)
    K = csr_array((values, (rows, columns)), shape=(num_points, num_points))
    u = np.where(is_boundary, boundary_values, 0.0)
    free = np.flatnonzero(~is_boundary)
    A = K[free][:, free]
    csr = (A.indptr.astype(PETSc.IntType), A.indices.astype(PETSc.IntType), A.data)
    matrix = PETSc.Mat().createAIJ(A.shape, csr=csr, comm=PETSc.COMM_SELF)
    matrix.setOption(PETSc.Mat.Option.SPD, True)
    b = matrix.createVecLeft()
    b.array = (lumped_mass(points, cells) * source - K @ u)[free]
    u[free] = solve(LinearSystem(A=matrix, b=b, is_spd=True, family=family)).x.array_r
    return u
