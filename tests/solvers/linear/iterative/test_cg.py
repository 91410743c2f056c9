"""CG against SciPy, deflation against theory, the energy error."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from mpi4py import MPI
from petsc4py import PETSc

from penstock.solvers.linear.iterative import cg as method
from penstock.solvers.linear.iterative.cg import CG
from penstock.solvers.linear.strategy import Tolerance
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problem import Outcome
from penstock.solvers.problems.steady.darcy import Darcy
from tests.support import systems
from tests.support.systems import relative_residual, to_scipy

RTOL = 1e-8
system_of = partial(systems.system_of, is_spd=True)


def laplacian(n: int):
    """The 5-point matrix on n x n interior points, h² = 1.

    It is 1.5 times as stiff along one axis, so no eigenvalue is double.
    """
    line = scipy.sparse.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    return scipy.sparse.kronsum(line, 1.5 * line).tocsr()


def with_spectrum(eigenvalues, seed=0):
    """A dense matrix with these eigenvalues, and its eigenvectors."""
    generator = np.random.default_rng(seed)
    Q = np.linalg.qr(generator.standard_normal((len(eigenvalues), len(eigenvalues))))[0]
    A = (Q * eigenvalues) @ Q.T
    return (A + A.T) / 2, Q


def darcy_systems(resolution: int, num_systems: int):
    problem = Darcy(resolution=resolution)
    for i in range(num_systems):
        coefficient = problem.draw(generator_of(0, "test", i))["coefficient"]
        yield problem.discretisation.system(coefficient, source=np.ones((resolution, resolution)))


def mean_of_darcy(resolution: int, num_systems: int):
    return sum(to_scipy(system.A) for system in darcy_systems(resolution, num_systems)) / num_systems


@pytest.mark.parametrize("pc", ["none", "jacobi", "icc"])
def test_k_zero_is_petsc_cg(pc):
    system = system_of(laplacian(24), np.random.default_rng(2).standard_normal(576))
    attempt = CG(pc=pc).solve(system, Tolerance(RTOL))

    ksp = PETSc.KSP().create(MPI.COMM_SELF)
    ksp.setType("cg")
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.getPC().setType(pc)
    ksp.setOperators(system.A)
    ksp.setTolerances(rtol=RTOL, atol=0)
    ksp.setConvergenceHistory()
    x = system.b.duplicate()
    ksp.solve(system.b, x)
    np.testing.assert_allclose(attempt.history, ksp.getConvergenceHistory(), rtol=1e-6)
    np.testing.assert_allclose(attempt.x.array_r, x.array_r, rtol=1e-9)
    assert attempt.iterations == ksp.getIterationNumber() + 1  # plus the true residual at the end


@pytest.mark.parametrize("pc", [None, "none", "jacobi", "gamg", "bjacobi"])
@pytest.mark.parametrize("k", [0, 1, 7])
def test_sequences_against_scipy(k, pc):
    generator = np.random.default_rng(4)
    strategy = CG(k=k, pc=pc)
    for _ in range(8):
        scale = scipy.sparse.diags_array(generator.uniform(0.3, 3.0, 256))
        A = scale @ laplacian(16) @ scale
        system = system_of(A, generator.standard_normal(256))
        attempt = strategy.solve(system, Tolerance(1e-10))
        assert attempt.outcome is Outcome.CONVERGED
        expected = scipy.sparse.linalg.spsolve(A.tocsc(), system.b.array_r)
        np.testing.assert_allclose(attempt.x.array_r, expected, rtol=0, atol=1e-7 * np.abs(expected).max())
    assert strategy.recycles == (k > 0)


@pytest.mark.parametrize("k", [0, 10])
def test_ill_conditioned_systems_to_twelve_digits(k):
    """A system with cond(A) = 1e8 is solved to a residual below single precision."""
    A, _ = with_spectrum(np.concatenate([np.geomspace(1e-8, 1e-4, 10), np.linspace(0.1, 1, 190)]))
    strategy = CG(k=k, pc="none")
    for seed in range(8):
        system = system_of(A, A @ np.random.default_rng(seed).standard_normal(200))
        attempt = strategy.solve(system, Tolerance(1e-12))
        assert attempt.outcome is Outcome.CONVERGED
        assert relative_residual(system, attempt.x) <= 1e-12


def test_exact_eigenvectors_take_their_part_of_the_spectrum_away():
    """Deflated CG takes the iterations of CG on the rest of A.

    They are fewer than the bound by the condition number.
    """
    eigenvalues = np.concatenate([np.geomspace(1e-6, 1e-3, 12), np.linspace(0.2, 1, 288)])
    A, Q = with_spectrum(eigenvalues)
    b = np.random.default_rng(1).standard_normal(300)
    strategy = CG(k=12, pc="none")
    strategy._space = method._Space(np.asfortranarray(Q[:, :12]))
    strategy._num_learned = method.NUM_LEARNED  # nothing more is learned: only the first direction is deflated
    energy = 1e-6
    attempt = strategy.solve(system_of(A, b), Tolerance(RTOL, energy=energy))
    num_iterations = len(attempt.history) - 1
    assert attempt.outcome is Outcome.CONVERGED and attempt.iterations == num_iterations + 12

    coefficients = Q.T @ b
    errors = np.sqrt(eigenvalues) * (coefficients / eigenvalues - Q.T @ attempt.x.array_r)
    assert np.linalg.norm(errors) <= energy * np.linalg.norm(coefficients / np.sqrt(eigenvalues))

    # ||e_i|| / ||e_0|| <= 2 ((√κ - 1) / (√κ + 1))^i with κ of the rest; the rest is 1e-3 of all at the start.
    rest = np.linalg.norm((coefficients / np.sqrt(eigenvalues))[12:])
    of_rest = energy * np.linalg.norm(coefficients / np.sqrt(eigenvalues)) / rest
    root = math.sqrt(1 / 0.2)
    assert num_iterations <= math.ceil(math.log(of_rest / 2) / math.log((root - 1) / (root + 1))) + 3
    assert num_iterations < 0.2 * len(CG(pc="none").solve(system_of(A, b), Tolerance(RTOL, energy=energy)).history)


@pytest.mark.parametrize(("pc", "k", "at_most"), [("icc", 10, 0.72), ("jacobi", 20, 0.55)])
def test_what_is_learned_comes_near_to_the_mean_operators_modes(pc, k, at_most):
    tolerance = Tolerance(RTOL)
    mean = mean_of_darcy(40, 30)
    D = scipy.sparse.diags_array(mean.diagonal()).tocsc()
    modes = scipy.sparse.linalg.eigsh(mean.tocsc(), k, M=D, sigma=0, v0=np.ones(mean.shape[0]))[1]
    learning, plain, exact = CG(pc=pc, k=k), CG(pc=pc, k=k, recycle=False), CG(pc=pc, k=k)
    exact._space = method._Space(np.asfortranarray(modes))
    exact._num_learned = method.NUM_LEARNED
    iterations = []
    for i, system in enumerate(darcy_systems(40, 12)):
        attempts = [strategy.solve(system, tolerance) for strategy in (learning, plain, exact)]
        direct = scipy.sparse.linalg.spsolve(to_scipy(system.A).tocsc(), system.b.array_r)
        for attempt in attempts:
            assert attempt.outcome is Outcome.CONVERGED
            assert relative_residual(system, attempt.x) <= RTOL
            assert np.linalg.norm(attempt.x.array_r - direct) <= 1e-6 * np.linalg.norm(direct)
        if i >= method.NUM_LEARNED:
            iterations.append([len(attempt.history) - 1 for attempt in attempts])
    learned, alone, with_modes = np.mean(iterations, axis=0)
    assert learned < at_most * alone
    assert learned < 1.15 * with_modes + 1
    assert not plain.recycles and learning.recycles


def test_a_constant_matrix_pays_no_products_for_its_space_once_learned():
    A = laplacian(40)
    generator = np.random.default_rng(5)
    system = system_of(A, np.zeros(1600))
    strategy = CG(k=12, pc="icc")
    for _ in range(method.NUM_LEARNED + 1):
        system.b.array = generator.standard_normal(1600)
        strategy.solve(system, Tolerance(RTOL))
    system.b.array = generator.standard_normal(1600)
    attempt = strategy.solve(system, Tolerance(RTOL))
    plain = CG(pc="icc").solve(system, Tolerance(RTOL))
    assert attempt.iterations == len(attempt.history)  # one product per iteration, plus the true residual
    assert attempt.iterations < 0.6 * plain.iterations
    system.A.scale(2.0)  # the values have been written
    assert strategy.solve(system, Tolerance(RTOL)).iterations == pytest.approx(attempt.iterations + 12, abs=3)


def test_a_family_that_becomes_another_is_learned_anew():
    generator = np.random.default_rng(0)
    A = laplacian(30)
    permutation = generator.permutation(900)
    other = (A + scipy.sparse.diags_array(np.linspace(-0.3, 0.3, 900) ** 2)).tocsr()[permutation][:, permutation]
    strategy, plain = CG(k=12, pc="jacobi"), CG(pc="jacobi")
    ratios = []
    for matrix in [A] * 8 + [other] * 12:
        system = system_of(matrix, generator.standard_normal(900))
        deflated, alone = (len(method.solve(system, Tolerance(RTOL)).history) for method in (strategy, plain))
        ratios.append(deflated / alone)
    assert max(ratios[6:8]) < 0.75 and max(ratios[-4:]) < 0.75
    assert ratios[8] > 0.9  # the space learned from A is of no use any more


def energy_norm(A, x) -> float:
    return math.sqrt(x @ (A @ x))


@pytest.mark.parametrize("pc", ["none", "jacobi", "icc", "gamg"])
@pytest.mark.parametrize("k", [0, 6])
def test_the_energy_error_is_what_it_says(pc, k):
    strategy = CG(pc=pc, k=k)
    ratios = []
    for i, system in enumerate(darcy_systems(24, 12)):
        A = to_scipy(system.A)
        exact = scipy.sparse.linalg.spsolve(A.tocsc(), system.b.array_r)
        if i % 3 == 2:
            guess = system.b.duplicate()
            guess.array = exact * np.random.default_rng(i).uniform(0.9, 1.1, exact.size)
            system = replace(system, guess=guess)
        for energy in (1e-1, 1e-3, 1e-6):
            attempt = strategy.solve(system, Tolerance(RTOL, energy=energy))
            error = energy_norm(A, attempt.x.array_r - exact) / energy_norm(A, exact)
            assert attempt.outcome is Outcome.CONVERGED and attempt.energy_error <= energy
            ratios.append(error / attempt.energy_error)
    assert max(ratios) < 1.3 and np.mean(np.array(ratios) > 1) <= 0.06
    assert np.median(ratios) > 0.1  # one iteration with GAMG divides the error by 8


@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize("diagonal", [[1.0], [3.0], [1.0, 2.0, 5.0], [1e-3, 1.0, 1.0, 1.0, 7.0]])
def test_early_convergence_has_no_energy_error(k, diagonal):
    """A b in an invariant subspace of few dimensions.

    The residual is zero before there is anything to estimate from.
    """
    A = np.diag(np.concatenate([diagonal, np.linspace(10, 20, 30)]))
    b = np.concatenate([np.ones(len(diagonal)), np.zeros(30)])
    strategy = CG(pc="none", k=k)
    for _ in range(3):
        attempt = strategy.solve(system_of(A, b), Tolerance(RTOL, energy=1e-12))
        assert attempt.outcome is Outcome.CONVERGED and attempt.energy_error <= 1e-12
        assert len(attempt.history) <= len(diagonal) + 2
        np.testing.assert_allclose(A @ attempt.x.array_r, b, atol=1e-12)


@pytest.mark.parametrize("k", [0, 4])
def test_products_are_counted(k):
    PETSc.Log.begin()
    event = PETSc.Log.Event("MatMult")
    strategy = CG(k=k, pc="jacobi")
    A, generator = laplacian(20), np.random.default_rng(6)
    for i in range(8):
        system = system_of(A + i * scipy.sparse.eye_array(400), generator.standard_normal(400))
        if i % 2:
            system = replace(system, guess=system.b)
        before = event.getPerfInfo()["count"]
        attempt = strategy.solve(system, Tolerance(RTOL))
        # PETSc counts its products; the last one is that of our check.
        assert event.getPerfInfo()["count"] - before == attempt.iterations - 1


def test_a_good_guess_saves_iterations_and_an_exact_one_all():
    A = laplacian(20)
    exact = np.random.default_rng(7).standard_normal(400)
    system = system_of(A, A @ exact)
    guess = system.b.duplicate()
    guess.array = exact
    attempt = CG(pc="jacobi").solve(replace(system, guess=guess), Tolerance(RTOL))
    assert attempt.outcome is Outcome.CONVERGED and len(attempt.history) == 1
    guess.array = exact + 1e-6 * np.random.default_rng(8).standard_normal(400)
    attempt = CG(pc="jacobi").solve(replace(system, guess=guess), Tolerance(RTOL))
    assert len(attempt.history) < 0.5 * len(CG(pc="jacobi").solve(system, Tolerance(RTOL)).history)


@pytest.mark.parametrize("k", [0, 3])
def test_an_indefinite_matrix_is_a_breakdown(k):
    strategy = CG(k=k, pc="none")
    A, _ = with_spectrum(np.linspace(0.1, 1, 60))
    for _ in range(2):
        strategy.solve(system_of(A, np.ones(60)), Tolerance(RTOL))
    indefinite, _ = with_spectrum(np.linspace(-1, 1, 60))
    attempt = strategy.solve(system_of(indefinite, np.ones(60)), Tolerance(RTOL))
    assert attempt.outcome is Outcome.BREAKDOWN and np.isfinite(attempt.x.array_r).all()
    attempt = CG(k=k, pc="jacobi").solve(system_of(-A, np.ones(60)), Tolerance(RTOL))  # M is negative definite, too
    assert attempt.outcome is Outcome.BREAKDOWN


def test_numbers_that_are_not_finite_are_an_outcome():
    A = laplacian(5)
    A.data[3] = np.nan
    assert CG(pc="none").solve(system_of(A, np.ones(25)), Tolerance(RTOL)).outcome is Outcome.NOT_FINITE
    A.data[3] = np.inf
    attempt = CG(k=2, pc="none").solve(system_of(A, np.ones(25)), Tolerance(RTOL))
    assert attempt.outcome in (Outcome.NOT_FINITE, Outcome.BREAKDOWN)


@pytest.mark.parametrize("k", [0, 5])
def test_a_tolerance_below_rounding_is_stagnation(k):
    A, _ = with_spectrum(np.geomspace(1e-6, 1, 100))
    strategy = CG(k=k, pc="none")
    for seed in range(3):
        b = np.random.default_rng(seed).standard_normal(100)
        attempt = strategy.solve(system_of(A, b), Tolerance(1e-15))
        assert attempt.outcome is Outcome.STAGNATION
        np.testing.assert_allclose(A @ attempt.x.array_r, b, atol=1e-6)


def test_the_iteration_limit_is_an_outcome():
    system = system_of(laplacian(30), np.ones(900))
    attempt = CG(pc="jacobi", max_iterations=12).solve(system, Tolerance(RTOL))
    assert attempt.outcome is Outcome.ITERATION_LIMIT and attempt.iterations == 12


def neumann(n: int):
    """The 5-point Laplacian without boundary conditions: constants are its nullspace."""
    line = scipy.sparse.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1]).tolil()
    line[0, 0] = line[n - 1, n - 1] = 1
    return scipy.sparse.kronsum(line, 1.3 * line).tocsr()


@pytest.mark.parametrize("pc", ["jacobi", "none"])
@pytest.mark.parametrize("k", [0, 6])
def test_semidefinite_systems(k, pc):
    A = neumann(16)
    nullspace = PETSc.NullSpace().create(constant=True, comm=MPI.COMM_SELF)
    strategy = CG(k=k, pc=pc)
    for seed in range(7):
        b = A @ np.random.default_rng(seed).standard_normal(256)
        system = system_of(A, b, nullspace=nullspace)
        system.A.setNullSpace(nullspace)
        attempt = strategy.solve(system, Tolerance(1e-10))
        assert attempt.outcome is Outcome.CONVERGED
        expected = np.linalg.lstsq(A.toarray(), b)[0]  # of least norm: orthogonal to constants
        np.testing.assert_allclose(attempt.x.array_r, expected, atol=1e-7)


def test_an_inconsistent_system_ends_in_a_named_outcome():
    attempt = CG(pc="jacobi", max_iterations=3000).solve(system_of(neumann(16), np.ones(256)), Tolerance(RTOL))
    assert attempt.outcome in (Outcome.BREAKDOWN, Outcome.STAGNATION)
    assert np.isfinite(attempt.x.array_r).all()


def test_fewer_unknowns_than_the_space_may_hold():
    A, _ = with_spectrum([1.0, 2.0, 3.0, 5.0, 9.0])
    strategy = CG(k=8, pc="none")
    for seed in range(8):
        b = np.random.default_rng(seed).standard_normal(5)
        attempt = strategy.solve(system_of(A, b), Tolerance(1e-10))
        assert attempt.outcome is Outcome.CONVERGED
        np.testing.assert_allclose(attempt.x.array_r, np.linalg.solve(A, b), rtol=1e-8)


def test_an_error_of_a_preconditioner_is_raised():
    class Faulty:
        def apply(self, pc, x, y):
            raise RuntimeError("no")

    strategy, system = CG(pc="jacobi"), system_of(laplacian(5), np.ones(25))
    strategy.solve(system, Tolerance(RTOL))
    strategy.pc, strategy._pc = "python", PETSc.PC().createPython(Faulty(), comm=MPI.COMM_SELF)
    with pytest.raises((PETSc.Error, RuntimeError)):
        strategy.solve(system, Tolerance(RTOL))


@pytest.mark.parametrize(
    ("options", "text"),
    [({"k": -1}, "k = -1"), ({"pc": "icd"}, "'icc'"), ({"max_iterations": 0}, "max_iterations = 0")],
)
def test_bad_options_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        CG(**options)


TWO_RANKS = """
import sys
from mpi4py import MPI
import numpy as np
from petsc4py import PETSc
from penstock.solvers.linear.iterative.cg import CG
from penstock.solvers.linear.check import residual_of
from penstock.solvers.linear.strategy import Tolerance
from penstock.solvers.problem import LinearSystem

