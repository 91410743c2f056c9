"""Diffusion with a coefficient that grows with the solution."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from math import inf

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.five_point import OFFSETS, FivePoint, neighbours
from penstock.solvers.discretisation.newton import newton
from penstock.solvers.parameters.fields import GaussianField, LogNormalField
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.problem import LinearSystem, Parameters, Problem, Solve


class NonlinearDiffusion(Problem):
    """Nonlinear diffusion on the unit square: from the load and the source s to u.

    -∇·((1 + u²) ∇u) = load · s, u = 0 on the boundary.

    s = exp(g) with a Gaussian field g of covariance (-Δ + 9)^-2, scaled to a variance of 1. The load grows level by
    level: level l = 1, 2, ... has load l · load_step. Newton's method starts from the last level's solution, at first
    from 0, and takes about 4 steps per level. Jacobians are nonsymmetric.

    Five-point differences, whose fluxes take the mean of 1 + u² at their two points. Equations are multiplied by h².

    A simulation yields a sample per level, the scalar `load` and the field `source` s to `solution` u at the inner
    points: arrays [n, n] indexed [x, y].

    Args:
        resolution: inner points along each axis, n >= 1. Good values: 64 to 256.
        num_levels: load levels per simulation, at least 1, a sample for each. Good values: 5 to 20.
        load_step: growth of the load per level, above 0. Good values: 5 to 20; at a load of 200 u rises to 3 to 6.
    """

    def __init__(self, *, resolution: int = 64, num_levels: int = 10, load_step: float = 20.0):
        if resolution < 1:
            raise ValueError(f"resolution = {resolution} is too small: the grid needs at least 1 inner point per axis")
        if num_levels < 1:
            raise ValueError(f"num_levels = {num_levels} is too small: a simulation needs at least 1 level")
        if not 0 < load_step < inf:
            raise ValueError(f"load_step = {load_step} must be above 0 and finite")
        self.resolution = resolution
        self.num_steps = num_levels
        self.load_step = load_step
        self.space = ParameterSpace(source=LogNormalField(GaussianField(resolution)))
        grid = Grid.of_inner_vertices((resolution, resolution))
        self.inputs = (FieldSpec(name="load"), FieldSpec(name="source", on=grid))
        self.outputs = (FieldSpec(name="solution", on=grid),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        source, u = parameters["source"], np.zeros((self.resolution, self.resolution))
        for step in range(self.num_steps):
            load = (step + 1) * self.load_step
            u = newton(
                partial(self.residual, forcing=load * source),
                partial(self.assemble, forcing=load * source),
                u,
                solve,
                name=f"load {load:g}",
            )
            yield Sample(inputs={"load": load, "source": source}, outputs={"solution": u}, step=step)

    def residual(self, u: np.ndarray, forcing: np.ndarray) -> np.ndarray:
        """The residual F(u) = -h² (∇·((1 + u²) ∇u) + `forcing`), [n, n]."""
        total = -forcing / (self.resolution + 1) ** 2
        for neighbour in neighbours(np.pad(u, 1)):
            total -= (1 + (u**2 + neighbour**2) / 2) * (neighbour - u)
        return total

    def jacobian(self, u: np.ndarray) -> np.ndarray:
        """The Jacobian ∂F/∂u by the five points of the stencil, [F, n, n]."""
        values_FXY = np.zeros((len(OFFSETS), *u.shape))
        for values, neighbour in zip(values_FXY[1:], neighbours(np.pad(u, 1)), strict=True):
            mean, jump = 1 + (u**2 + neighbour**2) / 2, neighbour - u
            values_FXY[0] += mean - u * jump
            values[:] = -mean - neighbour * jump
        return values_FXY

    def assemble(self, u: np.ndarray, forcing: np.ndarray) -> LinearSystem:
        """The system of Newton's step J(u) δ = -F(u) from u [n, n].

        `forcing` [n, n] is the right-hand side of the PDE.
        """
        return self.discretisation.system(self.jacobian(u), -self.residual(u, forcing))

    @cached_property
    def discretisation(self) -> FivePoint:
        return FivePoint(self.resolution, family="newton", is_spd=False)
