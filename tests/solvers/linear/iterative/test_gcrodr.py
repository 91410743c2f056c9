"""GCRO-DR against dense least squares, MUMPS and PETSc's GMRES."""

from collections import Counter

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from mpi4py import MPI
from petsc4py import PETSc

from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.iterative import gcrodr as method
from penstock.solvers.linear.iterative.gcrodr import GCRODR
from penstock.solvers.linear.strategy import Tolerance
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problem import Outcome
from penstock.solvers.problems.steady.darcy import Darcy
from penstock.solvers.sorting.sorter import greedy_order
from tests.support.systems import relative_residual, system_of, to_scipy

RTOL = 1e-8


def convection_diffusion(n: int, wind: float):
    """The matrix of -Δu + wind ∂u/∂x on n x n interior points, upwind, h² = 1."""
    second = scipy.sparse.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    first = scipy.sparse.diags_array([-np.ones(n - 1), np.ones(n)], offsets=[-1, 0])
    identity = scipy.sparse.eye_array(n)
    return (scipy.sparse.kronsum(second, second) + wind / (n + 1) * scipy.sparse.kron(first, identity)).tocsr()


@pytest.mark.parametrize("is_sorted", [True, False])
def test_a_hundred_darcy_systems(is_sorted):
    problem = Darcy(resolution=32)
    draws = [problem.draw(generator_of(0, "test", i)) for i in range(100)]
    order = greedy_order(np.stack([problem.features(p) for p in draws])) if is_sorted else range(100)
    solver, direct = LinearSolver(GCRODR(pc="jacobi"), rtol=RTOL), LinearSolver(Direct(), rtol=1e-12)
    for index in order:
        system = problem.discretisation.system(draws[index]["coefficient"], source=np.ones((32, 32)))
        solution, reference = solver(system), direct(system)
        assert solution.converged and solution.strategy == "gcrodr"
        assert relative_residual(system, solution.x) <= RTOL
        error = np.linalg.norm(solution.x.array_r - reference.x.array_r)
        assert error <= 1e-6 * np.linalg.norm(reference.x.array_r)
    assert solver.num_retried == 0


def preconditioner(matrix, name: str):
    """The function v -> M⁻¹ v."""
    pc = PETSc.PC().create(MPI.COMM_SELF)
    pc.setType(name)
    pc.setOperators(matrix)
    pc.setUp()

    def apply(v):
        source, target = matrix.createVecs()
        source.array = v
        pc.apply(source, target)
        return target.array_r.copy()

    return apply


@pytest.mark.parametrize("side", ["left", "right", "flexible"])
@pytest.mark.parametrize("pc", ["none", "jacobi", "ilu"])
def test_a_cycle_finds_the_least_residual_of_its_space(pc, side):
    """The residual is least over U and the Krylov space of (I - C Cᵀ) K.

    Both spaces are built here without the method.
    """
    A = convection_diffusion(12, 20.0)
    generator = np.random.default_rng(0)
    strategy = GCRODR(m=16, k=6, pc=pc, side=side)
    strategy.solve(system_of(A, generator.standard_normal(144)), Tolerance(RTOL))
    U = strategy._space.U.copy()

    A = A + scipy.sparse.diags_array(generator.uniform(0, 0.1, 144))
    system = system_of(A, generator.standard_normal(144))
    precondition = preconditioner(system.A, pc)
    inverse_M = np.column_stack([precondition(e) for e in np.eye(144)])
    from_left, from_right = (inverse_M, np.eye(144)) if side == "left" else (np.eye(144), inverse_M)
    K = from_left @ A  # on solutions
    b = from_left @ system.b.array_r
    C = np.linalg.qr(K @ U)[0]
    V = [b - C @ (C.T @ b)]
    for _ in range(9):
        w = K @ (from_right @ V[-1] / np.linalg.norm(V[-1]))
        for Q in (C, np.linalg.qr(np.column_stack(V))[0]) * 2:
            w = w - Q @ (Q.T @ w)
        V.append(w)
    search = np.column_stack([U, *(from_right @ (v / np.linalg.norm(v)) for v in V)])
    least = np.linalg.norm(b - K @ (search @ np.linalg.lstsq(K @ search, b)[0]))

    one_cycle = 6 + 10 + 1  # products: C, Arnoldi steps, residual
    strategy.max_iterations = one_cycle
    attempt = strategy.solve(system, Tolerance(1e-14))
    assert attempt.outcome is Outcome.ITERATION_LIMIT and attempt.iterations == one_cycle
    assert np.linalg.norm(b - K @ attempt.x.array_r) == pytest.approx(least, rel=1e-8)
    assert attempt.history[-1] == pytest.approx(least, rel=1e-8)


