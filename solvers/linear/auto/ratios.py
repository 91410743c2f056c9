"""What the systems of a family with known solutions say of those to come: how small a measure must be for an error.

A measure m is what a strategy stops on, ||b - A x|| / ||b|| or ||x - A⁻¹ b||_A / ||A⁻¹ b||_A. It is compared with the
error as it is, or as ν m with

    ν = ||b|| / s or ||A⁻¹ b||_A / s,

where s is the length that errors are relative to, ||x|| or that of its deviation from its mean: ν m is the length of
the residual, or the energy norm of the error, over s. So ν m / error is free of what b has to do with x, where m /
error is free of the scale of A. ν is known only with x.

A source anywhere in a field of σ = 0.5 to 3, 120 systems, log(m / error) and log(ν m / error), deviation (distance of
the lowest from the median): 0.9 (3.4) and 0.5 (1.6) with CG and ICC, 1.5 (7.7) and 0.7 (1.5) where it stops on the
residual, 1.0 (3.8) and 0.5 (1.8) with GAMG.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

WINDOW = 32  # of the systems with known solutions seen last that count,
SIZES = 64  # and of all systems seen last
EVERY = 16  # systems ν is looked at anew

# One-sided tolerance factor for normal samples, approximately: a bound mean - factor x deviation that 99.7 % of all
# systems keep, with a confidence of 90 %.
CONTENT, CONFIDENCE = 2.75, 1.282
PRIOR_DEVIATION, PRIOR_SAMPLES = 0.3, 3  # what is assumed of the deviation before there are samples
MARGIN = 0.4  # for tails longer than normal: of 120 ratios of GMRES with GAMG one lay 5.7 deviations below the mean
UNLIKE = 0.35  # deviation of log ν from which on the systems differ in it
POORER = 1.5  # times the deviation of log(m / error), that of log(ν m / error) from which on it is of no use
WIDE = 0.5  # deviation of the logarithms from which on some systems say little of the others


class Ratios:
    """Of the systems of one family with one strategy."""

    def __init__(self):
        self.is_wide = False
        """The systems differ so much that what some of them need says little of the others."""
        self._ratios: deque[tuple[float, float]] = deque(maxlen=WINDOW)  # log(m / error), log ν
        self._log_sizes: deque[float] = deque(maxlen=SIZES)  # log ν
        self._num_noted = 0
        self._uses_sizes = False
        self._low = self._usual_log_size = 0.0

    def __len__(self) -> int:
        return len(self._ratios)

    def note(self, log_size: float) -> None:
        """One more system was met, of this log ν."""
        self._log_sizes.append(log_size)
        self._num_noted += 1
        if self._ratios and self._num_noted % EVERY == 0:
            self._update()

    def learn(self, log_ratio: float, log_size: float) -> None:
        """One more solution is known."""
        self._ratios.append((log_ratio, log_size))
        self._update()

    def least(self, log_size: float | None = None) -> float:
        """log(m / error) that nearly all systems exceed, or nearly all of this log ν; without one, of a usual ν. Where
        they are wide, about five of six."""
        if not self._uses_sizes:
            return self._low
        return self._low - (self._usual_log_size if log_size is None else log_size)

    def _update(self) -> None:
        mean, deviation = moments(self._log_sizes or [0.0])
        self._usual_log_size = mean + deviation  # few systems need another start then
        plain = [log_ratio for log_ratio, _ in self._ratios]
        sized = [log_ratio + log_size for log_ratio, log_size in self._ratios]
        self._uses_sizes = deviation > UNLIKE and moments(sized)[1] <= POORER * moments(plain)[1]
        used = sized if self._uses_sizes else plain
        mean, deviation = moments(used)
        self.is_wide = deviation > WIDE
        self._low = mean - deviation if self.is_wide else low_quantile(used)


def moments(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation; statistics.pstdev takes twenty times as long."""
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def low_quantile(values: Sequence[float]) -> float:
    """The value that at most 0.3 % of a normal distribution lie below, judged with care from these samples of it."""
    n = len(values)
    mean, deviation = moments(values)
    freedom = n - 1 + PRIOR_SAMPLES
    deviation = math.sqrt((n * deviation**2 + PRIOR_SAMPLES * PRIOR_DEVIATION**2) / freedom)
    factor = CONTENT + CONFIDENCE * math.sqrt(1 / n + CONTENT**2 / (2 * freedom))
    return min(mean - factor * deviation, *values) - MARGIN
