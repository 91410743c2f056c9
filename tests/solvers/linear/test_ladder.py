"""Retries after a failure, their effect on later systems, and their reports.

References are SciPy's.
"""

import gc
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

from penstock.errors import Refused
from penstock.messages import MAX_FAMILIES, Decision
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.auto.auto import Auto
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.direct.lagged import Lagged
from penstock.solvers.linear.iterative.cg import CG
from penstock.solvers.linear.iterative.gcrodr import GCRODR
from penstock.solvers.linear.iterative.petsc import Krylov
from penstock.solvers.linear.strategy import Attempt, Strategy
from penstock.solvers.problem import GridDofs, LinearSystem, Outcome
from tests.support import systems

SIZE = 12
N = SIZE**2


def laplacian(*, wind: float = 0.0, is_periodic: bool = False) -> scipy.sparse.csr_array:
    """The matrix of -Δu on SIZE x SIZE points.

    It has upwind transport along the first axis, or is periodic with a reaction term.
    """
    second = scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(SIZE, SIZE)).tolil()
    if is_periodic:
        second[0, -1] = second[-1, 0] = -1.0
    first = scipy.sparse.diags_array([-1.0, 1.0], offsets=[-1, 0], shape=(SIZE, SIZE))
    eye = scipy.sparse.eye_array(SIZE)
    A = scipy.sparse.kron(second + wind * first, eye) + scipy.sparse.kron(eye, second)
    return scipy.sparse.csr_array(A + 0.1 * is_periodic * scipy.sparse.eye_array(N))


def system_of(A, **known) -> LinearSystem:
    return systems.system_of(A, np.ones(A.shape[0]), **known)


CONVECTION, INDEFINITE = laplacian(wind=20.0), laplacian() - 2.5 * scipy.sparse.eye_array(N)
GRID = GridDofs(shape=(SIZE, SIZE), spacing=(1.0, 1.0), permutation=np.arange(N))
NEVER_WORKS = {
    "cg, not SPD": (CG(), laplacian(wind=20.0), {"is_spd": True}, "cg: "),
    "krylov, not SPD": (Krylov(ksp="cg"), laplacian(wind=20.0), {"is_spd": True}, "krylov: "),
    "krylov, indefinite": (Krylov(ksp="cg", pc="none"), INDEFINITE, {"is_spd": True}, "DIVERGED_INDEFINITE_MAT"),
    "cg, indefinite": (CG(pc="none"), INDEFINITE, {"is_spd": True}, "pᵀ A p <= 0"),
    "multigrid, periodic": (
        CG(pc="multigrid"),
        laplacian(is_periodic=True),
        {"is_spd": True, "grid": GRID},
        "couples grid points that are not neighbours",
    ),
    "iteration limit": (Krylov(max_iterations=3), laplacian(), {}, "DIVERGED_MAX_IT"),
}


@pytest.mark.parametrize("name", NEVER_WORKS)
def test_what_never_works_is_soon_left_out_and_its_reason_is_told(name):
    strategy, A, known, said = NEVER_WORKS[name]
    solver, system = LinearSolver(strategy, rtol=1e-8), system_of(A, **known)
    expected = scipy.sparse.linalg.spsolve(A.tocsc(), np.ones(N))
    for number in range(1, 21):
        solution = solver(system)
        assert solution.converged and solution.strategy == "direct"
        np.testing.assert_allclose(solution.x.array_r, expected, rtol=1e-6, atol=1e-6 * abs(expected).max())
        is_tried = number in (1, 2, 3, 8, 17)
        assert (said in solution.reason) == is_tried and solution.reason.startswith(strategy.name) == is_tried
    assert solver.num_retried == 5


class Moody(Strategy):
    """A strategy for A = 1 that works where `works`(number of the system) says so.

    Numbers count from 1. It always reports convergence, and a reason where it failed.
    """

    name = "moody"

    def __init__(self, works):
        self.works = works
        self.tried = []

    def __copy__(self):
        return self  # one for all families, so that the test can inspect it

    def solve(self, system, tolerance):
        number = int(system.b.array_r[0])
        self.tried.append(number)
        works = self.works(number)
        x = system.b.copy()
        x.scale(1.0 if works else 1.5)
        return Attempt(x=x, outcome=Outcome.CONVERGED, reason="" if works else "in a bad mood", iterations=7)


