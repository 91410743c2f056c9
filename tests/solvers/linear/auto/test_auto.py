"""Strategies tried, chosen, shared and tried again."""

import itertools
import json
import math
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
from mpi4py import MPI
from petsc4py import PETSc

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.messages import Decision, Lease
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.auto.auto import Auto, describe
from penstock.solvers.linear.auto.calibration import tolerance_of
from penstock.solvers.linear.auto.candidates import Candidate, candidates
from penstock.solvers.linear.auto.trial import Contender, Trial
from penstock.solvers.linear.auto.watch import Watch
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.iterative.petsc import Krylov
from penstock.solvers.linear.strategy import Attempt, Strategy, Tolerance
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import GridDofs, LinearSystem, Outcome, Problem
from penstock.solvers.worker import SolverWorker
from tests.support.families import SIZE, Family, error
from tests.support.systems import system_of

RTOL = 1e-8


def grid(*shape: int) -> GridDofs:
    return GridDofs(shape=shape, spacing=(1.0,) * len(shape), permutation=np.arange(math.prod(shape)))


def decision(strategy: str, *, number=0, family="default") -> Decision:
    return Decision(family=family, number=number, strategy=strategy, seconds={}, reason="told")


# Decisions by times.


def is_behind(*seconds: float, best=1.0, num_timed=3) -> bool:
    contender = Contender(Candidate("a", Direct, num_timed=num_timed), Tolerance(RTOL))
    contender.seconds.extend(seconds)
    return contender.is_behind(best)


def test_candidates_drop_out_where_they_fall_behind():
    assert not is_behind()
    assert not is_behind(1.9) and is_behind(2.1)
    assert not is_behind(1.4, 1.8) and is_behind(1.6, 1.8)
    assert not is_behind(1.0, 9.0, 1.1)  # one odd time says nothing
    assert not is_behind(9.0, 9.0, num_timed=5) and is_behind(9.0, 9.0, 9.0, num_timed=5)


def test_the_line_says_what_was_chosen_over_what_by_how_much():
    seconds = {"a": 0.009, "b": 0.003, "c": None, "cg + icc, recycling": None, "d": 0.0045}
    line = "'b', 3 ms per solve, over 'd' 4.5 (1.5x), 'a' 9 (3.0x)"
    assert describe("b", seconds) == f"{line}; failed: 'c', 'cg + icc, recycling'"
    assert describe("b", seconds, {"c"}) == f"{line}; failed: 'cg + icc, recycling'; too slow to time: 'c'"
    assert describe("b", {"b": 0.003}, stay=25) == "'b', 3 ms per solve with 25 systems per matrix"
    assert describe("constant", {}) == "'constant', untimed: systems share one matrix so far"
    assert describe("a", {"a": None, "b": None}).startswith("'a', untimed: no candidate solved the first systems")


def test_iterations_that_grow_alarm():
    watch = Watch()
    for iterations in [10] * 40 + [14] * 40:
        watch.note(iterations)
        assert not watch.is_alarmed
    for iterations in [16] * 20:
        watch.note(iterations)
    assert watch.is_alarmed


def test_few_iterations_more_are_no_drift():
    watch = Watch()
    for iterations in [2] * 20 + [5] * 20:
        watch.note(iterations)
        assert not watch.is_alarmed


def test_repeated_trouble_alarms():
    watch = Watch()
    for _ in range(2):
        watch.note_trouble()
        watch.note(0)
    assert not watch.is_alarmed
    watch.note_trouble()
    assert watch.is_alarmed


# Candidates by structure.


def labels(system) -> list[str]:
    return [candidate.label for candidate in candidates(system)]


def test_candidates_follow_the_structure():
    spd = Family().system()
    assert labels(spd)[0] == "direct (petsc)" and "cg + icc, recycling" in labels(spd)
    assert "cg + multigrid" not in labels(spd)
    on_grid = labels(replace(spd, grid=grid(SIZE, SIZE)))
    assert "cg + multigrid" in on_grid
    nonsymmetric = labels(Family(wind=3.0).system())
    assert nonsymmetric[0] == "direct (petsc)" and not any(label.startswith("cg") for label in nonsymmetric)
    nullspace = PETSc.NullSpace().create(constant=True, comm=MPI.COMM_SELF)
    assert "direct (petsc)" not in labels(replace(spd, nullspace=nullspace))


