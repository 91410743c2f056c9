"""Two substances that diffuse and react: FitzHugh and Nagumo's model."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from math import ceil

import numpy as np
from scipy.special import ndtr, ndtri

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.explicit.cell_diffusion import CellDiffusion
from penstock.solvers.discretisation.explicit.time_steps import midpoint, strang
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.problem import Parameters, Problem, Solve
from penstock.solvers.problems.frames import FEEDS, check_frames, samples

EXTENT = 2.0  # of the square, whose middle is the origin
DIFFUSIVITIES = (1e-3, 5e-3)  # of u and v
DECAY = 5e-3  # k
LARGEST_STEP = 0.01


class DiffusionReaction(Problem):
    """An activator and an inhibitor that diffuse and react: from both to both later.

    ∂u/∂t = 0.001 Δu + u - u³ - 0.005 - v,   ∂v/∂t = 0.005 Δv + u - v   on (-1, 1)², no flux through the boundary.

    At first both are white noise: an independent standard normal number in each cell. This is the two-dimensional
    diffusion-reaction set of PDEBench (Takamoto et al., 2022, arXiv 2210.07182): 128 x 128 cells, t <= 5, a frame every
    0.05, 1000 simulations. White noise has no limit on finer grids: another `resolution` is another law.

    Finite volumes with central differences, as theirs. Strang's splitting: diffusion exact in time by cosine
    transforms, the reaction by the midpoint rule, Δt <= 0.01, which leaves an error of 1e-3. Theirs is an adaptive
    Runge-Kutta method with a tolerance of 1e-3.

    A simulation yields a sample per interval, `before` to `solution`: arrays [2, n, n] of u and v in cells, indexed
    [x, y].

    Args:
        resolution: cells along each axis, n >= 2. Published are 128.
        num_steps: samples per simulation, at least 1.
        interval: time between `before` and `solution`.
    """

    is_transient = True
    feeds = FEEDS

    def __init__(self, *, resolution: int = 128, num_steps: int = 20, interval: float = 0.25):
        if resolution < 2:
            raise ValueError(f"resolution = {resolution} is too small: diffusion needs at least 2 cells per axis")
        check_frames(num_steps, interval, 1)
        self.resolution = resolution
        self.num_steps = num_steps
        self.interval = interval
        self.space = ParameterSpace(initial=WhiteNoise((2, resolution, resolution)))
        grid = Grid((resolution, resolution), extent=(EXTENT, EXTENT), origin=(-EXTENT / 2, -EXTENT / 2))
        self.inputs = (FieldSpec(name="before", on=grid, components=2),)
        self.outputs = (FieldSpec(name="solution", on=grid, components=2),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        yield from samples(self.frames(parameters["initial"]), interval=self.interval)

    def frames(self, state: np.ndarray) -> Iterator[np.ndarray]:
        """u and v [2, n, n] at first and after each interval."""
        yield state
        num_steps = ceil(self.interval / LARGEST_STEP * (1 - 1e-12))
        for _ in range(self.num_steps):
            state = strang(
                state,
                outer=lambda state, step: midpoint(reaction, state, step),
                inner=self._diffusion.flow,
                step=self.interval / num_steps,
                num_steps=num_steps,
            )
            yield state

    @cached_property
    def _diffusion(self) -> CellDiffusion:
        shape = (self.resolution, self.resolution)
        return CellDiffusion(shape, EXTENT / self.resolution, DIFFUSIVITIES, is_periodic=False)


def reaction(state: np.ndarray) -> np.ndarray:
    """∂u/∂t and ∂v/∂t without diffusion, [2, *grid]."""
    u, v = state
    inhibited = u - v
    return np.stack([inhibited - u * u**2 - DECAY, inhibited])  # u**3 takes 30 times longer


class WhiteNoise:
    """Independent standard normal numbers.

    Args:
        shape: of a draw: components in front, then cells.
    """

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """One array of this shape."""
        return generator.standard_normal(self.shape)

    def features(self, value: np.ndarray) -> np.ndarray:
        """The numbers, scaled so that two draws are about √2 apart."""
        return value.ravel() / np.sqrt(value.size)

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The names of `quantiles`: one per component."""
        return tuple(f"{name}_mean_{component}" for component in range(self.shape[0]))

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantile of each component's mean over the cells, which is normal."""
        cells = self.draw(generator).reshape(self.shape[0], -1)
        return ndtr(cells.mean(axis=1) * np.sqrt(cells.shape[1]))

    def at_quantiles(self, quantiles: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The array with these quantiles of its means; what differs from them is drawn."""
        cells = self.draw(generator).reshape(self.shape[0], -1)
        means = ndtri(quantiles) / np.sqrt(cells.shape[1])
        return (cells + (means - cells.mean(axis=1))[:, None]).reshape(self.shape)

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return "white noise: an independent standard normal number in each cell"