def taken_by(moody: Moody, num_systems: int) -> list[str]:
    """The names of the strategies that solved the systems."""
    solver, system, taken = LinearSolver(moody, rtol=1e-8), system_of(scipy.sparse.eye_array(3)), []
    for number in range(1, num_systems + 1):
        system.b.set(number)
        solution = solver(system)
        assert solution.converged and solution.x.array_r == pytest.approx(number)
        taken.append(solution.strategy)
    return taken


def test_a_strategy_that_works_again_is_taken_again():
    moody = Moody(lambda number: number > 10)
    assert taken_by(moody, 24) == ["direct"] * 16 + ["moody"] * 8
    assert moody.tried == [1, 2, 3, 8, *range(17, 25)]


def test_failures_now_and_then_are_no_reason_to_leave_it_out():
    moody = Moody(lambda number: number % 3 == 0)
    assert taken_by(moody, 30) == ["direct", "direct", "moody"] * 10
    assert moody.tried == list(range(1, 31))


def test_a_reason_says_which_bound_was_missed_by_what():
    solution = LinearSolver(Moody(lambda number: False), rtol=1e-8)(system_of(scipy.sparse.eye_array(3)))
    bounds = "relative residual 5.0e-01, 5e+07 times the bound 1.0e-08"
    bounds += ", backward error 1.2e-01, 1.2e+06 times the bound 1.0e-07"
    line = f"moody: stagnation, {bounds}, after 7 iterations (in a bad mood); solved by direct (mumps) then"
    assert solution.reason == line


def test_a_missing_diagonal_is_named_with_its_cure_and_no_figures():
    A = scipy.sparse.csr_array(np.array([[2.0, 1.0, 1.0], [1.0, 3.0, 0.0], [1.0, 0.0, 0.0]]))
    A.eliminate_zeros()
    solution = LinearSolver(Direct(solver="petsc"), rtol=1e-8)(system_of(A))
    assert solution.converged and solution.x.array_r == pytest.approx(np.linalg.solve(A.toarray(), np.ones(3)))
    assert solution.reason.startswith("direct (petsc): breakdown (Matrix is missing diagonal ent")
    assert "solver: mumps}); solved by direct (mumps) then" in solution.reason and "residual" not in solution.reason


@pytest.mark.parametrize(
    ("strategy", "A", "fault"),
    [
        (CG(pc="none"), CONVECTION, "symmetric"),
        (CG(pc="none"), INDEFINITE, "positive definite"),
        (Krylov(ksp="cg", pc="none"), INDEFINITE, "positive definite"),
    ],
    ids=["not symmetric", "indefinite", "indefinite, krylov"],
)
def test_what_the_problem_says_and_is_not_so_is_told_once_with_what_to_do(strategy, A, fault, caplog):
    advice = f"is_spd=True is wrong for this matrix, which is not {fault}: leave it out"
    solver = LinearSolver(strategy, rtol=1e-8)
    reasons = [solver(system_of(A, is_spd=True)).reason for _ in range(4)]
    assert [advice in reason for reason in reasons] == [True, False, False, False]
    assert "; solved by direct (mumps) then; " in reasons[0]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning == f"family 'default': {reasons[0]}"


@pytest.mark.parametrize("strategy", [Krylov(), Lagged(), Direct(), GCRODR(), Auto()], ids=lambda s: s.name)
@pytest.mark.parametrize("late", [False, True])
def test_a_matrix_that_is_not_symmetric_is_solved_as_what_it_is(strategy, late):
    """A nonsymmetric matrix is recognised in the first system that shows it.

    PETSc's ICC of it may never end.
    """
    solver = LinearSolver(strategy, rtol=1e-8)
    if late:
        assert solver(system_of(laplacian(), is_spd=True)).reason == ""
    reasons = []
    for _ in range(3):
        solution = solver(system_of(CONVECTION, is_spd=True))
        expected = scipy.sparse.linalg.spsolve(CONVECTION.tocsc(), np.ones(N))
        np.testing.assert_allclose(solution.x.array_r, expected, rtol=1e-6, atol=1e-6 * abs(expected).max())
        reasons.append(solution.reason)
    assert solver.num_retried == 0 and reasons[1:] == ["", ""]
    assert reasons[0] == "is_spd=True is wrong for this matrix, which is not symmetric: leave it out"


