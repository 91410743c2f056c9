"""The methods and preconditioners of PETSc by name, against SciPy, and their ends."""

import math
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from mpi4py import MPI
from petsc4py import PETSc

from penstock.solvers.linear import STRATEGIES, LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.iterative.gcrodr import GCRODR
from penstock.solvers.linear.iterative.petsc import METHODS, Krylov
from penstock.solvers.linear.strategy import Attempt, Strategy, Tolerance
from penstock.solvers.problem import LinearSystem, Outcome
from tests.support.systems import relative_residual, system_of, to_scipy

RTOL = 1e-8
GENERATOR = np.random.default_rng(0)


def convection_diffusion(n: int, wind: float):
    """The matrix of -Δu + wind·∇u on n x n interior points, upwind; wind = 0 is SPD."""
    second = scipy.sparse.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    first = scipy.sparse.diags_array([-np.ones(n - 1), np.ones(n)], offsets=[-1, 0])
    one_dimensional = second + wind / (n + 1) * first
    return scipy.sparse.kronsum(one_dimensional, one_dimensional).tocsr()


def with_boundary_rows(A, rows):
    """The matrix with some rows and columns of the identity, as with Dirichlet values."""
    keep = np.ones(A.shape[0])
    keep[rows] = 0.0
    return scipy.sparse.diags_array(keep) @ A @ scipy.sparse.diags_array(keep) + scipy.sparse.diags_array(1 - keep)


SPD = with_boundary_rows(convection_diffusion(20, 0.0), [0, 5, 77])
NONSYMMETRIC = with_boundary_rows(convection_diffusion(20, 40.0), [0, 5, 77])


