"""The goals that all arms of a comparison must reach."""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np

from penstock.solvers.linear.check import residual_of
from penstock.solvers.problem import LinearSystem
from penstock.solvers.referee.arms import Arm, ArmError, AutoArm, Solved
from penstock.solvers.referee.case import Case

# After 4 seconds of fitting an arm to an accuracy, one system has to do.
FIT_SECONDS = 4.0
# A method is asked at most 3 more times if its measure of the residual let it stop too soon.
MAX_TIGHTENINGS = 3
MAX_FITS = 6
# No tolerance explains an error below this fraction of the accuracy: the solve was direct.
EXACT = 1e-6


class Goal(Protocol):
    """A goal that all arms must reach, with the measure that judges solutions."""

    text: str
    measure: str
    """Name of the measure."""

    def fit(self, arm: Arm) -> None:
        """Find out what to ask the arm for."""
        ...

    def solve(self, arm: Arm, system: LinearSystem, i: int) -> tuple[Solved, float]:
        """The solution and its measure. Raises ArmError when it isn't good enough."""
        ...


class ResidualGoal:
    """Equal true relative residuals ||b - A x|| / ||b||.

    An arm that stops too soon by its internal measure goes on from its x, and is asked for less.
    """

    measure = "residual"

    def __init__(self, rtol: float):
        self.rtol = rtol
        self.text = f"true relative residual at most {rtol:g}"

    def fit(self, arm: Arm) -> None:
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

    Args:
        accuracy: the largest error.
        case: the case.
        calibrations: numbers of the three other systems.
    """

    measure = "error"

    def __init__(self, accuracy: float, case: Case, calibrations: range):
        self.accuracy = accuracy
        of_what = " of its deviation from its mean" if case.of_deviation else ""
        self.text = f"error against the exact solution at most {accuracy:g}{of_what}"
        self._case = case
        self._calibrations = calibrations
        self._asked: dict[Arm, float] = {}

    def fit(self, arm: Arm) -> None:
        if isinstance(arm, AutoArm) or arm.max_systems is not None:
            return
        start = time.thread_time()
        rtol, has_missed = self.accuracy, False
        for _ in range(MAX_FITS):
            errors = self._errors(arm, rtol, until=start + FIT_SECONDS)
            if errors[0] < EXACT * self.accuracy:  # direct
                return
            self._asked[arm] = rtol
            largest = max(errors)
            holds = largest <= 0.8 * self.accuracy
            if holds and (largest >= 0.4 * self.accuracy or rtol > 0.1 or has_missed):
                return
            has_missed = has_missed or not holds
            rtol = min(0.5, 0.6 * rtol * self.accuracy / max(largest, 1e-3 * self.accuracy))

    def _errors(self, arm: Arm, rtol: float, until: float) -> list[float]:
        """The errors in one system or more, as many as there is time for."""
        errors: list[float] = []

        def solve(i: int, system: LinearSystem) -> bool:
            self._case.prepare(i, system)
            errors.append(self._case.error(i, system, arm.solve(system, rtol).x))
            return errors[0] < EXACT * self.accuracy or time.thread_time() > until

        self._case.visit(self._calibrations, solve)
        return errors

    def asked(self, arm: Arm) -> float:
        """The rtol that the arm is asked for."""
        return self._asked.get(arm, self.accuracy)

    def solve(self, arm: Arm, system: LinearSystem, i: int) -> tuple[Solved, float]:
        solved = arm.solve(system, self.asked(arm))
        error = self._case.error(i, system, solved.x)
        if not error <= 2 * self.accuracy:
            raise ArmError(f"error {error:.1e}")
        return solved, error
