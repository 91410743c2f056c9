"""Advection on the circle."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from penstock.layout import Sample
from penstock.solvers.problem import Parameters, Solve
from penstock.solvers.problems.finite_volume.circle import OnCircle
from penstock.solvers.problems.frames import samples


class Advection(OnCircle):
    """Advection on the unit circle: from u at one time to u at the next.

    ∂u/∂t + β ∂u/∂x = 0, so that u(x, t) = u(x - β t, 0).

    At first u is a sum of sines, now and then an absolute value or cut off by a window: the law of `RandomWaves`. This
    is the advection set of PDEBench (Takamoto et al., 2022, arXiv 2210.07182): 1024 cells, t <= 2, a frame every 0.01,
    10,000 simulations for each of β = 0.1, 0.2, 0.4, 1, 2 and 4. Theirs is computed by finite volumes of order 2, whose
    errors are part of the set; ours is exact.

    A simulation yields a sample per interval, `before` to `solution`: arrays [n] of values at the centres of cells.

    Args:
        resolution: cells on the circle, n >= 8. Good values: 128 to 1024.
        speed: velocity β, of either sign. Published are 0.1 to 4.
        num_steps: samples per simulation, at least 1.
        interval: time between `before` and `solution`.
    """

    def __init__(self, *, resolution: int = 1024, speed: float = 0.4, num_steps: int = 20, interval: float = 0.1):
        super().__init__(resolution=resolution, num_steps=num_steps, interval=interval)
        if not np.isfinite(speed):
            raise ValueError(f"speed = {speed} must be finite")
        self.speed = speed

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        (x,) = self.grid.axes()
        times = self.interval * np.arange(self.num_steps + 1)
        yield from samples((parameters["initial"](x - self.speed * time) for time in times), interval=self.interval)
