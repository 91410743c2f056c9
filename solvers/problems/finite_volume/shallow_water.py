"""A dam that breaks in shallow water."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.explicit.finite_volume import FiniteVolumes, hll, march
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import Parameters, Problem, Solve
from penstock.solvers.problems.frames import FEEDS, check_frames, samples

EXTENT = 5.0  # of the square, whose middle is the origin
INSIDE, OUTSIDE = 2.0, 1.0  # depths at first
COURANT = 0.8  # of a step: Δt / h times the sum of the fastest speeds along x and y


class ShallowWater(Problem):
    """A round dam that breaks: from depth and momentum to those a little later.

    The shallow-water equations,

    ∂h/∂t + ∇·(h u) = 0,   ∂(h u)/∂t + ∇·(h u ⊗ u) + ∇h²/2 = 0   on (-2.5, 2.5)², gravity 1.

    At first the water is at rest, 2 deep within a distance R of the middle and 1 elsewhere, R uniform on [0.3, 0.7].
    Waves leave through the boundary, where the state goes on as in the outermost cell. This is the shallow-water set of
    PDEBench (Takamoto et al., 2022, arXiv 2210.07182): 128 x 128 cells, t <= 1, a frame every 0.01, 1000 simulations.
    In three things ours differs. Samples have the momentum too, because the depth alone does not say what comes next.
    At first the dam is a ramp one cell wide, so that every R is another field; theirs has steps from cell to cell. And
    the flux is that of Harten, Lax and van Leer, with the transverse velocity from upwind, where theirs is Roe's.

    Finite volumes with limited slopes, the same limiter as theirs; Heun's steps, as long as the waves allow.

    A simulation yields a sample per interval, `before` to `solution`: arrays [3, n, n] of h, h u_x and h u_y in cells,
    indexed [x, y].

    Args:
        resolution: cells along each axis, n >= 16. Good values: 64 to 256.
        num_steps: samples per simulation, at least 1.
        interval: time between `before` and `solution`.
    """

    is_transient = True
    feeds = FEEDS

    def __init__(self, *, resolution: int = 128, num_steps: int = 20, interval: float = 0.05):
        if resolution < 16:
            raise ValueError(f"resolution = {resolution} is too small: the dam needs at least 16 cells per axis")
        check_frames(num_steps, interval, 1)
        self.spacing = EXTENT / resolution
        self.num_steps = num_steps
        self.interval = interval
        self.space = ParameterSpace(radius=Uniform(0.3, 0.7))
        self.grid = Grid((resolution, resolution), extent=(EXTENT, EXTENT), origin=(-EXTENT / 2, -EXTENT / 2))
        self.inputs = (FieldSpec(name="before", on=self.grid, components=3),)
        self.outputs = (FieldSpec(name="solution", on=self.grid, components=3),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        yield from samples(self.frames(self.dam(parameters["radius"])), interval=self.interval)

    def dam(self, radius: float) -> np.ndarray:
        """The state at first, [3, n, n]."""
        x, y = self.grid.axes()
        inside = np.clip((radius - np.hypot(x[:, None], y)) / self.spacing + 0.5, 0, 1)
        depth = OUTSIDE + (INSIDE - OUTSIDE) * inside
        return np.stack([depth, np.zeros_like(depth), np.zeros_like(depth)])

    def frames(self, initial: np.ndarray) -> Iterator[np.ndarray]:
        """The state [3, *grid] at first and after each interval."""
        return march(
            initial,
            self._volumes.step,
            interval=self.interval,
            num_frames=self.num_steps + 1,
            largest_step=self.largest_step,
        )

    def largest_step(self, state: np.ndarray) -> float:
        """The longest step that the waves allow, from the state [3, *grid]."""
        depth, *momenta = state
        celerity = np.sqrt(depth)
        return COURANT * self.spacing / sum((np.abs(momentum) / depth + celerity).max() for momentum in momenta)

    @cached_property
    def _volumes(self) -> FiniteVolumes:
        return FiniteVolumes(self.spacing, flux, beyond="clip")


def flux(below: np.ndarray, above: np.ndarray, axis: int) -> np.ndarray:
    """The flux of h, h u_x and h u_y between two states.

    Args:
        below: [3, *faces].
        above: [3, *faces].
        axis: 0 for faces normal to x, 1 for those normal to y.
    """
    normal, transverse = 1 + axis, 2 - axis
    waves = slice(0, normal + 1, normal)  # h and the normal momentum
    slowest, fastest, fluxes = [], [], []
    for state in (below, above):
        velocity, celerity = state[normal] / state[0], np.sqrt(state[0])
        slowest.append(velocity - celerity)
        fastest.append(velocity + celerity)
        wave_flux = np.empty_like(state[waves])
        wave_flux[0] = state[normal]
        np.multiply(state[0], state[0] / 2, out=wave_flux[1])
        wave_flux[1] += np.multiply(state[normal], velocity, out=velocity)
        fluxes.append(wave_flux)
    through = np.empty_like(below)
    through[waves] = hll(
        *((below[waves], above[waves]), tuple(fluxes)), slowest=np.minimum(*slowest), fastest=np.maximum(*fastest)
    )
    source = through[0] > 0
    upwind = np.where(source, below[transverse], above[transverse]) / np.where(source, below[0], above[0])
    np.multiply(through[0], upwind, out=through[transverse])
    return through
