"""Time-harmonic waves in a random medium that leave through the boundary: indefinite systems in real form.

Axes:  X and Y vertices; arrays are indexed [x, y].
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.solvers.stencil import StencilMatrix
from penstock.solvers.parameters.fields import GaussianField
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problem import LinearSystem

if TYPE_CHECKING:
    from petsc4py import PETSc

SEED = 0
AMPLITUDE = 0.1  # standard deviation of c

# On the grid [x, y, part] of real and imaginary parts: the five points of the Laplacian, then the other part.
OFFSETS = ((0, 0, 0), (-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, 1), (0, 0, -1))


class Helmholtz:
    """-Δu - k² (1 + c) u = f on the unit square, ∂u/∂n - i k √(1 + c) u = g on its boundary (first-order absorbing).

    Finite volumes around the vertices of n x n squares, second order: the five-point stencil K and diagonal M and B in
    K - k² M - i k B. The medium c is a Gaussian field of covariance (-Δ + 9)^-2, scaled to a standard deviation of 0.1
    in law. f is a Gaussian hump a tenth of the side wide, g = 0.

    PETSc may be built for real numbers alone, so (P + i Q)(u + i v) = r + i s is solved in the form K1 of Day and
    Heroux (2001, "Solving complex-valued linear systems via equivalent real formulations", SIAM J. Sci. Comput. 23,
    480-498),

        [P  -Q] [u]   [r]
        [Q   P] [v] = [s],

    with u and v interleaved: blocks of two unknowns a vertex. Only boundary vertices have entries of Q, and no zeros
    are stored for the others: PETSc's LU takes 55 ms and not 75 at k = 60. K1's spectrum is that of P + i Q and its
    conjugate, with real parts of both signs: nonsymmetric and indefinite.

    wavenumber: k. resolution: n; a wave has 2π n / k points.
    """

    is_sequence = False

    def __init__(self, *, wavenumber: float, resolution: int):
        self.wavenumber = wavenumber
        self.resolution = resolution
        self.num_unknowns = 2 * (resolution + 1) ** 2
        self.name = f"D Helmholtz k {wavenumber:g} {self.num_unknowns}"
        points = 2 * np.pi * resolution / wavenumber
        self.title = f"Helmholtz, impedance boundary, k = {wavenumber:g}, {points:.1f} points a wavelength"

    def features(self, i: int) -> np.ndarray:
        """The medium c."""
        return self.medium(i).ravel() / (self.resolution + 1)

    def system(self, i: int) -> LinearSystem:
        x, y = np.indices(self._weights.shape) / self.resolution
        source = np.exp(-((x - 0.3) ** 2 + (y - 0.4) ** 2) / (2 * 0.05**2))
        return self.assemble(self.medium(i), source, np.zeros_like(source))

    def medium(self, i: int) -> np.ndarray:
        """[X, Y] c of draw i at the vertices."""
        draw = self._field.draw(generator_of(SEED, "helmholtz", i))
        return AMPLITUDE * self._field.features(draw).reshape(draw.shape) * (self.resolution + 1)

    def assemble(self, medium: np.ndarray, source: np.ndarray, impedance: np.ndarray) -> LinearSystem:
        """The system for c, f (complex or real) and the integral of g over each vertex's boundary, all [X, Y]."""
        k, shape = self.wavenumber, (len(OFFSETS), *self._weights.shape, 2)
        values = np.empty(shape)
        values[:5] = self._laplacian
        values[0] -= (k**2 * self._weights * (1 + medium))[..., None]
        absorbed = k * self._boundary * np.sqrt(1 + medium)
        values[5, ..., 0] = absorbed  # -Q, in the row of the real part
        values[6, ..., 1] = -absorbed
        right_hand_side = self._weights * source + impedance
        self._vector.array = np.stack([right_hand_side.real, right_hand_side.imag], axis=-1).ravel()
        return LinearSystem(A=self._matrix.overwrite(values), b=self._vector, family=self.name)

    @cached_property
    def _field(self) -> GaussianField:
        return GaussianField(self.resolution + 1)

    @cached_property
    def _side(self) -> np.ndarray:
        """[X] the share of a step that belongs to each point of a side: 1/2 at the ends."""
        side = np.ones(self.resolution + 1)
        side[[0, -1]] = 0.5
        return side

    @cached_property
    def _weights(self) -> np.ndarray:
        """[X, Y] the area of every vertex, the diagonal of M for c = 0."""
        return np.outer(self._side, self._side) / self.resolution**2

    @cached_property
    def _boundary(self) -> np.ndarray:
        """[X, Y] the length of the boundary that belongs to each vertex, the diagonal of B."""
        end = np.where(self._side < 1, 1.0, 0.0)
        return (np.outer(end, self._side) + np.outer(self._side, end)) / self.resolution

    @cached_property
    def _laplacian(self) -> np.ndarray:
        """[5, X, Y, 1] K: the face between two neighbours is half as long on the boundary."""
        along_x = np.broadcast_to(self._side, self._weights.shape)
        along_y = along_x.T
        return np.stack([4 * along_x * along_y, -along_x, -along_x, -along_y, -along_y])[..., None]

    @cached_property
    def _matrix(self) -> StencilMatrix:
        shape = (*self._weights.shape, 2)
        absent = np.zeros((len(OFFSETS), *shape), dtype=bool)
        absent[5:] = (self._boundary == 0)[..., None]
        return StencilMatrix(shape, OFFSETS, absent=absent, block_size=2)

    @cached_property
    def _vector(self) -> PETSc.Vec:
        return self._matrix.mat.createVecLeft()


RESOLUTIONS = {20.0: (32, 64), 40.0: (64, 96), 60.0: (96, 128)}  # the smaller ones have 10 points a wavelength

CASES = tuple(Helmholtz(wavenumber=k, resolution=n) for k, sizes in RESOLUTIONS.items() for n in sizes)
