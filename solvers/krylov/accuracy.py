"""Errors instead of residuals: what a strategy must be asked for, so that its solutions are as accurate as wanted.

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

from penstock.solvers.krylov.check import Bound
from penstock.solvers.krylov.constant import Constant
from penstock.solvers.krylov.direct import Direct
from penstock.solvers.krylov.forms import tells_entries
from penstock.solvers.krylov.strategy import Attempt, Strategy, Tolerance
from penstock.solvers.problem import LinearSystem, Outcome

if TYPE_CHECKING:
    from petsc4py import PETSc

FIRST = 8  # systems that are solved twice; then those after 16, 32, 64, 128
EVERY = 200  # and each 200: 21 of the first 2000 systems
WINDOW = 32  # of the ratios seen last that count
LOOSEST = 0.5  # of the tolerances asked for: x = 0 has a residual and an energy error of 1
TIGHTEST = 1e-12  # rounding may hide residuals below
CLOSER = 1e-3  # times the energy error or the residual: how a strategy without direct solves makes its own references,
CREDIBLE = 100.0  # whose residual may exceed a thousandth of the first one so many times
STRAY = 10.0  # times the largest residual and backward error seen at this accuracy: such an x is none of these

# One-sided tolerance factor for normal samples, approximately: a bound mean - factor x deviation that 99.7 % of all
# systems keep, with a confidence of 90 %.
CONTENT, CONFIDENCE = 2.75, 1.282
PRIOR_DEVIATION, PRIOR_SAMPLES = 0.3, 3  # what is assumed of the deviation before there are samples
MARGIN = 1.5  # for tails longer than normal: of 120 ratios of GMRES with GAMG one lay 5.7 deviations below the mean


def tolerance_of(accuracy: float) -> Tolerance:
    """For any strategy: direct ones, which are not calibrated, meet the error by a residual far below it.

    Rounding leaves them residuals up to 1e-11 at 66,000 unknowns, or at 9,604 where the matrix is nearly singular, and
    above 1e-10 where the coefficient jumps by 1e4, although their errors are 1e-14.
    """
    return Tolerance(max(1e-3 * accuracy, 1e-9), accuracy=accuracy)


def can_factor(system: LinearSystem) -> bool:
    """A direct solve is no dearer than the calibration is worth.

    In three dimensions the work grows with the square of the unknowns: 64^3 take half a minute and not half a second.
    Without a grid a long row tells: linear elements have 7 entries a row in 2D, 15 in 3D.
    """
    if not tells_entries(system.A):
        return False
    num_unknowns = system.A.getSize()[0]
    if system.grid is not None:
        is_spatial = len(system.grid.shape) > 2
    else:
        is_spatial = system.A.getInfo()["nz_used"] > 12 * num_unknowns
    return num_unknowns <= (20_000 if is_spatial else 500_000)


class Calibrated:
    """A strategy that meets `Tolerance.accuracy`, a bound of ||x - A⁻¹ b|| / ||A⁻¹ b||.

    The strategy is asked for a tolerance t = accuracy x (a low quantile of its ratios m / error), where m is what it
    stops on: its estimate of the relative energy error ||x - A⁻¹ b||_A / ||A⁻¹ b||_A if it has one, else the relative
    residual. The ratios come from the first 8 systems, but for those that it solved to rounding, and from some later
    ones, which are solved directly, too. Where there is an estimate, or `can_factor` says no, the strategy itself does
    that, to a thousandth of the energy error or the residual. Those systems are given the better solution.
    The quantile is that of a normal distribution of the logarithms, or the lowest ratio seen if that is lower still.

    strategy: a fresh one, which becomes this one's own.
    """

    def __init__(self, strategy: Strategy):
        self.strategy = strategy
        self._direct = Direct()
        self._num_attempts = 0
        self._log_ratios: deque[float] = deque(maxlen=WINDOW)
        self._strays: deque[Bound] = deque(maxlen=WINDOW)  # relative residual and backward error / error

    @property
    def name(self) -> str:
        return self.strategy.name

    @property
    def recycles(self) -> bool:
        return self.strategy.recycles

    @property
    def gains_from_order(self) -> bool:
        return getattr(self.strategy, "gains_from_order", False)

    def reset(self) -> None:
        """Forget all earlier systems, but not the ratios: they are observations, and enter no solution."""
        self.strategy.reset()
        self._direct.reset()

    def solve(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        n = self._num_attempts
        is_due = len(self._log_ratios) < FIRST or n in (16, 32, 64, 128) or n % EVERY == 0
        attempt = self.attempt(system, tolerance)
        if attempt.outcome is not Outcome.CONVERGED or attempt.bound is None or not is_due:
            return attempt
        reference = self.reference(system, attempt, tolerance)
        self.learn(system, attempt, reference, tolerance)
        setup_seconds = attempt.setup_seconds + reference.setup_seconds
        return replace(reference, iterations=attempt.iterations, setup_seconds=setup_seconds)

    def tolerance(self, accuracy: float) -> float:
        """What the strategy's measure must be now; it can't be asked for less than `TIGHTEST`."""
        if not self._log_ratios:
            return min(accuracy, LOOSEST)
        return min(accuracy * math.exp(low_quantile(self._log_ratios)) / MARGIN, LOOSEST)

    def attempt(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        """One solve by the strategy, to what is known of its ratios; checked. Without a bound where x is as good as a
        direct solution: rounding made its residual, whose ratio to the error says nothing of others."""
        self._num_attempts += 1
        wanted = self.tolerance(tolerance.accuracy)
        asked = max(wanted, TIGHTEST)
        attempt = self.strategy.solve(system, Tolerance(asked, energy=asked)).checked(system)
        if tolerance.bound.is_kept_by(attempt.check):
            return replace(attempt, bound=None)
        bound = self._bound(tolerance.accuracy)
        if attempt.energy_error is None:
            bound = replace(bound, relative_residual=wanted)
        elif attempt.outcome is Outcome.CONVERGED and not measure_of(attempt) <= wanted:
            reason = f"it takes an energy error of {wanted:.1e}, which is lost in the rounding of b"
            attempt = replace(attempt, outcome=Outcome.STAGNATION, reason=reason)
        return replace(attempt, bound=bound)

    def _bound(self, accuracy: float) -> Bound:
        """What x keeps unless the strategy's measure has failed."""
        residual = max((stray.relative_residual for stray in self._strays), default=math.inf)
        backward_error = max((stray.backward_error for stray in self._strays), default=math.inf)
        return Bound(STRAY * accuracy * residual, STRAY * accuracy * backward_error)

    def reference(self, system: LinearSystem, attempt: Attempt, tolerance: Tolerance) -> Attempt:
        """A⁻¹ b, or as good as that for this purpose; checked."""
        factors = can_factor(system)
        if attempt.energy_error is not None or not factors:
            reference = self._closer(system, attempt, tolerance)
            is_near = relative_error(system, attempt.x, reference.x) <= CREDIBLE * tolerance.accuracy
            if not factors or (is_near and reference.meets(tolerance)):  # its own error may be a thousandth of that
                return reference
        return self._direct.solve(system, tolerance).checked(system)

    def _closer(self, system: LinearSystem, attempt: Attempt, tolerance: Tolerance) -> Attempt:
        """What the strategy itself makes of an attempt when it goes on."""
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
        """Take the ratio of one solved system into account, if the reference is one."""
        if not reference.meets(tolerance) or tolerance.bound.is_kept_by(attempt.check):
            return
        residual, backward_error = attempt.check.relative_residual, attempt.check.backward_error
        error, measure = relative_error(system, attempt.x, reference.x), measure_of(attempt)
        if error > 0 and 0 < measure < math.inf:
            self._log_ratios.append(math.log(measure / error))
            self._strays.append(Bound(residual / error, backward_error / error))


