"""One case, all arms: they take turns system by system, and are timed by the CPU seconds of this thread."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from benchmarks.solvers.arms import Arm, ArmError, AutoArm, Role, Solved, Structure
from benchmarks.solvers.case import Case
from penstock.solvers.linear.auto.calibration import can_factor, relative_error
from penstock.solvers.linear.check import residual_of
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.iterative.petsc import Krylov
from penstock.solvers.linear.strategy import Tolerance
from penstock.solvers.problem import LinearSystem, Outcome
from penstock.solvers.sorting.sorter import greedy_order

if TYPE_CHECKING:
    from petsc4py import PETSc

ARM_SECONDS = 8.0  # of solving, after which an arm leaves a case
WARM_UP_SECONDS = 4.0  # of an arm's warm-up, after which the rest of it falls on systems that are compared
FIT_SECONDS = 4.0  # of fitting an arm to an accuracy, after which one system has to do
HOPELESS = 3  # systems, after which an arm that solved none leaves
MAX_TIGHTENINGS = 3  # of a method whose own measure of the residual let it stop too soon
MAX_TRIALS = 60  # systems on which `auto` may try its candidates out
SETTLING = 16  # more systems before it is compared: those that calibrate an accuracy are solved directly, too
NUM_CALIBRATIONS = 3  # systems on which an arm's rtol is fitted to an accuracy
MAX_FITS = 6
EXACT = 1e-6  # times the accuracy: no tolerance explains so small an error
RUN_SYSTEMS = 2000  # a run over which the cost of trials is spread
LARGEST_REFERENCE = 40_000  # unknowns up to which MUMPS makes the exact solution in three dimensions, too


class ExactSolver:
    """A⁻¹ b to rounding: by MUMPS and a step of refinement, and by CG with GAMG where that would take half a minute."""

    def __init__(self):
        self._direct = Direct(solver="mumps")
        self._krylov = Krylov(ksp="cg", pc="gamg")

    def __call__(self, system: LinearSystem) -> np.ndarray:
        """Raises ArithmeticError where there is no solution."""
        is_direct = can_factor(system) or system.A.getSize()[0] <= LARGEST_REFERENCE
        # Rounding may leave residuals above 1e-10, where a coefficient jumps by 1e4.
        strategy, rtol = (self._direct, 1e-8) if is_direct else (self._krylov, 1e-10)
        attempt = strategy.solve(system, Tolerance(rtol))
        if attempt.outcome is not Outcome.CONVERGED:
            raise ArithmeticError(f"no exact solution: {attempt.outcome}")
        x = attempt.x.array_r.copy()
        if is_direct:
            x += strategy.solve(replace(system, b=residual_of(system, attempt.x)), Tolerance(rtol)).x.array_r
        return x


class References:
    """The exact solutions of a case's systems, each made once and outside of all timing."""

    def __init__(self, case: Case):
        self._case = case
        self._solve = ExactSolver()
        self._solutions: dict[int, np.ndarray] = {}

    def prepare(self, i: int) -> None:
        """That of system i. Overwrites the case's matrix."""
        if i not in self._solutions:
            self._solutions[i] = self._solve(self._case.system(i))

    def error(self, system: LinearSystem, x: PETSc.Vec, i: int) -> float:
        """||x - A⁻¹ b|| / ||A⁻¹ b|| of system i, which was prepared."""
        reference = system.b.duplicate()
        reference.array = self._solutions[i]
        return relative_error(system, x, reference)


class Goal(Protocol):
    """What all arms must reach, and what their solutions are judged by."""

    text: str
    measure: str
    """Name of what is judged."""

    def fit(self, arm: Arm, case: Case) -> None:
        """Find out what to ask the arm for."""
        ...

    def solve(self, arm: Arm, system: LinearSystem, i: int) -> tuple[Solved, float]:
        """The solution and its measure. Raises ArmError when it isn't good enough."""
        ...


class ResidualGoal:
    """Equal true relative residuals ||b - A x|| / ||b||.

    An arm that stops too soon by a measure of its own goes on from its x, and is asked for less.
    """

    measure = "residual"

    def __init__(self, rtol: float):
        self.rtol = rtol
        self.text = f"true relative residual at most {rtol:g}"

    def fit(self, arm: Arm, case: Case) -> None:
        pass

    def solve(self, arm: Arm, system: LinearSystem, i: int) -> tuple[Solved, float]:
        asked = self.rtol
        solved = arm.solve(system, asked)
        residual = self._residual(system, solved)
        for _ in range(MAX_TIGHTENINGS):
            if residual <= self.rtol or not np.isfinite(residual):
                break
            asked *= 0.5 * self.rtol / residual
            solved = solved + arm.improve(system, solved.x, asked)
            residual = self._residual(system, solved)
        if not residual <= self.rtol:
            raise ArmError(f"true relative residual {residual:.1e}")
        return solved, residual

    def _residual(self, system: LinearSystem, solved: Solved) -> float:
        return residual_of(system, solved.x).norm() / system.b.norm()


