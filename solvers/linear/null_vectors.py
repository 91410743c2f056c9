"""The search for vectors that a matrix takes to zero.

A vector z counts as one of A's nullspace by its backward error

    ω(z) = max |A z|_i / (|A||z|)_i,

the least relative change of A's entries that makes A z = 0 (W. Oettli, W. Prager, Numer. Math. 6 (1964) 405-409). No
scaling of rows or columns changes it, so a penalty of 1e30 or a beam in SI units can't pass for a singular matrix: a
small ω is proof. To find such a z, some random w is solved for: z = w - A⁻¹ (A w) is zero up to rounding where A is
regular, and w's part in the nullspace where it is not. One more step from there cleans z of the rest, and shows what
fraction of it stays.

With 40 singular matrices (Laplacians, elasticity, Stokes flow; elements of order 1 to 4; coefficients over 8 decades,
rows and columns scaled over 24) ω(z) was 6e-13 at most, and the fraction 6e-3 at least. With 50 regular ones
(cantilevers up to 1000 : 1, beams of 8000 points, penalties, resonances) the fraction was 5e-4 at most: the error that
a direct solution has there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from penstock.solvers.linear.auto.calibration import can_factor
from penstock.solvers.linear.check import check_of
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.strategy import Attempt, Strategy, Tolerance
from penstock.solvers.problem import LinearSystem

if TYPE_CHECKING:
    from petsc4py import PETSc

# Largest ω of a vector that was found.
FOUND = 1e-12
# Smallest fraction of such a vector that a step must leave: where A is regular, no solution would have more digits.
STAYS = 1e-3
# Smallest part of a random vector in the nullspace, times the square root of the unknowns.
HIDDEN = 3e-3
EXACT = Tolerance(1e-10)

NUM_STEPS = 5
NUM_SWEEPS = 5
# An entry below this fraction of the largest, each in units of its column, may be rounding.
ROUNDED = 1e-10
# The most unknowns for which the examination factors the matrix, which then takes half a second (P1 in 2D).
MAX_FACTORED = 50_000

Solve = Callable[["LinearSystem", Tolerance], Attempt]


def backward_error(A: PETSc.Mat, vector: PETSc.Vec) -> float:
    """The backward error ω(z) of a vector, as defined at the top of this file."""
    zero = vector.duplicate()
    zero.zeroEntries()
    return check_of(LinearSystem(A=A, b=zero), vector).strict_backward_error


def suspect_of(system: LinearSystem, make: Callable[[], Strategy]) -> PETSc.Vec | None:
    """A vector that A may take to zero; None where A is regular.

    It is orthogonal to the system's nullspace. Ask `is_found` whether it is proof.
    """
    A, z, solve = system.A, system.b.duplicate(), _way_to_solve(system, make)
    units = _reciprocal(sums_of(A)[1])  # 1 for a column of zeros, whose unknown must not count for nothing
    z.array = np.random.default_rng(0).standard_normal(z.getLocalSize()) * units
    size, stays = _size(z, units), False
    for step in range(NUM_STEPS):
        image = z.duplicate()
        A.mult(z, image)
        if not image.norm() > 0:
            break
        z.axpy(-1.0, solve(replace(system, b=image, guess=None), EXACT).x)
        if system.nullspace is not None:
            system.nullspace.remove(z)
        size, previous = _size(z, units), size
        if step == 0 and not size * math.sqrt(z.getSize()) > HIDDEN * previous:
            return None
        stays = size > STAYS * previous
        if stays and is_found(A, z):
            break
    return z if stays else None


def is_found(A: PETSc.Mat, suspect: PETSc.Vec) -> bool:
    """Whether the backward error of the vector proves that A is singular.

    That of its level does, too, and that of its large entries: rounding may be all that it has elsewhere, and then a
    row that holds nothing else has an error of 1.
    """
    level = level_of(suspect)
    vectors = [suspect, _large_of(A, suspect)] + ([] if level is None else [level])
    return any(backward_error(A, vector) <= FOUND for vector in vectors)


def _large_of(A: PETSc.Mat, vector: PETSc.Vec) -> PETSc.Vec:
    """The vector without the entries that may be rounding."""
    from petsc4py import PETSc

    sizes = vector.duplicate()
    sizes.array = np.abs(vector.array_r) / _reciprocal(sums_of(A)[1])
    large = vector.duplicate()
    large.array = np.where(sizes.array_r > ROUNDED * sizes.norm(PETSc.NormType.NORM_INFINITY), vector.array_r, 0.0)
    return large


def level_of(vector: PETSc.Vec) -> PETSc.Vec | None:
    """The vector of ones and zeros that this one is a multiple of, up to 1e-6.

    None where there is none.
    """
    values = vector.array_r
    largest = np.abs(values).max(initial=0.0)
    taken = np.abs(values) > 1e-6 * largest
    if vector.comm.size > 1 or np.ptp(values[taken]) > 1e-6 * largest:
        return None
    level = vector.duplicate()
    level.array = taken
    return level


def _way_to_solve(system: LinearSystem, make: Callable[[], Strategy]) -> Solve:
    """The function that solves with A: LU of the balanced matrix.

    Null pivots are no fault there. Where LU is too dear, the strategy solves.
    """
    from petsc4py import PETSc

    if system.A.getSize()[0] > MAX_FACTORED or not can_factor(system):
        return make().solve
    direct, nullspace = Direct(solver="mumps"), system.nullspace or PETSc.NullSpace().create(constant=True)
    balanced, left, right = _balanced(system.A)

    def solve(system: LinearSystem, tolerance: Tolerance) -> Attempt:
        b = system.b.duplicate()
        b.pointwiseMult(left, system.b)
        attempt = direct.solve(LinearSystem(A=balanced, b=b, nullspace=nullspace), tolerance)
        attempt.x.pointwiseMult(right, attempt.x)
        return attempt

    return solve


def _balanced(A: PETSc.Mat) -> tuple[PETSc.Mat, PETSc.Vec, PETSc.Vec]:
    """The balanced matrix diag(l) A diag(r), with l and r.

    The absolute values in each of its rows and columns add up to about one. Rows and columns are scaled in turns
    (R. Sinkhorn, P. Knopp, Pacific J. Math. 21 (1967) 343-348). With MUMPS's scaling, Stokes flow with rows that differ
    by 24 decades is found singular only half of the time.
    """
    balanced = A.copy()
    left, right = A.createVecLeft(), A.createVecRight()
    left.set(1.0)
    right.set(1.0)
    for _ in range(NUM_SWEEPS):
        rows, columns = A.createVecLeft(), A.createVecRight()
        rows.array = _reciprocal(sums_of(balanced)[0])
        balanced.diagonalScale(rows, None)
        columns.array = _reciprocal(sums_of(balanced)[1])
        balanced.diagonalScale(None, columns)
        left.pointwiseMult(left, rows)
        right.pointwiseMult(right, columns)
    return balanced, left, right


def sums_of(A: PETSc.Mat) -> tuple[np.ndarray, np.ndarray]:
    """The sums of |A| over each local row, and over each column of this rank."""
    starts, columns, values = A.getValuesCSR()
    magnitudes = np.abs(values)
    over_rows = np.bincount(np.repeat(np.arange(len(starts) - 1), np.diff(starts)), magnitudes, len(starts) - 1)
    over_columns = np.bincount(columns, magnitudes, A.getSize()[1])
    if A.comm.size > 1:
        over_columns = A.comm.tompi4py().allreduce(over_columns)
    return over_rows, over_columns[slice(*A.getOwnershipRangeColumn())]


def _reciprocal(sums: np.ndarray) -> np.ndarray:
    return np.divide(1.0, sums, out=np.ones_like(sums), where=sums > 0)


def _size(z: PETSc.Vec, units: np.ndarray) -> float:
    """The norm of z, with each entry in units of its column."""
    scaled = z.duplicate()
    scaled.array = z.array_r / units
    return scaled.norm()
