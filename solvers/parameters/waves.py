"""Random sums of sines on the unit circle, as functions of x.

Axes:  M the wave numbers 1 to M.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NUM_WAVES = 4  # M
NUM_CHOICES = 2  # wave numbers that are chosen
RARE = 0.1  # chance of an absolute value, and of a window
LOWS, HIGHS = (0.1, 0.45), (0.55, 0.9)  # where a window begins and ends
EDGE = 0.01  # width of a window's edges
# The mean over draws and over the circle of u²: E[A²] E[sin²] = 1/6 per wave, times the mean of the window.
VARIANCE = NUM_WAVES / 6 * (1 - RARE * (1 - (sum(HIGHS) - sum(LOWS)) / 2))
FEATURE_POINTS = np.arange(64) / 64


@dataclass(frozen=True, eq=False)
class Wave:
    """A function u on the unit circle, which can be evaluated anywhere.

    u(x) = ± w(x) Σ_m A_m sin(2π c_m m x + φ_m), or the same with the sum's absolute value.
    """

    counts: np.ndarray
    """c_m, how often m was chosen, [M]."""
    amplitudes: np.ndarray
    """A_m, [M]."""
    phases: np.ndarray
    """φ_m, [M]."""
    sign: float
    """1 or -1."""
    is_absolute: bool
    """Whether the sum's absolute value is taken."""
    window: tuple[float, float] | None
    """Where the window w begins and ends; None for w = 1."""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """u at points x of any shape, which may lie outside of [0, 1]."""
        x = np.mod(x, 1.0)
        numbers = self.counts * np.arange(1, len(self.counts) + 1)
        total = np.sin(2 * np.pi * np.multiply.outer(x, numbers) + self.phases) @ self.amplitudes
        values = self.sign * (np.abs(total) if self.is_absolute else total)
        if self.window is None:
            return values
        low, high = self.window
        return values * (np.tanh((x - low) / EDGE) - np.tanh((x - high) / EDGE)) / 2


class RandomWaves:
    """Sums of sines, the law of the one-dimensional sets of PDEBench.

    Takamoto et al. (2022, arXiv 2210.07182). A draw is a `Wave` with M = 4 terms. Two wave numbers are chosen from 1 to 4, A_m ~ U(0, 1), φ_m ~ U(0, 2π), the
    sign is random; one draw in ten is an absolute value, and one in ten has a window with edges in U(0.1, 0.45) and
    U(0.55, 0.9). As in the published code, terms that are not chosen stay as constants A_m sin φ_m, so a draw has a
    mean, and what is chosen twice has twice the wave number. The paper has the chosen terms alone.

    Two things differ from that code: waves are periodic (there they have the period 1 - 1/n), and all numbers are
    independent (there some of them come from the same random bits).
    """

    def draw(self, generator: np.random.Generator) -> Wave:
        """One function."""
        amplitudes, turns = generator.random((2, NUM_WAVES))
        counts = np.bincount(generator.integers(NUM_WAVES, size=NUM_CHOICES), minlength=NUM_WAVES)
        is_absolute, has_window = generator.random(2) < RARE
        window = generator.uniform(*LOWS), generator.uniform(*HIGHS)
        return Wave(
            counts=counts,
            amplitudes=amplitudes,
            phases=2 * np.pi * turns,
            sign=generator.choice((-1.0, 1.0)),
            is_absolute=bool(is_absolute),
            window=window if has_window else None,
        )

    def features(self, value: Wave) -> np.ndarray:
        """The function at 64 points, scaled so that two draws are about √2 apart."""
        return value(FEATURE_POINTS) / np.sqrt(FEATURE_POINTS.size * VARIANCE)

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The names of `quantiles`: an amplitude and a phase per term."""
        return tuple(f"{name}_{kind}_{m}" for kind in ("amplitude", "phase") for m in range(1, NUM_WAVES + 1))

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantiles of the amplitudes and phases, [2 M]."""
        wave = self.draw(generator)
        return np.concatenate([wave.amplitudes, wave.phases / (2 * np.pi)])

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return (
            f"sum of {NUM_WAVES} sines on the unit circle, {NUM_CHOICES} of them with a wave number, amplitudes up to 1"
        )
