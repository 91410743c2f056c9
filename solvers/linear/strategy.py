"""Strategies for linear systems: the one role that `LinearSolver` knows."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from penstock.messages import Decision
from penstock.solvers.linear.check import Bound, Check, check_of
from penstock.solvers.problem import LinearSystem, Outcome

if TYPE_CHECKING:
    from petsc4py import PETSc


# The largest backward error, in units of rtol: one row may be off by more than all are on average.
ROWS = 10.0
# The same where it must imply an accuracy, because errors may be 1e6 times a backward error.
ROWS_OF_DIRECT = 1e-3


@dataclass(frozen=True)
class Tolerance:
    """The condition on which a strategy may stop."""

    rtol: float
    """Largest relative residual: ||b - A x|| <= rtol ||b||."""
    energy: float | None = None
    """Largest estimated energy error: ||x - A⁻¹ b||_A <= energy ||A⁻¹ b||_A.

    It replaces `rtol` for strategies that have such an estimate.
    """
    accuracy: float | None = None
    """Largest error: ||x - A⁻¹ b|| <= accuracy ||A⁻¹ b||.

    It replaces `rtol` for `Calibrated` and `Auto`; `rtol` then implies it for a direct solve.
    """
    max_iterations: float = math.inf
    """Products with A after which an iterative method gives up, if not sooner."""
    of_deviation: bool = False
    """Whether `accuracy` is relative to the deviation of A⁻¹ b from its mean.

    An offset does not count then.
    """

    def size_of(self, x: PETSc.Vec) -> float:
        """The length that errors of this x are relative to."""
        if not self.of_deviation:
            return x.norm()
        deviation = x.copy()
        deviation.shift(-x.sum() / x.getSize())
        return deviation.norm()

    @cached_property
    def bound(self) -> Bound:
        """The bounds on every x for which its strategy has deduced no others."""
        return Bound(self.rtol, (ROWS if self.accuracy is None else ROWS_OF_DIRECT) * self.rtol)


@dataclass(kw_only=True, eq=False)  # frozen takes 1 us longer
class Attempt:
    """The result of one strategy on one system."""

    x: PETSc.Vec
    """The solution, in a separate vector that the strategy does not keep."""
    outcome: Outcome
    """How the method ended."""
    reason: str = ""
    """Why there is no solution, where more is known than the outcome says.

    One line, for instance PETSc's message.
    """
    iterations: int = 0
    """Products with A that the method made, those for its residuals included.

    Products inside a preconditioner do not count.
    """
    bound: Bound | None = None
    """The bounds on x that the strategy deduced from the tolerance, if it did.

    Where absent, `Tolerance.bound` counts.
    """
    check: Check | None = None
    """The check of x, where the strategy has made it."""
    energy_error: float | None = None
    """The estimated ||x - A⁻¹ b||_A / ||A⁻¹ b||_A, where the strategy has one."""
    history: Sequence[float] = ()
    """Residual norms ||b - A x|| as the method estimated them, from the first on.

    () where the method keeps none.
    """
    setup_seconds: float = 0.0
    """Processor time before the first iteration or back-solve, in seconds.

    It covers the preconditioner, the factor, a space brought to a new matrix, and the comparison with the matrix
    before.
    """

    def checked(self, system: LinearSystem) -> Attempt:
        """The attempt with the check of its x, which is made unless it is there."""
        if self.check is not None and self.check.is_of(system, self.x):
            return self
        return replace(self, check=check_of(system, self.x))

    def meets(self, tolerance: Tolerance) -> bool:
        """Whether x meets the tolerance, once it is checked.

        Where the strategy deduced no bounds, the check of x decides, whatever the strategy's outcome.
        """
        if self.bound is None:
            return tolerance.bound.is_kept_by(self.check)
        return self.outcome is Outcome.CONVERGED and self.bound.is_kept_by(self.check)


class Strategy(ABC):
    """One way to solve the systems of one family, one after another.

    Construction takes the user's options and needs no PETSc. `LinearSolver` copies a fresh strategy for every family
    (copy.copy), so a constructor makes nothing mutable that two families must not share. An attribute of this class may
    be a property of a subclass, because it may change from system to system.
    """

    name: str
    """Name of the strategy, for records and messages."""
    recycles: bool = False
    """Whether numbers from earlier systems entered the last solve.

    If so, solving again after a reset may go better.
    """
    gains_from_order: bool = False
    """Whether a system is solved faster after similar ones, so that sorting may pay."""
    needs_entries: bool = False
    """Whether it needs the entries of the matrix; one that only multiplies is refused."""
    meets_accuracy: bool = False
    """Whether it keeps `Tolerance.accuracy` by itself.

    One that does not is calibrated: see `Calibrated`.
    """
    num_matrices: int = 0
    """Number of different matrices seen by a strategy that expects a constant one.

    0 for all other strategies.
    """
    decision: Decision | None = None
    """The decision made or adopted by a strategy that chooses among others."""

    needs_spd: bool = False
    """Whether it is for symmetric positive definite matrices alone."""
    pc: str | None = None
    """Name of the preconditioner that it was given; None for its default, or for none."""

    needs_one_rank: str | None = None
    """Why it can't solve systems that are distributed over MPI ranks, and what to give instead; None where it can."""
    asks_clock: str | None = None
    """Why the same systems need not be solved the same way twice, and what to give instead; None where they are."""

    @property
    def label(self) -> str:
        """The name in messages, with what tells it apart from others of that name."""
        return self.name

    @abstractmethod
    def solve(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        """Solve one system.

        Args:
            system: the system, its matrix of type AIJ or one that only multiplies.
            tolerance: when the strategy may stop.

        Returns:
            An x that meets the tolerance, or the reason why there is none.

        Raises:
            Unfit: an option does not suit such systems.
            PETSc.Error: PETSc failed on the system.
            LinAlgError: a dense step failed on the system.
        """

    def kept(self, system: LinearSystem, tolerance: Tolerance) -> LinearSystem | None:
        """A copy of the system, to be solved later by `solve_block`, with others.

        Args:
            system: the system.
            tolerance: as for `solve`.

        Returns:
            The copy, good until `solve` is called; None where the system has to be solved at once.
        """
        return None

    def solve_block(self, systems: Sequence[LinearSystem], tolerance: Tolerance) -> list[Attempt | None]:
        """Solve up to eight systems that `kept` returned.

        Args:
            systems: the systems.
            tolerance: as for `solve`.

        Returns:
            A checked attempt for each that meets the tolerance; None for one that `solve` has to be called for.
        """
        return [None] * len(systems)

    def reset(self) -> None:  # noqa: B027  nothing is kept unless a subclass keeps it
        """Forget all earlier systems."""

    def adopt(self, decision: Decision | None, *, may_try: bool) -> None:  # noqa: B027
        """Follow a decision that was made elsewhere, if it is newer.

        Strategies that do not choose among others ignore it.

        Args:
            decision: the decision; None if there is none.
            may_try: whether the strategy may try others itself.
        """


def start_of(system: LinearSystem) -> PETSc.Vec:
    """A new vector that holds the initial guess; zero where the system has none."""
    x = system.b.duplicate()
    if system.guess is None:
        x.zeroEntries()
    else:
        system.guess.copy(x)
    return x


def require_at_least(name: str, value: int, lowest: int) -> None:
    """Raise ValueError unless `value` >= `lowest`."""
    if value < lowest:
        raise ValueError(f"{name} = {value} must be at least {lowest}")
