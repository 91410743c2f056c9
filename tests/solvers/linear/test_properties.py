"""Properties of every strategy, whatever the system."""

import gc
import math
import multiprocessing
from dataclasses import dataclass

import numpy as np
import psutil
import pytest
import scipy.sparse
import scipy.sparse.linalg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mpi4py import MPI
from petsc4py import PETSc

from penstock.solvers.linear import STRATEGIES, LinearSolver
from penstock.solvers.problem import GridDofs, LinearSystem, Outcome
from tests.support.systems import laplacian

RTOL = 1e-8
VARIANTS = {
    **{name: (name, {}) for name in STRATEGIES},
    "direct petsc": ("direct", {"solver": "petsc"}),
    "direct mumps": ("direct", {"solver": "mumps"}),
    "lagged gamg": ("lagged", {"pc": "gamg"}),
    "deflated cg": ("cg", {"k": 4, "pc": "jacobi"}),
    "left gcrodr": ("gcrodr", {"m": 8, "k": 3, "side": "left"}),
    "flexible gcrodr": ("gcrodr", {"m": 8, "k": 3, "side": "flexible"}),
}
ON_GRIDS = {"cg multigrid": ("cg", {"pc": "multigrid"}), "cg fast_poisson": ("cg", {"pc": "fast_poisson"})}
KINDS = ("spd", "nonsymmetric", "indefinite", "saddle point", "singular", "nearly singular")


def matrix_of(kind: str, n: int, generator: np.random.Generator, pattern) -> np.ndarray:
    """A dense matrix [n, n] with entries on `pattern` alone."""
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
    """Sequences of systems of one pattern.

    (is_spd, matrices [N, n, n], right-hand sides [N, n]).
    """
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


def solver_of(variant: str) -> LinearSolver:
    name, options = (VARIANTS | ON_GRIDS)[variant]
    return LinearSolver(STRATEGIES[name](**options), rtol=RTOL)


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(sequence=sequences())
def test_outcomes_are_true(variant, sequence):
    kind, matrices, rights = sequence
    n = len(rights[0])
    solver = solver_of(variant)
    held = (np.abs(np.sum(np.abs(matrices), axis=0)) > 0) | np.eye(n, dtype=bool)  # the diagonal, zeros included
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


def assembled(matrix, right, **properties) -> LinearSystem:
    csr = scipy.sparse.csr_array(matrix)
    csr.setdiag(csr.diagonal())  # held even where it is zero
    csr.sort_indices()
    arrays = (csr.indptr.astype(np.int32), csr.indices.astype(np.int32), csr.data)
    A = PETSc.Mat().createAIJ(csr.shape, csr=arrays, comm=MPI.COMM_SELF)
    b = A.createVecLeft()
    b.array = right
    return LinearSystem(A=A, b=b, **properties)


def grid_of(generator: np.random.Generator, *shape: int) -> GridDofs:
    return GridDofs(shape=shape, spacing=(1.0,) * len(shape), permutation=generator.permutation(np.prod(shape)))


@dataclass(frozen=True)
class Link:
    """The kind of one system in a changing family."""

    shape: tuple[int, ...]
    reaction: float
    wind: float = 0.0
    shift: float = 0.0
    """Number subtracted from the diagonal, which makes the matrix indefinite."""
    is_singular: bool = False
    says_spd: bool = False

    def system(self, generator: np.random.Generator) -> tuple[LinearSystem, np.ndarray]:
        """The system, and its solution."""
        n = int(np.prod(self.shape))
        grid = grid_of(generator, *self.shape)
        A = laplacian(*self.shape, ends=1.0 if self.is_singular else 2.0)
        if not self.is_singular:
            upwind = scipy.sparse.diags_array([-np.ones(n - 1), np.ones(n)], offsets=[-1, 0])
            A = A + (self.reaction - self.shift) * scipy.sparse.eye_array(n) + self.wind * upwind
        A = scipy.sparse.csr_array(A)[grid.permutation][:, grid.permutation]
        x = generator.standard_normal(n)
        nullspace = None
        if self.is_singular:
            x -= x.mean()
            nullspace = PETSc.NullSpace().create(constant=True, comm=MPI.COMM_SELF)
        system = assembled(A, A @ x, is_spd=self.says_spd, grid=grid, nullspace=nullspace)
        return system, x


@st.composite
def links(draw):
    kind = draw(st.sampled_from(["spd", "singular", "nonsymmetric", "indefinite"]))
    return Link(
        shape=draw(st.sampled_from([(6, 6), (4, 9), (36,), (3, 4, 3), (5, 4), (2,)])),
        reaction=draw(st.sampled_from([0.0, 1.0, 100.0])),
        wind=3.0 if kind == "nonsymmetric" else 0.0,
        shift=2.7 if kind == "indefinite" else 0.0,
        is_singular=kind == "singular",
        # It may be wrong, but not for nonsymmetric matrices: PETSc's ICC loops for ever on some.
        says_spd=kind in ("spd", "singular") or (kind == "indefinite" and draw(st.booleans())),
    )


