"""P1 finite elements with streamline upwinding, on the triangles of n x n squares.

Axes:  T kind of triangle, L corner of a triangle; arrays are indexed [x, y].
"""

from __future__ import annotations

import numpy as np

from penstock.solvers.discretisation.differences.cells import at_corner
from penstock.solvers.discretisation.differences.stencil import StencilMatrix
from penstock.solvers.problem import GridDofs, LinearSystem

# A square is cut from (x, y) to (x + h, y + h). These are its two triangles, described by their corners and by h times
# the gradients of the corners' hat functions.
CORNERS_TL = (((0, 0), (1, 0), (1, 1)), ((0, 0), (1, 1), (0, 1)))
GRADIENTS_TL = np.array([[(-1, 0), (1, -1), (0, 1)], [(0, -1), (1, 0), (-1, 1)]])
OFFSETS = ((-1, -1), (-1, 0), (0, -1), (0, 0), (0, 1), (1, 0), (1, 1))


class UpwindedConvection:
    """P1 finite elements for convection and diffusion on the unit square.

    The equation is -ε Δu + w·∇u = f, u = g on the boundary. The wind w = (∂ψ/∂y, -∂ψ/∂x) belongs to a stream function ψ
    interpolated at the vertices, so it is constant on every triangle and free of divergence.

    Streamline upwinding (SUPG) adds Σ_T τ (w·∇u - f, w·∇v)_T (Brooks and Hughes 1982, "Streamline
    upwind/Petrov-Galerkin formulations for convection dominated flows", Comput. Methods Appl. Mech. Engrg. 32, 199-259)
    with their

        τ = h_T / (2 |w|) (coth α - 1/α),   α = |w| h_T / (2 ε),

    and h_T = 2 |w| / Σ_a |w·∇φ_a|, the length of the triangle along the wind (Tezduyar and Park 1986). The matrix is
    nonsymmetric; its unknowns are the inner vertices in C order. One matrix and one vector are made once and
    overwritten by every `system`.

    Args:
        resolution: n, squares along each side.
    """

    def __init__(self, resolution: int):
        self.resolution = resolution
        inner, h = resolution - 1, 1 / resolution
        self.grid = GridDofs(shape=(inner, inner), spacing=(h, h), permutation=np.arange(inner**2))
        self._matrix = StencilMatrix(self.grid.shape, OFFSETS)
        self._vector = self._matrix.mat.createVecLeft()

    def system(
        self, stream: np.ndarray, source: np.ndarray, *, diffusion: float, boundary_values: np.ndarray | None = None
    ) -> LinearSystem:
        """The system for one wind, source and diffusion.

        Args:
            stream: ψ at the vertices, [n + 1, n + 1].
            source: f at the vertices, [n + 1, n + 1].
            diffusion: ε > 0.
            boundary_values: g at the vertices, [n + 1, n + 1], zero inside; g = 0 where absent.

        Returns:
            The system, whose A and b the next call overwrites.
        """
        n = self.resolution
        area = 1 / (2 * n**2)
        matrix = np.zeros((len(OFFSETS), n + 1, n + 1))
        vector = np.zeros((n + 1, n + 1))
        for corners_L, gradients_L, (stream_x, stream_y) in zip(
            CORNERS_TL, GRADIENTS_TL * n, stream_gradients(stream), strict=True
        ):
            slopes_L = [stream_y * x - stream_x * y for x, y in gradients_L]  # w·∇φ
            mean_source = sum(source[at_corner(corner, n)] for corner in corners_L) / 3
            tau = upwinding(np.hypot(stream_x, stream_y), sum(np.abs(slope) for slope in slopes_L), diffusion)
            for row, gradient, slope in zip(corners_L, gradients_L, slopes_L, strict=True):
                test = area * (1 / 3 + tau * slope)  # ∫ (v + τ w·∇v)
                vector[at_corner(row, n)] += test * mean_source
                for column, other_gradient, other_slope in zip(corners_L, gradients_L, slopes_L, strict=True):
                    offset = OFFSETS.index((column[0] - row[0], column[1] - row[1]))
                    entries = diffusion * area * (gradient @ other_gradient) + test * other_slope
                    matrix[offset][at_corner(row, n)] += entries
        matrix, vector = matrix[:, 1:-1, 1:-1], vector[1:-1, 1:-1]
        if boundary_values is not None:
            for entries, (x, y) in zip(matrix, OFFSETS, strict=True):
                vector -= entries * boundary_values[1 + x : n + x, 1 + y : n + y]
        self._vector.array = vector.ravel()
        return LinearSystem(A=self._matrix.overwrite(matrix), b=self._vector, family="convection", grid=self.grid)


def stream_gradients(stream: np.ndarray) -> list[np.ndarray]:
    """The gradient of `stream` on every square, [2, n, n] per kind of triangle."""
    n = len(stream) - 1
    return [
        n
        * sum(
            gradient[:, None, None] * stream[at_corner(corner, n)] for corner, gradient in zip(*triangle, strict=True)
        )
        for triangle in zip(CORNERS_TL, GRADIENTS_TL, strict=True)
    ]


def largest_speed(stream: np.ndarray) -> float:
    """The largest |w| of all triangles, for `stream` at the vertices."""
    return float(max(np.max(np.hypot(*gradient)) for gradient in stream_gradients(stream)))


def mean_wind(stream: np.ndarray) -> np.ndarray:
    """The mean of w over every square, [2, n, n], for `stream` at the vertices."""
    stream_x, stream_y = np.mean(stream_gradients(stream), axis=0)
    return np.stack([stream_y, -stream_x])


def upwinding(speed: np.ndarray, sum_slopes: np.ndarray, diffusion: float) -> np.ndarray:
    """The parameter τ of SUPG; 0 where there is no wind.

    τ = (coth α - 1/α) / Σ_a |w·∇φ_a|, with α = |w|² / (ε Σ_a |w·∇φ_a|).
    """
    sum_slopes = np.maximum(sum_slopes, np.finfo(float).tiny)
    alpha = np.maximum(speed**2 / (diffusion * sum_slopes), 1e-3)  # below, coth α - 1/α is α/3 to 1e-7
    slow = speed**2 / (3 * diffusion * sum_slopes)
    return np.where(alpha > 1e-3, 1 / np.tanh(alpha) - 1 / alpha, slow) / sum_slopes