def test_a_large_cube_is_not_factored():
    matrix = PETSc.Mat().createAIJ((40**3, 40**3), nnz=1, comm=MPI.COMM_SELF)
    matrix.assemble()
    system = LinearSystem(A=matrix, b=matrix.createVecLeft(), is_spd=True, grid=grid(40, 40, 40))
    assert labels(system)[0] == "cg + multigrid" and not any(label.startswith("direct") for label in labels(system))


# Trials.


def run_trial(trial: Trial, family: Family, tolerance: Tolerance, most=8) -> int:
    for number in range(1, most + 1):
        system = family.system()
        attempt = trial.solve(system, tolerance)
        assert attempt.outcome is Outcome.CONVERGED and error(system, attempt.x) <= 1e-6
        if trial.is_over:
            return number
    raise AssertionError("the trial does not end")


def test_a_trial_ends_and_names_what_failed():
    chosen = [
        Candidate("direct", Direct),
        Candidate("cut", lambda: Krylov(ksp="cg", pc="none", max_iterations=2)),
        Candidate("refused", lambda: Krylov(ksp="cg", pc="icc", options={"pc_no_such_option": "1"})),
        Candidate("cg", lambda: Krylov(ksp="cg", pc="icc")),
    ]
    tolerance = Tolerance(RTOL)
    trial = Trial([Contender(candidate, tolerance) for candidate in chosen])
    assert run_trial(trial, Family(), tolerance) <= 4
    assert trial.winner.label in ("direct", "cg")
    assert trial.seconds["cut"] is None and trial.seconds["refused"] is None
    assert "cut" in trial.slow and "refused" not in trial.slow
    assert trial.seconds[trial.winner.label] == min(value for value in trial.seconds.values() if value is not None)


def test_what_is_known_to_be_slow_is_not_begun():
    begun = []

    def make():
        begun.append("slow")
        return Direct()

    tolerance = Tolerance(RTOL)
    contenders = [Contender(Candidate("direct", Direct), tolerance), Contender(Candidate("slow", make, 1e9), tolerance)]
    trial = Trial(contenders)
    run_trial(trial, Family(), tolerance)
    assert trial.winner.label == "direct" and trial.seconds["slow"] is None and trial.slow == {"slow"}


def test_a_system_that_nobody_solves_drops_nobody(monkeypatch):
    monkeypatch.setattr(time, "thread_time", itertools.count().__next__)  # every solve takes the same
    tolerance = Tolerance(RTOL)
    family = Family()
    trial = Trial([Contender(Candidate(name, Direct), tolerance) for name in "ab"])
    system = family.system()
    system.b.array = np.full(SIZE * SIZE, math.nan)
    assert trial.solve(system, tolerance).outcome is not Outcome.CONVERGED
    assert not trial.is_over
    run_trial(trial, family, tolerance)
    assert all(seconds is not None for seconds in trial.seconds.values())


def test_the_first_candidate_is_taken_where_none_solves_anything():
    tolerance = Tolerance(RTOL)
    trial = Trial([Contender(Candidate(name, lambda: Krylov(max_iterations=1, pc="none")), tolerance) for name in "ab"])
    family = Family()
    for _ in range(3):
        assert not trial.is_over
        assert trial.solve(family.system(), tolerance).outcome is not Outcome.CONVERGED
    assert trial.is_over and trial.winner.label == "a"


class Wrong(Strategy):
    """Says that it has solved what it has not, as an iterative method may where A is singular."""

    name = "wrong"

    def solve(self, system, tolerance):
        x = system.b.duplicate()
        x.set(1.0)
        return Attempt(x=x, outcome=Outcome.CONVERGED, iterations=1, energy_error=0.5 * tolerance.energy)


