"""Fourier pseudo-spectral methods on the torus.

Axes:  *grid points along each axis, *K the modes of `scipy.fft.rfftn`, the last axis halved; ... any others in front.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np
from scipy.fft import fftfreq, irfft, irfftn, rfft, rfftfreq, rfftn

CIRCLE = 16  # points of a circle of radius 1 around λ Δt; the means are off by 1 / 16!
MOST_FACTORS = 16  # lengths of steps whose factors are kept


def check_resolution(resolution: int, *, smallest: int = 8) -> None:
    """Check the number of points along each axis.

    Raises:
        ValueError: it is odd, or too small.
    """
    if resolution < smallest or resolution % 2:
        raise ValueError(f"resolution = {resolution} must be an even number from {smallest} on")


class Torus:
    """A periodic box with n points along each axis; functions as Fourier modes.

    Args:
        resolution: n, even.
        dimension: d.
        extent: L, the period along each axis.
    """

    def __init__(self, resolution: int, dimension: int = 1, *, extent: float = 1.0):
        self.shape = (resolution,) * dimension
        self.dimension = dimension
        self.spacing = extent / resolution
        self._axes = tuple(range(-dimension, 0))
        # Integer wave numbers, each along one axis of the modes.
        self._numbers = np.ix_(*[resolution * fftfreq(resolution)] * (dimension - 1), resolution * rfftfreq(resolution))
        self._unit = 2 * np.pi / extent

    def modes(self, values: np.ndarray) -> np.ndarray:
        """The modes [..., *K] of values [..., *grid]."""
        if self.dimension == 1:
            return rfft(values)  # rfftn takes twice as long for 256 points
        return rfftn(values, axes=self._axes)

    def values(self, modes: np.ndarray) -> np.ndarray:
        """The values [..., *grid] of modes [..., *K]."""
        if self.dimension == 1:
            return irfft(modes, self.shape[0])
        return irfftn(modes, s=self.shape, axes=self._axes)

    @cached_property
    def gradient(self) -> tuple[np.ndarray, ...]:
        """Factors i k_x, i k_y, ... of the first derivatives, each along its axis.

        Those of the Nyquist modes are 0: a sawtooth has no odd derivative on the grid.
        """
        nyquist = self.shape[0] // 2
        return tuple(1j * self._unit * np.where(np.abs(k) == nyquist, 0, k) for k in self._numbers)

    @cached_property
    def squares(self) -> np.ndarray:
        """|k|² [*K], the factors of -Δ."""
        return self._unit**2 * sum(k**2 for k in self._numbers)

    @cached_property
    def is_resolved(self) -> np.ndarray:
        """Whether max |k_i| is at most 2/3 of the largest, bool [*K].

        Of products of two functions with these modes alone, these modes are exact (Orszag's rule).
        """
        limit = self.shape[0] / 3
        return np.logical_and.reduce([np.abs(k) < limit for k in np.broadcast_arrays(*self._numbers)])


class ExponentialMethod(ABC):
    """A one-step method for û' = λ û + N(û, t), exact for N = 0.

    λ is a factor for each mode, so there is no stiff part left.

    Args:
        linear: λ, [*K].
        nonlinear: N, from modes [*K] and the time to modes [*K].
    """

    def __init__(self, linear: np.ndarray, nonlinear: Callable[[np.ndarray, float], np.ndarray]):
        self._linear = linear
        self._nonlinear = nonlinear
        self._factors: dict[str, Any] = {}

    def advance(self, modes: np.ndarray, start: float, end: float, largest_step: float) -> np.ndarray:
        """The modes at a later time, by equal steps.

        Args:
            modes: û at the start, [*K].
            start: time.
            end: time.
            largest_step: bound on the length of a step.
        """
        num_steps = max(1, ceil((end - start) / largest_step * (1 - 1e-12)))
        step = (end - start) / num_steps
        factors = self._factors_near(step)
        for i in range(num_steps):
            modes = self._step(modes, start + i * step, step, factors)
        return modes

    def _factors_near(self, step: float) -> Any:
        """The factors of a step of this length up to rounding.

        Intervals of one length differ by rounding, because they are differences of times.
        """
        key = f"{step:.12e}"
        if key not in self._factors:
            if len(self._factors) == MOST_FACTORS:
                del self._factors[next(iter(self._factors))]
            self._factors[key] = self._factors_of(step)
        return self._factors[key]

    @abstractmethod
    def _factors_of(self, step: float) -> Any:
        """What the method multiplies modes by at steps of this length."""

    @abstractmethod
    def _step(self, modes: np.ndarray, time: float, step: float, factors: Any) -> np.ndarray:
        """The modes after one step."""


class IntegratingFactorRK4(ExponentialMethod):
    """The classical Runge-Kutta method for exp(-λ t) û.

    Its order is 4 (Trefethen, "Spectral Methods in MATLAB", 2000, program 27).
    """

    def _factors_of(self, step: float) -> tuple[np.ndarray, ...]:
        """exp(λ Δt / 2), and the factors of N at two later stages and at the end."""
        half = np.exp(self._linear * step / 2).astype(complex)  # products of real and complex take twice as long
        return half, step / 2 * half, step * half, step / 6 * half**2, step / 3 * half

    def _step(self, modes: np.ndarray, time: float, step: float, factors: tuple[np.ndarray, ...]) -> np.ndarray:
        half, to_middle, to_end, first, middle = factors
        at_middle = half * modes
        a = self._nonlinear(modes, time)
        b = self._nonlinear(at_middle + to_middle * a, time + step / 2)
        c = self._nonlinear(at_middle + step / 2 * b, time + step / 2)
        at_end = half * at_middle
        d = self._nonlinear(at_end + to_end * c, time + step)
        return at_end + first * a + middle * (b + c) + step / 6 * d


class ExponentialTimeDifferencingRK4(ExponentialMethod):
    """The method ETDRK4 of Cox and Matthews (2002, J. Comput. Phys. 176), of order 4.

    Where λ is large for modes that count, its error is less than that of `IntegratingFactorRK4` at the same step: by a
    factor of 6 for solitons of Korteweg and de Vries, by 40 for the Kuramoto-Sivashinsky equation.
    """

    def _factors_of(self, step: float) -> tuple[np.ndarray, ...]:
        """The factors of û, and of N at the four stages.

        Differences such as (exp(z) - 1) / z are means over a circle around z = λ Δt, which have no cancellation
        (Kassam and Trefethen 2005, SIAM J. Sci. Comput. 26).
        """
        z = self._linear * step
        around = z[..., None] + np.exp(2j * np.pi * (np.arange(CIRCLE) + 0.5) / CIRCLE)
        full = np.exp(around)
        differences = (
            (np.exp(around / 2) - 1) / around,
            (full * (4 - 3 * around + around**2) - 4 - around) / around**3,
            2 * (full * (around - 2) + 2 + around) / around**3,
            (full * (4 - around) - 4 - 3 * around - around**2) / around**3,
        )
        means = (step * difference.mean(axis=-1) for difference in differences)
        return tuple(factor.astype(complex) for factor in (np.exp(z / 2), np.exp(z), *means))  # see above

    def _step(self, modes: np.ndarray, time: float, step: float, factors: tuple[np.ndarray, ...]) -> np.ndarray:
        half, full, to_middle, first, middle, last = factors
        n_0 = self._nonlinear(modes, time)
        at_middle = half * modes
        a = at_middle + to_middle * n_0
        n_a = self._nonlinear(a, time + step / 2)
        n_b = self._nonlinear(at_middle + to_middle * n_a, time + step / 2)
        n_c = self._nonlinear(half * a + to_middle * (2 * n_b - n_0), time + step)
        return full * modes + first * n_0 + middle * (n_a + n_b) + last * n_c


STEPS_AT_ONCE = 16  # before the bound on their length is looked at again
MOST_REPEATS = 6  # of these, with half the step each


def trajectory(
    torus: Torus,
    method: ExponentialMethod,
    values: np.ndarray,
    *,
    interval: float,
    num_frames: int,
    largest_step: Callable[[np.ndarray], float],
) -> Iterator[np.ndarray]:
    """The frames of a trajectory.

    Args:
        torus: where the state lives.
        method: takes its modes from time to time.
        values: the state at first, [*grid].
        interval: time between frames.
        num_frames: number of frames, the first included.
        largest_step: bound on the length of a step, from modes. Steps at whose end it is less than half of what it was
            are done again, shorter.

    Yields:
        The state [*grid] at 0, interval, 2 interval, ...

    Raises:
        ArithmeticError: the state grows beyond all bounds.
    """
    modes = torus.modes(values)
    yield values
    for number in range(1, num_frames):
        time, end = interval * (number - 1), interval * number
        while time < end:
            modes, time = _some_steps(method, modes, time, end, largest_step)
        yield torus.values(modes)


def _some_steps(
    method: ExponentialMethod,
    modes: np.ndarray,
    time: float,
    end: float,
    largest_step: Callable[[np.ndarray], float],
) -> tuple[np.ndarray, float]:
    """The modes after a few steps towards `end`, and their time."""
    bound = largest_step(modes)
    for _ in range(MOST_REPEATS + 1):
        share = STEPS_AT_ONCE / ceil((end - time) / bound)
        then = end if share >= 1 else time + share * (end - time)
        if then == time:  # the steps are too short to count
            break
        later = method.advance(modes, time, then, bound)
        if np.isfinite(later).all() and largest_step(later) >= bound / 2:
            return later, then
        bound /= 2
    raise ArithmeticError(f"the state grows beyond all bounds between t = {time:g} and {then:g}")


class QuadraticFlux:
    """The term -(c u² / 2)_x in one dimension, as modes, and the step that it allows.

    Args:
        torus: of dimension 1.
        factor: c.
    """

    def __init__(self, torus: Torus, factor: float):
        self._torus = torus
        self._factor = factor
        self._derivative = -factor / 2 * torus.gradient[0] * torus.is_resolved

    def __call__(self, modes: np.ndarray, time: float) -> np.ndarray:
        """The modes of -(c u² / 2)_x without aliases, from the modes of u."""
        return self._derivative * self._torus.modes(self._torus.values(modes) ** 2)

    def largest_step(self, modes: np.ndarray, courant: float = 0.5) -> float:
        """The step Δt at which |c u| Δt is `courant` spacings at most."""
        fastest = np.abs(self._factor * self._torus.values(modes)).max()
        return courant * self._torus.spacing / max(fastest, 1e-30)
