"""One case, all arms: they take turns system by system, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from penstock.solvers.bench.arms import Arm, ArmError, AutoArm, Solved, Structure
from penstock.solvers.bench.case import Case
from penstock.solvers.krylov.accuracy import can_factor, relative_error
from penstock.solvers.krylov.direct import Direct
from penstock.solvers.krylov.krylov import Krylov
from penstock.solvers.krylov.strategy import Tolerance, residual_of
from penstock.solvers.problem import LinearSystem, Outcome
from penstock.solvers.sorting import greedy_order

ARM_SECONDS = 10.0  # of solving, after which an arm leaves a case
MAX_TIGHTENINGS = 3  # of a method whose own measure of the residual let it stop too soon
MAX_TRIALS = 60  # systems on which `auto` may try its candidates out
SETTLING = 16  # more systems before it is compared: those that calibrate an accuracy are solved directly, too
NUM_CALIBRATIONS = 3  # systems on which an arm's rtol is fitted to an accuracy
MAX_FITS = 6
EXACT = 1e-6  # times the accuracy: no tolerance explains so small an error
TINY = 1e-12
RUN_SYSTEMS = 2000  # a run over which the cost of trials is spread


class Goal(Protocol):
    """What all arms must reach, and what their solutions are judged by."""

    text: str
    measure: str
    """Name of what is judged."""

    def prepare(self, case: Case, i: int) -> None:
        """Whatever judging system i takes, outside of all timing."""
        ...

    def fit(self, arm: Arm, case: Case) -> None:
        """Find out what to ask the arm for."""
        ...

    def solve(self, arm: Arm, system: LinearSystem, i: int) -> tuple[Solved, float]:
        """The solution and its measure. Raises ArmError when it isn't good enough."""
        ...


class ResidualGoal:
    """Equal true relative residuals ||b - A x|| / ||b||.

    An arm that stops too soon by a measure of its own goes on from its x, and is asked for less from there on.
    """

    measure = "residual"

    def __init__(self, rtol: float):
        self.rtol = rtol
        self.text = f"true relative residual at most {rtol:g}"
        self._asked: dict[Arm, float] = {}

    def prepare(self, case: Case, i: int) -> None:
        pass

    def fit(self, arm: Arm, case: Case) -> None:
        pass

    def solve(self, arm: Arm, system: LinearSystem, i: int) -> tuple[Solved, float]:
        asked = self._asked.get(arm, self.rtol)
        solved = arm.solve(system, asked)
        residual = self._residual(system, solved)
        for _ in range(MAX_TIGHTENINGS):
            if residual <= self.rtol or not np.isfinite(residual):
                break
            asked = self._asked[arm] = asked * 0.5 * self.rtol / residual
            more = arm.solve(replace(system, guess=solved.x), asked)
            solved = solved + more
            residual = self._residual(system, solved)
        if not residual <= self.rtol:
            raise ArmError(f"true relative residual {residual:.1e}")
        return solved, residual

    def _residual(self, system: LinearSystem, solved: Solved) -> float:
        return residual_of(system, solved.x).norm() / system.b.norm()


