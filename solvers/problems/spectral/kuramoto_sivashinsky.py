"""The Kuramoto-Sivashinsky equation on the circle."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import islice

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.explicit.spectral import (
    ExponentialTimeDifferencingRK4,
    QuadraticFlux,
    Torus,
    check_resolution,
    trajectory,
)
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.parameters.waves import SineSeries
from penstock.solvers.problem import Parameters, Problem, Solve
from penstock.solvers.problems.frames import FEEDS, check_frames, samples

EXTENT = 60.0  # length of the circle
LARGEST_STEP = 0.1


class KuramotoSivashinsky(Problem):
    """Flame fronts in chaos: from the slope u of the front at one time to the next.

    ∂u/∂t + u ∂u/∂x + ∂²u/∂x² + ∂⁴u/∂x⁴ = 0 on a circle of length 60, with mean 0.

    Modes with wave numbers k < 1 grow at the rate k² - k⁴ while they are small; convection takes their energy to short
    waves, which lose it. At first u is a sum of the first five modes with random amplitudes and phases, with
    max |u| = 1, the law of APEBench (Koehler et al. 2024, arXiv 2411.00180). As there a warm-up is dropped, here 200
    intervals of 0.5, after which u has forgotten how it began. APEBench's physical scenario on this circle has the
    coefficients 3.6, 1.44 and 0.4, and so is about five times faster; ours are 1, as in most of the literature.

    Trajectories are chaotic: two that differ by rounding are far apart after some 450 units of time. So a simulation
    that is redone on another kind of processor has the same statistics, and not the same values.

    Pseudo-spectral, products without their modes beyond 2/3 of the largest; steps are of order 4 (exponential time
    differencing), as long as Δt |u| <= h / 2 and Δt <= 0.1 allow.

    A simulation yields a sample per interval after the warm-up, `before` to `solution`: arrays [n] of values at the
    points 60 i / n.

    Args:
        resolution: points on the circle, an even n >= 64. Good values: 96 to 256. At 128 points the shortest waves
            have 2e-5 of the largest.
        num_steps: samples per simulation.
        interval: time between `before` and `solution`. Good values: 0.1 to 2; small errors double in about 9.
        warm_up: intervals that are dropped, at least 0.
    """

    is_transient = True
    feeds = FEEDS

    def __init__(self, *, resolution: int = 128, num_steps: int = 50, interval: float = 0.5, warm_up: int = 200):
        check_resolution(resolution, smallest=64)
        check_frames(num_steps, interval, 1)
        if warm_up < 0:
            raise ValueError(f"warm_up = {warm_up} is a number of intervals: it must be 0 or above")
        self.resolution = resolution
        self.num_steps = num_steps
        self.interval = interval
        self.warm_up = warm_up
        self.space = ParameterSpace(initial=SineSeries(resolution))
        grid = Grid((resolution,), extent=(EXTENT,), centring="vertices", periodic=True)
        self.inputs = (FieldSpec(name="before", on=grid),)
        self.outputs = (FieldSpec(name="solution", on=grid),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        frames = islice(self.frames(parameters["initial"]), self.warm_up, None)
        yield from samples(frames, interval=self.interval)

    def frames(self, initial: np.ndarray) -> Iterator[np.ndarray]:
        """u [n] at first and after each interval, those of the warm-up included."""
        return trajectory(
            *(self.torus, self._method, initial),
            interval=self.interval,
            num_frames=self.warm_up + self.num_steps + 1,
            largest_step=lambda modes: min(LARGEST_STEP, self._flux.largest_step(modes)),
        )

    @cached_property
    def _method(self) -> ExponentialTimeDifferencingRK4:
        return ExponentialTimeDifferencingRK4(self.torus.squares - self.torus.squares**2, self._flux)

    @cached_property
    def _flux(self) -> QuadraticFlux:
        return QuadraticFlux(self.torus, 1.0)

    @cached_property
    def torus(self) -> Torus:
        return Torus(self.resolution, extent=EXTENT)
