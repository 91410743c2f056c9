"""Navier-Stokes in vorticity form on the torus."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.explicit.spectral import IntegratingFactorRK4, Torus, check_resolution, trajectory
from penstock.solvers.parameters.fields import PeriodicField
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.problem import Parameters, Problem, Solve
from penstock.solvers.problems.frames import FEEDS, check_frames, samples

LAWS = {"paper": 7**1.5, "code": 7**3}  # scale of the covariance of w at first
COURANT = 0.5  # of a step: |u| Δt / h
LARGEST_STEP = 0.1


class NavierStokes(Problem):
    """Flow on the torus: from vorticity w at some times to w at the next.

    ∂w/∂t + u·∇w = ν Δw + f,   u = (∂ψ/∂y, -∂ψ/∂x),   -Δψ = w   on the unit torus,
    f = 0.1 (sin 2π(x + y) + cos 2π(x + y)).

    This is the set of Li et al. (2021, arXiv 2010.08895, A.3.3), at ν = 1e-3 to t = 50, at 1e-4 to t = 30 and at 1e-5
    to t = 20. At first w is a Gaussian field with covariance σ² (-Δ + 49)^-2.5, σ² = 7^1.5 in the paper and 7³ in its
    published code, a standard deviation of 0.043 or 0.185; the forcing soon outweighs it.

    Pseudo-spectral; products lose their modes beyond 2/3 of the largest, as in the published code. Steps are of order 4
    (an integrating-factor Runge-Kutta method), as long as Δt |u| <= h / 2 and Δt <= 0.1 allow.

    A simulation yields a sample per unit of time: from `before`, the vorticity at the last `history` times, to
    `solution`, at the points i / n: arrays [n, n] indexed [x, y], with a first axis of frames where there are several.

    Args:
        resolution: points along each axis, an even n >= 8. At ν = 1e-3 64 points and these steps leave an error of 5e-9
            at t = 20, at 1e-4 one of 1 %; at 1e-5 take 256.
        viscosity: ν > 0. The published values are 1e-3, 1e-4 and 1e-5.
        num_steps: samples per simulation. Published are 40, 20 and 10, with a history of 10.
        interval: time between frames.
        history: frames that are given, at least 1.
        law: of the vorticity at first: "paper" or "code".
    """

    is_transient = True

    def __init__(
        self,
        *,
        resolution: int = 64,
        viscosity: float = 1e-3,
        num_steps: int = 20,
        interval: float = 1.0,
        history: int = 1,
        law: str = "paper",
    ):
        check_resolution(resolution)
        if not 0 < viscosity < np.inf:
            raise ValueError(f"viscosity = {viscosity} must be above 0 and finite")
        check_frames(num_steps, interval, history)
        if law not in LAWS:
            raise ValueError(f"law = {law!r} is not known: {' or '.join(LAWS)}")
        self.resolution = resolution
        self.viscosity = viscosity
        self.num_steps = num_steps
        self.interval = interval
        self.history = history
        self.feeds = FEEDS if history == 1 else {}
        self.space = ParameterSpace(
            vorticity=PeriodicField(
                resolution, dimension=2, scale=LAWS[law], exponent=2.5, inverse_length=7.0, num_modes=32
            )
        )
        grid = Grid((resolution, resolution), centring="vertices", periodic=True)
        self.inputs = (FieldSpec(name="before", on=grid, components=history), FieldSpec(name="time"))
        self.outputs = (FieldSpec(name="solution", on=grid),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        yield from samples(self.frames(parameters["vorticity"]), interval=self.interval, history=self.history)

    def frames(self, vorticity: np.ndarray) -> Iterator[np.ndarray]:
        """The vorticity [n, n] at first and after each interval."""
        return trajectory(
            *(self.torus, self._method, vorticity),
            interval=self.interval,
            num_frames=self.num_steps + self.history,
            largest_step=self.largest_step,
        )

    def acceleration(self, modes: np.ndarray, time: float) -> np.ndarray:
        """The modes of f - u·∇w, from those of w.

        u·∇w = (∂²/∂x² - ∂²/∂y²) (u v) + ∂²/∂x∂y (v² - u²), u and v the velocity's components: four transforms and not
        five (Basdevant 1983, J. Comput. Phys. 50), two by two.
        """
        u, v = self.velocity(modes)
        products = np.empty((2, *self.torus.shape))
        np.multiply(u, v, out=products[0])
        np.multiply(v - u, v + u, out=products[1])
        by_product = self.torus.modes(products)
        by_product *= self._curls
        return self._forcing - by_product[0] - by_product[1]

    def velocity(self, modes: np.ndarray) -> np.ndarray:
        """u on the grid, [2, n, n], from the modes of w.

        Those beyond 2/3 of the largest are left out, so that products of two velocities have no aliases.
        """
        return self.torus.values(self._to_velocity * modes)

    def largest_step(self, modes: np.ndarray) -> float:
        """The longest step Δt that the flow allows."""
        fastest = np.abs(self.velocity(modes)).max()
        return min(LARGEST_STEP, COURANT * self.torus.spacing / max(fastest, 1e-30))

    @cached_property
    def torus(self) -> Torus:
        return Torus(self.resolution, 2)

    @cached_property
    def _method(self) -> IntegratingFactorRK4:
        return IntegratingFactorRK4(-self.viscosity * self.torus.squares, self.acceleration)

    @cached_property
    def _to_velocity(self) -> np.ndarray:
        """The factors from w to u, [2, *K]; 0 for the mean, which no flow has."""
        along_x, along_y = self.torus.gradient
        squares = np.where(self.torus.squares > 0, self.torus.squares, np.inf)
        return np.stack(np.broadcast_arrays(along_y, -along_x)) * self.torus.is_resolved / squares

    @cached_property
    def _curls(self) -> np.ndarray:
        """The factors of the two products in u·∇w, [2, *K]."""
        along_x, along_y = self.torus.gradient
        return np.stack([along_x**2 - along_y**2, along_x * along_y]) * self.torus.is_resolved

    @cached_property
    def _forcing(self) -> np.ndarray:
        x = np.arange(self.resolution) / self.resolution
        phase = 2 * np.pi * (x[:, None] + x)
        return self.torus.modes(0.1 * (np.sin(phase) + np.cos(phase)))
