"""Matrices that stay for a number of systems: turns of trials, decisions by counts."""

import itertools
import math
import time
from dataclasses import replace

import pytest

from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.auto.auto import LONG, Auto
from penstock.solvers.linear.auto.candidates import Candidate
from penstock.solvers.linear.auto.trial import Contender, Trial
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.strategy import Strategy, Tolerance
from penstock.solvers.problem import Outcome
from tests.support.families import Family, error

RTOL = 1e-8


class Clocked(Strategy):
    """Direct solves that take the seconds told, by a clock of their own."""

    name = "clocked"

    def __init__(self, clock: list[float], *seconds: float):
        self.clock, self.seconds, self.direct = clock, itertools.chain(seconds, itertools.repeat(seconds[-1])), Direct()

    def solve(self, system, tolerance):
        attempt = self.direct.solve(system, tolerance)
        self.clock[0] += next(self.seconds)
        return attempt


class CutOnce(Clocked):
    """The third solve takes more iterations than a trial allows."""

    def solve(self, system, tolerance):
        attempt = super().solve(system, tolerance)
        self.count = getattr(self, "count", 0) + 1
        is_cut = self.count == 3 and tolerance.max_iterations < math.inf
        return replace(attempt, outcome=Outcome.ITERATION_LIMIT) if is_cut else attempt


class FailsOnce(Clocked):
    """The second solve does not converge."""

    def solve(self, system, tolerance):
        attempt = super().solve(system, tolerance)
        self.count = getattr(self, "count", 0) + 1
        return replace(attempt, outcome=Outcome.STAGNATION) if self.count == 2 else attempt


@pytest.fixture
def clock(monkeypatch):
    clock, ticks = [0.0], itertools.count()
    monkeypatch.setattr(time, "thread_time", lambda: clock[0] + 1e-9 * next(ticks))
    return clock


def test_a_new_matrix_counts_once_for_all_of_its_systems(clock):
    family, tolerance = Family(), Tolerance(RTOL)
    new, same = 40.0, 1.0
    contender = Contender(Candidate("a", lambda: Clocked(clock, *[new, same] * 3, same)), tolerance)
    trial = Trial([contender], stay=10)
    for number in [*range(1, 11)] * 2:
        if number in trial.turns:
            assert trial.solve(family.system(), tolerance, number).outcome is Outcome.CONVERGED
    assert trial.turns == {1: 1, 5: 9}
    assert contender.seconds == pytest.approx([(new + 9 * same) / 10])  # of the second matrix


def test_a_system_for_which_all_were_cut_is_solved_all_the_same(clock):
    family, tolerance = Family(), Tolerance(RTOL)
    trial = Trial([Contender(Candidate(name, lambda: CutOnce(clock, 1.0)), tolerance) for name in "ab"])
    for _ in range(3):
        system = family.system()
        attempt = trial.solve(system, tolerance)
        assert attempt.outcome is Outcome.CONVERGED and error(system, attempt.x) <= 1e-6
    assert trial.winner.seconds == pytest.approx([1.0])


def test_a_trial_ends_although_a_turn_of_a_matrix_was_lost(clock):
    family, tolerance = Family(), Tolerance(RTOL)
    trial = Trial([Contender(Candidate(name, lambda: FailsOnce(clock, 1.0)), tolerance) for name in "ab"], stay=10)
    for number in [*range(1, 11)] * 9:
        if number in trial.turns and not trial.is_over:
            trial.solve(family.system(), tolerance, number)
    assert trial.is_over and trial.seconds == pytest.approx({"a": 1.0, "b": 1.0})


def over(clock, candidates: dict[str, tuple[float, ...]]) -> Trial:
    """The trial, when it is over, of candidates that take these seconds; the first solve of each warms it up."""
    family, tolerance = Family(), Tolerance(RTOL)
    chosen = [
        Candidate(label, lambda seconds=seconds: Clocked(clock, *seconds), warm_up=6 if label == "late" else 1)
        for label, seconds in candidates.items()
    ]
    trial = Trial([Contender(candidate, tolerance) for candidate in chosen])
    for _ in range(12):
        assert trial.solve(family.system(), tolerance).outcome is Outcome.CONVERGED
        if trial.is_over:
            return trial
    raise AssertionError("the trial does not end")


def test_one_that_fell_behind_a_rival_is_back_when_that_turns_out_slower(clock):
    trial = over(clock, {"steady": (1.0,), "lucky": (1.0, 0.4, 3.0), "late": (2.0,)})
    assert trial.winner.label == "steady"
    assert trial.seconds == pytest.approx({"steady": 1.0, "lucky": 3.0, "late": 2.0})


def test_one_slow_solve_of_the_fastest_is_no_proof(clock):
    trial = over(clock, {"fast": (1.0, 1.0, 9.0, 1.0), "rival": (1.8,)})
    assert trial.winner.label == "fast" and trial.seconds["fast"] == pytest.approx(1.0)


def test_a_matrix_that_stays_is_taken_as_constant_for_good():
    family, solver = Family(), LinearSolver(Auto(), rtol=RTOL)
    for _ in range(2 * LONG):
        assert solver(family.system(constant=True)).strategy in ("auto", "constant")
    (decision,) = solver.decisions
    assert (decision.number, decision.strategy, decision.seconds) == (0, "constant", {})


def solve_in_stays(solver: LinearSolver, stays: list[int]) -> None:
    family = Family()
    for stay in stays:
        first = family.system()
        values = first.A.getValuesCSR()
        for _ in range(stay):
            system = family.system()
            system.A.setValuesCSR(*values)
            system.A.assemble()
            solution = solver(system)
            assert solution.converged and error(system, solution.x) <= 1e-6
    assert solver.num_retried == 0


def test_constant_is_timed_where_the_matrix_changes_every_10_systems(caplog):
    solver = LinearSolver(Auto(), rtol=RTOL)
    solve_in_stays(solver, [10] * 12)
    (decision,) = solver.decisions
    assert decision.number == 1 and {"constant", "direct (petsc)"} <= decision.seconds.keys()
    assert "per solve with 10 systems per matrix, over" in decision.reason
    assert not caplog.records


def test_a_matrix_that_changes_once_and_then_stays_is_constant_again():
    solver = LinearSolver(Auto(), rtol=RTOL)
    solve_in_stays(solver, [4, LONG + 1])
    (decision,) = solver.decisions
    assert (decision.number, decision.strategy, decision.seconds) == (1, "constant", {})


def test_shorter_stays_begin_the_trial_again():
    solver = LinearSolver(Auto(), rtol=RTOL)
    solve_in_stays(solver, [30] * 2 + [6] * 12)
    (decision,) = solver.decisions
    assert decision.number == 1 and "with 6 systems per matrix" in decision.reason
