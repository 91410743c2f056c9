"""Diffusion through a medium that changes in time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from math import inf

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.five_point import OFFSETS, FivePoint, neighbours
from penstock.solvers.parameters.fields import GaussianField
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.problem import LinearSystem, Parameters, Problem, Solve
from penstock.solvers.problems.frames import FEEDS


class DriftingDiffusion(Problem):
    """Diffusion in a changing medium on the unit square: one step, from u and a to u.

    ∂u/∂t = ∇·(a(x, t) ∇u) + 1, u = 0 on the boundary and at first.

    a = exp(g₀ cos(2πt) + g₁ sin(2πt)), where `first` and `second`, two draws of a Gaussian field of covariance
    (-Δ + 9)^-2, are g₀ and g₁ once they are scaled to a variance of 1. So a has the same law at all times, that of
    Darcy's log-normal medium; its contrast is 30 to 700 in 80 % of the draws. The field's (n + 2)² cell centres stand
    for the points of the grid, those on the boundary included.

    Implicit Euler and five-point differences, whose fluxes take the mean of a at their two points:

        u_i - Δt ∇·(a(x, t_i) ∇u_i) = u_{i-1} + Δt,   t_i = i Δt.

    A simulation yields a sample per step, `before` u_{i-1} and `coefficient` a(x, t_i) to `solution` u_i, at the inner
    points: arrays [n, n] indexed [x, y].

    Args:
        resolution: inner points along each axis, n >= 1. Good values: 64 to 256.
        num_steps: time steps per simulation, at least 1, a sample for each. Good values: 1 / time_step, after which the
            coefficient begins again.
        time_step: length of a time step, Δt > 0. Good values: 0.001 to 0.05, that is Δt / h² = 40 to 2000 at 200 points
            per axis.
    """

    is_transient = True
    feeds = FEEDS

    def __init__(self, *, resolution: int = 64, num_steps: int = 100, time_step: float = 0.01):
        if resolution < 1:
            raise ValueError(f"resolution = {resolution} is too small: the grid needs at least 1 inner point per axis")
        if num_steps < 1:
            raise ValueError(f"num_steps = {num_steps} is too small: a simulation needs at least 1 step")
        if not 0 < time_step < inf:
            raise ValueError(f"time_step = {time_step} must be above 0 and finite")
        self.resolution = resolution
        self.num_steps = num_steps
        self.time_step = time_step
        self.field = GaussianField(resolution + 2)
        self.space = ParameterSpace(first=self.field, second=self.field)
        grid = Grid.of_inner_vertices((resolution, resolution))
        self.inputs = (FieldSpec(name="before", on=grid), FieldSpec(name="coefficient", on=grid))
        self.outputs = (FieldSpec(name="solution", on=grid),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        before = np.zeros((self.resolution, self.resolution))
        for step in range(self.num_steps):
            a = self.coefficient(parameters, (step + 1) * self.time_step)
            solution = solve(self.assemble(before, a)).x.array_r.reshape(before.shape)
            yield Sample(
                inputs={"before": before, "coefficient": a[1:-1, 1:-1]}, outputs={"solution": solution}, step=step
            )
            before = solution

    def coefficient(self, parameters: Parameters, time: float) -> np.ndarray:
        """The medium a at all points of the grid, boundary included, [n + 2, n + 2]."""
        field = np.cos(2 * np.pi * time) * parameters["first"] + np.sin(2 * np.pi * time) * parameters["second"]
        return np.exp(field / self._deviation)

    def assemble(self, before: np.ndarray, coefficient: np.ndarray) -> LinearSystem:
        """The system of one time step; the guess is u_{i-1}.

        Args:
            before: u_{i-1}, [n, n].
            coefficient: a(x, t_i), [n + 2, n + 2].
        """
        inner, ratio = coefficient[1:-1, 1:-1], self.time_step * (self.resolution + 1) ** 2
        values_FXY = np.ones((len(OFFSETS), *inner.shape))
        for values, neighbour in zip(values_FXY[1:], neighbours(coefficient), strict=True):
            values[:] = -ratio * (inner + neighbour) / 2
            values_FXY[0] -= values
        return self.discretisation.system(values_FXY, before + self.time_step, guess=before)

    @cached_property
    def discretisation(self) -> FivePoint:
        return FivePoint(self.resolution, family="diffusion", is_spd=True)

    @cached_property
    def _deviation(self) -> float:
        """Standard deviation of the drawn fields."""
        return float(np.sqrt(self.field.variance))