def measure_of(attempt: Attempt) -> float:
    """What its strategy stopped on; infinite where that was nothing: the estimate of the energy error is 0 once
    ||r|| is down to the rounding of ||b||, which may be that of a few large entries."""
    return attempt.check.relative_residual if attempt.energy_error is None else attempt.energy_error or math.inf


def relative_error(system: LinearSystem, x: PETSc.Vec, reference: PETSc.Vec) -> float:
    """||x - reference|| / ||reference||, but for what lies in the nullspace."""
    error = x.copy()
    error.axpy(-1.0, reference)
    if system.nullspace is not None:
        reference = reference.copy()
        system.nullspace.remove(reference)
        system.nullspace.remove(error)
    return error.norm() / reference.norm()


def low_quantile(values) -> float:
    """The value below which at most 0.3 % of a normal distribution lie, judged with care from these samples of it."""
    n = len(values)
    mean = sum(values) / n
    squares = sum((value - mean) ** 2 for value in values) + PRIOR_SAMPLES * PRIOR_DEVIATION**2
    freedom = n - 1 + PRIOR_SAMPLES
    factor = CONTENT + CONFIDENCE * math.sqrt(1 / n + CONTENT**2 / (2 * freedom))
    return min(mean - factor * math.sqrt(squares / freedom), *values)


def calibrated(strategy: Strategy) -> Strategy:
    """The strategy in a form that meets `Tolerance.accuracy`; direct ones do so by themselves."""
    return strategy if isinstance(strategy, Direct | Constant) else Calibrated(strategy)
