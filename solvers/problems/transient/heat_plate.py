"""Heat conduction in a plate with edges of constant temperature."""

from __future__ import annotations

from functools import cached_property
from math import inf

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.five_point import OFFSETS, FivePoint
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import InterleavedProblem, Parameters, Turns

TEMPERATURES = ("initial", "west", "east", "south", "north")


class HeatPlate(InterleavedProblem):
    """The heat equation on a plate: from five temperatures and the time t to u(t).

    ∂u/∂t = Δu on the square of side L, u = T_initial at first, and on its edges u = T_west (x = 0), T_east (x = L),
    T_south (y = 0) and T_north (y = L).

    All five are uniform on [100, 500] K: the heat problem of Meyer et al. (2023, "Training deep surrogate models with
    large scale online learning", arXiv 2306.16133), whose code has 100 x 100 inner points, L = 10, and 100 steps of
    Δt = 0.01. At its end, t = 1, heat has come about √t = 1 far: with L = 10 most of the plate is as at first, and with
    L = 1 it is at rest. Their systems are solved by CG up to a relative residual of 1e-4, ours to the solver's
    tolerance.

    Implicit Euler and five-point differences:

        u_i - Δt Δ_h u_i = u_{i-1},   t_i = i Δt.

    A simulation yields a sample per step: the five temperatures and t_i to u_i at the inner points, an array [n, n]
    indexed [x, y]. All steps of all simulations share one matrix, which is assembled once.

    Args:
        resolution: inner points along each axis, n >= 1. Good values: 64 to 256.
        extent: L, the side of the plate.
        num_steps: time steps per simulation, at least 1, a sample for each.
        time_step: length of a time step, Δt > 0. Good values: 0.001 to 0.01 L².
    """

    is_transient = True

    def __init__(self, *, resolution: int = 100, extent: float = 10.0, num_steps: int = 100, time_step: float = 0.01):
        if resolution < 1:
            raise ValueError(f"resolution = {resolution} is too small: the grid needs at least 1 inner point per axis")
        if not 0 < extent < inf:
            raise ValueError(f"extent = {extent} is the side of the plate: it must be above 0 and finite")
        if num_steps < 1:
            raise ValueError(f"num_steps = {num_steps} is too small: a simulation needs at least 1 step")
        if not 0 < time_step < inf:
            raise ValueError(f"time_step = {time_step} must be above 0 and finite")
        self.resolution = resolution
        self.extent = extent
        self.num_steps = num_steps
        self.time_step = time_step
        self.space = ParameterSpace(**{name: Uniform(100.0, 500.0, "K") for name in TEMPERATURES})
        spacing = extent / (resolution + 1)
        grid = Grid((resolution,) * 2, extent=(resolution * spacing,) * 2, origin=(spacing / 2,) * 2)
        self.inputs = (*(FieldSpec(name=name, unit="K") for name in TEMPERATURES), FieldSpec(name="time", unit="s"))
        self.outputs = (FieldSpec(name="temperature", on=grid, unit="K"),)

    def turns(self, parameters: Parameters) -> Turns:
        temperatures = {name: parameters[name] for name in TEMPERATURES}
        from_edges = np.zeros((self.resolution, self.resolution))
        from_edges[0, :] += self.ratio * temperatures["west"]
        from_edges[-1, :] += self.ratio * temperatures["east"]
        from_edges[:, 0] += self.ratio * temperatures["south"]
        from_edges[:, -1] += self.ratio * temperatures["north"]
        u = np.full_like(from_edges, temperatures["initial"])
        for step in range(self.num_steps):
            solution = yield self.discretisation.with_load(u + from_edges, guess=u)
            u = solution.x.array_r.reshape(u.shape)
            time = (step + 1) * self.time_step
            yield Sample(inputs=temperatures, outputs={"temperature": u}, step=step, time=time)

    @property
    def ratio(self) -> float:
        """Δt / h²."""
        return self.time_step * ((self.resolution + 1) / self.extent) ** 2

    @cached_property
    def discretisation(self) -> FivePoint:
        five_point = FivePoint(self.resolution, family="heat", is_spd=True, extent=self.extent)
        values_F = np.array([1 + 4 * self.ratio, *4 * [-self.ratio]])
        five_point.overwrite(np.broadcast_to(values_F[:, None, None], (len(OFFSETS), *five_point.grid.shape)))
        return five_point