class AccuracyGoal:
    """Equal algebraic errors ||x - A⁻¹ b|| / ||A⁻¹ b||.

    Each arm's rtol is fitted so that the largest error on three other systems is 0.4 to 0.8 of the accuracy; `auto` is
    asked for the accuracy itself. Methods of few iterations may jump over that range: then the first rtol that gives at
    most 0.8 after one that gave more is taken. An error above twice the accuracy is a failure.

    calibrations: the other systems.
    """

    measure = "error"

    def __init__(self, accuracy: float, references: References, calibrations: range):
        self.accuracy = accuracy
        self.text = f"error against the exact solution at most {accuracy:g}"
        self._references = references
        self._calibrations = calibrations
        self._asked: dict[Arm, float] = {}

    def fit(self, arm: Arm, case: Case) -> None:
        if isinstance(arm, AutoArm) or arm.max_systems is not None:
            return
        start = time.thread_time()
        rtol, has_missed = self.accuracy, False
        for _ in range(MAX_FITS):
            errors = []
            for i in self._calibrations:
                self._references.prepare(i)
                system = case.system(i)
                errors.append(self._references.error(system, arm.solve(system, rtol).x, i))
                if errors[0] < EXACT * self.accuracy:  # direct
                    return
                is_late = time.thread_time() - start > FIT_SECONDS
                if is_late:
                    break
            self._asked[arm] = rtol
            largest = max(errors)
            holds = largest <= 0.8 * self.accuracy
            if holds and (largest >= 0.4 * self.accuracy or rtol > 0.1 or has_missed):
                return
            has_missed = has_missed or not holds
            rtol = min(0.5, 0.6 * rtol * self.accuracy / max(largest, 1e-3 * self.accuracy))

    def asked(self, arm: Arm) -> float:
        """The rtol that the arm is asked for."""
        return self._asked.get(arm, self.accuracy)

    def solve(self, arm: Arm, system: LinearSystem, i: int) -> tuple[Solved, float]:
        solved = arm.solve(system, self.asked(arm))
        error = self._references.error(system, solved.x, i)
        if not error <= 2 * self.accuracy:
            raise ArmError(f"error {error:.1e}")
        return solved, error


@dataclass
class Record:
    """What an arm took, by number of the system."""

    arm: Arm
    solved: dict[int, Solved] = field(default_factory=dict)
    """The solutions themselves are let go."""
    cold: set[int] = field(default_factory=set)
    """The systems among them in which it warmed up."""
    worst: float = 0.0
    """The largest measure of the solutions that count."""
    largest_error: float = 0.0
    """Of those solutions."""
    failures: Counter[str] = field(default_factory=Counter)
    num_turns: int = 0
    """Failures included."""
    seconds: float = 0.0
    """Of all turns, failures and the warm-up included."""
    is_out: bool = False
    """Takes no more turns."""

    @property
    def warm(self) -> list[int]:
        return [i for i in self.solved if i not in self.cold]

    @property
    def mean_s(self) -> float:
        """Over warm systems."""
        return statistics.mean(self.solved[i].seconds for i in self.warm)

    def median(self, value: Callable[[Solved], float] = lambda solved: solved.seconds) -> float:
        """Over warm systems."""
        return statistics.median(value(self.solved[i]) for i in self.warm)

    def warm_up(self, goal: Goal, references: References, case: Case, begin_at: int, arm_seconds: float) -> None:
        """Solve the systems just before the compared ones, which are the same for all arms."""
        if self.arm.max_systems is not None:
            return
        for i in range(max(0, begin_at - self.arm.num_cold), begin_at):
            references.prepare(i)
            self.take_turn(goal, references, case.system(i), i)
            if self.seconds > WARM_UP_SECONDS:
                break
        self.leave_if_late(arm_seconds)

    def leave_if_late(self, arm_seconds: float) -> None:
        """SKR is what all else is compared with, so it stays for at least one warm system."""
        is_late = self.seconds > arm_seconds and (self.arm.role is not Role.SKR or self.num_turns > self.arm.num_cold)
        is_hopeless = not self.solved and self.num_turns >= HOPELESS
        self.is_out = is_late or is_hopeless or self.num_turns == self.arm.max_systems

    def take_turn(self, goal: Goal, references: References, system: LinearSystem, i: int) -> None:
        start = time.thread_time()
        solved = None
        try:
            solved, measure = goal.solve(self.arm, system, i)
        except Exception as error:  # an arm's crash is a failure of that arm, and must not end the bench
            self.fail(error)
        self.seconds += time.thread_time() - start
        if solved is not None:
            self.solved[i] = replace(solved, x=None)
            if self.num_turns < self.arm.num_cold:
                self.cold.add(i)
            self.worst = max(self.worst, measure)
            self.largest_error = max(self.largest_error, references.error(system, solved.x, i))
        self.num_turns += 1

    def fail(self, error: Exception) -> None:
        reason = str(error) if isinstance(error, ArmError) else f"{type(error).__name__}: {error}"
        self.failures[" ".join(reason.split())[:160]] += 1

    def ratio(self, other: Record, value: Callable[[Solved], float] = lambda solved: solved.seconds) -> Ratio | None:
        """This arm's value over the other's, on the systems that both solved warm; None if there are none."""
        systems = [i for i in self.warm if i in other.warm]
        pairs = [(value(self.solved[i]), value(other.solved[i])) for i in systems]
        total = sum(theirs for _, theirs in pairs)
        if not total:
            return None
        paired = [mine / theirs for mine, theirs in pairs if theirs]
        return Ratio(sum(mine for mine, _ in pairs) / total, statistics.median(paired))


