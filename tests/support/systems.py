"""Linear systems for PETSc from matrices of SciPy, and back."""

from functools import reduce

import numpy as np
import scipy.sparse
from mpi4py import MPI
from petsc4py import PETSc

from penstock.solvers.problem import LinearSystem


def petsc_of(A) -> PETSc.Mat:
    """A matrix of one process from a dense or sparse one."""
    A = scipy.sparse.csr_array(A)
    A.sort_indices()
    csr = (A.indptr.astype(np.int32), A.indices.astype(np.int32), A.data)
    return PETSc.Mat().createAIJ(A.shape, csr=csr, comm=MPI.COMM_SELF)


def to_scipy(A: PETSc.Mat) -> scipy.sparse.csr_array:
    """The matrix of one process in SciPy's CSR form."""
    indptr, indices, values = A.getValuesCSR()
    return scipy.sparse.csr_array((values, indices, indptr), shape=A.getSize())


def system_of(A, b=None, **properties) -> LinearSystem:
    """The system A x = b, with a random b where none is given."""
    matrix = petsc_of(A)
    vector = matrix.createVecLeft()
    vector.array = np.random.default_rng(0).standard_normal(A.shape[0]) if b is None else b
    return LinearSystem(A=matrix, b=vector, **properties)


def relative_residual(system: LinearSystem, x: PETSc.Vec) -> float:
    """|b - A x| / |b|, by SciPy."""
    b = system.b.array_r
    return np.linalg.norm(b - to_scipy(system.A) @ x.array_r) / np.linalg.norm(b)


def one_dimensional(n: int, ends: float = 2.0) -> scipy.sparse.dia_array:
    """-d²/dx² on n points, h = 1. ends: where the diagonal begins and ends; 1 is Neumann."""
    diagonal = np.full(n, 2.0)
    diagonal[[0, -1]] = ends
    return scipy.sparse.diags_array([-np.ones(n - 1), diagonal, -np.ones(n - 1)], offsets=[-1, 0, 1])


def laplacian(*shape: int, ends: float = 2.0) -> scipy.sparse.csr_array:
    """-Δ on the points of a grid in C order, h = 1; with ends = 1 constants are its nullspace."""
    return reduce(scipy.sparse.kronsum, [one_dimensional(n, ends=ends) for n in reversed(shape)]).tocsr()