def singular_system() -> LinearSystem:
    """A nilpotent shift, with a b outside its range."""
    return system_of(np.diag(np.ones(5), 1), np.arange(1.0, 7.0))


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize(("A", "is_spd"), [(SPD, True), (NONSYMMETRIC, False)])
def test_every_strategy_agrees_with_scipy(name, A, is_spd):
    system = system_of(A, is_spd=is_spd)
    solution = LinearSolver(STRATEGIES[name](), rtol=1e-10)(system)
    assert solution.outcome is Outcome.CONVERGED
    if name == "cg" and not is_spd:
        assert solution.strategy == "direct"
    else:
        assert solution.strategy == name
        # auto begins with a direct solve where a matrix is small
        assert (solution.iterations == 0) == (name in ("auto", "direct", "constant"))
    assert solution.relative_residual == pytest.approx(relative_residual(system, solution.x), rel=1e-3, abs=1e-15)
    expected = scipy.sparse.linalg.spsolve(to_scipy(system.A).tocsc(), system.b.array_r)
    np.testing.assert_allclose(solution.x.array_r, expected, rtol=0, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_matrix_overwritten_in_place_is_solved_anew(name):
    solver = LinearSolver(STRATEGIES[name](), rtol=RTOL)
    system = system_of(SPD, is_spd=True)
    first = solver(system)
    kept = first.x.array_r.copy()
    system.A.shift(1.0)
    second = solver(system)
    assert second.converged and solver.num_retried == 0
    assert relative_residual(system, second.x) <= RTOL
    np.testing.assert_array_equal(first.x.array_r, kept)  # x belongs to the caller
    system.A.setOption(PETSc.Mat.Option.NEW_NONZERO_ALLOCATION_ERR, False)
    system.A.setValue(3, 300, 0.5)  # a new pattern, still SPD
    system.A.setValue(300, 3, 0.5)
    system.A.assemble()
    third = solver(system)
    assert third.converged and solver.num_retried == 0
    assert relative_residual(system, third.x) <= RTOL


@pytest.mark.parametrize("ksp", METHODS)
@pytest.mark.parametrize("pc", ["jacobi", "ilu", "gamg"])
def test_petsc_methods_reach_the_true_residual(ksp, pc):
    is_spd = ksp in ("cg", "fcg", "minres")
    system = system_of(SPD if is_spd else NONSYMMETRIC, is_spd=is_spd)
    solution = LinearSolver(Krylov(ksp=ksp, pc="icc" if is_spd and pc == "ilu" else pc), rtol=RTOL)(system)
    assert relative_residual(system, solution.x) <= RTOL
    # CGS and BiCGStab may fail on a nonsymmetric matrix; the ladder is there for that.
    assert solution.strategy == "krylov" or ksp in ("cgs", "tfqmr", "bcgs", "ibcgs")


@pytest.mark.parametrize("ksp", METHODS)
def test_products_are_counted(ksp):
    PETSc.Log.begin()
    event = PETSc.Log.Event("MatMult")
    is_spd = ksp in ("cg", "fcg", "minres")
    system = system_of(SPD if is_spd else convection_diffusion(20, 1.0), is_spd=is_spd)
    before = event.getPerfInfo()["count"]
    attempt = Krylov(ksp=ksp, pc="jacobi", restart=10).solve(system, Tolerance(RTOL))
    assert abs(event.getPerfInfo()["count"] - before - attempt.iterations) <= 2


def test_a_true_residual_missed_by_the_method_is_reached_by_going_on():
    # A bad scale: MINRES stops on the preconditioned norm, here far below the true one.
    scale = scipy.sparse.diags_array(10.0 ** np.linspace(0, 3, SPD.shape[0]))
    system = system_of(scale @ SPD @ scale, is_spd=True)
    solution = LinearSolver(Krylov(ksp="minres", pc="jacobi"), rtol=1e-6)(system)
    assert solution.strategy == "krylov" and relative_residual(system, solution.x) <= 1e-6


def test_options_reach_petsc():
    system = system_of(convection_diffusion(30, 0.0), is_spd=True)
    plain = Krylov(ksp="cg", pc="icc").solve(system, Tolerance(RTOL))
    filled = Krylov(ksp="cg", pc="icc", options={"pc_factor_levels": "3"}).solve(system, Tolerance(RTOL))
    assert filled.iterations < 0.8 * plain.iterations
    misspelt = Krylov(ksp="cg", pc="icc", options={"pc_factor_level": "3"})
    for _ in range(2):  # each time, not just the first time
        with pytest.raises(ValueError, match="pc_factor_level'"):
            misspelt.solve(system, Tolerance(RTOL))


def inner_types(pc: PETSc.PC) -> list[str]:
    smoother = pc.getMGSmoother(1)
    return [smoother.getType(), smoother.getPC().getType(), pc.getMGCoarseSolve().getPC().getType()]


GAMG = {"mg_levels_ksp_type": "richardson", "mg_levels_pc_type": "sor", "mg_coarse_pc_type": "jacobi"}
OPTIONS_INSIDE = {
    "gamg": (GAMG, lambda pc: inner_types(pc) == ["richardson", "sor", "jacobi"]),
    "lu": (
        {"pc_factor_mat_solver_type": "mumps", "mat_mumps_icntl_14": "300"},
        lambda pc: pc.getFactorMatrix().getMumpsIcntl(14) == 300,
    ),
    "asm": ({"sub_pc_type": "sor"}, lambda pc: pc.getASMSubKSP()[0].getPC().getType() == "sor"),
    "bjacobi": ({"sub_pc_type": "sor"}, lambda pc: True),
    "ilu": ({"pc_factor_levels": "2"}, lambda pc: True),
}


@pytest.mark.parametrize("pc", OPTIONS_INSIDE)
def test_options_hold_for_every_new_matrix_object(pc):
    """New matrix objects take the same products as one that is overwritten.

    PETSc confirms that it read the option.
    """
    options, are_held = OPTIONS_INSIDE[pc]
    A = convection_diffusion(20, 0.0)
    kept, iterations = system_of(A), {}
    for is_new in (True, False):
        krylov = Krylov(ksp="gmres", pc=pc, options=options)
        iterations[is_new] = []
        for scale in (1.0, 1.1, 1.2, 1.3):
            kept.A.setValuesCSR(A.indptr, A.indices, scale * A.data)
            kept.A.assemble()
            system = system_of(scale * A, b=kept.b.array_r) if is_new else kept
            iterations[is_new].append(krylov.solve(system, Tolerance(RTOL)).iterations)
            assert are_held(krylov._ksp.getPC())
    assert iterations[True] == iterations[False]
    assert not PETSc.Options("penstock_krylov_").getAll()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Krylov(ksp="gmress"), "ksp = 'gmress' is not known; did you mean 'gmres'?"),
        (lambda: Krylov(pc="icu"), "pc = 'icu' is not known; did you mean 'ilu'?"),
        (lambda: Krylov(restart=0), "restart = 0 must be at least 1"),
        (lambda: GCRODR(max_iterations=0), "max_iterations = 0 must be at least 1"),
        (lambda: GCRODR(m=10, k=10), "k = 10 must be below m = 10"),
        (lambda: GCRODR(pc="jacoby"), "did you mean 'jacobi'?"),
        (lambda: LinearSolver(Direct(), rtol=0.0), "rtol = 0.0 must lie between 0 and 1"),
        (lambda: LinearSolver(Direct(), accuracy=1.0), "accuracy = 1.0 must lie between 0 and 1"),
        (lambda: LinearSolver(Direct()), "give either rtol or accuracy"),
        (lambda: LinearSolver(Direct(), rtol=1e-8, accuracy=1e-4), "give either rtol or accuracy"),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_absent_preconditioner_is_named():
    try:
        PETSc.PC().create().setType("ml")
    except PETSc.Error:
        with pytest.raises(ValueError, match="'ml' is not part of this build"):
            LinearSolver(Krylov(pc="ml"), rtol=RTOL)(system_of(SPD, is_spd=True))
    else:
        pytest.skip("this PETSc has it")


