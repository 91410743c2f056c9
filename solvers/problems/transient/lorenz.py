"""Lorenz's equations of convection."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import numpy as np

from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.explicit.time_steps import rk4
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import Parameters, Problem, Solve
from penstock.solvers.problems.frames import FEEDS, check_frames, samples

COEFFICIENTS = ("sigma", "rho", "beta")
LARGEST_STEP = 0.01


class Lorenz(Problem):
    """Lorenz's equations: from three numbers at one time to the same at the next.

    x' = σ (y - x),   y' = x (ρ - z) - y,   z' = x y - β z   (Lorenz, 1963, "Deterministic nonperiodic flow").

    Drawn are σ from [8, 12], ρ from [20, 35] and β from [2, 3], around the classical 10, 28 and 8/3, and at first x and
    y from [-15, 15] and z from [10, 40], all uniform. Most trajectories are chaotic, a distance grows by about
    exp(0.9 t); where ρ is small some come to rest at (±√(β (ρ - 1)), ±√(β (ρ - 1)), ρ - 1). The Lorenz example of
    Melissa, a framework for online training, has other ranges, which its papers do not give.

    The classical Runge-Kutta method, Δt <= 0.01: an error of 1e-4 at t = 2.

    A simulation yields a sample per interval, from `before` and `sigma`, `rho` and `beta` to `solution`; `before` and
    `solution` are arrays [3] of x, y and z. There are no fields (`model: mlp`).

    Args:
        num_steps: samples per simulation, at least 1.
        interval: time between `before` and `solution`. Good values: 0.01 to 0.5.
    """

    is_transient = True
    feeds = FEEDS

    def __init__(self, *, num_steps: int = 100, interval: float = 0.1):
        check_frames(num_steps, interval, 1)
        self.num_steps = num_steps
        self.interval = interval
        self.space = ParameterSpace(
            sigma=Uniform(8.0, 12.0),
            rho=Uniform(20.0, 35.0),
            beta=Uniform(2.0, 3.0),
            x=Uniform(-15.0, 15.0),
            y=Uniform(-15.0, 15.0),
            z=Uniform(10.0, 40.0),
        )
        self.inputs = (FieldSpec(name="before", components=3), *(FieldSpec(name=name) for name in COEFFICIENTS))
        self.outputs = (FieldSpec(name="solution", components=3),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        yield from samples(
            self.frames(parameters),
            interval=self.interval,
            constants={name: parameters[name] for name in COEFFICIENTS},
        )

    def frames(self, parameters: Parameters) -> Iterator[np.ndarray]:
        """x, y and z, [3], at first and after each interval."""
        sigma, rho, beta = (parameters[name] for name in COEFFICIENTS)

        def rate(state: np.ndarray) -> np.ndarray:
            x, y, z = state.tolist()  # Python's floats are faster than NumPy's
            return np.array([sigma * (y - x), x * (rho - z) - y, x * y - beta * z])

        state = np.array([parameters["x"], parameters["y"], parameters["z"]])
        yield state
        num_steps = ceil(self.interval / LARGEST_STEP * (1 - 1e-12))
        for _ in range(self.num_steps):
            for _ in range(num_steps):
                state = rk4(rate, state, self.interval / num_steps)
            yield state
