"""The comparison of all arms on one case.

They take turns system by system, and are timed by the CPU seconds of this thread.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import NamedTuple

import numpy as np

from penstock.solvers.problem import LinearSystem
from penstock.solvers.referee.arms import Arm, ArmError, Role, Solved, Structure
from penstock.solvers.referee.case import Case
from penstock.solvers.referee.goals import Goal
from penstock.solvers.sorting.sorter import greedy_order

# An arm leaves a case after 8 seconds of solving.
ARM_SECONDS = 8.0
# After 4 seconds of an arm's warm-up, the rest of it falls on systems that are compared.
WARM_UP_SECONDS = 4.0
# An arm leaves after 3 systems if it solved none.
HOPELESS = 3
# `auto` may try its candidates on 60 systems.
MAX_TRIALS = 60
# It solves 16 more systems before it is compared, because those that calibrate an accuracy are solved directly, too.
SETTLING = 16
# An arm's rtol is fitted to an accuracy on 3 systems.
NUM_CALIBRATIONS = 3
# The cost of trials is spread over a run of 2000 systems.
RUN_SYSTEMS = 2000


@dataclass
class Record:
    """The record of one arm, by number of the system."""

    arm: Arm
    solved: dict[int, Solved] = field(default_factory=dict)
    """The solved systems; their solutions x are dropped."""
    cold: set[int] = field(default_factory=set)
    """The solved systems in which it warmed up."""
    worst: float = 0.0
    """The largest measure of the solutions that count."""
    largest_error: float = 0.0
    """The largest error of the solutions that count."""
    failures: Counter[str] = field(default_factory=Counter)
    num_turns: int = 0
    """Number of turns, failures included."""
    seconds: float = 0.0
    """Seconds of all turns, failures and the warm-up included."""
    is_out: bool = False
    """Whether it takes no more turns."""

    @property
    def warm(self) -> list[int]:
        return [i for i in self.solved if i not in self.cold]

    @property
    def mean_s(self) -> float:
        """The mean seconds over warm systems."""
        return statistics.mean(self.solved[i].seconds for i in self.warm)

    def median(self, value: Callable[[Solved], float] = lambda solved: solved.seconds) -> float:
        """The median of a value over warm systems."""
        return statistics.median(value(self.solved[i]) for i in self.warm)

    def warm_up(self, goal: Goal, case: Case, system: LinearSystem, i: int, begin_at: int) -> None:
        """Solve system i if it is one of the last before the compared ones.

        The compared systems are the same for all arms.
        """
        is_due = i >= begin_at - self.arm.num_cold and self.arm.max_systems is None
        if is_due and not self.is_out and self.seconds <= WARM_UP_SECONDS:
            self.take_turn(goal, case, system, i)

    def leave_if_late(self, arm_seconds: float) -> None:
        """Take no more turns if the arm is late or hopeless.

        SKR, with which everything is compared, stays for at least one warm system.
        """
        is_late = self.seconds > arm_seconds and (self.arm.role is not Role.SKR or self.num_turns > self.arm.num_cold)
        is_hopeless = not self.solved and self.num_turns >= HOPELESS
        self.is_out = is_late or is_hopeless or self.num_turns == self.arm.max_systems

    def take_turn(self, goal: Goal, case: Case, system: LinearSystem, i: int) -> None:
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
            self.largest_error = max(self.largest_error, case.error(i, system, solved.x))
        self.num_turns += 1

    def fail(self, error: Exception) -> None:
        reason = str(error) if isinstance(error, ArmError) else f"{type(error).__name__}: {error}"
        self.failures[" ".join(reason.split())[:160]] += 1

    def ratio(self, other: Record, value: Callable[[Solved], float] = lambda solved: solved.seconds) -> Ratio | None:
        """This arm's value over the other's, on the systems that both solved warm.

        None if there are no such systems.
        """
        systems = [i for i in self.warm if i in other.warm]
        pairs = [(value(self.solved[i]), value(other.solved[i])) for i in systems]
        total = sum(theirs for _, theirs in pairs)
        if not total:
            return None
        paired = [mine / theirs for mine, theirs in pairs if theirs]
        return Ratio(sum(mine for mine, _ in pairs) / total, statistics.median(paired))


class Ratio(NamedTuple):
    """The ratio of one arm to another on the same systems."""

    of_sums: float
    """Ratio of sums, in which occasional set-up counts by its share."""
    paired: float
    """Median over systems of the ratios."""


@dataclass
class Comparison:
    """The result of a comparison on one case."""

    case: Case
    goal: Goal
    num_systems: int
    records: list[Record]
    assembly_s: float
    """Median seconds to assemble one system."""
    sort_s: float
    """One system's share of the seconds of sorting."""
    trials: list[float]
    """Seconds of the systems up to the decision of `auto`."""
    settling: list[float]
    """Seconds of the systems from there to those that count."""
    seconds: float
    """Processor seconds of the whole comparison."""


