"""Sums of sine waves on a circle, with random amplitudes and phases.

Axes:  n points on the circle, J waves, M wave numbers 1 to M.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft

FINE = 1024  # points where the largest value of a series is sought

# Of `RandomWaves`.
NUM_WAVES = 4  # M
NUM_CHOICES = 2  # wave numbers that are chosen
RARE = 0.1  # chance of an absolute value, and of a window
LOWS, HIGHS = (0.1, 0.45), (0.55, 0.9)  # where a window begins and ends
EDGE = 0.01  # width of a window's edges
# The mean over draws and over the circle of u²: E[A²] E[sin²] = 1/6 per wave, times the mean of the window.
VARIANCE = NUM_WAVES / 6 * (1 - RARE * (1 - (sum(HIGHS) - sum(LOWS)) / 2))
FEATURE_POINTS = np.arange(64) / 64


class SineSeries:
    """A sum of the first modes of a circle, divided by its largest absolute value.

    g(x) = Σ_k a_k sin(2π k x / L + φ_k), k = 1, ..., J, a_k uniform on [-1, 1], φ_k uniform on [0, 2π].

    This is the law at first of APEBench (Koehler et al. 2024, arXiv 2411.00180), whose code draws amplitudes and phases
    so. The largest value is that at 1024 points. So one generator gives one function at every resolution.

    Args:
        resolution: n, above 2 J, points at i L / n.
        num_modes: J.
    """

    def __init__(self, resolution: int, *, num_modes: int = 5):
        self.resolution = resolution
        self.num_modes = num_modes

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """One field, float64 [n]."""
        return self._of(self._draw_uniforms(generator))

    def at_quantiles(self, quantiles: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The field of amplitudes and phases with these quantiles; nothing is drawn."""
        return self._of(np.reshape(quantiles, (2, self.num_modes)))

    def _of(self, uniforms: np.ndarray) -> np.ndarray:
        amplitudes, phases = uniforms
        modes = np.append(0, -1j * (amplitudes - 0.5) * np.exp(2j * np.pi * phases))
        return irfft(modes, self.resolution, norm="forward") / np.abs(irfft(modes, FINE, norm="forward")).max()

    def _draw_uniforms(self, generator: np.random.Generator) -> np.ndarray:
        """What amplitudes and phases are made of, [2, J]."""
        return generator.random((2, self.num_modes))

    def features(self, value: np.ndarray) -> np.ndarray:
        """The field, scaled so that two draws are about √2 apart.

        Its root mean square is about 1/2.
        """
        return 2 * value / np.sqrt(value.size)

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The names of `quantiles`: an amplitude and a phase per mode."""
        return tuple(f"{name}_{kind}_{k + 1}" for kind in ("amplitude", "phase") for k in range(self.num_modes))

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantiles of the a_k and φ_k."""
        return self._draw_uniforms(generator).ravel()

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return f"sum of {self.num_modes} sines with uniform amplitudes and phases, of largest absolute value 1"


class TravellingWaves:
    """A sum of sine waves that travel around a circle at random speeds.

    δ(t, x) = Σ_j A_j sin(ω_j t + 2π l_j x / L + φ_j), with A_j uniform on [-A, A], ω_j on [-Ω, Ω], φ_j on [0, 2π], and
    l_j on the whole numbers from 1 to M.

    A draw is an array [4, J] with the rows A_j, ω_j, l_j, φ_j.

    Args:
        resolution: n, above 2 M, points at i L / n.
        num_waves: J.
        amplitude: A.
        frequency: Ω.
        largest_number: M.
    """

    def __init__(self, resolution: int, *, num_waves: int, amplitude: float, frequency: float, largest_number: int):
        self.resolution = resolution
        self.num_waves = num_waves
        self.amplitude = amplitude
        self.frequency = frequency
        self.largest_number = largest_number

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """One set of waves, float64 [4, J]."""
        return self._of(self._draw_uniforms(generator))

    def at_quantiles(self, quantiles: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The waves with these quantiles; nothing else is drawn."""
        return self._of(np.reshape(quantiles, (4, self.num_waves)))

    def _of(self, uniforms: np.ndarray) -> np.ndarray:
        amplitudes, frequencies, numbers, phases = uniforms
        return np.stack(
            [
                self.amplitude * (2 * amplitudes - 1),
                self.frequency * (2 * frequencies - 1),
                1 + np.floor(self.largest_number * numbers),
                2 * np.pi * phases,
            ]
        )

    def _draw_uniforms(self, generator: np.random.Generator) -> np.ndarray:
        return generator.random((4, self.num_waves))

    def modes(self, value: np.ndarray, time: float) -> np.ndarray:
        """δ at a time, as the modes [n // 2 + 1] of `scipy.fft.rfft`."""
        amplitudes, frequencies, numbers, phases = value
        waves = -0.5j * self.resolution * amplitudes * np.exp(1j * (frequencies * time + phases))
        modes = np.zeros(self.resolution // 2 + 1, complex)
        modes[: self.largest_number + 1] = waves @ (numbers[:, None] == np.arange(self.largest_number + 1))
        return modes

    def features(self, value: np.ndarray) -> np.ndarray:
        """The modes of δ at time 0, scaled so that two draws are about √2 apart."""
        modes = self.modes(value, 0.0)[1 : self.largest_number + 1]
        scale = self.resolution * self.amplitude * np.sqrt(self.num_waves / 12)  # root mean square of |modes|
        return np.concatenate([modes.real, modes.imag]) / scale

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The names of `quantiles`: four per wave."""
        kinds = ("amplitude", "frequency", "number", "phase")
        return tuple(f"{name}_{kind}_{j + 1}" for kind in kinds for j in range(self.num_waves))

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantiles of the A_j, ω_j, l_j and φ_j."""
        return self._draw_uniforms(generator).ravel()

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return (
            f"sum of {self.num_waves} sines, amplitudes uniform within ±{self.amplitude:g}, frequencies within "
            f"±{self.frequency:g}, wave numbers from 1 to {self.largest_number}"
        )


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

    Takamoto et al. (2022, arXiv 2210.07182). A draw is a `Wave` with M = 4 terms. Two wave numbers are chosen from 1
    to 4, A_m ~ U(0, 1), φ_m ~ U(0, 2π), the sign is random; one draw in ten is an absolute value, and one in ten has a
    window with edges in U(0.1, 0.45) and U(0.55, 0.9). As in the published code, terms that are not chosen stay as
    constants A_m sin φ_m, so a draw has a mean, and what is chosen twice has twice the wave number. The paper has the
    chosen terms alone.

    Two things differ from that code: waves are periodic (there they have the period 1 - 1/n), and all numbers are
    independent (there some of them come from the same random bits).
    """

    def draw(self, generator: np.random.Generator) -> Wave:
        """One function."""
        return self._wave(self._draw_uniforms(generator), generator)

    def at_quantiles(self, quantiles: np.ndarray, generator: np.random.Generator) -> Wave:
        """The function with these quantiles of amplitudes and phases; the rest is drawn."""
        self._draw_uniforms(generator)
        return self._wave(np.reshape(quantiles, (2, NUM_WAVES)), generator)

    def _draw_uniforms(self, generator: np.random.Generator) -> np.ndarray:
        """What amplitudes and phases are made of, [2, M]."""
        return generator.random((2, NUM_WAVES))

    def _wave(self, uniforms: np.ndarray, generator: np.random.Generator) -> Wave:
        amplitudes, turns = uniforms
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
