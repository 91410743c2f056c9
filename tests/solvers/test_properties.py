"""What holds for every strategy, whatever the system."""

import gc
import math

import numpy as np
import psutil
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mpi4py import MPI
from petsc4py import PETSc

from penstock.solvers.krylov import STRATEGIES, LinearSolver
from penstock.solvers.problem import LinearSystem, Outcome

RTOL = 1e-8
KINDS = ("spd", "nonsymmetric", "indefinite", "saddle point", "singular", "nearly singular")


def matrix_of(kind: str, n: int, generator: np.random.Generator, pattern) -> np.ndarray:
    """[n, n] dense, with entries on `pattern` alone."""
    A = np.where(pattern, generator.standard_normal((n, n)), 0.0)
    if kind == "nonsymmetric":
        return A + np.diag(1.5 * np.abs(A).sum(axis=1) + 0.1)
    A = A + A.T
    if kind == "indefinite":
        return A + np.diag(generator.standard_normal(n))
    if kind == "saddle point":
        m = n // 3
        A[n - m :, n - m :] = 0.0
        return A + np.diag(np.concatenate([np.abs(A[: n - m]).sum(axis=1) + 0.1, np.zeros(m)]))
    A = A + np.diag(np.abs(A).sum(axis=1) + 0.1)
    if kind in ("singular", "nearly singular"):
        k = generator.integers(n)
        A[k] = A[:, k] = 0.0
        A[k, k] = 0.0 if kind == "singular" else 1e-13
    return A


@st.composite
def sequences(draw):
    """Systems of one pattern, one after another: (is_spd, matrices [N, n, n], right-hand sides [N, n])."""
    kind = draw(st.sampled_from(KINDS))
    n = draw(st.integers(1, 24))
    scale = 10.0 ** draw(st.integers(-8, 8))
    changes = draw(st.lists(st.booleans(), min_size=3, max_size=3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pattern = generator.random((n, n)) < draw(st.sampled_from([0.0, 0.1, 0.5]))
    pattern |= pattern.T
    for k in range(draw(st.integers(0, n))):  # rows that nothing connects
        pattern[k] = pattern[:, k] = False
    np.fill_diagonal(pattern, False)
    matrices, rights = [], []
    for change in [True, *changes]:
        if change:
            A = scale * matrix_of(kind, n, generator, pattern)
        matrices.append(A)
        x = generator.standard_normal(n)
        rights.append(A @ x if draw(st.booleans()) else x if draw(st.booleans()) else 0.0 * x)
    return kind, matrices, rights


@pytest.mark.parametrize("name", STRATEGIES)
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(sequence=sequences())
def test_outcomes_are_true(name, sequence):
    kind, matrices, rights = sequence
    n = len(rights[0])
    solver = LinearSolver(STRATEGIES[name](), rtol=RTOL)
    held = (np.abs(np.sum(np.abs(matrices), axis=0)) > 0) | np.eye(n, dtype=bool)  # the diagonal even where it is zero
    rows, columns = np.nonzero(held)
    indptr = np.concatenate([[0], np.cumsum(held.sum(axis=1))]).astype(np.int32)
    A = PETSc.Mat().createAIJ((n, n), csr=(indptr, columns.astype(np.int32), np.zeros(rows.size)), comm=MPI.COMM_SELF)
    b = A.createVecLeft()
    for matrix, right in zip(matrices, rights, strict=True):
        A.setValuesCSR(indptr, columns.astype(np.int32), matrix[rows, columns])
        A.assemble()
        b.array = right
        solution = solver(LinearSystem(A=A, b=b, is_spd=kind == "spd"))
        assert isinstance(solution.outcome, Outcome)
        x = solution.x.array_r
        if solution.converged:
            assert np.isfinite(x).all()
            residual = np.linalg.norm(right - scipy.sparse.csr_array(matrix) @ x)
            assert residual <= RTOL * np.linalg.norm(right) * (1 + 1e-6) + np.finfo(float).tiny
            assert math.isclose(solution.relative_residual * np.linalg.norm(right), residual, rel_tol=1, abs_tol=1e-300)
        if not right.any():
            assert solution.converged and not x.any()
        condition = np.linalg.cond(matrix)
        if condition < 1e6:
            assert solution.converged
            expected = scipy.sparse.linalg.spsolve(scipy.sparse.csc_array(matrix), right)
            assert np.linalg.norm(x - expected) <= 2 * RTOL * condition * np.linalg.norm(expected)


@pytest.mark.parametrize("name", STRATEGIES)
def test_memory_stays_flat_over_2000_systems(name):
    """One leaked vector or matrix a system would be 2 MB or more."""
    n = 12
    one_dimensional = scipy.sparse.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    laplacian = scipy.sparse.kronsum(one_dimensional, one_dimensional).tocsr()
    laplacian.sort_indices()
    indptr, indices = laplacian.indptr.astype(np.int32), laplacian.indices.astype(np.int32)
    A = PETSc.Mat().createAIJ(laplacian.shape, csr=(indptr, indices, laplacian.data), comm=MPI.COMM_SELF)
    b = A.createVecLeft()
    generator = np.random.default_rng(0)
    solver = LinearSolver(STRATEGIES[name](), rtol=RTOL)

    def solve(num_systems: int) -> int:
        """Resident bytes afterwards."""
        for i in range(num_systems):
            if i % 3:  # every third system has the matrix of the one before
                A.setValuesCSR(indptr, indices, laplacian.data * (1 + 0.1 * generator.random()))
                A.assemble()
            b.array = generator.standard_normal(n * n)
            assert solver(LinearSystem(A=A, b=b, is_spd=True)).converged
        gc.collect()
        return psutil.Process().memory_info().rss

    before = solve(300)
    assert solve(2000) - before < 1e6


@pytest.mark.parametrize("name", ["krylov", "lagged", "gcrodr"])
def test_an_error_inside_multigrid_is_survived(name):
    """GAMG of one level has a smoother that divides by the diagonal."""
    A = PETSc.Mat().createAIJ((16, 16), nnz=1, comm=MPI.COMM_SELF)
    A.setDiagonal(A.createVecLeft())
    b = A.createVecLeft()
    solver = LinearSolver(STRATEGIES[name](pc="gamg"), rtol=RTOL)
    for zero in (True, True, False):
        diagonal = A.createVecLeft()
        diagonal.set(2.0)
        if zero:
            diagonal.setValue(2, 0.0)
        A.setDiagonal(diagonal)
        b.set(1.0)
        assert solver(LinearSystem(A=A, b=b)).converged == (not zero)
        gc.collect()
