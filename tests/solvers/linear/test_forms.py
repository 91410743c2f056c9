"""Every type of matrix by every strategy, and malformed systems."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from mpi4py import MPI
from petsc4py import PETSc

from penstock.solvers.linear import STRATEGIES, LinearSolver
from penstock.solvers.linear.iterative.petsc import Krylov
from penstock.solvers.problem import LinearSystem, Outcome

n = 12
RTOL = 1e-9


def laplacian(scale: float):
    line = scipy.sparse.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    return (scale * scipy.sparse.kronsum(line, line) + scipy.sparse.eye_array(n * n)).tocsr()


def petsc_of(A) -> PETSc.Mat:
    A = scipy.sparse.csr_array(A)
    A.sort_indices()
    csr = (A.indptr.astype(np.int32), A.indices.astype(np.int32), A.data)
    matrix = PETSc.Mat().createAIJ(A.shape, csr=csr, comm=MPI.COMM_SELF)
    matrix.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    return matrix


def vector_of(values) -> PETSc.Vec:
    return PETSc.Vec().createWithArray(np.array(values, float), comm=MPI.COMM_SELF)


def nest_of(A) -> PETSc.Mat:
    h = A.shape[0] // 3
    parts = (slice(None, h), slice(h, None))
    return PETSc.Mat().createNest([[petsc_of(A[i][:, j]) for j in parts] for i in parts], comm=MPI.COMM_SELF)


class Product:
    """A matrix that only multiplies, for PETSc's type "python"."""

    def __init__(self, A):
        self.A = A

    def mult(self, matrix, x, y):
        y.array = self.A @ x.array_r


def product_of(A) -> PETSc.Mat:
    return PETSc.Mat().createPython(A.shape, Product(A), comm=MPI.COMM_SELF)


def converted(kind: str):
    return lambda A: petsc_of(A).convert(kind, PETSc.Mat())


TYPES = {
    **{kind: converted(kind) for kind in ("baij", "sbaij", "dense", "mpiaij", "seqaijsell", "is")},
    "transpose": lambda A: PETSc.Mat().createTranspose(petsc_of(A.T)),
    "nest": nest_of,
}


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("kind", TYPES)
def test_every_strategy_serves_every_type(kind, name):
    """Every type with changing values, in a new matrix object each time.

    The strategy solves all systems without retries.
    """
    solver = LinearSolver(STRATEGIES[name](), rtol=RTOL)
    b = np.random.default_rng(0).standard_normal(n * n)
    for scale in (1.0, 1.0, 1.2, 1.5):
        A = laplacian(scale)
        solution = solver(LinearSystem(A=TYPES[kind](A), b=vector_of(b), is_spd=True))
        assert solution.converged, solution.reason
        expected = scipy.sparse.linalg.spsolve(A.tocsc(), b)
        np.testing.assert_allclose(solution.x.array_r, expected, rtol=0, atol=1e-7 * np.abs(expected).max())
    assert solver.num_retried == 0


@pytest.mark.parametrize("tolerance", [{"rtol": RTOL}, {"accuracy": 1e-6}])
@pytest.mark.parametrize("is_spd", [True, False])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_product_alone_is_solved_or_refused_by_name(name, is_spd, tolerance):
    A = laplacian(1.0)
    solver = LinearSolver(STRATEGIES[name](), **tolerance)
    for seed in range(5):
        b = np.random.default_rng(seed).standard_normal(n * n)
        solution = solver(LinearSystem(A=product_of(A), b=vector_of(b), is_spd=is_spd or name == "cg"))
        if name in ("direct", "constant", "lagged"):
            assert solution.outcome is Outcome.REFUSED
            assert f"strategy {name!r} needs the entries of the matrix" in solution.reason
            continue
        assert solution.converged, solution.reason
        expected = scipy.sparse.linalg.spsolve(A.tocsc(), b)
        np.testing.assert_allclose(solution.x.array_r, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert solver.num_retried == 0


@pytest.mark.parametrize("name", ["auto", "direct", "krylov"])
def test_nested_vectors_come_back_nested(name):
    """Nested vectors as DOLFINx makes them for blocks, in the nullspace too."""
    line = scipy.sparse.diags_array([-np.ones(8), np.r_[1, 2 * np.ones(7), 1], -np.ones(8)], offsets=[-1, 0, 1])
    A = scipy.sparse.kronsum(line, line).tocsr()
    matrix, b = nest_of(A), A @ np.random.default_rng(0).standard_normal(81)
    nested = lambda values: PETSc.Vec().createNest([vector_of(values[:27]), vector_of(values[27:])])  # noqa: E731
    nullspace = PETSc.NullSpace().create(vectors=[nested(np.full(81, 1 / 9))], comm=MPI.COMM_SELF)
    solution = LinearSolver(STRATEGIES[name](), rtol=RTOL)(
        LinearSystem(A=matrix, b=nested(b), nullspace=nullspace, guess=nested(np.zeros(81)))
    )
    assert solution.converged, solution.reason
    x = np.concatenate([part.array_r for part in solution.x.getNestSubVecs()])
    expected = np.linalg.pinv(A.toarray(), rcond=1e-10) @ b
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-6)


