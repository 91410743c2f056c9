"""A family of small systems with random coefficients, and their solutions by SciPy."""

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from mpi4py import MPI
from petsc4py import PETSc

from penstock.solvers.problem import LinearSystem

SIZE = 12


class Family:
    """Systems of -∇·(a ∇u) + wind ∂u/∂x = f on SIZE x SIZE points.

    a is random on every edge. One matrix is overwritten in place.
    """

    def __init__(self, *, wind=0.0, seed=0, **properties):
        self.generator = np.random.default_rng(seed)
        ones = np.ones(SIZE)
        difference = scipy.sparse.diags_array([ones, -ones], offsets=[0, -1], shape=(SIZE + 1, SIZE))
        eye = scipy.sparse.eye_array(SIZE)
        self.gradient = scipy.sparse.vstack([scipy.sparse.kron(difference, eye), scipy.sparse.kron(eye, difference)])
        self.wind = wind * scipy.sparse.kron(difference.tocsr()[:-1], eye)
        self.matrix = None
        self.properties = {"is_spd": wind == 0.0} | properties

    def system(self, *, contrast=2.0, constant=False) -> LinearSystem:
        edges = self.gradient.shape[0]
        a = np.ones(edges) if constant else contrast ** self.generator.uniform(0, 1, edges)
        A = scipy.sparse.csr_array(self.gradient.T @ scipy.sparse.diags_array(a) @ self.gradient + self.wind)
        if self.matrix is None:
            self.matrix = PETSc.Mat().createAIJ(A.shape, csr=(A.indptr, A.indices, A.data), comm=MPI.COMM_SELF)
            self.vector = self.matrix.createVecLeft()
        self.matrix.setValuesCSR(A.indptr, A.indices, A.data)
        self.matrix.assemble()
        self.vector.array = self.generator.standard_normal(A.shape[0])
        return LinearSystem(A=self.matrix, b=self.vector, **self.properties)


def expected(system: LinearSystem) -> np.ndarray:
    indptr, indices, data = system.A.getValuesCSR()
    return scipy.sparse.linalg.spsolve(scipy.sparse.csc_array((data, indices, indptr)).T.tocsc(), system.b.array_r)


def error(system: LinearSystem, x) -> float:
    solution = expected(system)
    return np.linalg.norm(x.array_r - solution) / np.linalg.norm(solution)