class Restless:
    """A preconditioner that changes every time, and records its inputs and outputs."""

    def __init__(self):
        self.answers = []

    def apply(self, pc, source, target):
        scale = np.random.default_rng(len(self.answers)).uniform(0.2, 0.4, source.local_size)
        target.array = scale * source.array_r
        self.answers.append(target.array_r.copy())


def test_a_flexible_cycle_finds_the_least_residual_of_its_space():
    """The residual is least over U and all outputs of a changing preconditioner."""
    A, generator = convection_diffusion(12, 20.0), np.random.default_rng(0)
    system, restless = system_of(A, generator.standard_normal(144)), Restless()
    strategy = GCRODR(m=16, k=6, side="flexible")
    strategy.pc, strategy._pc = "python", PETSc.PC().createPython(restless, comm=MPI.COMM_SELF)
    strategy._pc.setOperators(system.A)
    assert strategy.solve(system, Tolerance(RTOL)).outcome is Outcome.CONVERGED

    system.b.array = b = generator.standard_normal(144)
    search = [strategy._space.U.copy()]
    del restless.answers[:]
    strategy.max_iterations = 10 + 1  # C holds still
    attempt = strategy.solve(system, Tolerance(1e-14))
    assert len(restless.answers) == 10 and attempt.outcome is Outcome.ITERATION_LIMIT
    search = np.column_stack(search + restless.answers)
    least = np.linalg.norm(b - A @ (search @ np.linalg.lstsq(A @ search, b)[0]))
    assert np.linalg.norm(b - A @ attempt.x.array_r) == pytest.approx(least, rel=1e-8)


@pytest.mark.parametrize("side", ["left", "right", "flexible"])
def test_what_a_cycle_hands_on(side):
    """The space keeps K U = C, CᵀC = I and T = M⁻¹ C.

    U spans eigenvectors once the cycles have had time to find them.
    """
    # Anisotropic: of a double eigenvalue a Krylov space holds one eigenvector alone.
    line = scipy.sparse.diags_array([-np.ones(19), 2 * np.ones(20), -np.ones(19)], offsets=[-1, 0, 1])
    A = scipy.sparse.kronsum(line, 1.5 * line)
    system = system_of(A, np.random.default_rng(1).standard_normal(400), is_spd=True)
    strategy = GCRODR(m=30, k=8, pc="jacobi", side=side)
    for _ in range(6):
        strategy.solve(system, Tolerance(1e-12))
    space = strategy._space
    scale = 5.0 if side == "left" else 1.0  # the diagonal of A
    np.testing.assert_allclose(A @ space.U / scale, space.C, atol=1e-11)
    np.testing.assert_allclose(space.C.T @ space.C, np.eye(8), atol=1e-12)
    if side == "right":
        np.testing.assert_allclose(space.T, space.C / 5.0, atol=1e-6)
    eigenvectors = np.linalg.eigh(A.toarray())[1][:, :4]
    outside = eigenvectors - space.C @ (space.C.T @ eigenvectors)
    assert np.linalg.norm(outside, axis=0).max() < 1e-2


@pytest.mark.parametrize("side", ["left", "right", "flexible"])
@pytest.mark.parametrize("pc", ["none", "jacobi", "ilu"])
def test_k_zero_is_petsc_gmres(pc, side):
    A = convection_diffusion(24, 30.0)
    system = system_of(A, np.random.default_rng(2).standard_normal(576))
    strategy = GCRODR(m=8, k=0, pc=pc, side=side)
    strategy.stops_on_true_residual = False  # PETSc stops on the preconditioned one on the left
    attempt = strategy.solve(system, Tolerance(RTOL))

    ksp = PETSc.KSP().create(MPI.COMM_SELF)
    ksp.setType("fgmres" if side == "flexible" else "gmres")
    ksp.setGMRESRestart(8)
    ksp.setPCSide(PETSc.PC.Side.LEFT if side == "left" else PETSc.PC.Side.RIGHT)
    ksp.getPC().setType(pc)
    ksp.setOperators(system.A)
    ksp.setTolerances(rtol=RTOL, atol=0)
    ksp.setConvergenceHistory()
    ksp.solve(system.b, system.b.duplicate())
    assert len(attempt.history) > 17  # two restarts at least
    np.testing.assert_allclose(attempt.history, ksp.getConvergenceHistory(), rtol=1e-6)


