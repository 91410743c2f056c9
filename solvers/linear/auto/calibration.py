"""Calibration: the tolerance that makes a strategy's solutions accurate enough.

How small the residual must be for an error ||x - A⁻¹ b|| / ||A⁻¹ b|| depends on the systems and on the strategy: at
64 x 64 cells of Darcy 12/3 the relative residual is 8 to 22 times the error with CG and ICC, 39 to 105 times with
GAMG, and 1.5 to 6 times with GCRO-DR and ICC. Within one family and strategy it varies much less (a standard deviation
of the logarithm of 0.02 to 0.35; 0.9 at contrast 1e4), so it can be learned from a few systems whose solutions are
known.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from penstock.solvers.linear.auto.ratios import WINDOW, Ratios
from penstock.solvers.linear.check import Bound
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.forms import tells_entries
from penstock.solvers.linear.strategy import Attempt, Strategy, Tolerance
from penstock.solvers.problem import LinearSystem, Outcome

if TYPE_CHECKING:
    from petsc4py import PETSc

# The first 8 systems are solved twice, then those after 16, 32, 64 and 128 others.
FIRST = 8
# After that, every 200th system is solved twice, which makes 21 of the first 2000.
EVERY = 200
# Where the systems differ much, every 20th is.
EVERY_WIDE = 20
# A solve is tightened at most 3 times, once x shows what its system needs.
TIGHTENINGS = 3
# Where ratios of other systems say too little, x must stay the same at a tenth of its measure.
CONFIRMATION = 0.1
# That is tried with at most 5 such steps.
CONFIRMATIONS = 5
# No tolerance above this is asked for: x = 0 has a residual and an energy error of 1.
LOOSEST = 0.5
# No tolerance below this is asked for, because rounding may hide smaller residuals.
TIGHTEST = 1e-12
# A strategy without direct solves makes its references by going on to a thousandth of the energy error or residual.
CLOSER = 1e-3
# Such a reference is accepted if its residual is below 100 times the one asked for.
CREDIBLE = 100.0
STILL_CHANGES = "the solution still changes"
# An x fails if its residual or backward error exceeds 10 times the largest seen at this accuracy.
STRAY = 10.0


def tolerance_of(accuracy: float, *, of_deviation: bool = False) -> Tolerance:
    """The tolerance for an accuracy, good for any strategy.

    Direct strategies are not calibrated: they meet the accuracy by a residual far below it. Rounding leaves them
    residuals up to 1e-11 at 66,000 unknowns, or at 9,604 where the matrix is nearly singular, and above 1e-10 where the
    coefficient jumps by 1e4, although their errors are 1e-14.
    """
    rtol = 1e-9 if of_deviation else max(1e-3 * accuracy, 1e-9)
    return Tolerance(rtol, accuracy=accuracy, of_deviation=of_deviation)


def can_factor(system: LinearSystem) -> bool:
    """Whether a direct solve costs no more than the calibration is worth.

    In three dimensions the work grows with the square of the unknowns: 64^3 take half a minute, not half a second.
    Without a grid, long rows show three dimensions: linear elements have 7 entries per row in 2D, 15 in 3D.
    """
    if not tells_entries(system.A):
        return False
    num_unknowns = system.A.getSize()[0]
    if system.grid is not None:
        is_spatial = len(system.grid.shape) > 2
    else:
        is_spatial = system.A.getInfo()["nz_used"] > 12 * num_unknowns
    return num_unknowns <= (20_000 if is_spatial else 500_000)


class Calibrated(Strategy):
    """A strategy that meets `Tolerance.accuracy`.

    That is a bound on ||x - A⁻¹ b|| / ||A⁻¹ b||. The strategy is asked for a tolerance t = accuracy x (a low quantile
    of its ratios m / error: `Ratios`). Its measure m is the number that it stops on: its estimate of the relative
    energy error ||x - A⁻¹ b||_A / ||A⁻¹ b||_A if it has one, else the relative residual. Where x shows that its system
    needs a smaller m, the strategy goes on from there; where ratios differ too much, it goes on until a ten times
    smaller m changes x by less than the accuracy.

    The ratios come from the first 8 systems, except those that were solved to rounding, and from some later ones. Each
    of these systems is solved a second time, directly. Where there is an estimate, or `can_factor` says no, the
    strategy itself makes the second solution: it goes on to a thousandth of the energy error or the residual, and where
    that moves x far and nothing can be factored, to a thousandth of that. Those systems are given the better solution.

    Args:
        strategy: a fresh one, which is not used elsewhere.
    """

    def __init__(self, strategy: Strategy):
        self.strategy = strategy
        self._direct = Direct()
        self._num_attempts = 0
        self._ratios = Ratios()
        self._strays: deque[Bound] = deque(maxlen=WINDOW)  # relative residual and backward error / error

    @property
    def name(self) -> str:
        return self.strategy.name

    @property
    def recycles(self) -> bool:
        return self.strategy.recycles

    @property
    def gains_from_order(self) -> bool:
        return self.strategy.gains_from_order

    def reset(self) -> None:
        """Forget all earlier systems, but not the ratios.

        Those are observations, and enter no solution.
        """
        self.strategy.reset()
        self._direct.reset()

    def solve(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        n = self._num_attempts
        every = EVERY_WIDE if self._ratios.is_wide else EVERY
        is_due = len(self._ratios) < FIRST or n in (16, 32, 64, 128) or n % every == 0
        attempt = self.attempt(system, tolerance)
        if attempt.outcome is not Outcome.CONVERGED or attempt.bound is None or not is_due:
            return attempt
        reference = self.reference(system, attempt, tolerance)
        self.learn(system, attempt, reference, tolerance)
        setup_seconds = attempt.setup_seconds + reference.setup_seconds
        return replace(reference, iterations=attempt.iterations, setup_seconds=setup_seconds)

    def tolerance(self, accuracy: float, log_size: float | None = None) -> float:
        """The measure that the strategy must reach.

        Args:
            accuracy: the accuracy asked for.
            log_size: log ν of the system, if it is known.

        Returns:
            The measure; it may be below `TIGHTEST`, but no strategy is asked for less than that.
        """
        return min(accuracy * math.exp(self._ratios.least(log_size)), LOOSEST)

    def attempt(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        """One solve by the strategy, to the tolerance that its ratios suggest; checked.

        It has no bound where x is as good as a direct solution: its residual is then rounding, and the ratio of that to
        the error says nothing about other systems.
        """
        self._num_attempts += 1
        wanted = self.tolerance(tolerance.accuracy)
        attempt = self._attempt(system, wanted, tolerance)
        for _ in range(TIGHTENINGS):
            if attempt.outcome is not Outcome.CONVERGED or tolerance.bound.is_kept_by(attempt.check):
                break
            before, wanted = wanted, self._wanted(system, attempt, tolerance)
            if not wanted < measure_of(attempt) < math.inf or before <= TIGHTEST:
                break
            attempt = self._further(system, attempt, wanted, tolerance)
        if self._ratios.is_wide:
            attempt = self._confirmed(system, attempt, tolerance)
        if attempt.outcome is Outcome.CONVERGED and math.isfinite(log_size := log_size_of(system, attempt, tolerance)):
            self._ratios.note(log_size)
        if tolerance.bound.is_kept_by(attempt.check):
            return replace(attempt, bound=None)
        bound = self._bound(tolerance.accuracy)
        if attempt.energy_error is None:
            bound = replace(bound, relative_residual=wanted)
        elif attempt.outcome is Outcome.CONVERGED and not measure_of(attempt) <= wanted:
            reason = f"it takes an energy error of {wanted:.1e}, which is lost in the rounding of b"
            attempt = replace(attempt, outcome=Outcome.STAGNATION, reason=reason)
        return replace(attempt, bound=bound)

    def _attempt(self, system: LinearSystem, wanted: float, tolerance: Tolerance) -> Attempt:
        asked = max(wanted, TIGHTEST)
        tolerance = Tolerance(asked, energy=asked, max_iterations=tolerance.max_iterations)
        return self.strategy.solve(system, tolerance).checked(system)

    def _further(self, system: LinearSystem, attempt: Attempt, wanted: float, tolerance: Tolerance) -> Attempt:
        """The attempt continued from its x."""
        further = self._attempt(replace(system, guess=attempt.x), wanted, tolerance)
        if further.outcome is not Outcome.CONVERGED:  # BiCG may break down near a solution
            further = self._attempt(system, wanted, tolerance)
        return replace(
            further,
            iterations=attempt.iterations + further.iterations,
            setup_seconds=attempt.setup_seconds + further.setup_seconds,
        )

    def _confirmed(self, system: LinearSystem, attempt: Attempt, tolerance: Tolerance) -> Attempt:
        """An attempt with an x that no longer changes, for systems that differ much.

        It differs by less than the accuracy from an x with a measure ten times as large, which shows that even that x
        was accurate enough.
        """
        for _ in range(CONFIRMATIONS):
            measure = measure_of(attempt)
            is_final = tolerance.bound.is_kept_by(attempt.check) or not TIGHTEST < measure < math.inf
            if attempt.outcome is not Outcome.CONVERGED or is_final:
                return attempt
            before, attempt = attempt, self._further(system, attempt, CONFIRMATION * measure, tolerance)
            if relative_error(system, before.x, attempt.x, tolerance) <= tolerance.accuracy:
                return attempt
        return replace(attempt, outcome=Outcome.STAGNATION, reason=STILL_CHANGES)

    def _wanted(self, system: LinearSystem, attempt: Attempt, tolerance: Tolerance) -> float:
        """The measure that this x must reach.

        Before there are ratios, they are taken to be 1, with errors relative to all of x.
        """
        if self._ratios or not tolerance.of_deviation:
            return self.tolerance(tolerance.accuracy, log_size_of(system, attempt, tolerance))
        return min(tolerance.accuracy * tolerance.size_of(attempt.x) / attempt.x.norm(), LOOSEST)

    def _bound(self, accuracy: float) -> Bound:
        """The bounds that x keeps unless the strategy's measure has failed."""
        residual = max((stray.relative_residual for stray in self._strays), default=math.inf)
        backward_error = max((stray.backward_error for stray in self._strays), default=math.inf)
        return Bound(STRAY * accuracy * residual, STRAY * accuracy * backward_error)

    def reference(self, system: LinearSystem, attempt: Attempt, tolerance: Tolerance) -> Attempt:
        """A solution to compare the attempt's x with, checked.

        It is A⁻¹ b up to rounding, or far closer to that than the attempt's x.
        """
        factors = can_factor(system)
        if factors and attempt.energy_error is None:
            return self._direct.solve(system, tolerance).checked(system)
        for _ in range(1 if factors else CONFIRMATIONS):
            before, attempt = attempt, self._closer(system, attempt, tolerance)
            if not attempt.meets(tolerance):
                break
            error = relative_error(system, before.x, attempt.x, tolerance)
            if error <= CREDIBLE * tolerance.accuracy:  # the error of the closer x may be a thousandth of this
                return attempt
        else:
            attempt = replace(attempt, outcome=Outcome.STAGNATION, reason=STILL_CHANGES)
        return self._direct.solve(system, tolerance).checked(system) if factors else attempt

    def _closer(self, system: LinearSystem, attempt: Attempt, tolerance: Tolerance) -> Attempt:
        """The attempt continued by the strategy itself, to a thousandth of its measure."""
        residual = CLOSER * attempt.check.relative_residual
        energy = None if attempt.energy_error is None else CLOSER * attempt.energy_error
        asked = Tolerance(max(residual, TIGHTEST), energy=energy)
        closer = self.strategy.solve(replace(system, guess=attempt.x), asked).checked(system)
        if tolerance.bound.is_kept_by(closer.check):
            return replace(closer, bound=None)
        outcome = Outcome.STAGNATION if measure_of(closer) == math.inf else closer.outcome
        bound = Bound(max(CREDIBLE * residual, tolerance.rtol), CREDIBLE * CLOSER * attempt.check.backward_error)
        return replace(closer, outcome=outcome, bound=bound)

    def learn(self, system: LinearSystem, attempt: Attempt, reference: Attempt, tolerance: Tolerance) -> None:
        """Take the ratio of one solved system into account, if its reference is good."""
        if not reference.meets(tolerance) or tolerance.bound.is_kept_by(attempt.check):
            return
        residual, backward_error = attempt.check.relative_residual, attempt.check.backward_error
        error = relative_error(system, attempt.x, reference.x, tolerance)
        measure, log_size = measure_of(attempt), log_size_of(system, attempt, tolerance)
        if 0 < error < math.inf and 0 < measure < math.inf and math.isfinite(log_size):
            self._ratios.learn(math.log(measure / error), log_size)
            self._strays.append(Bound(residual / error, backward_error / error))


