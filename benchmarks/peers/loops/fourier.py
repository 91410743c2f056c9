"""Plain NumPy loops by Fourier transforms, with equal steps.

Each is a class whose call takes the parameters of a draw to the frames after the first. Factors are computed once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.fft import dctn, fftfreq, idctn, irfft, irfft2, rfft, rfft2

from penstock.solvers.problem import Parameters, Problem

Rate = Callable[[np.ndarray], np.ndarray]


def etdrk4(linear: np.ndarray, nonlinear: Rate, dt: float) -> Rate:
    """A step of ETDRK4 as in the program of Kassam and Trefethen (2005, SIAM J. Sci. Comput. 26)."""
    L = dt * linear
    roots = np.exp(1j * np.pi * (np.arange(1, 33) - 0.5) / 16)
    LR = L[..., None] + roots
    E, E2 = np.exp(L), np.exp(L / 2)

    def mean(values: np.ndarray) -> np.ndarray:
        values = dt * values.mean(axis=-1)
        return values if np.iscomplexobj(linear) else values.real

    Q = mean((np.exp(LR / 2) - 1) / LR)
    f1 = mean((-4 - LR + np.exp(LR) * (4 - 3 * LR + LR**2)) / LR**3)
    f2 = mean(2 * (2 + LR + np.exp(LR) * (-2 + LR)) / LR**3)
    f3 = mean((-4 - 3 * LR - LR**2 + np.exp(LR) * (4 - LR)) / LR**3)

    def step(v: np.ndarray) -> np.ndarray:
        Nv = nonlinear(v)
        E2v = E2 * v
        a = E2v + Q * Nv
        Na = nonlinear(a)
        Nb = nonlinear(E2v + Q * Na)
        Nc = nonlinear(E2 * a + Q * (2 * Nb - Nv))
        return E * v + f1 * Nv + f2 * (Na + Nb) + f3 * Nc

    return step


def rollout(state: np.ndarray, step: Rate, num_frames: int, num_steps: int, values: Rate) -> np.ndarray:
    """The frames after the first, each `num_steps` after the one before."""
    frames = []
    for _ in range(num_frames):
        for _ in range(num_steps):
            state = step(state)
        frames.append(values(state))
    return np.array(frames)


def wave_numbers(resolution: int, extent: float) -> tuple[np.ndarray, np.ndarray]:
    """The wave numbers of `rfft`, and whether each is below 2/3 of the largest."""
    k = np.arange(resolution // 2 + 1)
    return 2 * np.pi / extent * k, k < resolution / 3


class OnCircle:
    """u_t = L u - (c u² / 2)_x on a circle by ETDRK4.

    Args:
        problem: ours, for its options.
        steps: number of steps per frame.
        linear: L, from the wave numbers to a factor for each.
        factor: c.
        extent: length of the circle.
    """

    def __init__(self, problem: Problem, steps: int, linear: Rate, *, factor: float, extent: float):
        n = problem.resolution
        k, resolved = wave_numbers(n, extent)
        g = -0.5j * factor * k * resolved
        self._n, self._steps, self._dropped = n, steps, getattr(problem, "warm_up", 0)
        self._num_frames = problem.num_steps + self._dropped
        self._step = etdrk4(linear(k), lambda v: g * rfft(irfft(v, n) ** 2), problem.interval / steps)

    def __call__(self, parameters: Parameters) -> np.ndarray:
        v = rfft(parameters["initial"])
        frames = rollout(v, self._step, self._num_frames, self._steps, lambda v: irfft(v, self._n))
        return frames[self._dropped :]


def burgers(problem: Problem, steps: int) -> OnCircle:
    return OnCircle(problem, steps, lambda k: -problem.viscosity * k**2, factor=1.0, extent=1.0)


def korteweg_de_vries(problem: Problem, steps: int) -> OnCircle:
    return OnCircle(problem, steps, lambda k: 1j * k**3 - problem.hyperviscosity * k**4, factor=6.0, extent=50.0)


def kuramoto_sivashinsky(problem: Problem, steps: int) -> OnCircle:
    return OnCircle(problem, steps, lambda k: k**2 - k**4, factor=1.0, extent=60.0)


class NavierStokes:
    """The vorticity equation by ETDRK4, the convection u·∇w by five transforms as in the published generator."""

    def __init__(self, problem: Problem, steps: int):
        n, self._steps, self._num_frames = problem.resolution, steps, problem.num_steps + problem.history - 1
        self._n = n
        along, resolved = wave_numbers(n, 1.0)
        kx, ky = 2 * np.pi * fftfreq(n, 1 / n)[:, None], along[None]
        square = kx**2 + ky**2
        inverse = 1 / np.where(square == 0, 1, square)
        mask = (np.abs(kx) < 2 * np.pi * n / 3) & resolved
        x = np.arange(n) / n
        phase = 2 * np.pi * (x[:, None] + x)
        force = rfft2(0.1 * (np.sin(phase) + np.cos(phase)))
        to_u, to_v, to_x, to_y = 1j * ky * inverse, -1j * kx * inverse, 1j * kx, 1j * ky

        def nonlinear(w: np.ndarray) -> np.ndarray:
            u, v = irfft2(to_u * w, s=(n, n)), irfft2(to_v * w, s=(n, n))
            convection = u * irfft2(to_x * w, s=(n, n)) + v * irfft2(to_y * w, s=(n, n))
            return force - mask * rfft2(convection)

        self._step = etdrk4(-problem.viscosity * square, nonlinear, problem.interval / steps)

    def __call__(self, parameters: Parameters) -> np.ndarray:
        w, shape = rfft2(parameters["vorticity"]), (self._n, self._n)
        return rollout(w, self._step, self._num_frames, self._steps, lambda w: irfft2(w, s=shape))


class GrayScott:
    """The two substances by ETDRK4, the scheme of The Well's generator, without a filter as ours."""

    def __init__(self, problem: Problem, steps: int):
        n, self._steps, self._num_frames = problem.resolution, steps, problem.num_steps
        self._shape, feed, kill = (n, n), problem.feed, problem.kill
        k, _ = wave_numbers(n, 2.0)
        square = (np.pi * fftfreq(n, 1 / n)[:, None]) ** 2 + k**2
        linear = np.stack([-2e-5 * square - feed, -1e-5 * square - feed - kill])
        source = rfft2(np.full(self._shape, feed))

        def nonlinear(v: np.ndarray) -> np.ndarray:
            a, b = irfft2(v, s=self._shape)
            made = rfft2(a * b * b)
            return np.stack([source - made, made])

        self._step = etdrk4(linear, nonlinear, problem.interval / steps)

    def __call__(self, parameters: Parameters) -> np.ndarray:
        v = rfft2(parameters["initial"])
        return rollout(v, self._step, self._num_frames, self._steps, lambda v: irfft2(v, s=self._shape))