def test_what_no_reference_confirms_is_no_solution():
    singular = np.zeros((9, 9))
    singular[:, 0] = 1.0
    tolerance = tolerance_of(1e-4)
    trial = Trial([Contender(Candidate(name, Wrong), tolerance) for name in "ab"])
    while not trial.is_over:
        assert trial.solve(system_of(singular), tolerance).outcome is not Outcome.CONVERGED
    assert trial.seconds == {"a": None, "b": None}
    assert describe("a", trial.seconds) == "'a', untimed: no candidate solved the first systems"


# The strategy.


@pytest.mark.parametrize("wind", [0.0, 3.0])
@pytest.mark.parametrize("bound", [{"rtol": RTOL}, {"accuracy": 1e-4}])
def test_auto_decides_and_every_solution_is_right(wind, bound):
    family, solver = Family(wind=wind), LinearSolver(Auto(), **bound)
    for _ in range(20):
        system = family.system()
        solution = solver(system)
        assert solution.converged and solver.num_retried == 0
        assert error(system, solution.x) <= (1e-6 if "rtol" in bound else 1e-4)
    (decision,) = solver.decisions
    assert solution.strategy == decision.strategy
    assert decision.family == "default" and decision.number == 0 and decision.seconds[decision.strategy] > 0
    assert Decision(**json.loads(json.dumps(asdict(decision)))) == decision
    assert solver.num_retried == 0


def test_an_indefinite_matrix_that_is_said_to_be_spd_is_named():
    family, solver = Family(), LinearSolver(Auto(), rtol=RTOL)
    for _ in range(20):
        system = family.system()
        system.A.shift(-1.3)  # between its eigenvalues
        assert error(system, solver(system).x) <= 1e-6
    (decision,) = solver.decisions
    assert "is_spd=True looks wrong, as CG met a vector p with pᵀ A p <= 0" in decision.reason


def test_families_are_decided_apart():
    solver = LinearSolver(Auto(), rtol=RTOL)
    families = [Family(family="calm"), Family(family="windy", wind=3.0)]
    for _ in range(10):
        for family in families:
            assert solver(family.system()).converged
    assert {decision.family for decision in solver.decisions} == {"calm", "windy"}
    solver.reset()
    assert {decision.family for decision in solver.decisions} == {"calm", "windy"}
    assert solver(families[0].system()).converged


def test_a_constant_matrix_needs_no_trial():
    family, solver = Family(), LinearSolver(Auto(), rtol=RTOL)
    for _ in range(6):
        system = family.system(constant=True)
        assert error(system, solver(system).x) <= 1e-6
    assert [decision.strategy for decision in solver.decisions] == ["constant"]


def test_a_matrix_that_does_not_stay_constant_is_tried_anew():
    family, solver = Family(), LinearSolver(Auto(), rtol=RTOL)
    for number in range(30):
        system = family.system(constant=number < 4)
        assert error(system, solver(system).x) <= 1e-6
    (decision,) = solver.decisions
    assert decision.number == 1 and len(decision.seconds) > 1


def test_zero_right_hand_side():
    family, solver = Family(), LinearSolver(Auto(), accuracy=1e-4)
    for number in range(12):
        system = family.system()
        if number % 2:
            system.b.zeroEntries()
        solution = solver(system)
        assert solution.converged and (solution.x.norm() == 0) == (number % 2 == 1)


def test_a_worker_that_may_not_try_waits_for_a_decision():
    family, solver = Family(), LinearSolver(Auto(), rtol=RTOL)
    solver.adopt((), may_try=False)
    for _ in range(10):
        assert solver(family.system()).converged
    assert solver.decisions == ()
    solver.adopt([decision("cg + icc")], may_try=False)
    solution = solver(family.system())
    assert solution.converged and solution.iterations > 5  # no longer direct
    solver.adopt([decision("direct (mumps)", number=1)], may_try=False)
    assert solver(family.system()).iterations == 0
    solver.adopt([decision("cg + icc")], may_try=False)  # a late decision
    assert solver(family.system()).iterations == 0
    assert [known.number for known in solver.decisions] == [1]


