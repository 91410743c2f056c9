"""Burgers' equation on the circle."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from math import ceil, sqrt

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.explicit.spectral import (
    IntegratingFactorRK4,
    QuadraticFlux,
    Torus,
    check_resolution,
    trajectory,
)
from penstock.solvers.parameters.fields import PeriodicField
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.problem import Parameters, Problem, Solve
from penstock.solvers.problems.frames import FEEDS, check_frames, samples

LAWS = {  # of u at first: scale, exponent and inverse length of its covariance
    "paper": {"scale": 625.0, "exponent": 2.0, "inverse_length": 5.0},
    "code": {"scale": 7.0**4, "exponent": 2.5, "inverse_length": 7.0},
}
COURANT = 1.0  # of a step: |u| Δt / h; the error is 2e-9 at ν = 0.1 and 0.01, and 2e-6 at 0.001
LARGEST_STEP = 1e-2


class Burgers(Problem):
    """Burgers' equation on the unit circle: from u at one time to u at a later one.

    ∂u/∂t + ∂(u²/2)/∂x = ν ∂²u/∂x².

    At first u is a Gaussian field with covariance 625 (-Δ + 25)^-2 without a mean: the set of Li et al. (2021, arXiv
    2010.08895, A.3.1), who learn u(1) from u(0) at ν = 0.1, or 7⁴ (-Δ + 49)^-2.5 as in their published code. At ν = 0.1
    u(1) is 60 times smaller than u(0); the law is theirs, and we do not claim the statistics of their public file.

    Pseudo-spectral, products without their modes beyond 2/3 of the largest; steps of order 4, as long as
    Δt |u| <= h allows.

    A simulation yields a sample per interval, `before` to `solution`: arrays [n] of values at the points i / n.

    Args:
        resolution: points on the circle, an even n >= 8. Good values: 256 to 8192.
        viscosity: ν > 0. Published are 0.1, later 0.01 and 0.001. With σ the standard deviation of u at first, shocks
            are about 2 ν / σ wide, and must be a cell wide at least: ν >= 0.3 / n for the law "paper", 0.14 / n for
            "code". There errors reach about 4 %, at twice this 1 %.
        num_steps: samples per simulation, at least 1.
        interval: time between `before` and `solution`.
        law: of u at first: "paper" or "code".
    """

    is_transient = True
    feeds = FEEDS

    def __init__(
        self,
        *,
        resolution: int = 1024,
        viscosity: float = 0.1,
        num_steps: int = 1,
        interval: float = 1.0,
        law: str = "paper",
    ):
        check_resolution(resolution)
        if not 0 < viscosity < np.inf:
            raise ValueError(f"viscosity = {viscosity} must be above 0 and finite")
        check_frames(num_steps, interval, 1)
        if law not in LAWS:
            raise ValueError(f"law = {law!r} is not known: {' or '.join(LAWS)}")
        self.resolution = resolution
        self.viscosity = viscosity
        self.num_steps = num_steps
        self.interval = interval
        self.space = ParameterSpace(initial=PeriodicField(resolution, num_modes=128, **LAWS[law]))
        check_shocks(resolution, viscosity, sqrt(self.space.distributions["initial"].variance))
        grid = Grid((resolution,), centring="vertices", periodic=True)
        self.inputs = (FieldSpec(name="before", on=grid),)
        self.outputs = (FieldSpec(name="solution", on=grid),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        yield from samples(self.frames(parameters["initial"]), interval=self.interval)

    def frames(self, initial: np.ndarray) -> Iterator[np.ndarray]:
        """u [n] at first and after each interval."""
        flux = QuadraticFlux(self.torus, 1.0)
        return trajectory(
            *(self.torus, IntegratingFactorRK4(-self.viscosity * self.torus.squares, flux), initial),
            interval=self.interval,
            num_frames=self.num_steps + 1,
            largest_step=lambda modes: min(LARGEST_STEP, flux.largest_step(modes, COURANT)),
        )

    @cached_property
    def torus(self) -> Torus:
        return Torus(self.resolution)


def check_shocks(resolution: int, viscosity: float, deviation: float) -> None:
    """Check that shocks are a cell wide.

    A shock of height Δ is -Δ/2 tanh(Δ x / (4 ν)) (Burgers, 1948, Adv. Appl. Mech. 1; Whitham, Linear and nonlinear
    waves, 1974, chapter 4): Δ over its steepest slope is 8 ν / Δ. Δ counts as four standard deviations.

    Args:
        resolution: points on the unit circle.
        viscosity: ν.
        deviation: standard deviation of u at first.

    Raises:
        ValueError: shocks are narrower.
    """
    if (width := 2 * viscosity / deviation) * resolution < 1:
        points = 2 * ceil(deviation / (4 * viscosity))
        raise ValueError(
            f"viscosity = {viscosity:g} makes shocks about {width:.2g} wide, less than the distance of the "
            f"{resolution} points: give a greater viscosity, or a resolution of {points} or above"
        )
