"""Solutions are accepted by a check that scaling can't fool.

References are dense, in extended precision.
"""

from functools import cache

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from mpi4py import MPI
from petsc4py import PETSc

from penstock.solvers.linear import STRATEGIES, LinearSolver
from penstock.solvers.linear.auto import calibration as accuracy
from penstock.solvers.linear.auto.calibration import tolerance_of
from penstock.solvers.linear.check import Bound, check_of, extended_residual_of, residual_of
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.problem import LinearSystem
from tests.support.systems import system_of

SIZE = 8
NUM_UNKNOWNS = SIZE * SIZE
EXTENDED = np.finfo(np.longdouble).eps < np.finfo(float).eps  # false where the processor has no 64 bits


def exact(A, b) -> np.ndarray:
    """The solution A⁻¹ b, by refinement with residuals in extended precision."""
    dense = np.asarray(A.todense())
    inverse, x = np.linalg.inv(dense), np.zeros(len(b))
    for _ in range(6):
        residual = b - dense.astype(np.longdouble) @ x
        x = x + inverse @ residual.astype(float)
    return x


def error(x, expected) -> float:
    return np.linalg.norm(x - expected) / np.linalg.norm(expected)


@cache
def differences():
    one = scipy.sparse.diags_array([np.ones(SIZE), -np.ones(SIZE)], offsets=[0, -1], shape=(SIZE + 1, SIZE)).tocsr()
    eye = scipy.sparse.eye_array(SIZE)
    return scipy.sparse.vstack([scipy.sparse.kron(one, eye), scipy.sparse.kron(eye, one)]).tocsr()


def diffusion(generator, coefficient):
    """The matrix of -∇·(a ∇u) with a by points, and a right-hand side."""
    to_edges = abs(differences())
    a = to_edges.sum(axis=1) / (to_edges @ (1 / coefficient))
    A = differences().T @ scipy.sparse.diags_array(a) @ differences()
    return A.tocsr(), np.exp(0.3 * generator.standard_normal(NUM_UNKNOWNS))


def powers(generator, digits: float) -> np.ndarray:
    """Powers of 2 between 10^-digits and 10^digits: scaling by them rounds nothing."""
    return 2.0 ** np.round(np.log2(10) * generator.uniform(-digits, digits, NUM_UNKNOWNS))


def scaled(generator, rows, columns, *, wind=0.0, shift=0.0):
    A, b = diffusion(generator, 4.0 ** generator.uniform(-1, 1, NUM_UNKNOWNS))
    upwind = scipy.sparse.diags_array([-np.ones(NUM_UNKNOWNS - 1), np.ones(NUM_UNKNOWNS)], offsets=[-1, 0])
    A = A + wind * upwind - shift * scipy.sparse.eye_array(NUM_UNKNOWNS)
    R = powers(generator, rows)
    C = R if columns is None else powers(generator, columns)
    x = exact(A, b) / C
    A = scipy.sparse.diags_array(R) @ A @ scipy.sparse.diags_array(C)
    return A, R * b, x, columns is None


def penalised(generator, penalty):
    """The condition u = 1 on the boundary by a penalty, against elimination.

    The penalty is off by its inverse.
    """
    A, b = diffusion(generator, np.exp(generator.standard_normal(NUM_UNKNOWNS)))
    A, b = A / 8, b / SIZE**2
    index = np.arange(NUM_UNKNOWNS).reshape(SIZE, SIZE)
    free, x = index[1:-1, 1:-1].ravel(), np.ones(NUM_UNKNOWNS)
    edge = np.setdiff1d(index, free)
    x[free] = exact(A[free][:, free], b[free] - A[free][:, edge].sum(axis=1))
    on_edge = np.zeros(NUM_UNKNOWNS)
    on_edge[edge] = penalty
    return A + scipy.sparse.diags_array(on_edge), b + on_edge, x, True


def jumping(generator, jump):
    """Systems with a disc somewhere inside.

    `contrast` is the ratio of the coefficient there to that around it.
    """
    middle = generator.integers(2, SIZE - 2, (2, 1, 1))
    inside = ((np.indices((SIZE, SIZE)) - middle) ** 2).sum(axis=0) < 5
    A, b = diffusion(generator, np.where(inside, jump, 1.0).ravel() * np.exp(generator.standard_normal(NUM_UNKNOWNS)))
    return A, b, exact(A, b), True