def test_the_left_side_stops_on_the_norm_that_was_asked_for():
    """The left method stops on the true residual.

    With rows over four decades, the residual preconditioned by Jacobi is met long before the true one.
    """
    scale = 10.0 ** np.random.default_rng(6).uniform(-2, 2, 400)
    A = scipy.sparse.diags_array(scale) @ convection_diffusion(20, 10.0)
    system = system_of(A, np.random.default_rng(7).standard_normal(400))
    diagonal, b = A.diagonal(), system.b.array_r
    strategy = GCRODR(pc="jacobi", side="left")
    attempt = strategy.solve(system, Tolerance(RTOL))
    assert attempt.outcome is Outcome.CONVERGED and relative_residual(system, attempt.x) <= RTOL
    strategy.reset()
    strategy.stops_on_true_residual = False
    attempt = strategy.solve(system, Tolerance(RTOL))
    preconditioned = (b - A @ attempt.x.array_r) / diagonal
    assert np.linalg.norm(preconditioned) <= 1.001 * RTOL * np.linalg.norm(b / diagonal)
    assert attempt.outcome is Outcome.CONVERGED and relative_residual(system, attempt.x) > RTOL


def test_bad_options_are_named():
    for options, message in (
        ({"m": 10, "k": 10}, "k = 10 must be below m = 10"),
        ({"side": "rihgt"}, "side = 'rihgt' is not known"),
    ):
        with pytest.raises(ValueError, match=message):
            GCRODR(**options)


def test_an_error_in_a_preconditioner_is_raised():
    class Failing:
        def apply(self, pc, source, target):
            raise ArithmeticError("no more")

    system = system_of(convection_diffusion(4, 0.0), np.ones(16))
    strategy = GCRODR()
    strategy.pc, strategy._pc = "python", PETSc.PC().createPython(Failing(), comm=MPI.COMM_SELF)
    strategy._pc.setOperators(system.A)
    with pytest.raises((PETSc.Error, ArithmeticError)):
        strategy.solve(system, Tolerance(RTOL))
    strategy.pc = None
    strategy.reset()
    assert strategy.solve(system, Tolerance(RTOL)).outcome is Outcome.CONVERGED


def slowly_changing(num_systems: int):
    """The matrices A + i eps E of 400 rows.

    20 eigenvalues lie in [1e-3, 2e-2], isolated from the others in [1, 10].
    """
    generator = np.random.default_rng(3)
    eigenvalues = np.concatenate([np.linspace(1e-3, 2e-2, 20), np.linspace(1, 10, 380)])
    Q = np.linalg.qr(generator.standard_normal((400, 400)))[0]
    shear = np.eye(400) + 0.3 * np.triu(generator.standard_normal((400, 400)), 1) / 20
    A = Q @ np.linalg.solve(shear, np.diag(eigenvalues) @ shear) @ Q.T  # nonsymmetric
    E = generator.standard_normal((400, 400))
    E *= 1e-4 / np.linalg.norm(E, 2)
    return [(A + i * E, generator.standard_normal(400)) for i in range(num_systems)]


@pytest.mark.parametrize("side", ["left", "right", "flexible"])
def test_recycling_pays_where_it_should(side):
    products = {}
    for recycle in (True, False):
        strategy = GCRODR(m=40, k=20, pc="jacobi", side=side, recycle=recycle)
        attempts = [strategy.solve(system_of(A, b), Tolerance(RTOL)) for A, b in slowly_changing(8)]
        assert all(attempt.outcome is Outcome.CONVERGED for attempt in attempts)
        products[recycle] = sum(attempt.iterations for attempt in attempts)
    assert products[True] < 0.7 * products[False]


def test_an_unchanged_matrix_costs_no_products_for_its_space():
    A = convection_diffusion(16, 5.0)
    system = system_of(A, np.ones(256))
    strategy = GCRODR(m=20, k=10, pc="jacobi")
    strategy.solve(system, Tolerance(RTOL))
    system.A.scale(2.0)
    system.A.scale(0.5)  # the values have been written again
    changed = strategy.solve(system, Tolerance(RTOL)).iterations
    assert changed - strategy.solve(system, Tolerance(RTOL)).iterations >= 8


