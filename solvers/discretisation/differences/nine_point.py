"""The compact nine-point Laplacian on the unit square, of fourth order."""

from __future__ import annotations

import numpy as np

from penstock.solvers.discretisation.differences.five_point import neighbours
from penstock.solvers.discretisation.differences.stencil import StencilMatrix
from penstock.solvers.problem import LinearSystem

OFFSETS = tuple((x, y) for x in (-1, 0, 1) for y in (-1, 0, 1))
WEIGHTS = np.array([-1, -4, -1, -4, 20, -4, -1, -4, -1]) / 6


class NinePointLaplacian:
    """Poisson's equation -Δu = f, u = g on the boundary, on n x n squares.

    The compact scheme ("Mehrstellenverfahren") of Collatz (1960, "The numerical treatment of differential equations",
    table VI) takes f from the five points, so that its error is of order h⁴:

        1/6 (20 u - 4 Σ_edge u - Σ_diagonal u) = h²/12 (8 f + Σ_edge f).

    With f = 0 its order is 6. The unknowns are the inner vertices in C order. The matrix is the same for all f and g;
    one vector is made once and overwritten by every `system`.

    Args:
        resolution: n.
        family: name of the systems.
    """

    def __init__(self, resolution: int, *, family: str):
        self.resolution = resolution
        self.family = family
        inner = resolution - 1
        self._matrix = StencilMatrix((inner, inner), OFFSETS, is_spd=True)
        self._matrix.overwrite(np.broadcast_to(WEIGHTS[:, None, None], (len(OFFSETS), inner, inner)))
        self._vector = self._matrix.mat.createVecLeft()

    def system(self, source: np.ndarray, boundary_values: np.ndarray) -> LinearSystem:
        """The system for one right-hand side.

        Args:
            source: f at the vertices, [n + 1, n + 1].
            boundary_values: g at the vertices, [n + 1, n + 1], zero inside.

        Returns:
            The system, whose b the next call overwrites.
        """
        n = self.resolution
        load = (8 * source[1:-1, 1:-1] + sum(neighbours(source))) / (12 * n**2)
        for weight, (x, y) in zip(WEIGHTS, OFFSETS, strict=True):
            load -= weight * boundary_values[1 + x : n + x, 1 + y : n + y]
        self._vector.array = load.ravel()
        return LinearSystem(A=self._matrix.mat, b=self._vector, is_spd=True, family=self.family)