def test_a_method_that_gets_nowhere_is_stopped_before_its_limit():
    """A stagnating solve is cut, a slow one that makes progress is not.

    CG on a nonsymmetric matrix wanders.
    """
    solution = LinearSolver(Krylov(ksp="cg", pc="none"), rtol=1e-8)(system_of(CONVECTION, is_spd=False))
    assert solution.strategy == "direct" and "fell by less than 1 % in 2000 iterations" in solution.reason
    slow = scipy.sparse.diags_array([np.full(2999, -1.0), np.ones(3000)], offsets=[-1, 0])  # of 3000 steps, or none
    hard = LinearSolver(Krylov(ksp="gmres", pc="none", restart=100), rtol=1e-6)(system_of(slow.tocsr()[:300, :300]))
    assert hard.strategy == "krylov" and hard.iterations > 300


@pytest.mark.parametrize("dtype", ["u4", "u8", "i4", "i8"])
def test_a_permutation_may_be_unsigned(dtype):
    grid = replace(GRID, permutation=GRID.permutation.astype(dtype))
    solution = LinearSolver(CG(pc="multigrid"), rtol=1e-8)(system_of(laplacian(), is_spd=True, grid=grid))
    assert solution.strategy == "cg" and solution.reason == ""


def test_a_true_is_spd_is_not_blamed():
    solution = LinearSolver(CG(pc="none", max_iterations=2), rtol=1e-8)(system_of(laplacian(), is_spd=True))
    assert solution.reason.startswith("cg: iteration limit reached") and "is_spd" not in solution.reason


@pytest.mark.parametrize("strategy", [Direct(), Auto(), Lagged()], ids=["direct", "auto", "lagged"])
def test_families_that_are_no_longer_met_are_released(strategy):
    """A problem may name a family for every draw: the kept data does not grow."""
    solver, matrices = LinearSolver(strategy, rtol=1e-8), []
    for number in range(3 * MAX_FAMILIES // 2):
        system = system_of(laplacian(), family=f"draw {number}", is_spd=True)
        matrices.append(system.A)
        for _ in range(2):
            assert solver(system).converged
        assert solver(system_of(laplacian(), family="met again and again", is_spd=True)).converged
    assert len(solver.decisions) <= MAX_FAMILIES
    assert ("met again and again" in {decision.family for decision in solver.decisions}) == isinstance(strategy, Auto)
    gc.collect()
    # PETSc counts who holds an object: the list here, and the factor or the KSP of a family that is remembered.
    assert sum(matrix.getRefCount() > 1 for matrix in matrices) <= MAX_FAMILIES


def test_decisions_of_families_long_gone_are_forgotten():
    solver = LinearSolver(Auto(), rtol=1e-8)
    for number in range(3 * MAX_FAMILIES):
        decision = Decision(family=f"draw {number}", strategy="direct (petsc)", seconds={}, reason="told")
        solver.adopt([decision])
    assert {decision.family for decision in solver.decisions} == {
        f"draw {number}" for number in range(2 * MAX_FAMILIES, 3 * MAX_FAMILIES)
    }


def test_a_strategy_that_returns_no_attempt_is_named():
    class Forgetful(Direct):
        name = "forgetful"

        def solve(self, system, tolerance):
            return None

    with pytest.raises(Refused, match=r"strategy 'forgetful': solve\(\) returned a NoneType, not an Attempt"):
        LinearSolver(Forgetful(), rtol=1e-8)(system_of(laplacian(), is_spd=True))


@pytest.mark.parametrize("strategy", [CG(), Krylov(ksp="cg"), Krylov(pc="icc")])
def test_a_strategy_for_spd_matrices_says_once_where_the_problem_does_not_state_that(strategy):
    solver = LinearSolver(strategy, rtol=1e-8)
    reasons = [solver(system_of(laplacian())).reason for _ in range(2)]
    assert f"{strategy.name} is for SPD matrices, and the problem does not say is_spd=True here" in reasons[0]
    assert "SPD" not in reasons[1]
    assert LinearSolver(Krylov(), rtol=1e-8)(system_of(laplacian())).reason == ""