def structure_of(case: Case, later: int | None = None) -> Structure:
    """The structure of a case, read off two successive systems.

    Args:
        case: the case.
        later: number of a system of another simulation, where the matrix may be constant within each of them alone.
    """
    seen: list[tuple[LinearSystem, np.ndarray, np.ndarray]] = []

    def look(_, system: LinearSystem) -> None:
        _, columns, values = system.A.getValuesCSR()
        seen.append((system, columns.copy(), values.copy()))

    def is_constant() -> bool:
        (_, columns, values), *others = seen
        return all(np.array_equal(columns, other[1]) and np.array_equal(values, other[2]) for other in others)

    case.visit(range(2), look)
    if later is not None and is_constant():
        case.visit([later], look)
    system = seen[0][0]
    return Structure(
        num_unknowns=case.num_unknowns,
        is_spd=system.is_spd,
        is_spatial=system.grid is not None and len(system.grid.shape) > 2,
        has_constant_matrix=is_constant(),
        is_sequence=case.is_sequence,
    )


def compare(
    case: Case,
    arms: list[Arm],
    num_systems: int,
    new_goal: Callable[[range], Goal],
    arm_seconds: float = ARM_SECONDS,
    show: Callable[[int, int], None] = lambda *_: None,
) -> Comparison:
    """Let every arm solve the same systems of a case.

    They are the systems after those on which `auto` makes its decision. The arms take turns inside the simulation: a
    system is assembled, all arms solve it in random order, and the simulation goes on with the exact solution.

    Args:
        case: the case.
        arms: the arms.
        num_systems: number of systems that are compared.
        new_goal: makes the goal, given systems that are free for calibration.
        arm_seconds: seconds of solving after which an arm takes no more turns.
        show: shows how many turns of arms are over, and how many there are.
    """
    begin = time.process_time()
    records = [Record(arm) for arm in arms]
    trials, settling = [], []
    num_over, num_turns = 0, num_systems * len(arms)
    show(num_over, num_turns)
    for record in records:
        if record.arm.role is Role.AUTO:
            trials, settling = decide(record, case)
    begin_at = len(trials) + len(settling)
    systems = range(begin_at, begin_at + num_systems)
    goal = new_goal(range(systems.stop, systems.stop + NUM_CALIBRATIONS))
    for record in records:
        calibrate(record, goal)

    def warm_up(i: int, system: LinearSystem) -> None:
        case.prepare(i, system)
        for record in records:
            record.warm_up(goal, case, system, i, begin_at)

    case.visit(range(max(0, begin_at - max(arm.num_cold for arm in arms)), begin_at), warm_up)
    for record in records:
        if not record.is_out:
            record.leave_if_late(arm_seconds)

    case.assemblies.clear()
    random = np.random.default_rng(0)

    def take_turns(i: int, system: LinearSystem, among: Sequence[Record] = records) -> None:
        nonlocal num_over
        case.prepare(i, system)
        for record in random.permutation(among):  # an arm's time depends on what the one before left in the caches
            if not record.is_out:
                record.take_turn(goal, case, system, i)
                record.leave_if_late(arm_seconds)
            num_over += 1
            show(num_over, num_turns)

    sort_s = 0.0
    if case.is_sequence:
        case.visit(systems, take_turns)
    else:
        features = np.stack([case.features(i) for i in systems])
        start = time.thread_time()
        order = greedy_order(features)
        sort_s = time.thread_time() - start
        as_drawn = [record for record in records if not record.arm.is_sorted]
        is_sorted = [record for record in records if record.arm.is_sorted]
        for turn, place in enumerate(order):
            case.visit([systems[turn]], partial(take_turns, among=as_drawn))
            case.visit([systems[place]], partial(take_turns, among=is_sorted))
    return Comparison(
        case=case,
        goal=goal,
        num_systems=num_systems,
        records=records,
        assembly_s=statistics.median(case.assemblies) if case.assemblies else 0.0,
        sort_s=sort_s / num_systems,
        trials=trials,
        settling=settling,
        seconds=time.process_time() - begin,
    )


def decide(record: Record, case: Case) -> tuple[list[float], list[float]]:
    """Let `auto` make its decision, and settle.

    Its choice then starts warm, as it would in the rest of a run.

    Returns:
        The seconds of the systems up to the decision, and of those after it.
    """
    trials: list[float] = []
    settling: list[float] = []

    def solve(_, system: LinearSystem) -> bool:
        seconds = trials if record.arm.decision is None else settling
        start = time.thread_time()
        try:
            record.arm.solve(system)
        except Exception as error:
            record.fail(error)
            return True
        finally:
            seconds.append(time.thread_time() - start)
        return len(trials) >= MAX_TRIALS or len(settling) >= SETTLING

    case.visit(count(), solve)
    return trials, settling


def calibrate(record: Record, goal: Goal) -> None:
    try:
        goal.fit(record.arm)
    except Exception as error:
        record.fail(error)
        record.is_out = True