class Ratio(NamedTuple):
    """One arm against another on the same systems."""

    of_sums: float
    """What is set up now and then counts by its share."""
    paired: float
    """Median over systems."""


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
    trials: list[float]
    """Seconds of the systems up to the decision of `auto`."""
    settling: list[float]
    """Seconds of the systems from there to those that count."""
    seconds: float
    """Of processor time, that all of it took."""


def structure_of(case: Case) -> Structure:
    """As two successive systems show it."""
    first = case.system(0)
    is_spd, is_spatial = first.is_spd, first.grid is not None and len(first.grid.shape) > 2
    _, columns, values = first.A.getValuesCSR()
    _, other_columns, other_values = case.system(1).A.getValuesCSR()
    return Structure(
        num_unknowns=case.num_unknowns,
        is_spd=is_spd,
        is_spatial=is_spatial,
        has_constant_matrix=np.array_equal(columns, other_columns) and np.array_equal(values, other_values),
        is_sequence=case.is_sequence,
    )


def compare(
    case: Case,
    arms: list[Arm],
    num_systems: int,
    new_goal: Callable[[References, range], Goal],
    arm_seconds: float = ARM_SECONDS,
) -> Comparison:
    """Let every arm solve the same `num_systems` systems, those after the ones on which `auto` makes its decision.

    new_goal: makes the goal, given the exact solutions and systems that are free for calibration.
    arm_seconds: of solving, after which an arm takes no more turns.
    """
    begin = time.process_time()
    references = References(case)
    records = [Record(arm) for arm in arms]
    trials, settling = [], []
    for record in records:
        if record.arm.role is Role.AUTO:
            trials, settling = decide(record, case)
    begin_at = len(trials) + len(settling)
    systems = range(begin_at, begin_at + num_systems)
    goal = new_goal(references, range(systems.stop, systems.stop + NUM_CALIBRATIONS))
    for record in records:
        calibrate(record, goal, case)
        if not record.is_out:
            record.warm_up(goal, references, case, begin_at, arm_seconds)

    order, sort_s = list(systems), 0.0
    if not case.is_sequence:
        features = np.stack([case.features(i) for i in systems])
        start = time.thread_time()
        order = [systems[position] for position in greedy_order(features)]
        sort_s = time.thread_time() - start
    assemblies = []
    random = np.random.default_rng(0)
    for turn in range(num_systems):
        for i in {systems[turn], order[turn]}:
            references.prepare(i)
        for record in random.permutation(records):  # an arm's time depends on what the one before left in the caches
            if record.is_out:
                continue
            i = order[turn] if record.arm.is_sorted else systems[turn]
            start = time.thread_time()
            system = case.system(i)
            assemblies.append(time.thread_time() - start)
            record.take_turn(goal, references, system, i)
            record.leave_if_late(arm_seconds)
    return Comparison(
        case=case,
        goal=goal,
        num_systems=num_systems,
        records=records,
        assembly_s=statistics.median(assemblies) if assemblies else 0.0,
        sort_s=sort_s / num_systems,
        trials=trials,
        settling=settling,
        seconds=time.process_time() - begin,
    )


def decide(record: Record, case: Case) -> tuple[list[float], list[float]]:
    """Let `auto` make its decision, and settle: returns the seconds of the systems up to it, and of those after it.

    What it chose then starts warm, which it would in the rest of a run.
    """
    trials: list[float] = []
    settling: list[float] = []
    while len(trials) < MAX_TRIALS and len(settling) < SETTLING:
        system = case.system(len(trials) + len(settling))
        seconds = trials if record.arm.decision is None else settling
        start = time.thread_time()
        try:
            record.arm.solve(system)
        except Exception as error:
            record.fail(error)
            break
        finally:
            seconds.append(time.thread_time() - start)
    return trials, settling


def calibrate(record: Record, goal: Goal, case: Case) -> None:
    try:
        goal.fit(record.arm, case)
    except Exception as error:
        record.fail(error)
        record.is_out = True
