"""Convection and diffusion in a random wind: nonsymmetric systems, less diffusive with every case.

Axes:  T kind of triangle, L corner of a triangle, X and Y squares or vertices; arrays are indexed [x, y].
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.solvers.stencil import StencilMatrix
from penstock.solvers.parameters.fields import GaussianField
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problem import Grid, LinearSystem

if TYPE_CHECKING:
    from petsc4py import PETSc

SEED = 0

# A square is cut from (x, y) to (x + h, y + h). Its two triangles, by their corners and by h times the gradients of the
# corners' hat functions.
CORNERS_TL = (((0, 0), (1, 0), (1, 1)), ((0, 0), (1, 1), (0, 1)))
GRADIENTS_TL = np.array([[(-1, 0), (1, -1), (0, 1)], [(0, -1), (1, 0), (-1, 1)]])
OFFSETS = ((-1, -1), (-1, 0), (0, -1), (0, 0), (0, 1), (1, 0), (1, 1))


class ConvectionDiffusion:
    """-ε Δu + w·∇u = f on the unit square, u = 0 on its boundary; P1 with streamline upwinding.

    The wind w = (∂ψ/∂y, -∂ψ/∂x) belongs to a stream function ψ interpolated at the vertices, so it is constant on
    every triangle and free of divergence. ψ is a Gaussian field with covariance (-Δ + 49)^-3, scaled to max |w| = 1;
    its eddies cross the boundary. With ε = 1 / Pe the Péclet number is max |w| L / ε for L = 1. f = 1.

    SUPG adds Σ_T τ (w·∇u - f, w·∇v)_T (Brooks and Hughes 1982, "Streamline upwind/Petrov-Galerkin formulations for
    convection dominated flows", Comput. Methods Appl. Mech. Engrg. 32, 199-259) with their

        τ = h_T / (2 |w|) (coth α - 1/α),   α = |w| h_T / (2 ε),

    and h_T = 2 |w| / Σ_a |w·∇φ_a|, the length of the triangle along the wind (Tezduyar and Park 1986). The matrix is
    nonsymmetric; its unknowns are the inner vertices in C order.

    peclet: Pe. resolution: squares along each side.
    """

    is_sequence = False

    def __init__(self, *, peclet: float, resolution: int):
        self.peclet = peclet
        self.resolution = resolution
        self.num_unknowns = (resolution - 1) ** 2
        self.name = f"D convection Pe {peclet:.0e} {self.num_unknowns}".replace("e+0", "e")
        self.title = f"convection-diffusion, SUPG P1, {resolution} x {resolution}, Péclet {peclet:g}"

    def features(self, i: int) -> np.ndarray:
        """The stream function, whose scale is that of the wind."""
        return self.stream(i).ravel() / (self.resolution + 1)

    def system(self, i: int) -> LinearSystem:
        return self.assemble(self.stream(i), np.ones((self.resolution + 1, self.resolution + 1)))

    def stream(self, i: int) -> np.ndarray:
        """[X, Y] ψ of draw i at the vertices, its mean taken away."""
        stream = self._field.draw(generator_of(SEED, "convection", i))
        speed = max(np.max(np.hypot(*gradient)) for gradient in self._gradients(stream))
        return (stream - np.mean(stream)) / speed

    def assemble(self, stream: np.ndarray, source: np.ndarray) -> LinearSystem:
        """The system for a stream function and a right-hand side f, both by their values at the vertices, [X, Y]."""
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
        return LinearSystem(A=A, b=self._vector, family=self.name, grid=self._grid)

    def _gradients(self, values: np.ndarray) -> list[np.ndarray]:
        """[2, X, Y] for each kind of triangle: the gradient of the interpolant on every square."""
        n = self.resolution
        return [
            n * sum(gradient[:, None, None] * values[at(corner, n)] for corner, gradient in zip(*triangle, strict=True))
            for triangle in zip(CORNERS_TL, GRADIENTS_TL, strict=True)
        ]

    @cached_property
    def _field(self) -> GaussianField:
        return GaussianField(self.resolution + 1, exponent=3.0, inverse_length=7.0)

    @cached_property
    def _matrix(self) -> StencilMatrix:
        return StencilMatrix(self._grid.shape, OFFSETS)

    @cached_property
    def _vector(self) -> PETSc.Vec:
        return self._matrix.mat.createVecLeft()

    @cached_property
    def _grid(self) -> Grid:
        inner, h = self.resolution - 1, 1 / self.resolution
        return Grid(shape=(inner, inner), spacing=(h, h), permutation=np.arange(inner**2))


def at(corner: tuple[int, int], num_squares: int) -> tuple[slice, slice]:
    """Where the vertices hold the values of this corner of all squares."""
    return slice(corner[0], corner[0] + num_squares), slice(corner[1], corner[1] + num_squares)


def upwinding(speed: np.ndarray, sum_slopes: np.ndarray, diffusion: float) -> np.ndarray:
    """τ = (coth α - 1/α) / Σ_a |w·∇φ_a|, with α = |w|² / (ε Σ_a |w·∇φ_a|); 0 where there is no wind."""
    sum_slopes = np.maximum(sum_slopes, np.finfo(float).tiny)
    alpha = np.maximum(speed**2 / (diffusion * sum_slopes), 1e-3)  # below, coth α - 1/α is α/3 to 1e-7
    slow = speed**2 / (3 * diffusion * sum_slopes)
    return np.where(alpha > 1e-3, 1 / np.tanh(alpha) - 1 / alpha, slow) / sum_slopes


CASES = tuple(ConvectionDiffusion(peclet=peclet, resolution=n) for peclet in (1e2, 1e3, 1e4) for n in (64, 128))