def measure_of(attempt: Attempt) -> float:
    """The measure that the attempt's strategy stopped on; infinite where it has none.

    The estimate of the energy error is 0 once ||r|| is down to the rounding of ||b||, which may come from a few large
    entries.
    """
    return attempt.check.relative_residual if attempt.energy_error is None else attempt.energy_error or math.inf


def log_size_of(system: LinearSystem, attempt: Attempt, tolerance: Tolerance) -> float:
    """The log ν of `Ratios`; not finite where one of the lengths is 0."""
    x = attempt.x
    length = attempt.check.norm_b if attempt.energy_error is None else math.sqrt(abs(x.dot(system.b)))
    size = tolerance.size_of(x)
    return math.log(length / size) if length > 0 and size > 0 else math.inf


def relative_error(
    system: LinearSystem, x: PETSc.Vec, reference: PETSc.Vec, tolerance: Tolerance | None = None
) -> float:
    """The length of x - reference over the size of the reference.

    Parts in the system's nullspace do not count.
    """
    error = x.copy()
    error.axpy(-1.0, reference)
    if system.nullspace is not None:
        reference = reference.copy()
        system.nullspace.remove(reference)
        system.nullspace.remove(error)
    size = reference.norm() if tolerance is None else tolerance.size_of(reference)
    return error.norm() / size if size > 0 else math.inf


def calibrated(strategy: Strategy) -> Strategy:
    """The strategy in a form that meets `Tolerance.accuracy`."""
    return strategy if strategy.meets_accuracy else Calibrated(strategy)