@pytest.mark.parametrize("name", STRATEGIES)
def test_zero_right_hand_side(name):
    solution = LinearSolver(STRATEGIES[name](), rtol=RTOL)(system_of(SPD, np.zeros(SPD.shape[0])))
    assert solution.converged and solution.iterations == 0 and solution.x.norm() == 0


@pytest.mark.parametrize("name", STRATEGIES)
def test_values_that_are_not_finite_are_an_outcome(name):
    solver = LinearSolver(STRATEGIES[name](), rtol=RTOL)
    b = np.ones(SPD.shape[0])
    b[3] = math.inf
    assert solver(system_of(SPD, b)).outcome is Outcome.NOT_FINITE
    A = SPD.copy()
    A.data[7] = math.nan
    assert not solver(system_of(A)).converged
    assert solver(system_of(SPD)).converged  # the next system is solved as usual


def test_the_ladder_ends_in_a_direct_solve():
    solver = LinearSolver(Krylov(ksp="cg", pc="none", max_iterations=3), rtol=RTOL)
    system = system_of(SPD, is_spd=True)
    solution = solver(system)
    assert solution.converged and solution.strategy == "direct" and solution.iterations == 0
    assert relative_residual(system, solution.x) <= RTOL
    assert solver.num_retried == 1


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_singular_system_is_an_outcome(name):
    solver = LinearSolver(STRATEGIES[name](), rtol=RTOL)
    solution = solver(singular_system())
    assert solution.outcome is Outcome.REFUSED and "singular" in solution.reason
    assert solver(system_of(SPD, family="other")).converged


def test_a_petsc_error_is_a_breakdown():
    # ILU meets a zero on the diagonal that the pattern does not even hold.
    system = system_of(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1.0, 2.0]))
    solver = LinearSolver(GCRODR(pc="ilu"), rtol=RTOL)
    solution = solver(system)
    assert solver.num_retried == 1 and solution.strategy == "direct"
    np.testing.assert_allclose(solution.x.array_r, [2.0, 1.0])


class Singular(Strategy):
    """A strategy with a dense step that fails, reported by numpy.linalg."""

    name = "singular"

    def solve(self, system, tolerance):
        np.linalg.inv(np.zeros((2, 2)))


def test_a_dense_step_that_fails_is_a_breakdown():
    solution = LinearSolver(Singular(), rtol=RTOL)(system_of(SPD, is_spd=True))
    assert solution.converged and solution.strategy == "direct"


class Poisoned(Strategy):
    """A strategy that is right on the first system, and then wrong until it is reset."""

    name = "poisoned"

    def __init__(self):
        self.reset()

    def reset(self):
        self.num_solved = 0

    @property
    def recycles(self):
        return self.num_solved > 1

    def solve(self, system, tolerance):
        self.num_solved += 1
        x = system.b.copy()
        if self.recycles:
            x.scale(2.0)
        return Attempt(x=x, outcome=Outcome.CONVERGED, iterations=self.num_solved)


def test_the_ladder_tries_again_without_what_was_recycled():
    solver = LinearSolver(Poisoned(), rtol=RTOL)
    identity = system_of(np.eye(4))
    for num_retried in (0, 1, 2):
        solution = solver(identity)
        assert solution.converged and solution.strategy == "poisoned"
        assert solver.num_retried == num_retried