class DiffusionReaction:
    """Activator and inhibitor by ETDRK4 in the cosine modes of central differences."""

    def __init__(self, problem: Problem, steps: int):
        n, self._steps, self._num_frames = problem.resolution, steps, problem.num_steps
        along = (2 * np.sin(np.pi * np.arange(n) / (2 * n)) / (2.0 / n)) ** 2
        square = along[:, None] + along
        linear = np.stack([-1e-3 * square, -5e-3 * square])

        def nonlinear(modes: np.ndarray) -> np.ndarray:
            u, v = idctn(modes, axes=(1, 2), norm="ortho")
            change = u - v
            return dctn(np.stack([change - u * u * u - 5e-3, change]), axes=(1, 2), norm="ortho")

        self._step = etdrk4(linear, nonlinear, problem.interval / steps)

    def __call__(self, parameters: Parameters) -> np.ndarray:
        modes = dctn(parameters["initial"], axes=(1, 2), norm="ortho")
        values = lambda modes: idctn(modes, axes=(1, 2), norm="ortho")  # noqa: E731
        return rollout(modes, self._step, self._num_frames, self._steps, values)


class Wave:
    """The wave equation, whose waves only turn: exact for any step.

    With its images u is periodic on a circle four times as long, where everything goes to the left. A frame is a turn
    of the Fourier modes and one inverse transform of 4 (n - 1) points.
    """

    def __init__(self, problem: Problem, steps: int):
        n = self._n = problem.resolution
        self._dropped, self._num_frames = problem.history, problem.num_steps + problem.history
        self._y = -8 + 16 / (n - 1) * np.arange(4 * (n - 1))
        k = 2 * np.pi / 64 * np.arange(2 * (n - 1) + 1)
        self._turn = np.exp(2j * k * problem.interval / steps) ** steps
        self._mirrored = -np.arange(n)

    def __call__(self, parameters: Parameters) -> np.ndarray:
        left, right = 2 * parameters["left_end"] - 1, 2 * parameters["right_end"] - 1
        distance = np.remainder(self._y - parameters["start"] + 32, 64) - 32
        image = np.remainder(distance, 64) - 32
        modes = rfft(np.exp(-(distance**2)) + left * right * np.exp(-(image**2)))
        frames = []
        for _ in range(self._num_frames):
            F = irfft(modes, len(self._y))
            frames.append(F[: self._n] + left * F[self._mirrored])
            modes = modes * self._turn
        return np.array(frames[self._dropped :])