@pytest.mark.slow  # 50 families of each variant, with the condition of every system
@pytest.mark.parametrize("variant", VARIANTS | ON_GRIDS)
@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(sequence=st.lists(links(), min_size=2, max_size=6), seed=st.integers(0, 2**32 - 1))
def test_what_changes_within_a_family_is_followed(variant, sequence, seed):
    """A family that changes size, grid, kind, nullspace and SPD flag between systems."""
    generator = np.random.default_rng(seed)
    solver = solver_of(variant)
    for link in sequence:
        system, x = link.system(generator)
        solution = solver(system)
        assert solution.converged, link
        A = scipy.sparse.csr_array(system.A.getValuesCSR()[::-1], shape=system.A.getSize())
        residual = np.linalg.norm(system.b.array_r - A @ solution.x.array_r)
        assert residual <= RTOL * np.linalg.norm(system.b.array_r) * (1 + 1e-6)
        values = np.linalg.svd(A.toarray(), compute_uv=False)
        condition = values[0] / values[-2 if link.is_singular else -1]
        assert np.linalg.norm(solution.x.array_r - x) <= 2 * RTOL * condition * np.linalg.norm(x)


@pytest.mark.parametrize("variant", VARIANTS | ON_GRIDS)
def test_a_matrix_that_is_not_spd_as_it_says_is_solved_by_the_ladder(variant):
    """The last rung of the ladder ignores a wrong SPD flag."""
    generator = np.random.default_rng(0)
    for shift in (2.7, 100.0):
        A = laplacian(6, 6) - shift * scipy.sparse.eye_array(36)
        grid = GridDofs(shape=(6, 6), spacing=(1.0, 1.0), permutation=np.arange(36))
        x = generator.standard_normal(36)
        solution = solver_of(variant)(assembled(A, A @ x, is_spd=True, grid=grid))
        assert solution.converged
        np.testing.assert_allclose(solution.x.array_r, x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS | ON_GRIDS)
def test_nullspaces_come_and_go_on_one_matrix(variant):
    """The nullspace of the last system must not enter the next.

    A solution is orthogonal to the nullspace of its system.
    """
    generator = np.random.default_rng(0)
    grid = GridDofs(shape=(6, 6), spacing=(1.0, 1.0), permutation=np.arange(36))
    # All have one pattern; constants and alternating signs are the nullspaces of A and S A S.
    signs = scipy.sparse.diags_array(np.where(np.indices((6, 6)).sum(axis=0) % 2, -1.0, 1.0).ravel())
    neumann, dirichlet = laplacian(6, 6, ends=1.0), laplacian(6, 6)
    solver = solver_of(variant)
    A = assembled(dirichlet, np.zeros(36)).A
    b = A.createVecLeft()
    for matrix, vector in (
        (neumann, np.ones(36)),
        (dirichlet, None),
        (signs @ neumann @ signs, signs.diagonal()),
        (neumann, np.ones(36)),
        (dirichlet, None),
        (dirichlet, None),
    ):
        values = scipy.sparse.csr_array(matrix)
        values.sort_indices()
        A.setValuesCSR(values.indptr.astype(np.int32), values.indices.astype(np.int32), values.data)
        A.assemble()
        x = generator.standard_normal(36) + 1.0
        nullspace = None
        if vector is not None:
            x -= vector * (vector @ x) / 36
            direction = A.createVecLeft()
            direction.array = vector / 6
            nullspace = PETSc.NullSpace().create(vectors=[direction], comm=MPI.COMM_SELF)
        b.array = values @ x
        solution = solver(LinearSystem(A=A, b=b, is_spd=True, grid=grid, nullspace=nullspace))
        assert solution.converged
        if vector is not None:
            assert abs(vector @ solution.x.array_r) <= 1e-12 * np.linalg.norm(x)
        else:
            assert A.getNullSpace().handle == 0
        np.testing.assert_allclose(solution.x.array_r, x, rtol=0, atol=1e-5)


def growth_over_2000_systems(name: str) -> int:
    """How many bytes more are resident after 2000 systems than after the first 300."""
    n = 12
    system = assembled(laplacian(n, n), np.zeros(n * n), is_spd=True)
    indptr, indices, values = system.A.getValuesCSR()
    generator = np.random.default_rng(0)
    solver = LinearSolver(STRATEGIES[name](), rtol=RTOL)

    def solve(num_systems: int) -> int:
        """The resident bytes after the systems are solved."""
        for i in range(num_systems):
            if i % 3:  # every third system has the matrix of the one before
                system.A.setValuesCSR(indptr, indices, values * (1 + 0.1 * generator.random()))
                system.A.assemble()
            system.b.array = generator.standard_normal(n * n)
            assert solver(system).converged
        gc.collect()
        return psutil.Process().memory_info().rss

    before = solve(300)
    return solve(2000) - before


@pytest.mark.slow  # 2000 systems of each strategy
@pytest.mark.parametrize("name", STRATEGIES)
def test_memory_stays_flat_over_2000_systems(name):
    """Memory does not grow: one leaked vector per system would be 2 MB or more.

    In a fresh process, because threads that other tests have left allocate too.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(growth_over_2000_systems, [name]) < 1e6


@pytest.mark.parametrize("name", ["krylov", "cg", "lagged", "gcrodr"])
def test_an_error_inside_multigrid_is_survived(name):
    """An error in GAMG of one level, which divides by a zero diagonal, is survived."""
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