@pytest.mark.parametrize("side", ["left", "right", "flexible"])
@pytest.mark.parametrize("wind", [0.0, 10.0, 200.0])
@pytest.mark.parametrize("pc", [None, "jacobi", "none", "gamg", "bjacobi"])
def test_sequences_with_a_new_preconditioner_each(wind, pc, side):
    generator = np.random.default_rng(4)
    solver = LinearSolver(GCRODR(m=24, k=9, pc=pc, side=side), rtol=RTOL)
    for _ in range(4):
        scale = scipy.sparse.diags_array(generator.uniform(0.3, 3.0, 256))
        A = scale @ convection_diffusion(16, wind) @ scale
        system = system_of(A, generator.standard_normal(256), is_spd=wind == 0.0)
        solution = solver(system)
        assert solution.strategy == "gcrodr" and relative_residual(system, solution.x) <= RTOL


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid", "ignore:divide")
@pytest.mark.parametrize(("pc", "side"), [("none", "right"), ("jacobi", "flexible"), ("ilu", "right"), ("ilu", "left")])
def test_badly_scaled_sequences_end_in_a_named_outcome(pc, side):
    """Matrices over up to 300 orders of magnitude.

    Products in the deflation overflow.
    """
    outcomes, strategies = Counter(), Counter()
    for seed in range(60):
        generator = np.random.default_rng(seed)
        n, m = int(generator.integers(20, 60)), int(generator.integers(4, 20))
        strategy = GCRODR(m=m, k=int(generator.integers(m)), pc=pc, side=side, max_iterations=300)
        solver = LinearSolver(strategy, rtol=RTOL)
        pattern = generator.random((n, n)) < 0.1
        decades = generator.choice([8, 20, 40, 100, 150])
        for _ in range(4):
            A = 4 * np.eye(n) + pattern * generator.standard_normal((n, n))
            scale = np.diag(10.0 ** generator.uniform(-decades, decades, n))
            A = (scale @ A, A @ scale, A + scale)[seed % 3]
            system = system_of(A, generator.standard_normal(n) * 10.0 ** generator.uniform(-decades, decades))
            solution = solver(system)
            outcomes[solution.outcome] += 1
            strategies[solution.strategy] += 1
            if solution.converged:
                matrix, x, b = to_scipy(system.A), solution.x.array_r, system.b.array_r
                rounding = 1e-14 * np.linalg.norm(abs(matrix) @ abs(x))
                assert np.linalg.norm(b - matrix @ x) <= RTOL * np.linalg.norm(b) + rounding
            else:
                assert solution.strategy == "direct"  # the end of the ladder
    assert outcomes[Outcome.CONVERGED] > 100 and strategies["direct"] > 50


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_complex_pairs_stay_together(k):
    """A rotation-like operator with complex eigenvalues only."""
    blocks = [scipy.sparse.coo_array([[1.0, s], [-s, 1.0]]) for s in np.linspace(0.5, 20, 60)]
    A = scipy.sparse.block_diag(blocks)
    strategy = GCRODR(m=12, k=k, pc="none")
    for seed in range(3):
        system = system_of(A, np.random.default_rng(seed).standard_normal(120))
        attempt = strategy.solve(system, Tolerance(RTOL))
        assert attempt.outcome is Outcome.CONVERGED
        assert relative_residual(system, attempt.x) <= RTOL
        assert strategy._space.k <= k


