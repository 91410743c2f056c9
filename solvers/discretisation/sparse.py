"""PETSc matrices from SciPy's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scipy.sparse import csr_array

from penstock.solvers import mpi

if TYPE_CHECKING:
    from petsc4py import PETSc


def petsc_matrix(A: csr_array, *, is_spd: bool = False) -> PETSc.Mat:
    """The matrix of one process.

    Args:
        A: the matrix.
        is_spd: whether it is symmetric positive definite.
    """
    mpi.start()
    from petsc4py import PETSc

    csr = (A.indptr.astype(PETSc.IntType), A.indices.astype(PETSc.IntType), A.data)
    matrix = PETSc.Mat().createAIJ(A.shape, csr=csr, comm=PETSc.COMM_SELF)
    matrix.setOption(PETSc.Mat.Option.SPD, is_spd)
    return matrix
