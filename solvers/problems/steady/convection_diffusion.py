"""Convection and diffusion in a random wind: nonsymmetric systems.

Axes:  T kind of triangle, L corner of a triangle; arrays are indexed [x, y].
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.cells import cell_means
from penstock.solvers.discretisation.stencil import StencilMatrix
from penstock.solvers.parameters.fields import GaussianField
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.problem import GridDofs, LinearSystem, Parameters, Problem, Solve

if TYPE_CHECKING:
    from petsc4py import PETSc

# A square is cut from (x, y) to (x + h, y + h). These are its two triangles, described by their corners and by h times
# the gradients of the corners' hat functions.
CORNERS_TL = (((0, 0), (1, 0), (1, 1)), ((0, 0), (1, 1), (0, 1)))
GRADIENTS_TL = np.array([[(-1, 0), (1, -1), (0, 1)], [(0, -1), (1, 0), (-1, 1)]])
OFFSETS = ((-1, -1), (-1, 0), (0, -1), (0, 0), (0, 1), (1, 0), (1, 1))


class ConvectionDiffusion(Problem):
    """Convection and diffusion on the unit square: from wind w to concentration u.

    -ε Δu + w·∇u = f, u = 0 on the boundary.

    The wind w = (∂ψ/∂y, -∂ψ/∂x) belongs to a stream function ψ interpolated at the vertices, so it is constant on
    every triangle and free of divergence. ψ is a Gaussian field with covariance (-Δ + 49)^-3, scaled to max |w| = 1;
    its eddies cross the boundary. With ε = 1 / Pe the Péclet number is max |w| L / ε for L = 1. f = 1.

    P1 elements with streamline upwinding: SUPG adds Σ_T τ (w·∇u - f, w·∇v)_T (Brooks and Hughes 1982, "Streamline
    upwind/Petrov-Galerkin formulations for convection dominated flows", Comput. Methods Appl. Mech. Engrg. 32, 199-259)
    with their

        τ = h_T / (2 |w|) (coth α - 1/α),   α = |w| h_T / (2 ε),

    and h_T = 2 |w| / Σ_a |w·∇φ_a|, the length of the triangle along the wind (Tezduyar and Park 1986). The matrix is
    nonsymmetric; its unknowns are the inner vertices in C order.

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
        field = GaussianField(resolution + 1, exponent=3.0, inverse_length=7.0)  # its cells stand for the vertices
        self.space = ParameterSpace(stream=field)
        grid = Grid((resolution, resolution))
        self.inputs = (FieldSpec(name="wind_x", on=grid), FieldSpec(name="wind_y", on=grid))
        self.outputs = (FieldSpec(name="solution", on=grid),)

    def features(self, parameters: Parameters) -> np.ndarray:
        """The scaled stream function: a system depends on a draw by its wind alone."""
        return self.scaled(parameters["stream"]).ravel() / (self.resolution + 1)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        stream = self.scaled(parameters["stream"])
        solution = solve(self.assemble(stream, np.ones_like(stream)))
        wind_x, wind_y = self.wind(stream)
        corners = np.pad(solution.x.array_r.reshape(self._grid.shape), 1)
        yield Sample(inputs={"wind_x": wind_x, "wind_y": wind_y}, outputs={"solution": cell_means(corners)})

    def scaled(self, stream: np.ndarray) -> np.ndarray:
        """The drawn `stream` [n + 1, n + 1], scaled to max |w| = 1 and a mean of 0."""
        speed = max(np.max(np.hypot(*gradient)) for gradient in self._gradients(stream))
        return (stream - np.mean(stream)) / speed

    def wind(self, stream: np.ndarray) -> np.ndarray:
        """The mean of w over every square, [2, n, n], for `stream` at the vertices."""
        stream_x, stream_y = np.mean(self._gradients(stream), axis=0)
        return np.stack([stream_y, -stream_x])

    def assemble(self, stream: np.ndarray, source: np.ndarray) -> LinearSystem:
        """The system for a stream function and f, given at the vertices.

        Both are [n + 1, n + 1].
        """
        n, h, diffusion = self.resolution, 1 / self.resolution, 1 / self.peclet
        area = h**2 / 2
        matrix = np.zeros((len(OFFSETS), n + 1, n + 1))
        vector = np.zeros((n + 1, n + 1))
        triangles = zip(CORNERS_TL, GRADIENTS_TL / h, self._gradients(stream), strict=True)
        for corners_L, gradients_L, (stream_x, stream_y) in triangles:
            slopes_L = [stream_y * x - stream_x * y for x, y in gradients_L]  # w·∇φ
            mean_source = sum(source[at(corner, n)] for corner in corners_L) / 3
            tau = upwinding(np.hypot(stream_x, stream_y), sum(np.abs(slope) for slope in slopes_L), diffusion)
            for row, gradient, slope in zip(corners_L, gradients_L, slopes_L, strict=True):
                test = area * (1 / 3 + tau * slope)  # ∫ (v + τ w·∇v)
                vector[at(row, n)] += test * mean_source
                for column, other_gradient, other_slope in zip(corners_L, gradients_L, slopes_L, strict=True):
                    offset = OFFSETS.index((column[0] - row[0], column[1] - row[1]))
                    matrix[offset][at(row, n)] += diffusion * area * (gradient @ other_gradient) + test * other_slope
        self._vector.array = vector[1:-1, 1:-1].ravel()
        A = self._matrix.overwrite(matrix[:, 1:-1, 1:-1])
        return LinearSystem(A=A, b=self._vector, family="convection", grid=self._grid)

    def _gradients(self, values: np.ndarray) -> list[np.ndarray]:
        """The interpolant's gradient on every square, [2, n, n] per kind of triangle."""
        n = self.resolution
        return [
            n * sum(gradient[:, None, None] * values[at(corner, n)] for corner, gradient in zip(*triangle, strict=True))
            for triangle in zip(CORNERS_TL, GRADIENTS_TL, strict=True)
        ]

    @cached_property
    def _matrix(self) -> StencilMatrix:
        return StencilMatrix(self._grid.shape, OFFSETS)

    @cached_property
    def _vector(self) -> PETSc.Vec:
        return self._matrix.mat.createVecLeft()

    @cached_property
    def _grid(self) -> GridDofs:
        inner, h = self.resolution - 1, 1 / self.resolution
        return GridDofs(shape=(inner, inner), spacing=(h, h), permutation=np.arange(inner**2))


def at(corner: tuple[int, int], num_squares: int) -> tuple[slice, slice]:
    """The index that picks this corner of all squares from values at the vertices."""
    return slice(corner[0], corner[0] + num_squares), slice(corner[1], corner[1] + num_squares)


def upwinding(speed: np.ndarray, sum_slopes: np.ndarray, diffusion: float) -> np.ndarray:
    """The parameter τ of SUPG; 0 where there is no wind.

    τ = (coth α - 1/α) / Σ_a |w·∇φ_a|, with α = |w|² / (ε Σ_a |w·∇φ_a|).
    """
    sum_slopes = np.maximum(sum_slopes, np.finfo(float).tiny)
    alpha = np.maximum(speed**2 / (diffusion * sum_slopes), 1e-3)  # below, coth α - 1/α is α/3 to 1e-7
    slow = speed**2 / (3 * diffusion * sum_slopes)
    return np.where(alpha > 1e-3, 1 / np.tanh(alpha) - 1 / alpha, slow) / sum_slopes
