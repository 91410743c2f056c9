"""Patterns of two substances that react: Gray and Scott's model."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.stencil import StencilMatrix
from penstock.solvers.discretisation.explicit.spectral import Torus, check_resolution
from penstock.solvers.discretisation.explicit.time_steps import rk4, strang
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.problem import LinearSystem, Parameters, Problem, Solve
from penstock.solvers.problems.frames import FEEDS, check_frames, samples

if TYPE_CHECKING:
    from petsc4py import PETSc

PATTERNS = {  # rates of feed and kill
    "gliders": (0.014, 0.054),
    "bubbles": (0.098, 0.057),
    "maze": (0.029, 0.057),
    "worms": (0.058, 0.065),
    "spirals": (0.018, 0.051),
    "spots": (0.030, 0.062),
}
METHODS = ("fft", "systems")
EXTENT = 2.0  # of the square, whose middle is the origin
DIFFUSIVITIES = (2e-5, 1e-5)  # of a and b
LARGEST_STEP = 0.5
DEVIATION = 0.13  # of a and b at first, about
FEWEST, MOST = 10, 100  # humps of a, and of b


class GrayScott(Problem):
    """Two substances that diffuse and react: from both to both a little later.

    ∂a/∂t = 2e-5 Δa - a b² + F (1 - a),   ∂b/∂t = 1e-5 Δb + a b² - (F + k) b   on (-1, 1)², periodic.

    The feed F and the kill k decide on the pattern that arises (Pearson, 1993). At first a is 1 less a sum of humps and
    b is another sum of humps, both shifted and scaled to [0, 1]: the law of `Clusters`. This is the Gray-Scott set of
    The Well (Ohana et al., 2024, arXiv 2412.00568) for the half of its simulations that begin so: 128 x 128 points,
    t <= 10,000, a frame every 10, six patterns. The other half begins with trigonometric noise.

    Strang's splitting, Δt <= 0.5: the reaction by the classical Runge-Kutta method, and diffusion exact in time by
    Fourier transforms. Theirs is spectral too, with steps of order 4 and Δt = 1. With `diffusion="systems"` diffusion
    is central differences in space and Crank and Nicolson's method in time instead, two systems per step,

        (I - Δt D/2 Δ_h) m = c,   c + Δt D Δ_h m = 2 m - c at the end of the step,

    for a and for b, each with one symmetric positive definite matrix for all steps and draws.

    A simulation yields a sample per interval, `before` to `solution`: arrays [2, n, n] of a and b at the points
    2 i / n - 1, indexed [x, y].

    Args:
        resolution: points along each axis, an even n >= 8. Good values: 128 to 256; spots are 0.05 wide.
        pattern: "gliders", "bubbles", "maze", "worms", "spirals" or "spots".
        num_steps: samples per simulation, at least 1. Published are 1000.
        interval: time between `before` and `solution`.
        diffusion: "fft", or "systems" for linear systems.
    """

    is_transient = True
    feeds = FEEDS

    def __init__(
        self,
        *,
        resolution: int = 128,
        pattern: str = "spots",
        num_steps: int = 50,
        interval: float = 10.0,
        diffusion: str = "fft",
    ):
        check_resolution(resolution)
        if pattern not in PATTERNS:
            raise ValueError(f"pattern = {pattern!r} is not known: {', '.join(PATTERNS)}")
        check_frames(num_steps, interval, 1)
        if diffusion not in METHODS:
            raise ValueError(f"diffusion = {diffusion!r} is not known: {' or '.join(METHODS)}")
        self.resolution = resolution
        self.feed, self.kill = PATTERNS[pattern]
        self.num_steps = num_steps
        self.interval = interval
        self.diffusion = diffusion
        self.steps_per_frame = ceil(interval / LARGEST_STEP * (1 - 1e-12))
        grid = Grid(
            (resolution, resolution),
            extent=(EXTENT, EXTENT),
            origin=(-EXTENT / 2, -EXTENT / 2),
            centring="vertices",
            periodic=True,
        )
        self.space = ParameterSpace(initial=Clusters(resolution))
        self.inputs = (FieldSpec(name="before", on=grid, components=2),)
        self.outputs = (FieldSpec(name="solution", on=grid, components=2),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        yield from samples(self.frames(parameters["initial"], solve), interval=self.interval)

    def frames(self, state: np.ndarray, solve: Solve) -> Iterator[np.ndarray]:
        """a and b [2, n, n] at first and after each interval."""

        def diffuse(state: np.ndarray, step: float) -> np.ndarray:
            return self._by_modes(state) if self.diffusion == "fft" else self._by_systems(state, solve)

        yield state
        for _ in range(self.num_steps):
            state = strang(
                state,
                outer=lambda state, step: rk4(self.reaction, state, step),
                inner=diffuse,
                step=self.interval / self.steps_per_frame,
                num_steps=self.steps_per_frame,
            )
            yield state

    def reaction(self, state: np.ndarray) -> np.ndarray:
        """∂a/∂t and ∂b/∂t without diffusion, [2, *grid]."""
        a, b = state
        made = a * b**2
        return np.stack([self.feed * (1 - a) - made, made - (self.feed + self.kill) * b])

    def _by_modes(self, state: np.ndarray) -> np.ndarray:
        """a and b after a step of diffusion, exactly."""
        torus = self._torus
        return np.stack([torus.values(decay * torus.modes(c)) for decay, c in zip(self._decay, state, strict=True)])

    def _by_systems(self, state: np.ndarray, solve: Solve) -> np.ndarray:
        """a and b after a step of diffusion by Crank and Nicolson's method.

        The guess is c at the start of the step.
        """
        later = np.empty_like(state)
        for number, (name, matrix) in enumerate(self._matrices.items()):
            b = matrix.createVecLeft()
            b.array = state[number].ravel()
            system = LinearSystem(A=matrix, b=b, is_spd=True, family=f"gray_scott_{name}", guess=b.copy())
            later[number] = 2 * solve(system).x.array_r.reshape(state[number].shape) - state[number]
        return later

    @cached_property
    def _torus(self) -> Torus:
        return Torus(self.resolution, 2, extent=EXTENT)

    @cached_property
    def _decay(self) -> list[np.ndarray]:
        """The factors exp(-D |k|² Δt) of a and b."""
        step = self.interval / self.steps_per_frame
        return [np.exp(-diffusivity * step * self._torus.squares) for diffusivity in DIFFUSIVITIES]

    @cached_property
    def _matrices(self) -> dict[str, PETSc.Mat]:
        """I - Δt D/2 Δ_h of a and of b, by name."""
        n, step = self.resolution, self.interval / self.steps_per_frame
        neighbours = [(1, 0), (-1, 0), (0, 1), (0, -1)]
        around = [(n - 1, 0), (1 - n, 0), (0, n - 1), (0, 1 - n)]  # across the boundary
        matrices = {}
        for name, diffusivity in zip("ab", DIFFUSIVITIES, strict=True):
            coupling = step * diffusivity / 2 * (n / EXTENT) ** 2
            matrix = StencilMatrix((n, n), [(0, 0), *neighbours, *around], is_spd=True)
            values = np.full((9, n, n), -coupling)
            values[0] = 1 + 4 * coupling
            matrices[name] = matrix.overwrite(values)
        return matrices


class Clusters:
    """The law of a and b at first: clusters of humps, as in the code of The Well.

    A cluster is a sum of A exp(-s r²) over N places, 10 to 100 of them, uniform on the square, with A ~ U(1, 3) and
    s ~ U(150, 300); r is the distance on the torus. One cluster is shifted and scaled to [0, 1] and is b, another one
    likewise is 1 - a.

    Args:
        resolution: n, points along each axis.
    """

    def __init__(self, resolution: int):
        self.resolution = resolution

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """a and b at first, [2, n, n]."""
        return self._of(generator.random(2), generator)

    def at_quantiles(self, quantiles: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """a and b whose numbers of humps have these quantiles, [2]; the humps are drawn."""
        generator.random(2)  # those of `draw`
        return self._of(quantiles, generator)

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The names of `quantiles`."""
        return (f"{name}_number_a", f"{name}_number_b")

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantiles of N for a and for b, [2]."""
        quantiles = generator.random(2)
        self._of(quantiles, generator)
        return quantiles

    def _of(self, quantiles: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        missing, b = (self._cluster(FEWEST + int((MOST + 1 - FEWEST) * quantile), generator) for quantile in quantiles)
        return np.stack([1 - missing, b])

    def _cluster(self, number: int, generator: np.random.Generator) -> np.ndarray:
        heights, rates = generator.uniform(1, 3, number), generator.uniform(150, 300, number)
        offsets = EXTENT * (np.arange(self.resolution) / self.resolution - generator.random((2, number, 1)))
        offsets = (offsets + EXTENT / 2) % EXTENT - EXTENT / 2  # to the nearest image
        along_x, along_y = np.exp(-rates[:, None] * offsets**2)
        total = (heights[:, None] * along_x).T @ along_y
        return (total - total.min()) / (total.max() - total.min())

    def features(self, value: np.ndarray) -> np.ndarray:
        """a and b, flattened and scaled so that draws differ by about 1."""
        return value.ravel() / np.sqrt(DEVIATION**2 * value.size)

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return f"{FEWEST} to {MOST} humps, 0.04 to 0.06 wide, that b has and 1 - a has, both scaled to [0, 1]"