def test_dependent_columns_are_dropped():
    A = convection_diffusion(8, 3.0)
    system = system_of(A, np.ones(64))
    pc = PETSc.PC().create(MPI.COMM_SELF)
    pc.setType("none")
    pc.setOperators(system.A)
    U = np.random.default_rng(5).standard_normal((64, 3))
    operator, space = method.Operator(system, pc), method.Space(64, 10, 5, "right")
    space.k = 5
    space.U[:] = np.column_stack([U, U @ [1.0, 2.0, 3.0], np.zeros(64)])
    method.rebuild(operator, space)
    assert space.k == 3 and operator.num_products == 5
    np.testing.assert_allclose(A @ space.U, space.C, atol=1e-12)
    np.testing.assert_allclose(space.C.T @ space.C, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(U - space.U @ np.linalg.lstsq(space.U, U)[0], 0, atol=1e-12)  # the same span


def test_a_space_of_old_systems_can_be_dropped():
    A = convection_diffusion(16, 5.0)
    system = system_of(A, np.ones(256))
    strategy = GCRODR(m=20, k=10, pc="jacobi")
    first = strategy.solve(system, Tolerance(RTOL))
    assert strategy.solve(system, Tolerance(RTOL)).iterations < first.iterations
    strategy.reset()
    again = strategy.solve(system, Tolerance(RTOL))
    assert again.history == first.history and not strategy.recycles

    solver = LinearSolver(GCRODR(m=20, k=10, pc="jacobi"), rtol=RTOL)
    before = [solver(system).iterations for _ in range(2)]
    solver.reset()
    assert [solver(system).iterations for _ in range(2)] == before and solver.num_retried == 0


def test_fewer_unknowns_than_the_space_may_hold():
    A = np.diag(np.arange(1.0, 8.0)) + np.triu(np.ones((7, 7)), 1)
    strategy = GCRODR(pc="none")
    for seed in range(3):
        system = system_of(A, np.random.default_rng(seed).standard_normal(7))
        attempt = strategy.solve(system, Tolerance(1e-10))
        assert attempt.outcome is Outcome.CONVERGED
        np.testing.assert_allclose(attempt.x.array_r, np.linalg.solve(A, system.b.array_r), rtol=1e-8)


def test_the_iteration_limit_is_an_outcome():
    system = system_of(convection_diffusion(30, 0.0), np.ones(900), is_spd=True)
    attempt = GCRODR(m=10, k=4, pc="jacobi", max_iterations=25).solve(system, Tolerance(RTOL))
    assert attempt.outcome is Outcome.ITERATION_LIMIT and 25 <= attempt.iterations <= 26


def test_stagnation_is_an_outcome():
    cyclic = np.roll(np.eye(60), 1, axis=0)  # GMRES(m) makes no progress on it for any m < 60
    b = np.zeros(60)
    b[0] = 1.0
    attempt = GCRODR(m=10, k=0, pc="none").solve(system_of(cyclic, b), Tolerance(RTOL))
    assert attempt.outcome is Outcome.STAGNATION and attempt.iterations < 100


@pytest.mark.parametrize("k", [0, 3])
def test_breakdown_is_an_outcome(k):
    nilpotent = np.diag(np.ones(5), 1)
    attempt = GCRODR(m=8, k=k, pc="none").solve(system_of(nilpotent, np.arange(1.0, 7.0)), Tolerance(RTOL))
    assert attempt.outcome is Outcome.BREAKDOWN
    assert np.isfinite(attempt.x.array_r).all()


@pytest.mark.parametrize("side", ["left", "right", "flexible"])
def test_a_known_nullspace(side):
    """The Laplacian of a ring, with the constants as nullspace."""
    A = 2 * np.eye(60) - np.roll(np.eye(60), 1, axis=0) - np.roll(np.eye(60), -1, axis=0)
    b = np.random.default_rng(8).standard_normal(60)
    b -= b.mean()
    system = system_of(A, b, nullspace=PETSc.NullSpace().create(constant=True, comm=MPI.COMM_SELF))
    solver = LinearSolver(GCRODR(m=12, k=4, pc="jacobi", side=side), rtol=RTOL)
    for _ in range(2):
        solution = solver(system)
        assert solution.converged and solution.strategy == "gcrodr"
        np.testing.assert_allclose(solution.x.array_r, np.linalg.solve(A + 1 / 60, b), atol=1e-5)


TWO_RANKS = """
from mpi4py import MPI
import numpy as np
from petsc4py import PETSc
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.iterative.gcrodr import GCRODR
from penstock.solvers.linear.strategy import Tolerance
from penstock.solvers.problem import LinearSystem

n = 24
A = PETSc.Mat().createAIJ([n * n, n * n], nnz=5)
solvers = [
    LinearSolver(GCRODR(m=24, k=8, pc=pc, side=side), rtol=1e-8)
    for pc in ("jacobi", None) for side in ("left", "right", "flexible")
]
iterations = []
for shift in (0.0, 0.01, 0.02):
    for row in range(*A.getOwnershipRange()):
        i, j = divmod(row, n)
        A.setValue(row, row, 4.5 + shift)
        for column, inside, value in (
            (row - n, i > 0, -1.5), (row + n, i < n - 1, -1.0), (row - 1, j > 0, -1.0), (row + 1, j < n - 1, -1.0)
        ):
            if inside:
                A.setValue(row, column, value)
    A.assemble()
    b = A.createVecLeft()
    b.array = np.sin(np.arange(*b.getOwnershipRange()))
    for solver in solvers:
        solution = solver(LinearSystem(A=A, b=b))
        assert solution.converged and solution.strategy == "gcrodr", solution
        if solver in solvers[:3]:
            iterations.append(solution.iterations)
        assert abs((A * solution.x - b).norm() / b.norm() - solution.relative_residual) < 1e-12
if A.comm.rank == 0:
    print(A.comm.size, *iterations)
"""


def test_two_ranks_work_as_one(run_on_ranks):
    products = {}
    for ranks in ("1", "2"):
        products[ranks] = [int(word) for word in run_on_ranks(ranks, TWO_RANKS).split()]
    assert products["1"][0] == 1 and products["2"][0] == 2
    np.testing.assert_allclose(products["1"][1:], products["2"][1:], atol=2)  # sums are rounded in another order
