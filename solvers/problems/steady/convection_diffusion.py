"""Convection and diffusion in a random wind: nonsymmetric systems."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from math import inf

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.cells import cell_means
from penstock.solvers.discretisation.elements.supg import UpwindedConvection, largest_speed, mean_wind
from penstock.solvers.parameters.fields import GaussianField
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.problem import Parameters, Problem, Solve


class ConvectionDiffusion(Problem):
    """Convection and diffusion on the unit square: from wind w to concentration u.

    -ε Δu + w·∇u = f, u = 0 on the boundary.

    The wind w = (∂ψ/∂y, -∂ψ/∂x) belongs to a stream function ψ interpolated at the vertices, so it is constant on
    every triangle and free of divergence. ψ is a Gaussian field with covariance (-Δ + 49)^-3, scaled to max |w| = 1;
    its eddies cross the boundary. With ε = 1 / Pe the Péclet number is max |w| L / ε for L = 1. f = 1.

    P1 elements with streamline upwinding (SUPG).

    A sample holds values for n x n cells, indexed [x, y]: both components of w, each the mean over a cell's two
    triangles, and the mean of u at a cell's corners.

    Args:
        resolution: cells along each side of the unit square, n >= 2. Good values: 64 to 128.
        peclet: Péclet number Pe > 0, the largest wind over the diffusion. Good values: 100 to 10000; the larger it
            is, the harder are the systems for iterative methods.
    """

    def __init__(self, *, resolution: int = 64, peclet: float = 100.0):
        if resolution < 2:
            raise ValueError(f"resolution = {resolution} is too small: a square of cells needs at least 2 per side")
        if not 0 < peclet < inf:
            raise ValueError(f"peclet = {peclet} must be above 0 and finite: the diffusion is 1 / peclet")
        self.resolution = resolution
        self.peclet = peclet
        field = GaussianField(resolution + 1, exponent=3.0, inverse_length=7.0, centring="vertices")
        self.space = ParameterSpace(stream=field)
        grid = Grid((resolution, resolution))
        self.inputs = (FieldSpec(name="wind_x", on=grid), FieldSpec(name="wind_y", on=grid))
        self.outputs = (FieldSpec(name="solution", on=grid),)

    def features(self, parameters: Parameters) -> np.ndarray:
        """The scaled stream function: a system depends on a draw by its wind alone."""
        return self.scaled(parameters["stream"]).ravel() / (self.resolution + 1)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        stream = self.scaled(parameters["stream"])
        system = self.discretisation.system(stream, np.ones_like(stream), diffusion=1 / self.peclet)
        corners = np.pad(solve(system).x.array_r.reshape(system.grid.shape), 1)
        wind_x, wind_y = mean_wind(stream)
        yield Sample(inputs={"wind_x": wind_x, "wind_y": wind_y}, outputs={"solution": cell_means(corners)})

    def scaled(self, stream: np.ndarray) -> np.ndarray:
        """The drawn `stream` [n + 1, n + 1], scaled to max |w| = 1 and a mean of 0."""
        return (stream - np.mean(stream)) / largest_speed(stream)

    @cached_property
    def discretisation(self) -> UpwindedConvection:
        return UpwindedConvection(self.resolution)