n = 24
num_rows = PETSc.DECIDE if sys.argv[1] == "all" else n * n if MPI.COMM_WORLD.rank == 0 else 0
A = PETSc.Mat().createAIJ(((num_rows, n * n), (num_rows, n * n)), nnz=5)
strategies = [CG(k=k, pc=pc) for k in (0, 8) for pc in ("jacobi", None, "gamg")]
iterations = []
for shift in 0.01 * np.arange(8):
    for row in range(*A.getOwnershipRange()):
        i, j = divmod(row, n)
        A.setValue(row, row, 5.0 + shift)
        for column, inside, value in (
            (row - n, i > 0, -1.5), (row + n, i < n - 1, -1.5), (row - 1, j > 0, -1.0), (row + 1, j < n - 1, -1.0)
        ):
            if inside:
                A.setValue(row, column, value)
    A.assemble()
    b = A.createVecLeft()
    b.array = np.sin(np.arange(*b.getOwnershipRange()))
    for strategy in strategies:
        for tolerance in (Tolerance(1e-8), Tolerance(1e-8, energy=1e-4)):
            system = LinearSystem(A=A, b=b)
            attempt = strategy.solve(system, tolerance)
            assert attempt.outcome == "converged", attempt
            assert tolerance.energy or residual_of(system, attempt.x).norm() <= 1e-8 * b.norm()
            if strategy.pc == "jacobi":
                iterations.append(attempt.iterations)
if A.comm.rank == 0:
    print(A.comm.size, *iterations)
"""


def test_two_ranks_work_as_one(run_on_ranks):
    products = {}
    for ranks, owners in (("1", "all"), ("2", "all"), ("2", "first")):
        num_ranks, *products[ranks, owners] = [int(word) for word in run_on_ranks(ranks, TWO_RANKS, owners).split()]
        assert num_ranks == int(ranks)
    # Sums are rounded in another order, which can move a projection to the next look at the error.
    np.testing.assert_allclose(products["2", "all"], products["1", "all"], rtol=0.1, atol=2)
    np.testing.assert_allclose(products["2", "first"], products["1", "all"], rtol=0.1, atol=2)