def unassembled() -> PETSc.Mat:
    matrix = petsc_of(laplacian(1.0))
    matrix.setValue(0, 0, 3.0)
    return matrix


def of_nan() -> PETSc.Mat:
    A = laplacian(1.0)
    A.data[7] = np.nan
    return petsc_of(A)


def space(size: int) -> PETSc.NullSpace:
    return PETSc.NullSpace().create(vectors=[vector_of(np.full(size, size**-0.5))], comm=MPI.COMM_SELF)


NONE = {
    "has 144 rows and 100 columns": lambda: LinearSystem(A=petsc_of(np.ones((144, 100))), b=vector_of(np.ones(144))),
    "right-hand side has 100 entries": lambda: LinearSystem(A=petsc_of(laplacian(1.0)), b=vector_of(np.ones(100))),
    "guess has 100 entries": lambda: LinearSystem(
        A=petsc_of(laplacian(1.0)), b=vector_of(np.ones(144)), guess=vector_of(np.ones(100))
    ),
    "a vector of the nullspace has 100 entries": lambda: LinearSystem(
        A=petsc_of(laplacian(1.0)), b=vector_of(np.ones(144)), nullspace=space(100)
    ),
    "is 1.0e-170, whose square": lambda: LinearSystem(A=petsc_of(laplacian(1.0)), b=vector_of(np.full(144, 1e-170))),
    "is 1.0e+170, whose square": lambda: LinearSystem(A=petsc_of(laplacian(1.0)), b=vector_of(np.full(144, 1e170))),
    "not assembled": lambda: LinearSystem(A=unassembled(), b=vector_of(np.ones(144))),
    "matrix holds values that are not finite in row 2 (counted from 0):": lambda: LinearSystem(
        A=of_nan(), b=vector_of(np.ones(144))
    ),
    "side holds values that are not finite in 100 rows, first in row 44 (counted from 0):": lambda: LinearSystem(
        A=petsc_of(laplacian(1.0)), b=vector_of(np.where(np.arange(144) < 44, 1.0, np.nan))
    ),
}


@pytest.mark.parametrize("name", ["auto", "direct", "gcrodr"])
@pytest.mark.parametrize("said", NONE)
def test_what_is_no_system_is_named(said, name):
    """A malformed system is refused by every strategy, also after a good one."""
    solver = LinearSolver(STRATEGIES[name](), accuracy=1e-4)
    for _ in range(2):
        solution = solver(NONE[said]())
        assert not solution.converged and said in solution.reason and "\n" not in solution.reason
        assert solver(LinearSystem(A=petsc_of(laplacian(1.0)), b=vector_of(np.ones(144)))).converged


def test_one_matrix_that_is_left_unassembled_is_named():
    system = LinearSystem(A=petsc_of(laplacian(1.0)), b=vector_of(np.ones(144)))
    solver = LinearSolver(Krylov(), rtol=RTOL)
    assert solver(system).converged
    system.A.setValue(0, 0, 3.0)
    assert "not assembled" in solver(system).reason


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_mesh_may_be_another_one_each_time(name):
    solver = LinearSolver(STRATEGIES[name](), rtol=RTOL)
    for size in (9, 10, 8, 11, 12, 11, 9, 9, 10, 13, 14, 15):
        line = scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(size, size))
        A = scipy.sparse.kronsum(line, line).tocsr()
        solution = solver(LinearSystem(A=petsc_of(A), b=vector_of(np.ones(size**2)), is_spd=True))
        assert solution.converged and not solution.reason, solution.reason
        expected = scipy.sparse.linalg.spsolve(A.tocsc(), np.ones(size**2))
        np.testing.assert_allclose(solution.x.array_r, expected, rtol=1e-6)


def test_a_nullspace_that_comes_later_is_looked_at():
    system = LinearSystem(A=petsc_of(laplacian(1.0)), b=vector_of(np.ones(144)))
    solver = LinearSolver(Krylov(), rtol=RTOL)
    assert solver(system).converged
    assert "a vector of the nullspace has 100 entries" in solver(replace(system, nullspace=space(100))).reason


def test_a_plain_matrix_may_come_with_nested_vectors():
    """Nested vectors with a plain matrix are accepted, also after plain vectors."""
    A, b = laplacian(1.0), np.arange(144.0)
    matrix, solver = petsc_of(A), LinearSolver(Krylov(), rtol=RTOL)
    assert solver(LinearSystem(A=matrix, b=vector_of(b))).converged
    solution = solver(LinearSystem(A=matrix, b=PETSc.Vec().createNest([vector_of(b[:50]), vector_of(b[50:])])))
    x = np.concatenate([part.array_r for part in solution.x.getNestSubVecs()])
    np.testing.assert_allclose(x, scipy.sparse.linalg.spsolve(A.tocsc(), b), rtol=1e-6)
