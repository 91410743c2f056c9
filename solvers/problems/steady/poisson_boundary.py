"""Poisson's equation with random boundary functions: one matrix for all draws."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.nine_point import NinePointLaplacian
from penstock.solvers.parameters.fields import PeriodicField
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.problem import InterleavedProblem, Parameters, Turns

SIDES = ("west", "east", "south", "north")


class PoissonBoundary(InterleavedProblem):
    """Poisson's equation on the unit square: from boundary functions to u.

    -Δu = 0, u = g on the boundary.

    g is one periodic Gaussian field along the four sides, so that sides agree at their corners. Its covariance in the
    arc length, of period 4, is 625 (-d²/ds² + 25)^-2; its mean over the boundary is 0, its variance 1. The law is ours.
    Linear operators from boundary functions are among the problems of Lu et al. (2022, arXiv 2111.05512), who have a
    Gaussian process on the edges of a triangle.

    Compact nine-point differences; all draws share one matrix.

    A sample holds g on the sides, arrays [n + 1] of the values at y = 0, 1/n, ..., 1 on `west` (x = 0) and `east`
    (x = 1), and at x = 0, 1/n, ..., 1 on `south` (y = 0) and `north` (y = 1), ends included; and u at the vertices of
    n x n squares, an array [n + 1, n + 1] indexed [x, y].

    Args:
        resolution: squares along each side of the unit square, n >= 2. Good values: 64 to 256.
    """

    def __init__(self, *, resolution: int = 64):
        if resolution < 2:
            raise ValueError(f"resolution = {resolution} is too small: an inner vertex needs 2 squares per side")
        self.resolution = resolution
        field = PeriodicField(4 * resolution, extent=4.0, scale=625.0, exponent=2.0, inverse_length=5.0)
        self.space = ParameterSpace(boundary=field)
        side = Grid((resolution + 1,), centring="vertices", name="side")
        self.inputs = tuple(FieldSpec(name=name, on=side) for name in SIDES)
        self.outputs = (FieldSpec(name="solution", on=Grid((resolution + 1,) * 2, centring="vertices")),)

    def turns(self, parameters: Parameters) -> Turns:
        n = self.resolution
        solution = self.boundary_values(parameters["boundary"])
        solved = yield self.discretisation.system(np.zeros_like(solution), solution)
        solution[1:-1, 1:-1] = solved.x.array_r.reshape(n - 1, n - 1)
        sides = (solution[0], solution[-1], solution[:, 0], solution[:, -1])
        yield Sample(inputs=dict(zip(SIDES, sides, strict=True)), outputs={"solution": solution})

    def boundary_values(self, around: np.ndarray) -> np.ndarray:
        """The boundary values g at the vertices, [n + 1, n + 1], zero inside.

        Args:
            around: g along the sides, counter-clockwise from (0, 0), [4 n].
        """
        n = self.resolution
        south, east, north, west = around.reshape(4, n)
        values = np.zeros((n + 1, n + 1))
        values[:-1, 0] = south
        values[-1, :-1] = east
        values[:0:-1, -1] = north
        values[0, :0:-1] = west
        return values

    @cached_property
    def discretisation(self) -> NinePointLaplacian:
        return NinePointLaplacian(self.resolution, family="poisson")
