"""Errors of calibrated strategies against direct solves."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
from mpi4py import MPI
from petsc4py import PETSc

from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.auto.auto import Auto
from penstock.solvers.linear.auto.calibration import Calibrated, calibrated, relative_error, tolerance_of
from penstock.solvers.linear.auto.ratios import Ratios, low_quantile
from penstock.solvers.linear.direct.constant import Constant
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.direct.lagged import Lagged
from penstock.solvers.linear.iterative.cg import CG
from penstock.solvers.linear.iterative.gcrodr import GCRODR
from penstock.solvers.linear.iterative.petsc import Krylov
from penstock.solvers.linear.strategy import Attempt, Strategy
from penstock.solvers.problem import LinearSystem, Outcome

SIZE = 16


def random_systems(num_systems: int, *, wind=0.0, contrast=4.0, seed=0):
    """Dense A and b of -∇·(a ∇u) + wind ∂u/∂x = 1 on SIZE x SIZE points.

    a is random on every edge. All systems share one matrix.
    """
    generator = np.random.default_rng(seed)
    difference = scipy.sparse.diags_array([np.ones(SIZE), -np.ones(SIZE)], offsets=[0, -1], shape=(SIZE + 1, SIZE))
    difference, eye = difference.tocsr(), scipy.sparse.eye_array(SIZE)
    gradient = scipy.sparse.vstack([scipy.sparse.kron(difference, eye), scipy.sparse.kron(eye, difference)])
    transport = wind * scipy.sparse.kron(difference[:-1], eye)
    matrix = None
    for _ in range(num_systems):
        a = contrast ** generator.uniform(0, 1, gradient.shape[0])
        A = scipy.sparse.csr_array(gradient.T @ scipy.sparse.diags_array(a) @ gradient + transport)
        if matrix is None:
            matrix = PETSc.Mat().createAIJ(A.shape, csr=(A.indptr, A.indices, A.data), comm=MPI.COMM_SELF)
        matrix.setValuesCSR(A.indptr, A.indices, A.data)
        matrix.assemble()
        vector = matrix.createVecLeft()
        vector.set(1.0)
        yield A.toarray(), LinearSystem(A=matrix, b=vector, is_spd=wind == 0.0)


def errors_of(strategy, accuracy, num_systems=60, **kind) -> np.ndarray:
    solver, errors = LinearSolver(strategy, accuracy=accuracy), []
    for A, system in random_systems(num_systems, **kind):
        solution = solver(system)
        assert solution.converged and solution.strategy in (strategy.name, "direct")
        x = np.linalg.solve(A, system.b.array_r)
        errors.append(np.linalg.norm(solution.x.array_r - x) / np.linalg.norm(x))
    return np.array(errors)


@pytest.mark.parametrize(
    ("strategy", "wind"),
    [
        (CG(pc="icc"), 0.0),
        (CG(pc="icc", k=5), 0.0),
        (Krylov(ksp="cg", pc="jacobi"), 0.0),
        (Krylov(ksp="cg", pc="gamg"), 0.0),
        (Krylov(ksp="minres", pc="jacobi"), 0.0),
        (GCRODR(pc="jacobi", m=20, k=8), 2.0),
        (Krylov(ksp="bcgs", pc="ilu"), 2.0),
        (Direct(), 2.0),
        (Constant(), 0.0),
    ],
    ids=["cg", "recycling cg", "jacobi", "gamg", "minres", "gcrodr", "bcgs", "direct", "constant"],
)
@pytest.mark.parametrize("accuracy", [1e-1, 1e-4, 1e-8])
def test_the_error_is_what_was_asked_for(strategy, wind, accuracy):
    errors = errors_of(strategy, accuracy, wind=wind)
    assert np.mean(errors > accuracy) <= 0.01 and errors.max() <= 2 * accuracy


@pytest.mark.parametrize("strategy", [CG(pc="jacobi"), Krylov(ksp="cg", pc="jacobi")], ids=["energy", "residual"])
def test_no_digits_are_wasted(strategy):
    accuracy = 1e-4
    errors = errors_of(strategy, accuracy)[20:]  # some of them are rechecks
    assert np.median(errors) >= 0.05 * accuracy


def test_a_bad_scale_does_not_fool_it():
    # The residual lives where A is large and the error where it is small: 1e-4 of one is far from 1e-4 of the other.
    generator, solver = np.random.default_rng(0), LinearSolver(Krylov(ksp="gmres", pc="none"), accuracy=1e-3)
    for _ in range(20):
        A = np.diag(10.0 ** generator.uniform(-3, 3, 60)) + 1e-4 * generator.standard_normal((60, 60))
        b = A @ generator.standard_normal(60)
        matrix = PETSc.Mat().createDense(A.shape, array=A.copy(), comm=MPI.COMM_SELF).convert("aij")
        vector = matrix.createVecLeft()
        vector.array = b
        solution = solver(LinearSystem(A=matrix, b=vector))
        x = np.linalg.solve(A, b)
        assert solution.converged and np.linalg.norm(solution.x.array_r - x) <= 1e-3 * np.linalg.norm(x)


def test_the_quantile_lies_below_the_samples_it_is_of():
    generator = np.random.default_rng(0)
    for num_samples in (8, 32):
        below = []
        for _ in range(300):
            bound = low_quantile(generator.normal(1.0, 0.4, num_samples))
            below.append(0.5 * math.erfc((1.0 - bound) / 0.4 / math.sqrt(2)))  # part of the distribution below
        assert np.mean(np.array(below) <= 0.01) >= 0.9
    assert low_quantile([5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 0.0]) <= 0.0


def test_ratios_outlive_a_reset():
    strategy = Calibrated(Krylov(ksp="cg", pc="icc"))
    tolerance = tolerance_of(1e-4)
    for _, system in random_systems(10):
        assert strategy.solve(system, tolerance).outcome is Outcome.CONVERGED
    before = strategy.tolerance(1e-4)
    strategy.reset()
    assert strategy.tolerance(1e-4) == before != 1e-4


def test_the_relative_error_ignores_the_nullspace():
    nullspace = PETSc.NullSpace().create(constant=True, comm=MPI.COMM_SELF)
    matrix = PETSc.Mat().createAIJ((3, 3), nnz=1, comm=MPI.COMM_SELF)
    x, reference = matrix.createVecs()
    x.array, reference.array = [2.0, 3.0, 5.0], [-1.0, 0.0, 1.0]
    system = LinearSystem(A=matrix, b=x, nullspace=nullspace)
    expected = np.array([2.0, 3.0, 5.0]) - 10 / 3 - [-1.0, 0.0, 1.0]
    assert relative_error(system, x, reference) == pytest.approx(np.linalg.norm(expected) / math.sqrt(2))
    assert x.array_r[0] == 2.0 and reference.array_r[0] == -1.0


def test_direct_strategies_are_not_calibrated():
    direct = Direct()
    assert calibrated(direct) is direct
    assert isinstance(calibrated(CG()), Calibrated)


class Liar(Strategy):
    """A strategy that always reports to have met the tolerance."""

    name = "liar"

    def solve(self, system, tolerance):
        x = system.b.copy()
        return Attempt(x=x, outcome=Outcome.CONVERGED, iterations=1, energy_error=1e-9)


def test_an_energy_estimate_gone_wrong_is_seen():
    assert errors_of(Liar(), 1e-4, num_systems=12).max() <= 1e-4


def test_a_system_that_cannot_be_solved_is_an_outcome():
    A = PETSc.Mat().createDense((3, 3), array=np.diag(np.ones(2), 1), comm=MPI.COMM_SELF).convert("aij")
    b = A.createVecLeft()
    b.array = [1.0, 2.0, 3.0]
    assert not LinearSolver(GCRODR(pc="none"), accuracy=1e-4)(LinearSystem(A=A, b=b)).converged


def cooled_plates(num_systems: int, *, offset: float):
    """Systems of -∇·(a ∇u) = q on SIZE x SIZE points with u = offset around, and u.

    u = offset + A⁻¹ q is exact where the offset is large, because A maps a constant to the contribution of the walls.
    """
    for A, system in random_systems(num_systems):
        q = 0.01 * np.random.default_rng(1).uniform(0, 1, SIZE**2)
        system.b.array = offset * A.sum(axis=1) + q
        yield offset + np.linalg.solve(A, q), system


@pytest.mark.parametrize(
    "strategy",
    [CG(pc="icc"), CG(pc="icc", k=5), Krylov(), GCRODR(pc="jacobi", m=20, k=8), Lagged(), Direct(), Constant(), Auto()],
    ids=lambda strategy: strategy.name,
)
def test_an_offset_does_not_count_where_the_deviation_is_asked_for(strategy):
    solver, plain = (LinearSolver(strategy, accuracy=1e-3, of_deviation=of) for of in (True, False))
    errors, plain_errors = [], []
    for x, system in cooled_plates(40, offset=300.0):
        for solve, into in ((solver, errors), (plain, plain_errors)):
            solution = solve(system)
            assert solution.converged
            into.append(np.linalg.norm(solution.x.array_r - x) / np.linalg.norm(x - x.mean()))
    assert max(errors) <= 1e-3 and solver.num_retried == 0
    if isinstance(strategy, CG | Krylov):  # the tolerance hardly resolves a signal of a thousandth
        assert max(plain_errors) > 0.1


SPREADS = {
    "a source anywhere": {"is_local": True},
    "and any scale": {"is_local": True, "scales": 6.0},
    "a reaction": {"is_local": True, "reactions": 6.0},
    "any right-hand side": {"is_mixed": True},
}


def unlike_systems(num_systems, *, is_local=False, is_mixed=False, scales=0.0, reactions=0.0):
    """Systems with a contrast from 1 to 1e5 between edges."""
    generator = np.random.default_rng(7)
    for number, (A, system) in enumerate(random_systems(num_systems, contrast=1e5, seed=3)):
        A = 10 ** generator.uniform(-scales, scales) * A
        A += 10 ** generator.uniform(-1, reactions) * np.eye(len(A)) if reactions else 0.0
        b = np.zeros(len(A)) if is_local else np.ones(len(A))
        if is_local or (is_mixed and number % 2):
            b[:] = 0.0
            b[generator.integers(len(A))] = 1.0
        rows = scipy.sparse.csr_array(A)
        matrix = PETSc.Mat().createAIJ(rows.shape, csr=(rows.indptr, rows.indices, rows.data), comm=MPI.COMM_SELF)
        system.b.array = b
        yield A, replace(system, A=matrix)


@pytest.mark.parametrize("name", SPREADS)
@pytest.mark.parametrize("strategy", [CG(pc="icc"), Krylov()], ids=lambda strategy: strategy.name)
def test_systems_that_differ_much_are_as_accurate_as_asked_for(name, strategy):
    solver, errors = LinearSolver(strategy, accuracy=1e-4), []
    for A, system in unlike_systems(200, **SPREADS[name]):
        x = np.linalg.solve(A, system.b.array_r)
        errors.append(np.linalg.norm(solver(system).x.array_r - x) / np.linalg.norm(x))
    errors = np.array(errors)
    assert np.mean(errors > 1e-4) <= 0.01 and errors.max() <= 2e-4


def test_a_measure_is_compared_by_what_makes_systems_differ():
    """Ratios that depend on ν, as with a source anywhere.

    log(m / error) is 1 - log ν plus a little: once ν is known, so is the measure that x needs.
    """
    ratios, generator = Ratios(), np.random.default_rng(0)
    for _ in range(20):
        log_size = generator.normal(0.0, 2.0)
        ratios.note(log_size)
        ratios.learn(1.0 - log_size + generator.normal(0.0, 0.2), log_size)
    assert ratios.least(5.0) == pytest.approx(-5.0, abs=1.0) and ratios.least(-5.0) == pytest.approx(5.0, abs=1.0)
    assert not ratios.is_wide


def test_alike_systems_are_held_to_their_ratios_alone():
    """Systems with alike ratios are held to these, whatever ν says.

    A may come in any scale.
    """
    alike, scaled, generator = Ratios(), Ratios(), np.random.default_rng(0)
    for _ in range(20):
        log_ratio = generator.normal(0.0, 0.2)
        for ratios, deviation in ((alike, 0.1), (scaled, 3.0)):
            log_size = generator.normal(0.0, deviation)
            ratios.note(log_size)
            ratios.learn(log_ratio, log_size)
    assert alike.least() == alike.least(9.0) == scaled.least() == scaled.least(9.0)
