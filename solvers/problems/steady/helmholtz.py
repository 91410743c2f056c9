"""Time-harmonic waves in a random medium: indefinite systems in real form."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from math import ceil, inf, pi
from typing import TYPE_CHECKING

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.stencil import StencilMatrix
from penstock.solvers.parameters.fields import GaussianField
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.problem import LinearSystem, Parameters, Problem, Solve

if TYPE_CHECKING:
    from petsc4py import PETSc

AMPLITUDE = 0.1  # standard deviation of c
LEAST_POINTS = 5  # fewest points per wavelength that are accepted

# Offsets on the grid [x, y, part] of real and imaginary parts: the five points of the Laplacian, then the other part.
OFFSETS = ((0, 0, 0), (-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, 1), (0, 0, -1))


class Helmholtz(Problem):
    """Helmholtz's equation on the unit square: from medium c to complex amplitude u.

    -Δu - k² (1 + c) u = f, with an absorbing boundary.

    On the boundary ∂u/∂n - i k √(1 + c) u = g with g = 0, the absorbing condition of first order. c is a Gaussian field
    of covariance (-Δ + 9)^-2, scaled to a standard deviation of 0.1 in law. f is a Gaussian hump a tenth of the side
    wide at (0.3, 0.4).

    Finite volumes around the vertices of n x n squares, second order: the five-point stencil K and diagonal M and B in
    K - k² M - i k B. PETSc may be built for real numbers alone, so (P + i Q)(v + i w) = r + i s is solved in the form
    K1 of Day and Heroux (2001, "Solving complex-valued linear systems via equivalent real formulations", SIAM J. Sci.
    Comput. 23, 480-498),

        [P  -Q] [v]   [r]
        [Q   P] [w] = [s],

    with v and w interleaved: blocks of two unknowns per vertex. Only boundary vertices have entries of Q, and no zeros
    are stored for the others: PETSc's LU takes 55 ms instead of 75 at k = 60. K1's spectrum is that of P + i Q and its
    conjugate, with real parts of both signs: nonsymmetric and indefinite.

    A sample holds values at the (n + 1)² vertices, indexed [x, y]: c, and the real and the imaginary part of u.

    Args:
        resolution: squares along each side of the unit square, n >= 2; samples hold their vertices, one more along each
            axis. Good values: 10 points per wavelength or more, n >= 1.6 k.
        wavenumber: 2π over the wavelength in a medium of c = 0, k > 0. Good values: 20 to 60. A wave has 2π n / k
            points; fewer than 5 are refused.
    """

    def __init__(self, *, resolution: int = 64, wavenumber: float = 20.0):
        if resolution < 2:
            raise ValueError(f"resolution = {resolution} is too small: a square of cells needs at least 2 per side")
        check_waves(resolution, wavenumber)
        self.resolution = resolution
        self.wavenumber = wavenumber
        self._field = GaussianField(resolution + 1, centring="vertices")
        self.space = ParameterSpace(medium=self._field)
        self._shape = (resolution + 1, resolution + 1)
        grid = Grid(self._shape, centring="vertices")
        self.inputs = (FieldSpec(name="medium", on=grid),)
        self.outputs = tuple(FieldSpec(name=part, on=grid) for part in ("real", "imaginary"))

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        medium = self.scaled(parameters["medium"])
        solution = solve(self.assemble(medium, self._source, np.zeros(self._shape)))
        parts = solution.x.array_r.reshape(*self._shape, 2)
        yield Sample(inputs={"medium": medium}, outputs={"real": parts[..., 0], "imaginary": parts[..., 1]})

    def scaled(self, field: np.ndarray) -> np.ndarray:
        """The medium c [n + 1, n + 1] for a drawn `field` of the same shape."""
        return AMPLITUDE * field / np.sqrt(self._field.variance)

    def assemble(self, medium: np.ndarray, source: np.ndarray, impedance: np.ndarray) -> LinearSystem:
        """The system for one medium, source and impedance.

        Args:
            medium: c, [n + 1, n + 1].
            source: f, complex or real, [n + 1, n + 1].
            impedance: the integral of g over each vertex's boundary, [n + 1, n + 1].
        """
        k = self.wavenumber
        values = np.empty((len(OFFSETS), *self._shape, 2))
        values[:5] = self._laplacian
        values[0] -= (k**2 * self._weights * (1 + medium))[..., None]
        absorbed = k * self._boundary * np.sqrt(1 + medium)
        values[5, ..., 0] = absorbed  # -Q, in the row of the real part
        values[6, ..., 1] = -absorbed
        right_hand_side = self._weights * source + impedance
        self._vector.array = np.stack([right_hand_side.real, right_hand_side.imag], axis=-1).ravel()
        return LinearSystem(A=self._matrix.overwrite(values), b=self._vector, family="helmholtz")

    @cached_property
    def _source(self) -> np.ndarray:
        """The source f at the vertices, [n + 1, n + 1]."""
        x, y = np.indices(self._shape) / self.resolution
        return np.exp(-((x - 0.3) ** 2 + (y - 0.4) ** 2) / (2 * 0.05**2))

    @cached_property
    def _side(self) -> np.ndarray:
        """The share of a step that each point of a side has, [n + 1]; 1/2 at the ends."""
        side = np.ones(self.resolution + 1)
        side[[0, -1]] = 0.5
        return side

    @cached_property
    def _weights(self) -> np.ndarray:
        """The area of every vertex [n + 1, n + 1], the diagonal of M for c = 0."""
        return np.outer(self._side, self._side) / self.resolution**2

    @cached_property
    def _boundary(self) -> np.ndarray:
        """The length of boundary that each vertex has, [n + 1, n + 1].

        It is the diagonal of B for c = 0.
        """
        end = np.where(self._side < 1, 1.0, 0.0)
        return (np.outer(end, self._side) + np.outer(self._side, end)) / self.resolution

    @cached_property
    def _laplacian(self) -> np.ndarray:
        """The matrix K by its stencil, [5, n + 1, n + 1, 1].

        The face between two neighbours is half as long on the boundary.
        """
        along_x = np.broadcast_to(self._side, self._shape)
        along_y = along_x.T
        return np.stack([4 * along_x * along_y, -along_x, -along_x, -along_y, -along_y])[..., None]

    @cached_property
    def _matrix(self) -> StencilMatrix:
        shape = (*self._shape, 2)
        absent = np.zeros((len(OFFSETS), *shape), dtype=bool)
        absent[5:] = (self._boundary == 0)[..., None]
        return StencilMatrix(shape, OFFSETS, absent=absent, block_size=2)

    @cached_property
    def _vector(self) -> PETSc.Vec:
        return self._matrix.mat.createVecLeft()


def check_waves(resolution: int, wavenumber: float) -> None:
    """Check that waves have enough points.

    Raises:
        ValueError: they have fewer than 5 per wavelength, or the wavenumber is out of its range.
    """
    if not 0 < wavenumber < inf:
        raise ValueError(f"wavenumber = {wavenumber} must be above 0 and finite")
    if (points := 2 * pi * resolution / wavenumber) < LEAST_POINTS:
        raise ValueError(
            f"resolution = {resolution} has {points:.1f} points per wavelength at wavenumber = {wavenumber:g}, "
            f"which needs {LEAST_POINTS}: give resolution = {ceil(LEAST_POINTS * wavenumber / (2 * pi))} or more"
        )
