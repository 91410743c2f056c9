"""Burgers' equation with shocks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from penstock.layout import Sample
from penstock.solvers.discretisation.explicit.cell_diffusion import CellDiffusion
from penstock.solvers.discretisation.explicit.finite_volume import FiniteVolumes, march
from penstock.solvers.discretisation.explicit.time_steps import strang
from penstock.solvers.problem import Parameters, Solve
from penstock.solvers.problems.finite_volume.circle import OnCircle
from penstock.solvers.problems.frames import samples

COURANT = 0.5  # of half a step, |u| Δt / (2 h): up to here no step makes a new extreme


class BurgersShocks(OnCircle):
    """Burgers' equation with shocks: from u at one time to u at the next.

    ∂u/∂t + ∂(u²/2)/∂x = (ε / π) ∂²u/∂x²   on the unit circle.

    At first u is a sum of sines, now and then an absolute value or cut off by a window: the law of `RandomWaves`. This
    is the Burgers set of PDEBench (Takamoto et al., 2022, arXiv 2210.07182): 1024 cells, t <= 2, a frame every 0.01,
    10,000 simulations for each of ε = 0.001, 0.002, 0.004 and ten, a hundred and a thousand times these.

    Finite volumes with limited slopes and Godunov's flux, so shocks are a few cells wide and do not oscillate.
    Diffusion, by Strang's splitting, is that of central differences, exact in time by Fourier transforms: ε = 4 costs
    no more than ε = 0.001, and no step makes a new extreme. Errors are of order 2 where u is smooth.

    A simulation yields a sample per interval, `before` to `solution`: arrays [n] of values at the centres of cells.

    Args:
        resolution: cells on the circle, n >= 8. Good values: 128 to 1024.
        diffusion: its strength ε >= 0. Published are 0.001 to 4. A shock is about ε wide.
        num_steps: samples per simulation, at least 1.
        interval: time between `before` and `solution`.
    """

    def __init__(self, *, resolution: int = 1024, diffusion: float = 0.01, num_steps: int = 20, interval: float = 0.1):
        super().__init__(resolution=resolution, num_steps=num_steps, interval=interval)
        if not 0 <= diffusion < np.inf:
            raise ValueError(f"diffusion = {diffusion} must be at least 0 and finite")
        self.diffusion = diffusion

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        (x,) = self.grid.axes()
        # In float32, because what is left of some waves is less than float32 shows beside their mean, and is no fault.
        frames = (frame.astype(np.float32) for frame in self.frames(parameters["initial"](x)))
        yield from samples(frames, interval=self.interval)

    def frames(self, initial: np.ndarray) -> Iterator[np.ndarray]:
        """u [n] at first and after each interval."""
        states = march(
            initial[None],
            self.flow,
            interval=self.interval,
            num_frames=self.num_steps + 1,
            largest_step=lambda state: 2 * COURANT / self.resolution / max(np.abs(state).max(), 1e-30),
        )
        return (state[0] for state in states)

    def flow(self, state: np.ndarray, step: float) -> np.ndarray:
        """u, [1, n], one step later."""
        return strang(state, outer=self._convection.step, inner=self._diffusion.flow, step=step)

    @cached_property
    def _convection(self) -> FiniteVolumes:
        return FiniteVolumes(1 / self.resolution, godunov_flux, beyond="wrap")

    @cached_property
    def _diffusion(self) -> CellDiffusion:
        return CellDiffusion((self.resolution,), 1 / self.resolution, [self.diffusion / np.pi], is_periodic=True)


def godunov_flux(below: np.ndarray, above: np.ndarray, axis: int) -> np.ndarray:
    """The flux u²/2 between two states, by the exact Riemann solver (Godunov, 1959)."""
    return np.maximum(np.maximum(below, 0) ** 2, np.minimum(above, 0) ** 2) / 2
