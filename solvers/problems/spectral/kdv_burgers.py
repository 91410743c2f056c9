"""The Korteweg-de Vries-Burgers equation on the circle, with forcing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, partial

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.explicit.spectral import (
    ExponentialTimeDifferencingRK4,
    Torus,
    check_resolution,
    trajectory,
)
from penstock.solvers.discretisation.explicit.weno import WenoFlux
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.parameters.waves import TravellingWaves
from penstock.solvers.problem import Parameters, Problem, Solve
from penstock.solvers.problems.frames import FEEDS, check_frames, samples

EXTENT = 16.0  # length of the circle
CONSTANTS = {"convection": 1.0, "viscosity": 0.0, "dispersion": 0.0}  # where a case draws nothing
CASES = {
    "E1": {},
    "E2": {"viscosity": Uniform(0.0, 0.2)},
    "E3": {"convection": Uniform(0.0, 6.0), "viscosity": Uniform(0.1, 0.4), "dispersion": Uniform(0.0, 1.0)},
}
FORCING_TIMES = np.array([0.0, 0.5, 1.0])  # in intervals, from `before` on


class KdVBurgers(Problem):
    """Shocks, diffusion and dispersion under forcing: from u at one time to the next.

    ∂u/∂t + α u ∂u/∂x - β ∂²u/∂x² + γ ∂³u/∂x³ = δ(t, x) on a circle of length 16,
    δ(t, x) = Σ_j A_j sin(ω_j t + 2π l_j x / 16 + φ_j), u(0, x) = δ(0, x).

    This is the combined equation of Brandstetter et al. (2022, arXiv 2202.03376). δ has five waves with A_j uniform on
    [-0.5, 0.5], ω_j on [-0.4, 0.4], l_j on {1, 2}, φ_j on [0, 2π]. In their case E1 α = 1 and β = γ = 0: shocks form,
    in most draws before t = 4. In E2 β is uniform on [0, 0.2]; in E3 α is on [0, 6], β on [0.1, 0.4], γ on [0, 1].
    This is the law of their code. It draws coefficients once per batch of four, we once per simulation. It also samples
    u and δ on points that include both ends of the circle, where they are not periodic; ours are at 16 i / n.

    The convection is by WENO of order 5, as in their code, because β may be 0; the terms with β and γ are exact for
    each Fourier mode. Steps are of order 4 (exponential time differencing), as long as α Δt |u| <= h / 2.

    A simulation yields a sample per interval: from `before`, an array [n], and `forcing` [3, n], which is δ at the
    start, in the middle and at the end of the interval, to `solution` [n]. At the default interval a parabola through
    the three is δ up to 1e-5. Coefficients that are drawn are inputs, too: α `convection`, β `viscosity`, γ
    `dispersion`.

    Args:
        case: "E1", "E2" or "E3".
        resolution: points on the circle, an even n >= 16. Published are 40 to 200, each solved as it is. Good values:
            128 to 512.
        num_steps: samples per simulation.
        interval: time between `before` and `solution`. num_steps * interval is 4 in the published E1 and E2, and 2 in
            E3, with 250 frames.
    """

    is_transient = True
    feeds = FEEDS

    def __init__(self, *, case: str = "E2", resolution: int = 256, num_steps: int = 25, interval: float = 0.16):
        if case not in CASES:
            raise ValueError(f"case = {case!r} is not known: {' or '.join(CASES)}")
        check_resolution(resolution, smallest=16)
        check_frames(num_steps, interval, 1)
        self.case = case
        self.resolution = resolution
        self.num_steps = num_steps
        self.interval = interval
        self.waves = TravellingWaves(resolution, num_waves=5, amplitude=0.5, frequency=0.4, largest_number=2)
        self.space = ParameterSpace(waves=self.waves, **CASES[case])
        grid = Grid((resolution,), extent=(EXTENT,), centring="vertices", periodic=True)
        self.inputs = (
            FieldSpec(name="before", on=grid),
            FieldSpec(name="forcing", on=grid, components=len(FORCING_TIMES)),
            *(FieldSpec(name=name) for name in CASES[case]),
        )
        self.outputs = (FieldSpec(name="solution", on=grid),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        forcing = partial(self.waves.modes, parameters["waves"])
        drawn = {name: parameters[name] for name in CASES[self.case]}
        frames = self.frames(self.torus.values(forcing(0.0)), forcing, **CONSTANTS | drawn)
        for sample in samples(frames, interval=self.interval):
            times = self.interval * (sample.step + FORCING_TIMES)
            values = np.stack([self.torus.values(forcing(time)) for time in times])
            yield replace(sample, inputs={**sample.inputs, "forcing": values, **drawn})

    def frames(
        self,
        initial: np.ndarray,
        forcing: Callable[[float], np.ndarray],
        *,
        convection: float,
        viscosity: float,
        dispersion: float,
    ) -> Iterator[np.ndarray]:
        """u [n] at first and after each interval.

        Args:
            initial: u at first, [n].
            forcing: the modes of δ at a time.
            convection: α.
            viscosity: β.
            dispersion: γ.
        """
        flux = WenoFlux(self.torus, convection)
        linear = -viscosity * self.torus.squares - dispersion * self.torus.gradient[0] ** 3
        return trajectory(
            self.torus,
            ExponentialTimeDifferencingRK4(linear, lambda modes, time: flux(modes, time) + forcing(time)),
            initial,
            interval=self.interval,
            num_frames=self.num_steps + 1,
            largest_step=flux.largest_step,
        )

    @cached_property
    def torus(self) -> Torus:
        return Torus(self.resolution, extent=EXTENT)