def beam(generator, num_points):
    """The beam EI u'''' = q, simply supported.

    Its condition is num_points^4.
    """
    second = scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(num_points, num_points))
    A = (1 + generator.random()) * num_points**4 * (second @ second)
    b = np.exp(-((np.linspace(0, 1, num_points) - generator.random()) ** 2) / 0.01)
    return A, b, exact(A, b), True


KINDS = {
    "rows": lambda generator: scaled(generator, 12, 0, wind=1.0),
    "columns": lambda generator: scaled(generator, 0, 12, wind=1.0),
    "rows and columns": lambda generator: scaled(generator, 12, 12, wind=1.0),
    "indefinite": lambda generator: scaled(generator, 12, 12, shift=0.7),
    "symmetrically": lambda generator: scaled(generator, 12, None),
    "a little": lambda generator: scaled(generator, 3, None),
    **{f"penalty {penalty:g}": lambda g, penalty=penalty: penalised(g, penalty) for penalty in (1e8, 1e12, 1e18, 1e30)},
    **{f"jump {jump:g}": lambda g, jump=jump: jumping(g, jump) for jump in (1e-9, 1e9, 1e12)},
    "beam": lambda generator: beam(generator, 300),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_taken_is_as_accurate_as_asked_and_what_can_be_solved_is_taken(kind, strategy):
    """The rule of docs/solvers.md for errors above the accuracy.

    At most 1 % of the systems are off, and none by more than twice.
    """
    for tolerance in ({"accuracy": 1e-4}, {"rtol": 1e-8}):
        generator, solver = np.random.default_rng(3), LinearSolver(STRATEGIES[strategy](), **tolerance)
        for _ in range(11):
            A, b, x, is_spd = KINDS[kind](generator)
            solution = solver(system_of(A, b, is_spd=is_spd))
            assert solution.converged, solution.reason
            assert error(solution.x.array_r, x) <= 2e-4


@pytest.mark.parametrize("strategy", ["auto", "constant", "lagged"])
def test_a_penalty_does_not_hide_the_rest_of_right_hand_sides_of_low_rank(strategy):
    """A penalty of 1e30 does not hide the differences of right-hand sides.

    All systems share one matrix, and all right-hand sides look alike in norm.
    """
    generator = np.random.default_rng(0)
    A, b, _, _ = penalised(generator, 1e30)
    edge, basis = b > 1e20, np.exp(generator.standard_normal((3, NUM_UNKNOWNS))) / SIZE**2
    inner, system = A.tocsr()[~edge][:, ~edge], system_of(A, b, is_spd=True)
    to_edge = A.tocsr()[~edge][:, edge].sum(axis=1)
    solver = LinearSolver(STRATEGIES[strategy](), accuracy=1e-4)
    for _ in range(12):
        source = generator.random(3) @ basis
        system.b.array = np.where(edge, b, source)
        solution = solver(system)
        assert solution.converged
        expected = np.ones(NUM_UNKNOWNS)
        expected[~edge] = exact(inner, source[~edge] - to_edge)
        assert error(solution.x.array_r, expected) <= 1e-4


@pytest.mark.parametrize("strategy", ["cg", "krylov", "gcrodr"])
def test_a_penalty_does_not_hide_the_rest_where_a_factorisation_is_too_dear(strategy, monkeypatch):
    """A strategy that makes its references by itself is accurate beside a penalty.

    A thousandth of a residual may still be that of the boundary.
    """
    monkeypatch.setattr(accuracy, "can_factor", lambda system: False)
    for penalty in (1e1, 1e3, 1e5, 1e7, 1e9, 1e12):
        generator, solver = np.random.default_rng(3), LinearSolver(STRATEGIES[strategy](), accuracy=1e-4)
        for _ in range(3):
            A, b, *_ = penalised(generator, penalty)
            solution = solver(system_of(A, b, is_spd=True))
            assert solution.converged, solution.reason
            assert error(solution.x.array_r, exact(A, b)) <= 1e-4


def test_a_beam_is_right_to_more_digits_than_its_condition_leaves():
    A, b, x, _ = beam(np.random.default_rng(0), 1000)
    for tolerance in ({"accuracy": 1e-8}, {"rtol": 1e-8}):
        solution = LinearSolver(STRATEGIES["direct"](), **tolerance)(system_of(A, b))
        assert solution.converged and solution.relative_residual > 1e-8
        assert error(solution.x.array_r, x) <= (1e-8 if EXTENDED else 1e-5)


@pytest.mark.parametrize("size", [14, 20, 40])
def test_a_condition_that_leaves_no_digits_is_told(size):
    """A nearly singular system is refused although its residuals are rounding."""
    A = scipy.linalg.hilbert(size)
    system = system_of(A, A @ np.random.default_rng(0).standard_normal(size))
    tolerance = tolerance_of(1e-4)
    attempt = Direct(solver="mumps").solve(system, tolerance).checked(system)
    assert tolerance.bound.is_kept_by(attempt.check) and not attempt.meets(tolerance)
    assert "singular, or nearly so" in attempt.reason
    assert not LinearSolver(STRATEGIES["direct"](), accuracy=1e-4)(system).converged


@pytest.mark.parametrize("strategy", ["cg", "krylov", "gcrodr"])
def test_a_local_source_is_no_fault(strategy):
    """Solutions of a local source are accepted.

    Far from it no iterative method gets the terms of a row right relative to themselves.
    """
    generator = np.random.default_rng(0)
    A, _ = diffusion(generator, np.ones(NUM_UNKNOWNS))
    b = np.zeros(NUM_UNKNOWNS)
    b[0] = 1.0
    system = system_of(scipy.sparse.eye_array(NUM_UNKNOWNS) + 1e-3 * A, b, is_spd=True)
    solution = LinearSolver(STRATEGIES[strategy](pc="jacobi"), rtol=1e-6)(system)
    assert solution.converged and solution.strategy == strategy
    check = check_of(system, solution.x)
    assert check.strict_backward_error > 1e-3 and check.backward_error < 1e-6


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_values_that_count_are_those_that_the_system_has_now(strategy):
    """A matrix is overwritten in an array that PETSc shares, without notice to PETSc.

    The check must find that mistake.
    """
    A, b = diffusion(np.random.default_rng(0), np.ones(NUM_UNKNOWNS))
    A, x, values, rights = A.tocsr(), exact(A, b), A.data.copy(), np.zeros(NUM_UNKNOWNS)
    arrays = (A.indptr.astype(np.int32), A.indices.astype(np.int32), values)
    matrix = PETSc.Mat().createAIJWithArrays(A.shape, arrays, comm=MPI.COMM_SELF)
    matrix.assemble()
    vector = PETSc.Vec().createWithArray(rights, comm=MPI.COMM_SELF)
    assert vector.norm() == 0.0  # PETSc remembers this norm
    solver = LinearSolver(STRATEGIES[strategy](), accuracy=1e-4)
    for i in range(1, 12):
        values[:], rights[:] = i * A.data, b
        solution = solver(LinearSystem(A=matrix, b=vector, is_spd=True))
        assert solution.converged and error(solution.x.array_r, x / i) <= 1e-4


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_nullspace_that_is_none_does_not_change_x_unseen(strategy):
    A, b = diffusion(np.random.default_rng(0), np.ones(NUM_UNKNOWNS))
    constants = PETSc.NullSpace().create(constant=True, comm=MPI.COMM_SELF)
    solver = LinearSolver(STRATEGIES[strategy](), accuracy=1e-4)
    for _ in range(3):
        assert not solver(system_of(A, b, is_spd=True, nullspace=constants)).converged


def test_a_check_is_of_one_x_and_one_matrix():
    A, b = diffusion(np.random.default_rng(0), np.ones(NUM_UNKNOWNS))
    system, other = system_of(A, b), system_of(2 * A, b)
    attempt = Direct().solve(system, tolerance_of(1e-4))
    assert attempt.checked(system) is attempt and attempt.check.relative_residual < 1e-12
    assert attempt.checked(other).check.relative_residual == pytest.approx(1.0)
    attempt.x.scale(3.0)
    assert attempt.checked(system).check.relative_residual == pytest.approx(2.0)


@pytest.mark.parametrize("scale", [1.0, 2.0**-660, 2.0**660])
def test_the_check_is_that_of_its_definition(scale):
    generator = np.random.default_rng(0)
    A = scipy.sparse.random_array((50, 50), density=0.1, rng=generator).tocsr() + 2 * scipy.sparse.eye_array(50)
    x, b = generator.standard_normal((2, 50))
    A = scipy.sparse.diags_array(np.r_[0.0, np.ones(49)]) @ A  # a row without entries
    system = system_of(A, scale * b)
    vector = system.b.duplicate()
    vector.array = scale * x
    check = check_of(system, vector)
    dense = A.toarray().astype(np.longdouble)
    residual, sizes = b - dense @ x, abs(dense) @ abs(x) + abs(b)
    np.testing.assert_allclose(residual_of(system, vector).array_r, scale * residual, rtol=0, atol=1e-14 * scale)
    extended = extended_residual_of(system, vector).array_r
    np.testing.assert_allclose(extended, scale * residual, rtol=1e-15 if EXTENDED else 1e-12)
    assert check.residual_norm == pytest.approx(scale * float(np.linalg.norm(residual)), rel=1e-13)
    assert check.relative_residual == pytest.approx(float(np.linalg.norm(residual)) / np.linalg.norm(b), rel=1e-13)
    assert check.strict_backward_error == pytest.approx(float((abs(residual) / sizes).max()), rel=1e-13)
    assert check.backward_error == check.strict_backward_error  # no floor, because the least diagonal entry is 0
    assert not Bound(1.0, np.inf).is_kept_by(check) and Bound(np.inf, 1.0).is_kept_by(check)
    check = check_of(system_of(dense.astype(float) + np.eye(50), scale * b), vector)
    dense += np.eye(50)
    share = abs(np.diag(dense)).min() / abs(dense).sum(axis=1).max() * abs(x).max()
    floored = abs(b - dense @ x) / (abs(dense) @ abs(x) + abs(b) + share * abs(dense).sum(axis=1))
    assert check.backward_error == pytest.approx(float(floored.max()), rel=1e-13)
    assert check.backward_error < check.strict_backward_error


def test_what_is_not_finite_keeps_no_bound():
    system = system_of(scipy.sparse.eye_array(3), [1.0, 2.0, 3.0])
    for value in (np.nan, np.inf):
        x = system.b.duplicate()
        x.array = [value, value, -value]
        check = check_of(system, x)
        assert not Bound(np.inf, np.inf).is_kept_by(check)


RANKS = """
import numpy as np, scipy.sparse
from mpi4py import MPI
from petsc4py import PETSc
from penstock.solvers.linear.check import check_of
from penstock.solvers.problem import LinearSystem

generator = np.random.default_rng(0)
A = scipy.sparse.csr_array(scipy.sparse.random_array((40, 40), density=0.1, rng=generator) + scipy.sparse.eye_array(40))
values = generator.standard_normal((2, 40))
checks = []
for comm in (MPI.COMM_WORLD, MPI.COMM_SELF):
    matrix = PETSc.Mat().createAIJ(((PETSc.DECIDE, 40), (PETSc.DECIDE, 40)), comm=comm)
    first, last = matrix.setUp().getOwnershipRange()
    rows = A[first:last]
    matrix.setPreallocationNNZ(40)
    matrix.setValuesCSR(rows.indptr.astype("i4"), rows.indices.astype("i4"), rows.data)
    matrix.assemble()
    x, b = matrix.createVecs()
    x.array, b.array = values[:, first:last]
    check = check_of(LinearSystem(A=matrix, b=b), x)
    checks.append([check.relative_residual, check.strict_backward_error, check.backward_error])
np.testing.assert_allclose(*checks, rtol=1e-13)
print("alike" if MPI.COMM_WORLD.rank == 0 else "", end="")
"""


def test_ranks_check_alike(run_on_ranks):
    assert "alike" in run_on_ranks(2, RANKS)
