"""Fourier pseudo-spectral methods on the torus.

Axes:  *grid points along each axis, *K the modes of `scipy.fft.rfftn`, the last axis halved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from math import ceil

import numpy as np
from scipy.fft import fftfreq, irfftn, rfftfreq, rfftn


class Torus:
    """A periodic box with n points along each axis, and functions on it as Fourier modes.

    Args:
        resolution: n, even.
        dimension: d.
        extent: L, the period along each axis.
    """

    def __init__(self, resolution: int, dimension: int = 1, *, extent: float = 1.0):
        self.shape = (resolution,) * dimension
        self.dimension = dimension
        self.spacing = extent / resolution
        # Integer wave numbers, each along one axis of the modes.
        self._numbers = np.ix_(*[resolution * fftfreq(resolution)] * (dimension - 1), resolution * rfftfreq(resolution))
        self._unit = 2 * np.pi / extent

    def modes(self, values: np.ndarray) -> np.ndarray:
        """The modes [*K] of values [*grid]."""
        return rfftn(values)

    def values(self, modes: np.ndarray) -> np.ndarray:
        """The values [*grid] of modes [*K]."""
        return irfftn(modes, s=self.shape)

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


class IntegratingFactorRK4:
    """The classical Runge-Kutta method for û' = λ û + N(û, t), exact for N = 0.

    λ is a factor for each mode, so exp(-λ t) û has no stiff part left; its order is 4 (Trefethen, "Spectral Methods in
    MATLAB", 2000, program 27).

    Args:
        linear: λ, [*K].
        nonlinear: N, from modes [*K] and the time to modes [*K].
    """

    def __init__(self, linear: np.ndarray, nonlinear: Callable[[np.ndarray, float], np.ndarray]):
        self._linear = linear
        self._nonlinear = nonlinear
        self._factors: dict[float, np.ndarray] = {}

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
        for i in range(num_steps):
            modes = self._step(modes, start + i * step, step)
        return modes

    def _step(self, modes: np.ndarray, time: float, step: float) -> np.ndarray:
        half = self._half_factor(step)
        full = half * half
        a = self._nonlinear(modes, time)
        b = self._nonlinear(half * (modes + step / 2 * a), time + step / 2)
        c = self._nonlinear(half * modes + step / 2 * b, time + step / 2)
        d = self._nonlinear(full * modes + step * half * c, time + step)
        return full * modes + step / 6 * (full * a + 2 * half * (b + c) + d)

    def _half_factor(self, step: float) -> np.ndarray:
        """exp(λ Δt / 2)."""
        if step not in self._factors:
            self._factors = {step: np.exp(self._linear * step / 2)}
        return self._factors[step]


MOST_REPEATS = 6  # of an interval, with half the step each


def trajectory(
    torus: Torus,
    method: IntegratingFactorRK4,
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
        largest_step: bound on the length of a step, from modes. An interval at whose end it is less than half of what
            it was is done again with shorter steps.

    Yields:
        The state [*grid] at 0, interval, 2 interval, ...

    Raises:
        ArithmeticError: the state grows beyond all bounds.
    """
    modes = torus.modes(values)
    yield values
    for number in range(1, num_frames):
        start, end = interval * (number - 1), interval * number
        bound = largest_step(modes)
        for _ in range(MOST_REPEATS + 1):
            later = method.advance(modes, start, end, bound)
            if largest_step(later) >= bound / 2:
                break
            bound /= 2
        else:
            raise ArithmeticError(f"the state grows beyond all bounds between t = {start:g} and {end:g}")
        modes = later
        yield torus.values(modes)


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
        """The modes of -(c u² / 2)_x, without those that products alias, from the modes of u."""
        return self._derivative * self._torus.modes(self._torus.values(modes) ** 2)

    def largest_step(self, modes: np.ndarray, courant: float = 0.5) -> float:
        """The step Δt at which |c u| Δt is `courant` spacings at most."""
        fastest = np.abs(self._factor * self._torus.values(modes)).max()
        return courant * self._torus.spacing / max(fastest, 1e-30)
