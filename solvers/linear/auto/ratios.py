"""Ratios of a strategy's measure to its error, learned from solved systems.

They say how small the measure must be in the systems to come. A measure m is the number that a strategy stops on,
||b - A x|| / ||b|| or ||x - A⁻¹ b||_A / ||A⁻¹ b||_A. It is compared with the error as it is, or as ν m with

    ν = ||b|| / s or ||A⁻¹ b||_A / s,

where s is the length that errors are relative to, ||x|| or that of its deviation from its mean: ν m is the length of
the residual, or the energy norm of the error, over s. So ν m / error does not depend on how b is related to x, and
m / error does not depend on the scale of A. ν is known only with x.

A source anywhere in a field of σ = 0.5 to 3, 120 systems, log(m / error) and log(ν m / error), deviation (distance of
the lowest from the median): 0.9 (3.4) and 0.5 (1.6) with CG and ICC, 1.5 (7.7) and 0.7 (1.5) where it stops on the
residual, 1.0 (3.8) and 0.5 (1.8) with GAMG.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

# Only the last 32 systems with known solutions count.
WINDOW = 32
# The distribution of ν is that of the last 64 systems.
SIZES = 64
# It is evaluated again after every 16 systems.
EVERY = 16

# One-sided tolerance factor for normal samples, approximately: a bound mean - factor x deviation that 99.7 % of all
# systems keep, with a confidence of 90 %.
CONTENT, CONFIDENCE = 2.75, 1.282
# The deviation that is assumed before there are samples, and the number of samples that it counts for.
PRIOR_DEVIATION, PRIOR_SAMPLES = 0.3, 3
# A margin for tails longer than normal: of 120 ratios of GMRES with GAMG one lay 5.7 deviations below the mean.
MARGIN = 0.4
# From this deviation of log ν on, the systems count as different in it.
UNLIKE = 0.35
# ν is of no use if the deviation of log(ν m / error) exceeds that of log(m / error) by this factor.
POORER = 1.5
# From this deviation of the logarithms on, some systems say little about the others.
WIDE = 0.5


class Ratios:
    """The ratios m / error of one strategy on the systems of one family."""

    def __init__(self):
        self.is_wide = False
        """Whether the systems differ too widely for some to say much about the others."""
        self._ratios: deque[tuple[float, float]] = deque(maxlen=WINDOW)  # log(m / error), log ν
        self._log_sizes: deque[float] = deque(maxlen=SIZES)  # log ν
        self._num_noted = 0
        self._uses_sizes = False
        self._low = self._usual_log_size = 0.0

    def __len__(self) -> int:
        return len(self._ratios)

    def note(self, log_size: float) -> None:
        """Note one more system and its log ν."""
        self._log_sizes.append(log_size)
        self._num_noted += 1
        if self._ratios and self._num_noted % EVERY == 0:
            self._update()

    def learn(self, log_ratio: float, log_size: float) -> None:
        """Note the ratio of one more system with a known solution."""
        self._ratios.append((log_ratio, log_size))
        self._update()

    def least(self, log_size: float | None = None) -> float:
        """The log(m / error) that nearly all systems exceed.

        Where `is_wide`, about five of six exceed it.

        Args:
            log_size: log ν of the systems in question; absent for a usual ν.
        """
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
    """The mean and standard deviation; statistics.pstdev takes twenty times as long."""
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def low_quantile(values: Sequence[float]) -> float:
    """A cautious estimate of the 0.3 % quantile of a normal distribution.

    The values are samples of the distribution.
    """
    n = len(values)
    mean, deviation = moments(values)
    freedom = n - 1 + PRIOR_SAMPLES
    deviation = math.sqrt((n * deviation**2 + PRIOR_SAMPLES * PRIOR_DEVIATION**2) / freedom)
    factor = CONTENT + CONFIDENCE * math.sqrt(1 / n + CONTENT**2 / (2 * freedom))
    return min(mean - factor * deviation, *values) - MARGIN