class AccuracyGoal:
    """Equal algebraic errors ||x - A⁻¹ b|| / ||A⁻¹ b||.

    Each arm's rtol is fitted so that the largest error on three other systems is 0.4 to 0.8 of the accuracy; `auto` is
    asked for the accuracy itself. An error above twice the accuracy is a failure.

    calibrations: the other systems.
    """

    measure = "error"

    def __init__(self, accuracy: float, calibrations: range):
        self.accuracy = accuracy
        self.text = f"error against the exact solution at most {accuracy:g}"
        self._calibrations = calibrations
        self._references: dict[int, np.ndarray] = {}
        self._asked: dict[Arm, float] = {}

    def prepare(self, case: Case, i: int) -> None:
        if i not in self._references:
            self._references[i] = exact_solution(case.system(i))

    def fit(self, arm: Arm, case: Case) -> None:
        if isinstance(arm, AutoArm):
            return
        rtol = self.accuracy
        for _ in range(MAX_FITS):
            errors = []
            for i in self._calibrations:
                self.prepare(case, i)
                system = case.system(i)
                errors.append(self._error(system, arm.solve(system, rtol), i))
                if errors[0] < EXACT * self.accuracy:  # direct, and at 64^3 half a minute a system
                    return
            self._asked[arm] = rtol
            largest = max(errors)
            if 0.4 * self.accuracy <= largest <= 0.8 * self.accuracy or (largest < self.accuracy and rtol > 0.1):
                return
            rtol = min(0.5, 0.6 * rtol * self.accuracy / max(largest, 1e-3 * self.accuracy))

    def asked(self, arm: Arm) -> float:
        """The rtol that the arm is asked for."""
        return self._asked.get(arm, self.accuracy)

    def solve(self, arm: Arm, system: LinearSystem, i: int) -> tuple[Solved, float]:
        solved = arm.solve(system, self.asked(arm))
        error = self._error(system, solved, i)
        if not error <= 2 * self.accuracy:
            raise ArmError(f"error {error:.1e}")
        return solved, error

    def _error(self, system: LinearSystem, solved: Solved, i: int) -> float:
        reference = system.b.duplicate()
        reference.array = self._references[i]
        return relative_error(system, solved.x, reference)


def exact_solution(system: LinearSystem) -> np.ndarray:
    """A⁻¹ b to rounding: by a direct solve, and by CG with GAMG where that would take half a minute."""
    strategy = Direct() if can_factor(system) else Krylov(ksp="cg", pc="gamg")
    attempt = strategy.solve(system, Tolerance(1e-10))
    if attempt.outcome is not Outcome.CONVERGED:
        raise ArithmeticError(f"no exact solution: {attempt.outcome}")
    return attempt.x.array_r.copy()


@dataclass
class Record:
    """What an arm took, by turn."""

    arm: Arm
    solved: dict[int, Solved] = field(default_factory=dict)
    """By turn; the solutions themselves are let go."""
    worst: float = 0.0
    """The largest measure of the solutions that count."""
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    """Of all turns, failures included."""
    is_out: bool = False
    """Takes no more turns."""

    @property
    def warm_turns(self) -> set[int]:
        """All but the first, in which most arms set up what they keep; the first where it is the only one."""
        return set(sorted(self.solved)[1:] or self.solved)

    @property
    def median_s(self) -> float:
        return self.median(lambda solved: solved.seconds)

    def median(self, value: Callable[[Solved], float]) -> float:
        """Over warm turns."""
        return statistics.median(value(self.solved[turn]) for turn in self.warm_turns)

    def take_turn(self, turn: int, goal: Goal, system: LinearSystem, i: int) -> None:
        start = time.perf_counter()
        try:
            solved, measure = goal.solve(self.arm, system, i)
            self.solved[turn] = replace(solved, x=None)
            self.worst = max(self.worst, measure)
        except Exception as error:  # an arm's crash is a failure of that arm, and must not end the bench
            self.fail(error)
        self.seconds += time.perf_counter() - start

    def fail(self, error: Exception) -> None:
        reason = str(error) if isinstance(error, ArmError) else f"{type(error).__name__}: {error}"
        self.failures[" ".join(reason.split())[:160]] += 1

    def ratio(self, other: Record, value: Callable[[Solved], float] = lambda solved: solved.seconds) -> float:
        """Median over common warm turns of this arm's value over the other's; that of medians where there are none.

        Turns are pairs although a sorted arm solves another system in its turn: what slows the machine slows both.
        """
        turns = self.warm_turns & other.warm_turns
        if not turns:
            return self.median(value) / max(other.median(value), TINY)
        return statistics.median(value(self.solved[turn]) / max(value(other.solved[turn]), TINY) for turn in turns)


