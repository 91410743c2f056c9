"""What a strategy for linear systems is: the one role that `LinearSolver` knows."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from penstock.sample import Decision
from penstock.solvers.linear.check import Bound, Check, check_of
from penstock.solvers.problem import LinearSystem, Outcome

if TYPE_CHECKING:
    from petsc4py import PETSc


ROWS = 10.0  # times rtol, the largest backward error: one row may be off by more than all are on average
ROWS_OF_DIRECT = 1e-3  # the same where it must imply an accuracy: errors may be 1e6 times a backward error


@dataclass(frozen=True)
class Tolerance:
    """When a strategy may stop."""

    rtol: float
    """At ||b - A x|| <= rtol ||b||."""
    energy: float | None = None
    """At an estimated ||x - A⁻¹ b||_A <= energy ||A⁻¹ b||_A, for the strategies that have such an estimate, instead."""
    accuracy: float | None = None
    """At ||x - A⁻¹ b|| <= accuracy ||A⁻¹ b||, for `Calibrated` and `Auto`, instead; `rtol` is then one that implies it
    for a direct solve."""
    max_iterations: float = math.inf
    """Products with A after which a method that iterates gives up, if it would not sooner."""
    of_deviation: bool = False
    """`accuracy` is relative to the deviation of A⁻¹ b from its mean: an offset does not count."""

    def size_of(self, x: PETSc.Vec) -> float:
        """The length that errors of this x are relative to."""
        if not self.of_deviation:
            return x.norm()
        deviation = x.copy()
        deviation.shift(-x.sum() / x.getSize())
        return deviation.norm()

    @cached_property
    def bound(self) -> Bound:
        """What every x must keep for which its strategy deduced nothing else."""
        return Bound(self.rtol, (ROWS if self.accuracy is None else ROWS_OF_DIRECT) * self.rtol)


@dataclass(kw_only=True, eq=False)  # frozen takes 1 us longer
class Attempt:
    """What a strategy made of one system."""

    x: PETSc.Vec
    """A vector of its own, never one that the strategy keeps."""
    outcome: Outcome
    reason: str = ""
    """Why there is no solution, where more is known than the outcome says: what PETSc said, say. One line."""
    iterations: int = 0
    """Products with A that the method made, its own residuals included; those inside a preconditioner are not."""
    bound: Bound | None = None
    """What x must keep to meet the tolerance, where the strategy deduced it; else `Tolerance.bound`."""
    check: Check | None = None
    """Of x, where the strategy has made it."""
    energy_error: float | None = None
    """The estimated ||x - A⁻¹ b||_A / ||A⁻¹ b||_A, where the strategy has one."""
    history: Sequence[float] = ()
    """Residual norms ||b - A x|| as the method estimated them, from the first on; () where it keeps none."""
    setup_seconds: float = 0.0
    """Processor time before the first iteration or back-solve: preconditioner, factor, a space brought to a new matrix,
    the comparison with the matrix before."""

    def checked(self, system: LinearSystem) -> Attempt:
        """With the check of this x for this system, which is made unless it is there."""
        if self.check is not None and self.check.is_of(system, self.x):
            return self
        return replace(self, check=check_of(system, self.x))

    def meets(self, tolerance: Tolerance) -> bool:
        """Once it is checked: where nothing was deduced x counts, and not what the strategy thinks of it."""
        if self.bound is None:
            return tolerance.bound.is_kept_by(self.check)
        return self.outcome is Outcome.CONVERGED and self.bound.is_kept_by(self.check)


class Strategy(ABC):
    """One way to solve the systems of one family, one after another.

    Construction takes the user's options and needs no PETSc. `LinearSolver` copies a fresh strategy for every family
    (copy.copy), so a constructor makes nothing mutable that two families must not share. What is an attribute here may
    be a property of a subclass, for it may change from system to system.
    """

    name: str
    recycles: bool = False
    """Numbers from earlier systems entered the last solve, so solving again from a reset may go better."""
    gains_from_order: bool = False
    """A system is solved faster after similar ones, so sorting may pay."""
    needs_entries: bool = False
    """Of the matrix, so that one which tells its products alone is refused."""
    meets_accuracy: bool = False
    """It keeps `Tolerance.accuracy` by itself. One that does not is calibrated: see `Calibrated`."""
    num_matrices: int = 0
    """Times that the matrix was another one than before, of a strategy that expects one matrix; 0 of all others."""
    decision: Decision | None = None
    """What it has decided or adopted, of a strategy that chooses among others."""

    @abstractmethod
    def solve(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        """An x that meets the tolerance, or the reason why there is none.

        May raise PETSc.Error and LinAlgError.
        """

    def reset(self) -> None:  # noqa: B027  nothing is kept unless a subclass keeps it
        """Forget all earlier systems."""

    def adopt(self, decision: Decision | None, *, may_try: bool) -> None:  # noqa: B027
        """Follow a decision that was made elsewhere, if it is newer, of a strategy that decides.

        may_try: whether it may try others out itself.
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
    """Raises ValueError unless `value` >= lowest."""
    if value < lowest:
        raise ValueError(f"{name} = {value} must be at least {lowest}")
