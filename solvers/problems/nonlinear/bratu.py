"""Bratu's problem: a reaction that heats itself, up to its runaway."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.five_point import OFFSETS, FivePoint, neighbours
from penstock.solvers.discretisation.newton import newton
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import LinearSystem, Parameters, Problem, Solve

REMAINDER = 0.9  # fraction of the distance to the largest rate that each level leaves


class Bratu(Problem):
    """Bratu's problem on the unit square: from the rate λ to the solution u.

    -Δu = λ e^u, u = 0 on the boundary, on the lower branch.

    There is a solution up to the fold at λ = 6.808, where the branch turns back. The rate approaches λ_max, which is
    drawn uniformly from [6.6, 6.8], level by level: λ_l = λ_max (1 - 0.9^l), l = 1, 2, ..., and Newton's method starts
    from the last level's solution, at first from 0, and takes about 3 steps per level.

    -Δu - λ e^u is concave in u, so Newton's iterates from the solution for a smaller λ rise to the next one from below,
    and all Jacobians -Δ - λ e^u are symmetric positive definite. Their least eigenvalue falls from 2π² towards 0.

    Five-point differences; equations are multiplied by h².

    A simulation yields a sample per level, the scalar `rate` λ to `solution` u at the inner points: an array [n, n]
    indexed [x, y].

    Args:
        resolution: inner points along each axis, n >= 1. Good values: 32 to 256; the fold of a grid lies below 6.8
            where n < 13.
        num_levels: rates per simulation, at least 1, a sample for each. Good values: 10 to 40, at which the last rate
            is 0.65 to 0.985 of λ_max.
    """

    def __init__(self, *, resolution: int = 64, num_levels: int = 20):
        if resolution < 1:
            raise ValueError(f"resolution = {resolution} is too small: the grid needs at least 1 inner point per axis")
        if num_levels < 1:
            raise ValueError(f"num_levels = {num_levels} is too small: a simulation needs at least 1 level")
        self.resolution = resolution
        self.num_steps = num_levels
        self.space = ParameterSpace(largest_rate=Uniform(6.6, 6.8))
        grid = Grid.of_inner_vertices((resolution, resolution))
        self.inputs = (FieldSpec(name="rate"),)
        self.outputs = (FieldSpec(name="solution", on=grid),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        u = np.zeros((self.resolution, self.resolution))
        for step in range(self.num_steps):
            rate = parameters["largest_rate"] * (1 - REMAINDER ** (step + 1))
            u = newton(
                partial(self.residual, rate=rate),
                partial(self.assemble, rate=rate),
                u,
                solve,
                name=f"rate {rate:.4g}",
            )
            yield Sample(inputs={"rate": rate}, outputs={"solution": u}, step=step)

    @np.errstate(over="ignore")  # Newton's method refuses an infinite residual
    def residual(self, u: np.ndarray, rate: float) -> np.ndarray:
        """The residual F(u) = -h² (Δu + λ e^u), [n, n]."""
        return 4 * u - sum(neighbours(np.pad(u, 1))) - rate * np.exp(u) / (self.resolution + 1) ** 2

    def jacobian(self, u: np.ndarray, rate: float) -> np.ndarray:
        """The Jacobian ∂F/∂u by the five points of the stencil, [F, n, n]."""
        values_FXY = np.full((len(OFFSETS), *u.shape), -1.0)
        values_FXY[0] = 4 - rate * np.exp(u) / (self.resolution + 1) ** 2
        return values_FXY

    def assemble(self, u: np.ndarray, rate: float) -> LinearSystem:
        """The system of Newton's step J(u) δ = -F(u) from u [n, n] for λ = `rate`."""
        return self.discretisation.system(self.jacobian(u, rate), -self.residual(u, rate))

    @cached_property
    def discretisation(self) -> FivePoint:
        return FivePoint(self.resolution, family="bratu", is_spd=True)