@dataclass
class Comparison:
    """What came of one case."""

    case: Case
    goal: Goal
    num_systems: int
    records: list[Record]
    assembly_s: float
    """Median, one system."""
    sort_s: float
    """One system's share."""
    num_trials: int
    """Systems on which `auto` tried its candidates out, before those that count."""
    trials_s: float
    seconds: float
    """That all of it took."""


def structure_of(case: Case) -> Structure:
    """As two successive systems show it."""
    first = case.system(0)
    is_spd, has_grid = first.is_spd, first.grid is not None
    _, columns, values = first.A.getValuesCSR()
    _, other_columns, other_values = case.system(1).A.getValuesCSR()
    return Structure(
        num_unknowns=case.num_unknowns,
        is_spd=is_spd,
        has_grid=has_grid,
        has_constant_matrix=np.array_equal(columns, other_columns) and np.array_equal(values, other_values),
        is_sequence=case.is_sequence,
    )


def compare(
    case: Case, arms: list[Arm], num_systems: int, new_goal: Callable[[range], Goal], arm_seconds: float = ARM_SECONDS
) -> Comparison:
    """Let every arm solve the same `num_systems` systems, those after the ones on which `auto` makes its decision.

    new_goal: makes the goal, given systems that are free for calibration.
    arm_seconds: of solving, after which an arm takes no more turns.
    """
    begin = time.perf_counter()
    records = [Record(arm) for arm in arms]
    begin_at, num_trials, trials_s = 0, 0, 0.0
    for record in records:
        if isinstance(record.arm, AutoArm):
            begin_at, num_trials, trials_s = decide(record, case)
    systems = range(begin_at, begin_at + num_systems)
    goal = new_goal(range(systems.stop, systems.stop + NUM_CALIBRATIONS))
    for record in records:
        calibrate(record, goal, case)

    order, sort_s = list(systems), 0.0
    if not case.is_sequence:
        features = np.stack([case.features(i) for i in systems])
        start = time.perf_counter()
        order = [systems[position] for position in greedy_order(features)]
        sort_s = time.perf_counter() - start
    assemblies = []
    random = np.random.default_rng(0)
    for turn in range(num_systems):
        for i in {systems[turn], order[turn]}:
            goal.prepare(case, i)
        for record in random.permutation(records):  # an arm's time depends on what the one before left in the caches
            if record.is_out:
                continue
            i = order[turn] if record.arm.is_sorted else systems[turn]
            start = time.perf_counter()
            system = case.system(i)
            assemblies.append(time.perf_counter() - start)
            record.take_turn(turn, goal, system, i)
            record.is_out = record.seconds > arm_seconds
    return Comparison(
        case=case,
        goal=goal,
        num_systems=num_systems,
        records=records,
        assembly_s=statistics.median(assemblies),
        sort_s=sort_s / num_systems,
        num_trials=num_trials,
        trials_s=trials_s,
        seconds=time.perf_counter() - begin,
    )


def decide(record: Record, case: Case) -> tuple[int, int, float]:
    """Let `auto` make its decision, and settle: returns all systems that it took, those of the trials, and their time.

    What it chose then starts warm, which it would in the rest of a run.
    """
    num_trials, seconds, num_settled = 0, 0.0, 0
    while num_trials < MAX_TRIALS and num_settled < SETTLING:
        system = case.system(num_trials + num_settled)
        start = time.perf_counter()
        try:
            record.arm.solve(system)
        except Exception as error:
            record.fail(error)
            break
        if record.arm.decision is None:
            num_trials += 1
            seconds += time.perf_counter() - start
        else:
            num_settled += 1
    return num_trials + num_settled, num_trials, seconds


def calibrate(record: Record, goal: Goal, case: Case) -> None:
    try:
        goal.fit(record.arm, case)
    except Exception as error:
        record.fail(error)
        record.is_out = True