def test_a_decision_of_another_version_is_made_again():
    family, solver = Family(), LinearSolver(Auto(), rtol=RTOL)
    solver.adopt([decision("quantum")])
    for _ in range(14):
        assert solver(family.system()).converged
    assert solver.decisions[0].strategy != "quantum"


def test_failures_climb_the_ladder_and_lead_to_a_new_decision():
    family, solver = Family(), LinearSolver(Auto(), rtol=RTOL)
    solver.adopt([decision("cg + icc")])
    for _ in range(20):
        system = family.system()
        system.A.scale(-1.0)  # now negative definite, so CG must fail
        solution = solver(system)
        assert solution.converged and error(system, solution.x) <= 1e-6
    assert solver.num_retried >= 3
    assert solver.decisions[0].number == 1


def test_a_drift_leads_to_a_new_decision():
    family, solver = Family(), LinearSolver(Auto(), rtol=RTOL)
    solver.adopt([decision("cg + icc")])
    for number in range(70):
        assert solver(family.system(contrast=1.0 if number < 30 else 1e6)).converged
    assert solver.decisions[0].number == 1 and solver.num_retried == 0


class Flow(Problem):
    def __init__(self):
        self.space = ParameterSpace(x=Uniform(0.0, 1.0))
        self.inputs = (FieldSpec(name="x"),)
        self.outputs = (FieldSpec(name="u", on=Grid((SIZE, SIZE))),)
        self.family = Family()

    def simulate(self, parameters, solve):
        solution = solve(self.family.system())
        yield Sample(inputs={"x": parameters["x"]}, outputs={"u": solution.x.array_r.reshape(SIZE, SIZE)})


def test_a_decision_travels_from_worker_to_worker():
    def lease(*simulations, **told):
        return Lease(number=0, simulations=simulations, **told)

    first = SolverWorker(Flow(), {"training": LinearSolver(Auto(), rtol=RTOL)}, seed=0, sort=False)
    made = [decision for chunk in first.stream(lease(*range(12))) for decision in chunk.decisions]
    assert made
    second_solver = LinearSolver(Auto(), rtol=RTOL)
    second = SolverWorker(Flow(), {"training": second_solver}, seed=0, sort=False)
    chunks = list(second.stream(lease(20, 21, decisions=(made[-1],), may_try=False)))
    assert second_solver.decisions == (made[-1],)
    assert not any(chunk.decisions for chunk in chunks)  # it does not report decisions that it was given


TWO_RANKS = """
import time
from mpi4py import MPI
from petsc4py import PETSc
import numpy as np
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.auto.auto import Auto
from penstock.solvers.problem import LinearSystem
elapsed, ticks = 0.0, np.random.default_rng(MPI.COMM_WORLD.rank)
def thread_time():
    global elapsed
    elapsed += ticks.lognormal(-7, 2)
    return elapsed
time.thread_time = thread_time
n = 400
A = PETSc.Mat().createAIJ((n, n), nnz=3, comm=MPI.COMM_WORLD)
b = A.createVecLeft()
generator = np.random.default_rng(0)
for _ in range(20):
    solver = LinearSolver(Auto(), rtol=1e-8)
    for _ in range(12):
        a = generator.uniform(1, 2, n + 1)
        for i in range(*A.getOwnershipRange()):
            A[i, i] = a[i] + a[i + 1] + 0.01
            if i > 0: A[i, i - 1] = -a[i]
            if i < n - 1: A[i, i + 1] = -a[i + 1]
        A.assemble()
        b.set(1.0)
        solution = solver(LinearSystem(A=A, b=b, is_spd=True))
        assert solution.converged and solver.num_retried == 0, solution
    labels = MPI.COMM_WORLD.allgather(solver.decisions[0].strategy)
    assert len(set(labels)) == 1, labels
"""


def test_two_ranks_decide_alike_whatever_their_clocks_say(run_on_ranks):
    run_on_ranks(2, TWO_RANKS)
