"""The Korteweg-de Vries equation on the circle."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

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

EXTENT = 50.0  # length of the circle
LARGEST_STEP = 0.005


class KortewegDeVries(Problem):
    """Waves on shallow water that form solitons: from u at one time to the next.

    ∂u/∂t + 6 u ∂u/∂x + ∂³u/∂x³ + μ ∂⁴u/∂x⁴ = 0 on a circle of length 50.

    At first u is a sum of the first five modes with random amplitudes and phases, with max |u| = 1: the law of APEBench
    (Koehler et al. 2024, arXiv 2411.00180), whose KdV scenario in physical units has this circle, a frame per 0.1 and
    μ = 0.125. With μ = 0, the default, the mean of u, of u² and of 2 u³ - (∂u/∂x)² stay what they are.

    Pseudo-spectral, products without their modes beyond 2/3 of the largest; steps are of order 4 (exponential time
    differencing), as long as 6 Δt |u| <= h / 2 and Δt <= 0.005 allow.

    A simulation yields a sample per interval, `before` to `solution`: arrays [n] of values at the points 50 i / n.

    Args:
        resolution: points on the circle, an even n >= 64. Good values: 160, as in APEBench, to 512.
        hyperviscosity: μ >= 0.
        num_steps: samples per simulation. APEBench trains on 50.
        interval: time between `before` and `solution`.
    """

    is_transient = True
    feeds = FEEDS

    def __init__(
        self, *, resolution: int = 256, hyperviscosity: float = 0.0, num_steps: int = 50, interval: float = 0.1
    ):
        check_resolution(resolution, smallest=64)
        if not 0 <= hyperviscosity < np.inf:
            raise ValueError(f"hyperviscosity = {hyperviscosity} must be 0 or above, and finite")
        check_frames(num_steps, interval, 1)
        self.resolution = resolution
        self.hyperviscosity = hyperviscosity
        self.num_steps = num_steps
        self.interval = interval
        self.space = ParameterSpace(initial=SineSeries(resolution))
        grid = Grid((resolution,), extent=(EXTENT,), centring="vertices", periodic=True)
        self.inputs = (FieldSpec(name="before", on=grid),)
        self.outputs = (FieldSpec(name="solution", on=grid),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        yield from samples(self.frames(parameters["initial"]), interval=self.interval)

    def frames(self, initial: np.ndarray) -> Iterator[np.ndarray]:
        """u [n] at first and after each interval."""
        return trajectory(
            *(self.torus, self._method, initial),
            interval=self.interval,
            num_frames=self.num_steps + 1,
            largest_step=lambda modes: min(LARGEST_STEP, self._flux.largest_step(modes)),
        )

    @cached_property
    def _method(self) -> ExponentialTimeDifferencingRK4:
        linear = -(self.torus.gradient[0] ** 3) - self.hyperviscosity * self.torus.squares**2
        return ExponentialTimeDifferencingRK4(linear, self._flux)

    @cached_property
    def _flux(self) -> QuadraticFlux:
        return QuadraticFlux(self.torus, 6.0)

    @cached_property
    def torus(self) -> Torus:
        return Torus(self.resolution, extent=EXTENT)
