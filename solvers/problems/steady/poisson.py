"""Poisson's equation with polynomial data: one matrix for all draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.polynomial import chebyshev

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.cells import cell_means
from penstock.solvers.discretisation.differences.structured import StructuredDiffusion
from penstock.solvers.parameters.space import Normal, ParameterSpace
from penstock.solvers.problem import Parameters, Problem, Solve

POLYNOMIALS = ("west", "east", "south", "north", "source")
NUM_COEFFICIENTS = 6  # of each polynomial
NAMES = tuple(f"{polynomial}_{k}" for polynomial in POLYNOMIALS for k in range(NUM_COEFFICIENTS))


class Poisson(Problem):
    """Poisson's equation on the unit square: from 30 coefficients to the solution u.

    -Δu = f, u = g on the boundary; the coefficients are those of g and f.

    On each side g is a Chebyshev polynomial Σ_k c_k T_k of degree 5, and f = Σ_k c_k T_k(x) T_k(y) with k up to 5, x
    and y scaled to [-1, 1]. All coefficients are standard normal. This is the Poisson set of Wang et al. (2024, arXiv
    2401.09516, D.2). P1 elements with f at the vertices; all draws share one matrix.

    Where two sides meet their polynomials differ, so u jumps there. No inner vertex is coupled to a corner of the
    square: its value enters one cell of a sample, and is the mean of both polynomials.

    A sample holds the coefficients as scalars, west_0 to west_5 (g at x = 0), east_0 to east_5 (x = 1), south_0 to
    south_5 (y = 0), north_0 to north_5 (y = 1) and source_0 to source_5 (f); and for n x n cells, indexed [x, y], the
    mean of u at a cell's corners.

    Args:
        resolution: cells along each side of the unit square, n >= 2. Good values: 64 to 264.
    """

    def __init__(self, *, resolution: int = 64):
        if resolution < 2:
            raise ValueError(f"resolution = {resolution} is too small: a square of cells needs at least 2 per side")
        self.resolution = resolution
        self.space = ParameterSpace(**{name: Normal() for name in NAMES})
        self.inputs = tuple(FieldSpec(name=name) for name in NAMES)
        self.outputs = (FieldSpec(name="solution", on=Grid((resolution, resolution))),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        coefficients = np.reshape([parameters[name] for name in NAMES], (len(POLYNOMIALS), NUM_COEFFICIENTS))
        system = self.discretisation.assemble(self._ones, self.load(coefficients))
        solution = solve(replace(system, family="poisson"))
        corners = self.boundary(coefficients)
        corners[1:-1, 1:-1] = solution.x.array_r.reshape(system.grid.shape)
        yield Sample(
            inputs={name: parameters[name] for name in NAMES},
            outputs={"solution": cell_means(corners)},
        )

    def load(self, coefficients: np.ndarray) -> np.ndarray:
        """The right-hand side b [n - 1, n - 1], linear in the coefficients.

        Args:
            coefficients: [5, 6], those of g at x = 0, x = 1, y = 0 and y = 1, and those of f.
        """
        inner = self._chebyshev[1:-1]
        load = np.einsum("k,xk,yk->xy", coefficients[4], inner, inner) / self.resolution**2
        boundary = self.boundary(coefficients)
        load[0, :] += boundary[0, 1:-1]  # an edge to the boundary couples by 1
        load[-1, :] += boundary[-1, 1:-1]
        load[:, 0] += boundary[1:-1, 0]
        load[:, -1] += boundary[1:-1, -1]
        return load

    def boundary(self, coefficients: np.ndarray) -> np.ndarray:
        """The boundary values g at the vertices [n + 1, n + 1], zero inside.

        Args:
            coefficients: [5, 6], as in `load`.
        """
        n = self.resolution
        west, east, south, north = coefficients[:4] @ self._chebyshev.T
        values = np.zeros((n + 1, n + 1))
        values[0, :] += west
        values[-1, :] += east
        values[:, 0] += south
        values[:, -1] += north
        values[::n, ::n] /= 2  # the square's corners, which two sides have added to
        return values

    @cached_property
    def discretisation(self) -> StructuredDiffusion:
        return StructuredDiffusion(self.resolution, dimension=2)

    @cached_property
    def _ones(self) -> np.ndarray:
        return np.ones((self.resolution, self.resolution))

    @cached_property
    def _chebyshev(self) -> np.ndarray:
        """The polynomials T_k at the vertices of a side, [n + 1, 6]."""
        return chebyshev.chebvander(np.linspace(-1, 1, self.resolution + 1), NUM_COEFFICIENTS - 1)