def test_families_do_not_share_state():
    solver = LinearSolver(GCRODR(pc="jacobi", m=12, k=6), rtol=RTOL)
    small, large = convection_diffusion(8, 5.0), convection_diffusion(16, 5.0)
    for _ in range(3):
        for family, A in (("small", small), ("large", large)):
            assert solver(system_of(A, family=family)).strategy == "gcrodr"
    assert solver.num_retried == 0


@pytest.mark.parametrize("strategy", [Krylov(ksp="gmres", pc="none"), GCRODR(pc="none")], ids=["krylov", "gcrodr"])
def test_a_good_guess_saves_products(strategy):
    system = system_of(NONSYMMETRIC)
    cold = LinearSolver(strategy, rtol=RTOL)(system)
    solver = LinearSolver(strategy, rtol=RTOL)
    warm = solver(replace(system, guess=cold.x))
    assert warm.converged and warm.iterations <= 2
    assert warm.x.handle != cold.x.handle


@pytest.mark.parametrize(
    "strategy", [Direct(), Krylov(pc="jacobi"), GCRODR(pc="jacobi")], ids=["direct", "krylov", "gcrodr"]
)
def test_a_known_nullspace(strategy):
    n = 12
    one_dimensional = scipy.sparse.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    one_dimensional = one_dimensional.tolil()
    one_dimensional[0, 0] = one_dimensional[-1, -1] = 1.0
    b = GENERATOR.standard_normal(n * n)
    nullspace = PETSc.NullSpace().create(constant=True, comm=MPI.COMM_SELF)
    system = system_of(
        scipy.sparse.kronsum(one_dimensional, one_dimensional), b - b.mean(), is_spd=True, nullspace=nullspace
    )
    solution = LinearSolver(strategy, rtol=RTOL)(system)
    assert solution.strategy == strategy.name and relative_residual(system, solution.x) <= RTOL


def test_direct_keeps_the_factor_of_an_unchanged_matrix():
    PETSc.Log.begin()
    event = PETSc.Log.Event("MatCholFctrNum")
    system = system_of(SPD, is_spd=True)
    solver = LinearSolver(Direct(), rtol=RTOL)
    before = event.getPerfInfo()["count"]
    for _ in range(3):
        system.b.array = GENERATOR.standard_normal(SPD.shape[0])
        assert solver(system).converged
    assert event.getPerfInfo()["count"] - before == 1
    system.A.scale(2.0)
    assert solver(system).converged
    assert event.getPerfInfo()["count"] - before == 2


def test_strategies_need_no_petsc_to_be_constructed():
    code = (
        "import sys; sys.modules['petsc4py'] = sys.modules['mpi4py'] = None\n"
        "from penstock.solvers.linear import STRATEGIES, LinearSolver\n"
        "for strategy in STRATEGIES.values(): LinearSolver(strategy(), rtol=1e-8)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("target", [{"rtol": RTOL}, {"accuracy": 1e-4}])
def test_set_up_is_part_of_the_time_of_a_solve(name, target):
    """Solves with new values, with the same ones, and with a new matrix."""
    solver = LinearSolver(STRATEGIES[name](), **target)
    system = system_of(SPD, is_spd=True)
    others = (system, system, system_of(1.5 * SPD, is_spd=True), system_of(SPD, is_spd=True))
    for i, system in enumerate(others):
        before = solver.setup_seconds
        start = time.thread_time()
        assert solver(system).converged
        seconds = time.thread_time() - start
        assert 0 <= solver.setup_seconds - before <= seconds
        if i == 0:
            assert solver.setup_seconds > 0


def test_the_set_up_of_a_failed_attempt_counts():
    system = system_of(NONSYMMETRIC)
    attempt = Krylov(pc="ilu", max_iterations=1).solve(system, Tolerance(RTOL))
    assert attempt.outcome is Outcome.ITERATION_LIMIT
    solver = LinearSolver(Krylov(pc="ilu", max_iterations=1), rtol=RTOL)
    assert solver(system).strategy == "direct"
    assert solver.setup_seconds > 0
    assert attempt.setup_seconds > 0


def test_a_product_that_raises_leaves_the_right_hand_side_to_the_problem():
    class Failing:
        def mult(self, matrix, source, target):
            raise ArithmeticError("no more")

    system = system_of(np.eye(9))
    failing = PETSc.Mat().createPython((9, 9), Failing(), comm=MPI.COMM_SELF)
    with pytest.raises(PETSc.Error):
        Krylov(pc="none").solve(replace(system, A=failing), Tolerance(RTOL))
    system.b.set(1.0)  # PETSc locks the vectors that it was working with
