"""Plain NumPy loops for conservation laws with shocks, with equal steps.

Each is a class whose call takes the parameters of a draw to the frames after the first.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft, rfft

from benchmarks.peers.loops.fourier import rollout, wave_numbers
from penstock.solvers.problem import Parameters, Problem


def slopes(difference: np.ndarray) -> np.ndarray:
    """Half of van Leer's monotonised central slopes along the last axis, from the differences of neighbours."""
    before, after = difference[..., :-1], difference[..., 1:]
    smaller = np.minimum(np.abs(before), np.abs(after))
    size = np.minimum(np.abs(before + after) / 4, smaller)
    return np.where(before * after > 0, np.copysign(size, before), 0.0)


class BurgersShocks:
    """Burgers' equation as PDEBench's generator solves it: explicit diffusion, and Heun's steps.

    Slopes and flux are ours, so the two differ in time alone.
    """

    def __init__(self, problem: Problem, steps: int):
        n, self._steps, self._num_frames = problem.resolution, steps, problem.num_steps
        h, dt = 1 / n, problem.interval / steps
        (self._x,) = problem.grid.axes()
        viscosity = problem.diffusion / np.pi / h

        def rate(u: np.ndarray) -> np.ndarray:
            padded = np.concatenate([u[-2:], u, u[:2]])
            difference = np.diff(padded)
            half = slopes(difference)
            below, above = (padded[1:-1] + half)[:-1], (padded[1:-1] - half)[1:]
            flux = np.maximum(np.maximum(below, 0) ** 2, np.minimum(above, 0) ** 2) / 2
            flux -= viscosity * difference[1:-1]
            return (flux[:-1] - flux[1:]) / h

        def step(u: np.ndarray) -> np.ndarray:
            first = u + dt * rate(u)
            return (u + first + dt * rate(first)) / 2

        self._step = step

    def __call__(self, parameters: Parameters) -> np.ndarray:
        u = parameters["initial"](self._x)
        return rollout(u, self._step, self._num_frames, self._steps, lambda u: u)


class ShallowWater:
    """A dam that breaks, with our slopes and flux and Heun's steps, in arrays that are allocated by NumPy."""

    def __init__(self, problem: Problem, steps: int):
        self._dam, self._steps, self._num_frames = problem.dam, steps, problem.num_steps
        ratio = problem.interval / steps / problem.spacing

        def along(q: np.ndarray) -> np.ndarray:
            """The change by the fluxes along the last axis, of depth, momentum along it, and momentum across."""
            padded = np.concatenate([q[..., :1], q[..., :1], q, q[..., -1:], q[..., -1:]], axis=-1)
            half = slopes(np.diff(padded))
            inner = padded[..., 1:-1]
            (h, m, t), (k, p, s) = (inner + half)[..., :-1], (inner - half)[..., 1:]
            u, w, c, d = m / h, p / k, np.sqrt(h), np.sqrt(k)
            slowest = np.minimum(np.minimum(u - c, w - d), 0)
            fastest = np.maximum(np.maximum(u + c, w + d), 0)
            share = fastest / (fastest - slowest)
            back = slowest * share
            flux = np.empty_like(inner[..., 1:])
            flux[0] = p + share * (m - p) + back * (k - h)
            above = p * w + k * k / 2
            flux[1] = above + share * (m * u + h * h / 2 - above) + back * (p - m)
            flux[2] = flux[0] * np.where(flux[0] > 0, t / h, s / k)
            return flux[..., :-1] - flux[..., 1:]

        def change(q: np.ndarray) -> np.ndarray:
            total = along(q[[0, 2, 1]])[[0, 2, 1]]
            return total + along(q.swapaxes(1, 2)).swapaxes(1, 2)

        def step(q: np.ndarray) -> np.ndarray:
            first = q + ratio * change(q)
            return (q + first + ratio * change(first)) / 2

        self._step = step

    def __call__(self, parameters: Parameters) -> np.ndarray:
        q = self._dam(parameters["radius"])
        return rollout(q, self._step, self._num_frames, self._steps, lambda q: q)


class KdVBurgers:
    """The combined equation by WENO-Z in shifted arrays, and an integrating factor in time."""

    def __init__(self, problem: Problem, steps: int):
        n, self._waves = problem.resolution, problem.waves
        self._n, self._steps, self._num_frames, self._dt = n, steps, problem.num_steps, problem.interval / steps
        self._k, _ = wave_numbers(n, 16.0)
        self._h = 16.0 / n

    def __call__(self, parameters: Parameters) -> np.ndarray:
        alpha = parameters.get("convection", 1.0)
        linear = -parameters.get("viscosity", 0.0) * self._k**2 + 1j * parameters.get("dispersion", 0.0) * self._k**3
        n, h, dt = self._n, self._h, self._dt
        half = np.exp(linear * dt / 2)
        full = half**2

        def force(time: float) -> np.ndarray:
            return self._waves.modes(parameters["waves"], time)

        def rate(v: np.ndarray) -> np.ndarray:
            u = irfft(v, n)
            flux, speed = alpha * u * u / 2, 1.1 * np.abs(alpha * u).max()
            between = weno((flux + speed * u) / 2) + np.roll(weno((flux - speed * u)[::-1] / 2)[::-1], -1)
            return rfft(np.roll(between, 1) - between) / h

        v, time, frames = force(0.0), 0.0, []
        for _ in range(self._num_frames):
            for _ in range(self._steps):
                first, middle, last = force(time), force(time + dt / 2), force(time + dt)
                a = rate(v) + first
                b = rate(half * (v + dt / 2 * a)) + middle
                c = rate(half * v + dt / 2 * b) + middle
                d = rate(full * v + dt * half * c) + last
                v = full * (v + dt / 6 * a) + dt / 3 * half * (b + c) + dt / 6 * d
                time += dt
            frames.append(irfft(v, n))
        return np.array(frames)


def weno(f: np.ndarray) -> np.ndarray:
    """The flux at the upper face of each cell from below: WENO-Z of order 5 (Borges et al. 2008)."""
    a, b, d, e = np.roll(f, 2), np.roll(f, 1), np.roll(f, -1), np.roll(f, -2)
    first = 13 / 12 * (a - 2 * b + f) ** 2 + (a - 4 * b + 3 * f) ** 2 / 4
    second = 13 / 12 * (b - 2 * f + d) ** 2 + (b - d) ** 2 / 4
    third = 13 / 12 * (f - 2 * d + e) ** 2 + (3 * f - 4 * d + e) ** 2 / 4
    tau = np.abs(first - third)
    p = 0.1 * (1 + (tau / (first + 1e-40)) ** 2)
    q = 0.6 * (1 + (tau / (second + 1e-40)) ** 2)
    r = 0.3 * (1 + (tau / (third + 1e-40)) ** 2)
    total = p * (2 * a - 7 * b + 11 * f) + q * (-b + 5 * f + 2 * d) + r * (2 * f + 5 * d - e)
    return total / (6 * (p + q + r))
