"""The cost of a digit, and whether `accuracy` holds what it promises."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.solvers.cases import cases, darcy
from benchmarks.solvers.discretisation import nested_errors
from benchmarks.solvers.report import report
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.auto.auto import Auto
from penstock.solvers.linear.auto.calibration import FIRST
from penstock.solvers.linear.auto.candidates import candidates
from penstock.solvers.linear.direct.constant import Constant
from penstock.solvers.linear.iterative.cg import CG
from penstock.solvers.linear.strategy import Strategy
from penstock.solvers.problem import LinearSystem
from penstock.solvers.referee.case import Case
from penstock.solvers.referee.referee import structure_of

ACCURACIES = tuple(10.0**-digits for digits in range(1, 11))
HELD_OUT_ACCURACIES = (1e-2, 1e-4, 1e-8)
# The most unknowns of a case that is tested.
LARGEST = 100_000
# The most unknowns of a case that is tested with all candidates, not with `auto` alone.
LARGEST_OF_ALL = 30_000
# Systems before those that are judged: strategies are chosen and calibrated on them.
LEARNING = 2 * FIRST
# Fields on which the discretisation is judged.
NUM_FIELDS = 10
# A strategy is not tested if it takes more than 20 times as long as the fastest of the case.
SLOWEST = 20.0
TITLES = ["ms", "iterations", "error, median", "error, max", "looser"]


@dataclass
class HeldOut:
    """The results of a strategy on systems that it was not calibrated on."""

    accuracy: float
    seconds: list[float] = field(default_factory=list)
    iterations: list[int] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    """The error ||x - A⁻¹ b|| / ||A⁻¹ b|| of every system; infinite where unsolved."""

    @property
    def num_looser(self) -> int:
        return sum(error > self.accuracy for error in self.errors)

    @property
    def has_held(self) -> bool:
        """Whether the accuracy was kept.

        The error may be above it in at most 1 % of the systems, and never above twice of it.
        """
        return self.num_looser <= 0.01 * len(self.errors) and max(self.errors) <= 2 * self.accuracy

    def row(self) -> list[str]:
        return [
            f"{1e3 * np.median(self.seconds):.2f}",
            f"{np.median(self.iterations):.0f}",
            f"{np.median(self.errors):.1e}",
            f"{max(self.errors):.1e}",
            f"{self.num_looser} of {len(self.errors)}{'' if self.has_held else ', FAILED'}",
        ]


def held_out(
    case: Case, makes: Sequence[Callable[[], Strategy]], accuracies: Sequence[float], num_systems: int = 200
) -> list[list[HeldOut]]:
    """Solve `num_systems` systems by every strategy to every accuracy.

    The strategies learn from the systems before those. All take turns on each system, and its exact solution is made
    once.

    Returns:
        The results, [strategy][accuracy].
    """
    results = [[HeldOut(accuracy) for accuracy in accuracies] for _ in makes]
    arms = [
        (LinearSolver(make(), accuracy=result.accuracy), result)
        for make, row in zip(makes, results, strict=True)
        for result in row
    ]

    def solve(i: int, system: LinearSystem) -> None:
        if i >= LEARNING:
            case.prepare(i, system)
        turn = i % len(arms)
        for solver, result in arms[turn:] + arms[:turn]:
            start = time.thread_time()
            solution = solver(system)
            seconds = time.thread_time() - start
            if i >= LEARNING:
                result.seconds.append(seconds)
                result.iterations.append(solution.iterations)
                result.errors.append(case.error(i, system, solution.x) if solution.converged else np.inf)

    case.visit(range(LEARNING + num_systems), solve)
    return results


def run(arguments: argparse.Namespace) -> None:
    digits(arguments.systems, arguments.resolution)
    promises(arguments.systems)


def digits(num_systems: int, resolution: int) -> None:
    case = darcy("12/3", resolution)
    makes = {candidate.label: candidate.make for candidate in candidates(case.first())}
    makes |= {"cg + icc": lambda: CG(pc="icc"), "auto": Auto}
    results = held_out(case, list(makes.values()), ACCURACIES, num_systems)
    errors = sorted(row[-1] for row in nested_errors(NUM_FIELDS, resolution, num_refinements=1))
    report(
        "accuracy-digits.md",
        "What each digit costs",
        f"""
        {case.title}: {num_systems} systems by every strategy to every `accuracy`, which bounds the algebraic error
        ||x - A^-1 b|| / ||A^-1 b||, after {LEARNING} that it learned from. Milliseconds are a median of processor time,
        set-up and the check of the residual included. "looser" counts the systems whose error was above the accuracy:
        at most 1 % may be, and none by more than twice. They include the systems that are solved directly as a recheck.
        For comparison, the error of the discretisation is {errors[0]} to {errors[-1]} for {NUM_FIELDS} fields: that of
        their solutions against those on the mesh of half the width, for the same coefficient.
        """,
        ["strategy", "accuracy", *TITLES],
        [
            [label, f"{result.accuracy:.0e}", *result.row()]
            for label, row in zip(makes, results, strict=True)
            for result in row
        ],
        f"accuracy --systems {num_systems} --resolution {resolution}",
    )


def promises(num_systems: int) -> None:
    rows = []
    for case in cases():
        if case.num_unknowns > LARGEST:
            continue
        print(case.name, file=sys.stderr)
        makes = {"auto": Auto}
        if case.num_unknowns <= LARGEST_OF_ALL:
            makes = practical(case) | makes
        results = held_out(case, list(makes.values()), HELD_OUT_ACCURACIES, num_systems)
        for label, row in zip(makes, results, strict=True):
            rows += [[case.name, label, f"{result.accuracy:.0e}", *result.row()] for result in row]
    left_out = ", ".join(case.name for case in cases() if case.num_unknowns > LARGEST)
    num_failed = sum("FAILED" in row[-1] for row in rows)
    report(
        "accuracy.md",
        "Whether accuracy holds what it promises",
        f"""
        {num_systems} systems of every case up to {LARGEST:,} unknowns, as in accuracy-digits.md, against direct solves
        by MUMPS with a step of refinement: by `auto`, and up to {LARGEST_OF_ALL:,} unknowns by every strategy that it
        considers, except those that fail or take more than {SLOWEST:g} times as long as the fastest one.
        Of {len(rows)} rows {num_failed} failed. Not covered: {left_out}.
        """,
        ["case", "strategy", "accuracy", *TITLES],
        rows,
        f"accuracy --systems {num_systems}",
    )


def practical(case: Case) -> dict[str, Callable[[], Strategy]]:
    """The candidates that solve the case's first systems in a reasonable time."""
    seconds, makes = {}, {candidate.label: candidate.make for candidate in candidates(case.first())}
    if structure_of(case).has_constant_matrix:
        makes["constant"] = Constant
    for label, make in makes.items():
        solver = LinearSolver(make(), accuracy=max(HELD_OUT_ACCURACIES))
        took = []

        def solve(_, system: LinearSystem, solver=solver, took=took) -> None:
            start = time.thread_time()
            solver(system)
            took.append(time.thread_time() - start)

        case.visit(range(2), solve)
        seconds[label] = took[1] if solver.num_retried == 0 else np.inf
    return {label: make for label, make in makes.items() if seconds[label] <= SLOWEST * min(seconds.values())}
