"""Preconditioners for regular grids, as contexts of a PETSc PC of type "python".

Both serve symmetric positive definite matrices on one rank that couple a grid point with its 3^d neighbourhood; the
rows of boundary points may be rows of the identity. New values in the same matrix are noticed, and a new pattern is
read again.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import scipy.fft

from penstock.solvers.linear.direct.matrix_copy import pattern_of
from penstock.solvers.linear.kernels import library
from penstock.solvers.problem import GridDofs, LinearSystem, Unfit

if TYPE_CHECKING:
    from petsc4py import PETSc

MAX_AXES = 3
# a counts as smooth if log(a) changes by less than this from point to point; a jump by 4 makes a step of 0.9.
SMOOTH = 0.4

# Error codes of multigrid.c.
_NOT_FINITE, _OUT_OF_MEMORY, _NO_HIERARCHY = -1, -2, -3


def require_grid(name: str, system: LinearSystem) -> GridDofs:
    """The system's grid, if the preconditioner `name` suits the system.

    Raises Unfit where it does not suit such systems at all, and LinAlgError where only this one is not said to be
    SPD, as others of its family may be.
    """
    if system.grid is None:
        raise Unfit(f"pc = {name!r} needs a regular grid, and this system has none")
    if system.A.comm.size > 1:
        raise Unfit(f"pc = {name!r} works on one rank, and this system is distributed over {system.A.comm.size}")
    if system.A.getType() != "seqaij":
        raise Unfit(f"pc = {name!r} needs a matrix of type 'seqaij', not {system.A.getType()!r}")
    shape, num_unknowns = system.grid.shape, system.A.getSize()[0]
    if not 1 <= len(shape) <= MAX_AXES:
        raise Unfit(f"pc = {name!r} needs a grid of 1 to {MAX_AXES} axes, not {len(shape)}")
    if not num_unknowns == system.grid.permutation.size == np.prod(shape):
        raise Unfit(
            f"pc = {name!r}: the grid of shape {shape} and its permutation of {system.grid.permutation.size} dofs "
            f"do not fit {num_unknowns} unknowns"
        )
    if not system.is_spd:
        raise np.linalg.LinAlgError(f"pc = {name!r} needs a symmetric positive definite matrix")
    return system.grid


def is_same(grid: GridDofs, other: GridDofs) -> bool:
    return grid is other or (grid.shape == other.shape and np.array_equal(grid.permutation, other.permutation))


class Stencils:
    """The places of a matrix's couplings among its values, read once per pattern.

    An offset (dz, dy, dx) of the 3^d neighbourhood has the code 9 dz + 3 dy + dx; A is symmetric, so codes >= 0
    suffice. `codes`, int32 [C], holds the codes that occur, 0 first. `positions`, int32 [C, number of points], holds
    the place among the CSR values of a point's coupling at each code, -1 where there is none; points are in the order
    of the argument `points`.

    Raises LinAlgError for a coupling that reaches farther than the 3^d neighbourhood.
    """

    def __init__(self, matrix: PETSc.Mat, grid: GridDofs, points: np.ndarray):
        row_starts, columns = matrix.getRowIJ()
        points_of_dofs = grid.permutation.astype(np.int64)  # differences of unsigned ones wrap around
        rows = np.repeat(points_of_dofs, np.diff(row_starts))
        columns = points_of_dofs[columns]
        codes = np.zeros(columns.size, dtype=np.int32)
        stride = 1
        for num_points, weight in zip(reversed(grid.shape), (1, 3, 9), strict=False):
            step = columns // stride % num_points - rows // stride % num_points
            if step.size and np.abs(step).max() > 1:
                raise np.linalg.LinAlgError(
                    "the matrix couples grid points that are not neighbours: use a preconditioner that needs no grid"
                )
            codes += (weight * step).astype(np.int32)
            stride *= num_points
        self.codes = np.union1d([0], codes[codes > 0]).astype(np.int32)
        positions = np.full((self.codes.size, grid.permutation.size), -1, dtype=np.int32)
        for row, code in enumerate(self.codes):
            (place,) = np.nonzero(codes == code)
            positions[row, rows[place]] = place
        self.positions = np.ascontiguousarray(positions[:, points])
        self._matrix, self._pattern = matrix, pattern_of(matrix)

    def fit(self, matrix: PETSc.Mat) -> bool:
        return self._matrix == matrix and self._pattern == pattern_of(matrix)


class Multigrid:
    """One V-cycle of geometric multigrid, symmetric and positive definite.

    It applies z = M⁻¹ r. Before and after every coarse correction one sweep of Gauss-Seidel, downwards the adjoint of
    upwards. Interpolation is made from A one axis after another (see `weights` in multigrid.c) and coarse matrices are
    Galerkin products PᵀAP, so jumps of the coefficient need not lie on coarse grid lines. CG takes 9 or 10 iterations
    to 1e-8 with contrast 4 as with Poisson's equation, at every size, and 11 to 17 with smooth interfaces of contrast
    1e4. A high contrast that is rough down to the grid takes many more. Axes along which A couples weakly are not
    coarsened, so that stretched grids do as well.

    All of it is in single precision, which does not hurt CG in double precision: M⁻¹ only has to be one fixed operator,
    SPD to about seven digits.

    `setUp` raises LinAlgError for matrices that it cannot serve: see `Stencils`.
    """

    def __init__(self, grid: GridDofs):
        self.grid = grid
        shape = (1,) * (MAX_AXES - len(grid.shape)) + tuple(grid.shape)
        points = np.arange(grid.permutation.size, dtype=np.int32).reshape(shape)
        # The kernel's order: row by row, in each row first the even points, then the odd ones.
        self._points = np.concatenate([points[..., ::2], points[..., 1::2]], axis=-1).ravel()
        self._stencils: Stencils | None = None
        self._dof_of_point = _inverse(grid.permutation)[self._points]
        self._kernels = _kernels()
        self._handle = self._kernels.multigrid_create((ctypes.c_int * MAX_AXES)(*shape), self._dof_of_point.ctypes.data)
        if not self._handle:
            raise MemoryError(f"multigrid on {shape} points")

    def __del__(self):
        if hasattr(self, "_handle"):
            self._kernels.multigrid_destroy(self._handle)

    def setUp(self, pc: PETSc.PC) -> None:
        _, matrix = pc.getOperators()
        if self._stencils is None or not self._stencils.fit(matrix):
            self._stencils = Stencils(matrix, self.grid, self._points)
        positions, codes = self._stencils.positions, self._stencils.codes
        _check(
            self._kernels.multigrid_set_up(
                self._handle, matrix.handle, positions.ctypes.data, codes.ctypes.data, codes.size
            )
        )

    def apply(self, pc: PETSc.PC, r: PETSc.Vec, z: PETSc.Vec) -> None:
        _check(self._kernels.multigrid_apply(self._handle, r.handle, z.handle))


@dataclass(frozen=True)
class Boundary:
    """A condition at both ends of an axis of m points, with its transform.

    The transform diagonalises -d²/dx² under the condition. The eigenvalues of the stencil (-1, 2, -1) are then
    2 - 2 cos(π k / (m + period)), k = first, ..., first + m - 1.
    """

    transform: Callable
    inverse: Callable
    kind: int
    """Number of the sine or cosine transform, 1 to 4."""
    period: int
    first: int
    end: float
    """The diagonal entry at an end point; it is 2 inside."""
    halves_ends: bool = False
    """Whether end points have half a cell, and so half the couplings across the axis."""

    def eigenvalues(self, m: int) -> np.ndarray:
        k = np.arange(self.first, self.first + m)
        return 2 - 2 * np.cos(np.pi * k / max(m + self.period, 1))

    def diagonal(self, m: int) -> np.ndarray:
        diagonal = np.full(m, 2.0)
        diagonal[[0, -1]] = self.end
        return diagonal

    def weights(self, m: int) -> np.ndarray:
        """The part of a cell that each point of the axis has."""
        weights = np.ones(m)
        if self.halves_ends:
            weights[[0, -1]] = 0.5
        return weights


_SINE, _COSINE = (scipy.fft.dst, scipy.fft.idst), (scipy.fft.dct, scipy.fft.idct)
DIRICHLET = Boundary(*_SINE, kind=1, period=1, first=1, end=2.0)  # zero one spacing outside
DIRICHLET_BETWEEN = Boundary(*_SINE, kind=2, period=0, first=1, end=3.0)  # zero half a spacing outside
NEUMANN = Boundary(*_COSINE, kind=1, period=-1, first=0, end=1.0, halves_ends=True)  # at the end points
NEUMANN_BETWEEN = Boundary(*_COSINE, kind=2, period=0, first=0, end=1.0)  # half a spacing outside


class FastPoisson:
    """The inverse of a constant-coefficient operator by fast transforms.

    It applies z = M⁻¹ r by sine and cosine transforms. M has A's mean coupling along each axis, its mean row sum, and
    its boundary conditions: Dirichlet or Neumann, the same at both ends of an axis, at grid points or half-way between,
    as the first matrix shows them. Points with rows of the identity around the others are solved separately.

    Exact where the coefficient is constant. Where it changes little from point to point, M⁻¹ is scaled by a^(-1/2) on
    both sides: CG takes 15 to 17 iterations to 1e-8 with a = exp(g), g of unit variance and smooth, and up to 285
    without. With jumps it is not: contrast 4 takes 17 to 20 iterations at every size, and 25 to 60 with the scaling.

    It uses double precision, so that constant coefficients take one iteration; single precision would take half the
    time. Lengths m + period with small factors serve the transforms best: 255 x 255 points take 0.8 ms there and back,
    420 x 420 take 35, because 421 is prime.

    `setUp` raises LinAlgError for matrices that it cannot serve: see `Stencils` and `boundary_of`.
    """

    def __init__(self, grid: GridDofs):
        self.grid = grid
        self._dof_of_point = _inverse(grid.permutation)
        self._stencils: Stencils | None = None

    def _read(self, matrix: PETSc.Mat) -> None:
        """Find out where the unknowns lie, and their boundary conditions."""
        self._stencils = None  # until all is read
        stencils = Stencils(matrix, self.grid, np.arange(self.grid.permutation.size))
        diagonal, couplings = self._values(matrix, stencils)
        is_coupled = np.zeros(diagonal.shape, dtype=bool)
        for axis, coupling in enumerate(couplings):
            is_coupled |= coupling != 0
            is_coupled |= np.roll(coupling, 1, axis) != 0  # the last entry along the axis is zero
        if not is_coupled.any():
            raise np.linalg.LinAlgError("pc = 'fast_poisson' finds no points with neighbours")
        self._box = tuple(slice(places.min(), places.max() + 1) for places in np.nonzero(is_coupled))
        if not is_coupled[self._box].all():
            raise np.linalg.LinAlgError(
                "pc = 'fast_poisson' needs a rectangle of unknowns: here are rows of the identity inside"
            )
        diagonal, couplings = diagonal[self._box], [coupling[self._box] for coupling in couplings]
        row_sums = _row_sums(diagonal, couplings)
        self._boundaries = [boundary_of(axis, couplings, row_sums) for axis in range(diagonal.ndim)]
        weights = [boundary.weights(m) for boundary, m in zip(self._boundaries, diagonal.shape, strict=True)]
        self._weights = reduce(np.multiply.outer, weights)
        # Along an axis there are m - 1 couplings, for each line of points across.
        self._num_lines = [self._weights.sum() / w.sum() for w in weights]
        self._stencils = stencils

    def setUp(self, pc: PETSc.PC) -> None:
        _, matrix = pc.getOperators()
        if self._stencils is None or not self._stencils.fit(matrix):
            self._read(matrix)
        diagonal, couplings = self._values(matrix, self._stencils)
        if not np.isfinite(diagonal).all():
            raise np.linalg.LinAlgError("the matrix has values that are not finite")
        inside, couplings = diagonal[self._box], [coupling[self._box] for coupling in couplings]
        reaction = _inner_mean(_row_sums(inside, couplings))
        eigenvalues, diagonal_of_M = np.full(inside.shape, reaction), reaction * self._weights
        for axis, (boundary, coupling) in enumerate(zip(self._boundaries, couplings, strict=True)):
            m = inside.shape[axis]
            strength = coupling.sum() / (self._num_lines[axis] * max(m - 1, 1))
            eigenvalues += _along(axis, strength * boundary.eigenvalues(m), inside.ndim)
            of_axis = strength * boundary.diagonal(m) / boundary.weights(m)
            diagonal_of_M += _along(axis, of_axis, inside.ndim) * self._weights
        # Under Neumann conditions alone the mean is free, or nearly so.
        smallest = 1e-3 * np.sort(eigenvalues, axis=None)[:2].max()
        self._inverse_eigenvalues = 1 / np.maximum(eigenvalues, smallest)
        if diagonal.min() <= 0 or diagonal_of_M.min() <= 0:
            raise np.linalg.LinAlgError("the matrix is not positive definite")
        scale = 1 / np.sqrt(self._weights)
        coefficient = inside / diagonal_of_M
        if all(np.abs(np.diff(np.log(coefficient), axis=axis)).max(initial=0) < SMOOTH for axis in range(inside.ndim)):
            scale /= np.sqrt(coefficient)
        self._scale = scale
        self._inverse_diagonal = 1 / diagonal

    def apply(self, pc: PETSc.PC, r: PETSc.Vec, z: PETSc.Vec) -> None:
        source = r.array_r[self._dof_of_point].reshape(self.grid.shape)
        target = source * self._inverse_diagonal
        inside = source[self._box] * self._scale
        for axis, boundary in enumerate(self._boundaries):
            inside = boundary.transform(inside, boundary.kind, axis=axis, norm="ortho")
        inside *= self._inverse_eigenvalues
        for axis, boundary in enumerate(self._boundaries):
            inside = boundary.inverse(inside, boundary.kind, axis=axis, norm="ortho")
        target[self._box] = inside * self._scale
        z.array = target.ravel()[self.grid.permutation]

    def _values(self, matrix: PETSc.Mat, stencils: Stencils) -> tuple[np.ndarray, list[np.ndarray]]:
        """The diagonal, and the couplings -A[g, g + 1] along each axis, each [shape]."""
        values = np.append(matrix.getValuesCSR()[2], 0.0)  # a position of -1 reads this zero
        shape = self.grid.shape
        of_code = dict(zip(stencils.codes.tolist(), stencils.positions, strict=True))
        diagonal = values[of_code[0]].reshape(shape)
        axis_codes = [3**power for power in reversed(range(len(shape)))]
        nothing = np.full(diagonal.size, -1)
        return diagonal, [-values[of_code.get(code, nothing)].reshape(shape) for code in axis_codes]


def boundary_of(axis: int, couplings: list[np.ndarray], row_sums: np.ndarray) -> Boundary:
    """The boundary condition at both ends of an axis.

    It is recognised by how much row sums there exceed those inside, in units of the coupling along the axis: by 0 with
    Neumann conditions, 1 with Dirichlet conditions a spacing outside, 2 with half a spacing.

    Raises LinAlgError where the two ends differ.
    """
    num_axes = row_sums.ndim
    if row_sums.shape[axis] < 2:
        return NEUMANN_BETWEEN  # one point, whose row sum says all
    across = tuple(slice(1, -1) if m > 2 and other != axis else slice(None) for other, m in enumerate(row_sums.shape))
    row_sums_inside = _inner_mean(row_sums)

    def condition(end: int, inner: int, edge: int) -> Boundary:
        halves = any(
            2 * np.take(couplings[other], end, axis).sum() < 1.5 * np.take(couplings[other], inner, axis).sum()
            for other in range(num_axes)
            if other != axis
        )
        excess = np.take(row_sums[across], end, axis).mean() - (0.5 if halves else 1.0) * row_sums_inside
        ratio = excess / np.take(couplings[axis][across], edge, axis).mean()
        if ratio < 0.25:
            return NEUMANN if halves else NEUMANN_BETWEEN
        return DIRICHLET if ratio < 1.5 else DIRICHLET_BETWEEN

    low, high = condition(0, 1, 0), condition(-1, -2, -2)
    if low is not high:
        raise np.linalg.LinAlgError(
            f"pc = 'fast_poisson' needs the same boundary condition at both ends of axis {axis}"
        )
    return low


def _row_sums(diagonal: np.ndarray, couplings: list[np.ndarray]) -> np.ndarray:
    sums = diagonal.copy()
    for axis, coupling in enumerate(couplings):
        sums -= coupling
        sums -= np.roll(coupling, 1, axis)
    return sums


def _inner_mean(row_sums: np.ndarray) -> float:
    """The mean row sum of points that no boundary condition touches.

    It is zero up to rounding without a reaction term.
    """
    return row_sums[tuple(slice(1, -1) if m > 2 else slice(None) for m in row_sums.shape)].mean()


def _along(axis: int, values: np.ndarray, num_axes: int) -> np.ndarray:
    return values.reshape([-1 if other == axis else 1 for other in range(num_axes)])


def _inverse(permutation: np.ndarray) -> np.ndarray:
    places = np.arange(permutation.size)
    if not np.array_equal(np.sort(permutation), places):
        raise ValueError("a grid's permutation must name every point once")
    inverse = np.empty(permutation.size, dtype=np.int32)
    inverse[permutation] = places
    return inverse


def _kernels() -> ctypes.PyDLL:
    kernels = library()
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    kernels.multigrid_create.restype = pointer
    kernels.multigrid_create.argtypes = [pointer, pointer]
    kernels.multigrid_destroy.argtypes = [pointer]
    kernels.multigrid_set_up.argtypes = [pointer, pointer, pointer, pointer, integer]
    kernels.multigrid_apply.argtypes = [pointer, pointer, pointer]
    return kernels


def _check(status: int) -> None:
    if status == _NOT_FINITE:
        raise np.linalg.LinAlgError("the matrix has values that are not finite")
    if status == _OUT_OF_MEMORY:
        raise MemoryError("multigrid")
    if status == _NO_HIERARCHY:
        raise np.linalg.LinAlgError("multigrid has no hierarchy for the matrix")
    if status:
        from petsc4py import PETSc

        raise PETSc.Error(status)


GRID_PRECONDITIONERS = {"multigrid": Multigrid, "fast_poisson": FastPoisson}
"""The preconditioners by name; each is made for one grid."""
