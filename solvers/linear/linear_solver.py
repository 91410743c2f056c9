"""The `solve` of problems: a strategy, a check of every solution, and retries."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from penstock.errors import Refused
from penstock.messages import Decision, keep_last
from penstock.solvers.linear.auto.calibration import calibrated, tolerance_of
from penstock.solvers.linear.forms import Form, unflat
from penstock.solvers.linear.ladder import Ladder
from penstock.solvers.linear.nullspace import Examiner, attached, with_nullspaces
from penstock.solvers.linear.reasons import advice, broken_down, not_finite, numerical_failures
from penstock.solvers.linear.strategy import Attempt, Strategy, Tolerance
from penstock.solvers.problem import LinearSystem, Outcome, Solution, SolveError

if TYPE_CHECKING:
    from petsc4py import PETSc

logger = logging.getLogger(__name__)


@dataclass
class _Family:
    """The state that is kept for one family."""

    form: Form
    examiner: Examiner
    ladder: Ladder


class LinearSolver:
    """The solver of all systems of a worker, in any number of families.

    Every x that is returned was checked by a separate product with the A that the problem gave (`Check`). It counts as
    converged only if it keeps its bounds, whatever the strategy reported: ||b - A x|| <= rtol ||b|| and a backward
    error to match, or a direct solution that double precision can't improve; under `accuracy`, the bounds deduced from
    it (`Calibrated`). A system that did not converge climbs the `Ladder`. The last result is returned as it is, with
    the report of each strategy that failed.

    Data about families is kept for the 32 that were met last.

    Args:
        strategy: a fresh one of `STRATEGIES`; it serves as the pattern for one strategy per family.
        rtol: largest relative residual, between 0 and 1.
        accuracy: largest algebraic error ||x - A⁻¹ b|| / ||A⁻¹ b||, between 0 and 1. Give either this or `rtol`.
        of_deviation: whether `accuracy` is relative to the deviation of A⁻¹ b from its mean, instead of to A⁻¹ b.

    Raises:
        ValueError: neither or both of `rtol` and `accuracy` are given, or one is out of range.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        rtol: float | None = None,
        accuracy: float | None = None,
        of_deviation: bool = False,
    ):
        if (rtol is None) == (accuracy is None):
            raise ValueError("give either rtol or accuracy")
        for name, value in (("rtol", rtol), ("accuracy", accuracy)):
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{name} = {value} must lie between 0 and 1")
        if accuracy is None:
            self.tolerance = Tolerance(rtol)
        else:
            self.tolerance = tolerance_of(accuracy, of_deviation=of_deviation)
        self.num_retried = 0
        """Number of systems that had to be solved again."""
        self.setup_seconds = 0.0
        """Sum of `Attempt.setup_seconds` over all attempts so far."""
        self.repeats_matrix = False
        """Whether the last system had the matrix, with its values, of the one before."""
        self.strategy = strategy
        """The pattern for one strategy per family."""
        self._known: dict[str, Decision] = {}
        self._may_try = True
        self._matrix: tuple[PETSc.Mat, int] | None = None  # of the last system, with the state of its values
        self._families: dict[str, _Family] = {}

    def reset(self) -> None:
        """Forget all earlier systems. `num_retried`, `setup_seconds` and `decisions` stay."""
        self._known = {decision.family: decision for decision in self.decisions}
        self._families.clear()
        self._matrix = None

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The decisions that strategy `auto` has made or adopted, one per family."""
        found = [strategy.decision for strategy in self._strategies.values() if strategy.decision is not None]
        made = {decision.family: decision for decision in found}
        return tuple((self._known | made).values())

    def adopt(self, decisions: Iterable[Decision], *, may_try: bool = True) -> None:
        """Let strategy `auto` follow decisions that were made elsewhere.

        Only those count that are newer than the present ones.

        Args:
            decisions: the decisions.
            may_try: whether it may try strategies itself; if not, it goes by structure alone until it adopts a
                decision.
        """
        for decision in sorted((*self.decisions, *decisions), key=lambda decision: decision.number):
            keep_last(self._known, decision.family, decision)
        self._may_try = may_try
        for family, strategy in self._strategies.items():
            strategy.adopt(self._known.get(family), may_try=may_try)

    @property
    def gains_from_order(self) -> bool:
        """Whether systems of some family met so far are solved faster after similar ones."""
        return any(strategy.gains_from_order for strategy in self._strategies.values())

    def __call__(self, system: LinearSystem) -> Solution:
        """Solve one system.

        Args:
            system: the system; it may be overwritten once this returns.

        Returns:
            The solution with its outcome. `iterations` are those of the attempt that gave x, `seconds` those of all
            attempts.
        """
        start = time.perf_counter()
        given = system
        matrix = (system.A, system.A.stateGet())
        self.repeats_matrix, self._matrix = matrix == self._matrix, matrix
        family = self._family(system.family)
        try:
            system = family.form.of(with_nullspaces(system))
            with attached(system):
                solution = self._solve(system, family, start)
        except SolveError as error:
            return self._without_strategy(given, Outcome.REFUSED, str(error), start)
        if system.b is given.b:
            return solution
        return replace(solution, x=unflat(solution.x, given.b, given.A))

    def kept(self, system: LinearSystem) -> LinearSystem | None:
        """A copy of a system that can wait for others, for `solve_block`.

        Args:
            system: the system; it may be overwritten once this returns.

        Returns:
            The copy, good until the next system of its family is solved alone; None where the system has to be.
        """
        family = self._families.get(system.family)
        if family is None:
            return None
        try:
            system = with_nullspaces(system)
            if family.form.of(system) is not system:
                return None
        except SolveError:  # solving it will tell
            return None
        return family.ladder.strategy.kept(system, self.tolerance)

    def solve_block(self, systems: Sequence[LinearSystem]) -> list[Solution | None]:
        """Solve systems of one family, at most `SIDES` of them, which `kept` returned.

        Args:
            systems: the systems.

        Returns:
            Their solutions, all converged, with equal shares of the block's `seconds`; None for a system that has to be
            solved alone.
        """
        start = time.perf_counter()
        strategy = self._families[systems[0].family].ladder.strategy
        try:
            attempts = strategy.solve_block(systems, self.tolerance)
        except numerical_failures():
            return [None] * len(systems)
        seconds = (time.perf_counter() - start) / len(systems)
        return [
            attempt
            and Solution(
                x=attempt.x,
                outcome=attempt.outcome,
                relative_residual=attempt.check.relative_residual,
                iterations=attempt.iterations,
                seconds=seconds,
                strategy=strategy.name,
            )
            for attempt in attempts
        ]

    def _solve(self, system: LinearSystem, family: _Family, start: float) -> Solution:
        system.b.stateIncrease()  # PETSc may remember the norm of earlier values in an array that it shares
        norm_b = system.b.norm()
        if norm_b == 0 or not math.isfinite(norm_b):
            return self._without_strategy(system, *_without_length(system.b), start)
        ladder, examiner, reasons = family.ladder, family.examiner, []
        believed = ladder.believed(system)
        examiner.admit(believed, self.tolerance.rtol)
        for climbed, (strategy, rung) in enumerate(ladder.rungs(believed)):
            self.num_retried += climbed == 1
            attempt = _attempt(strategy, rung, self.tolerance)
            self.setup_seconds += attempt.setup_seconds
            if system.nullspace is not None:  # the x of a kept factor has a part in the nullspace
                system.nullspace.remove(attempt.x)
            attempt = attempt.checked(system)
            outcome = _judge(attempt, self.tolerance)
            if outcome is Outcome.CONVERGED:
                break
            reasons.append(_why(strategy, attempt, outcome, self.tolerance))
        if self.strategy.needs_spd and not system.is_spd and not ladder.is_told:
            reasons.insert(
                0, f"{self.strategy.name} is for SPD matrices, and the problem does not say is_spd=True here"
            )
        if outcome is not Outcome.CONVERGED:
            reasons = [*examiner.diagnosis(believed), *reasons]
        elif climbed:
            reasons.append(f"solved by {strategy.label} then")
        if (reasons or believed.is_spd != system.is_spd) and not ladder.is_told:
            ladder.is_told = True
            reasons += advice(system, attempt.x)
            logger.warning("family %r: %s", system.family, "; ".join(reasons))
        return Solution(
            x=attempt.x,
            outcome=outcome,
            relative_residual=attempt.check.relative_residual,
            iterations=attempt.iterations,
            seconds=time.perf_counter() - start,
            strategy=strategy.name,
            reason="; ".join(reasons),
        )

    @property
    def _strategies(self) -> dict[str, Strategy]:
        return {name: family.ladder.strategy for name, family in self._families.items()}

    def _family(self, name: str) -> _Family:
        family = self._families.get(name)
        if family is None:
            family = _Family(Form(self.strategy), Examiner(lambda: copy(self.strategy)), Ladder(self._strategy(name)))
        keep_last(self._families, name, family)
        return family

    def _strategy(self, family: str) -> Strategy:
        strategy = copy(self.strategy)
        strategy.adopt(self._known.get(family), may_try=self._may_try)
        return strategy if self.tolerance.accuracy is None else calibrated(strategy)

    def _without_strategy(self, system: LinearSystem, outcome: Outcome, reason: str, start: float) -> Solution:
        """The result x = 0: the solution for b = 0, and a stand-in for a bad system."""
        x = system.b.duplicate()
        x.zeroEntries()
        return Solution(
            x=x,
            outcome=outcome,
            relative_residual=0.0 if outcome is Outcome.CONVERGED else math.nan,
            iterations=0,
            seconds=time.perf_counter() - start,
            strategy=self.strategy.name,
            reason=reason,
        )


def _without_length(b: PETSc.Vec) -> tuple[Outcome, str]:
    """Outcome and reason for a b whose norm is 0 or not finite.

    Raises:
        SolveError: the values of b are finite, but the square of the largest is out of range.
    """
    from petsc4py import PETSc

    largest = b.norm(PETSc.NormType.NORM_INFINITY)
    if largest == 0:
        return Outcome.CONVERGED, ""
    if not math.isfinite(largest):
        return Outcome.NOT_FINITE, not_finite("the right-hand side", np.isfinite(b.array_r), b)
    raise SolveError(
        f"the largest value of the right-hand side is {largest:.1e}, whose square is out of the range of double "
        "precision: choose other units"
    )


def _judge(attempt: Attempt, tolerance: Tolerance) -> Outcome:
    if not math.isfinite(attempt.check.relative_residual):
        return Outcome.NOT_FINITE
    if attempt.meets(tolerance):
        return Outcome.CONVERGED
    return Outcome.STAGNATION if attempt.outcome is Outcome.CONVERGED else attempt.outcome


def _why(strategy: Strategy, attempt: Attempt, outcome: Outcome, tolerance: Tolerance) -> str:
    """One line: which strategy failed, how, by how much, and its reason."""
    says_nothing = attempt.x.norm() == 0  # x as it was before the strategy broke down
    missed = [] if says_nothing else (attempt.bound or tolerance.bound).missed_by(attempt.check)
    line = ", ".join([f"{strategy.label}: {outcome}", *missed])
    if attempt.iterations > 0:
        line += f", after {attempt.iterations} iterations"
    return f"{line} ({attempt.reason})" if attempt.reason else line


def _attempt(strategy: Strategy, system: LinearSystem, tolerance: Tolerance) -> Attempt:
    try:
        attempt = strategy.solve(system, tolerance)
    except numerical_failures() as error:
        return broken_down(system, error)
    if not isinstance(attempt, Attempt):
        raise Refused(f"strategy {strategy.name!r}: solve() returned a {type(attempt).__name__}, not an Attempt")
    return attempt
