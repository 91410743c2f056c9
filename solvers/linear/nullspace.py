"""Singular systems: the nullspace that is given, and the one that is missing.

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
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from penstock.messages import keep_last
from penstock.solvers.linear.auto.calibration import can_factor
from penstock.solvers.linear.check import check_of, kernels_for
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.forms import tells_entries
from penstock.solvers.linear.reasons import numerical_failures
from penstock.solvers.linear.strategy import Attempt, Strategy, Tolerance
from penstock.solvers.problem import LinearSystem, SolveError

if TYPE_CHECKING:
    from petsc4py import PETSc

# Largest ω of a vector of the nullspace that was given; rounding leaves 1e-13.
GIVEN = 1e-10
# Largest ||A n|| that counts as rounding, as a fraction of |||A||n|||.
ROUNDED = 1e-12
# Largest ω of a vector that was found.
FOUND = 1e-12
# Smallest fraction of such a vector that a step must leave: where A is regular, no solution would have more digits.
STAYS = 1e-3
# Smallest part of a random vector in the nullspace, times the square root of the unknowns.
HIDDEN = 3e-3
ORTHONORMAL = 1e-8
EXACT = Tolerance(1e-10)

NUM_STEPS = 5
NUM_SWEEPS = 5
# The first 4 kinds of systems in a family are examined whatever it costs.
THOROUGH = 4
# The most unknowns for which the examination factors the matrix, which then takes half a second (P1 in 2D).
MAX_FACTORED = 50_000

ADVICE = (
    "give all of its nullspace (constants, the level of a pressure, the rigid-body modes of an elastic body) as "
    "LinearSystem.nullspace or by A.setNullSpace, or fix the solution by a boundary condition"
)
CONSTANTS = (
    "the matrix is singular: it takes constants to zero; give that nullspace (PETSc.NullSpace().create(constant=True)) "
    "as LinearSystem.nullspace or by A.setNullSpace, or fix the solution by a boundary condition"
)

UNKNOWN = (
    "the right-hand side may not be consistent: as A is not symmetric, that is up to the nullspace of its transpose; "
    "give that by A.setTransposeNullSpace"
)

Solve = Callable[["LinearSystem", Tolerance], Attempt]


def with_nullspaces(system: LinearSystem) -> LinearSystem:
    """The system with the nullspaces of its matrix where it has none.

    They are those set by A.setNullSpace and A.setNearNullSpace.
    """
    nullspace = system.nullspace or system.A.getNullSpace()
    near_nullspace = system.near_nullspace or system.A.getNearNullSpace()
    if not nullspace and not near_nullspace:
        return system
    return replace(system, nullspace=nullspace or None, near_nullspace=near_nullspace or None)


def attached(system: LinearSystem) -> AbstractContextManager[None]:
    """A context in which A carries the system's nullspaces, for PETSc's methods.

    The problem finds A as it was.
    """
    has_none = system.nullspace is None and system.near_nullspace is None
    return nullcontext() if has_none else _attached(system)  # saves 2 us of 130 at 100 unknowns


@contextmanager
def _attached(system: LinearSystem) -> Iterator[None]:
    from petsc4py import PETSc

    A = system.A
    before = A.getNullSpace(), A.getTransposeNullSpace(), A.getNearNullSpace()
    A.setNullSpace(system.nullspace or PETSc.NullSpace())
    A.setNearNullSpace(system.near_nullspace or PETSc.NullSpace())
    try:
        yield
    finally:
        A.setNullSpace(before[0])  # for a symmetric A this sets that of the transpose, too
        A.setTransposeNullSpace(before[1])
        A.setNearNullSpace(before[2])


class Examiner:
    """The examination of one family's systems for their nullspaces.

    The first system of each kind (size, dimension of the nullspace) is examined. That costs a factorisation, or two
    solves where a factorisation is too dear, as much as three or four solutions. The fifth kind, the sixth, seventh,
    ninth and so on are not examined, because each system may have another mesh. Each system that was not solved is
    examined, to say why. Every system is tested: does its matrix take constants to zero, which the first row of most
    rules out, or is its right-hand side consistent?

    Args:
        make: makes a strategy for the examination alone, where a factorisation is too dear.
    """

    def __init__(self, make: Callable[[], Strategy]):
        self._make = make
        self._left_is_known: dict[tuple[int, int], bool] = {}  # one entry per kind that was examined
        self._num_examined = 0

    def admit(self, system: LinearSystem, rtol: float) -> None:
        """Raise SolveError for a system that has no solution, or many."""
        kind = _kind_of(system)
        if kind not in self._left_is_known:
            is_thorough = self._is_due(kind)
            keep_last(self._left_is_known, kind, self._examine(system, is_thorough=is_thorough))
            self._num_examined += 1
        elif system.nullspace is None and _has_constants(system):
            raise SolveError(CONSTANTS)
        if self._left_is_known[kind]:
            _require_consistent(system, rtol)

    def _is_due(self, kind: tuple[int, int]) -> bool:
        number = self._num_examined + 1
        is_new = all(kind[1] != dimension for _, dimension in self._left_is_known)
        return is_new or number <= THOROUGH or number & (number - 1) == 0

    def diagnosis(self, system: LinearSystem) -> list[str]:
        """The reasons for an unsolved system that lie in its nullspace."""
        try:
            left_is_known = self._examine(system, is_thorough=True)
        except SolveError as error:
            return [str(error)]
        except numerical_failures():
            return []
        return [] if system.nullspace is None or left_is_known else [UNKNOWN]

    def _examine(self, system: LinearSystem, *, is_thorough: bool) -> bool:
        """Whether the nullspace of A's transpose is known.

        Raises SolveError as `admit` does; for a nullspace that is not all of A's, only if it is thorough.
        """
        if system.nullspace is not None:
            _require_orthonormal(system)
        if not tells_entries(system.A):
            return system.nullspace is not None and (system.is_spd or bool(system.A.getTransposeNullSpace()))
        if not _is_finite(system.A):
            raise SolveError("the matrix holds values that are not finite")
        if system.nullspace is None:
            _require_rows(system)
        else:
            _require_null(system)
        if is_thorough:
            _require_complete(system, self._make)
        return system.nullspace is not None and _knows_left(system)


def basis_of(nullspace: PETSc.NullSpace, like: PETSc.Vec) -> list[PETSc.Vec]:
    """The vectors of a nullspace; none where it is given by a function."""
    vectors = list(nullspace.getVecs())
    if nullspace.hasConstant():
        constant = like.duplicate()
        constant.set(1 / math.sqrt(like.getSize()))
        vectors.append(constant)
    return vectors


def backward_error(A: PETSc.Mat, vector: PETSc.Vec) -> float:
    """The backward error ω(z) of a vector, as defined at the top of this file."""
    zero = vector.duplicate()
    zero.zeroEntries()
    return check_of(LinearSystem(A=A, b=zero), vector).strict_backward_error


def null_vector_of(system: LinearSystem, make: Callable[[], Strategy]) -> PETSc.Vec | None:
    """A vector that A takes to zero, or None where none was found.

    It is orthogonal to the system's nullspace.
    """
    A, z, solve = system.A, system.b.duplicate(), _way_to_solve(system, make)
    scale = _sums(A)[1]
    z.array = np.random.default_rng(0).standard_normal(z.getLocalSize()) * _reciprocal(scale)
    size = _size(z, scale)
    for step in range(NUM_STEPS):
        image = z.duplicate()
        A.mult(z, image)
        if not image.norm() > 0:
            break
        z.axpy(-1.0, solve(replace(system, b=image, guess=None), EXACT).x)
        if system.nullspace is not None:
            system.nullspace.remove(z)
        size, previous = _size(z, scale), size
        if step == 0 and not size * math.sqrt(z.getSize()) > HIDDEN * previous:
            return None
        if size > STAYS * previous and backward_error(A, z) <= FOUND:
            return z
    return None


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
        rows.array = _reciprocal(_sums(balanced)[0])
        balanced.diagonalScale(rows, None)
        columns.array = _reciprocal(_sums(balanced)[1])
        balanced.diagonalScale(None, columns)
        left.pointwiseMult(left, rows)
        right.pointwiseMult(right, columns)
    return balanced, left, right


def _kind_of(system: LinearSystem) -> tuple[int, int]:
    space = system.nullspace
    dimension = 0 if space is None else len(space.getVecs()) + space.hasConstant()
    return system.b.getSize(), dimension


def _has_constants(system: LinearSystem) -> bool:
    """Whether A takes constants to zero; False where reading its entries is slow."""
    kernels = kernels_for(system.A)
    if kernels is None:
        return False
    has = kernels.nullspace_has_constants(system.A.handle, system.b.getLocalSize(), FOUND)
    if has < 0:
        raise RuntimeError("PETSc doesn't hand out the arrays of an AIJ matrix")
    return bool(has)


def _is_finite(A: PETSc.Mat) -> bool:
    """Whether all entries are finite; PETSc's norms pass over NaN, or overflow."""
    is_finite = bool(np.isfinite(A.getValuesCSR()[2]).all())
    return is_finite if A.comm.size == 1 else A.comm.tompi4py().allreduce(not is_finite) == 0


def _one():
    from petsc4py import PETSc

    return PETSc.NormType.NORM_1


def _sums(A: PETSc.Mat) -> tuple[np.ndarray, np.ndarray]:
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


def _size(z: PETSc.Vec, scale: np.ndarray) -> float:
    """The norm of z, with each entry multiplied by the scale of its column."""
    scaled = z.duplicate()
    scaled.array = z.array_r * scale
    return scaled.norm()


def _require_orthonormal(system: LinearSystem) -> None:
    basis = basis_of(system.nullspace, system.b)
    for i, one in enumerate(basis):
        for j, other in enumerate(basis[: i + 1]):
            product = one.dot(other)
            if not abs(product - (i == j)) <= ORTHONORMAL:
                raise SolveError(
                    f"the nullspace's vectors are not orthonormal, as PETSc takes them to be: the product of {j} and "
                    f"{i} is {product:.6g}; orthonormalise them (dolfinx.la.orthonormalize)"
                )


def _require_null(system: LinearSystem) -> None:
    for number, vector in enumerate(basis_of(system.nullspace, system.b)):
        if not _is_null(system.A, vector):
            raise SolveError(
                f"the nullspace is none of this matrix, which leaves {_share_left(system.A, vector):.1e} of its vector "
                f"{number} (||A n|| / |||A||n|||): take it off where the matrix is regular, else give what the matrix "
                "takes to zero"
            )


def _is_null(A: PETSc.Mat, vector: PETSc.Vec) -> bool:
    """Whether A takes the vector to zero, in each row or in all rows together.

    All together count because some rows may hold nothing but rounding: with quadratic velocities some rows of a
    pressure gradient are 1e-18 where the others are 1e-2. An eigensolver's vectors are that inexact, too.
    """
    return backward_error(A, vector) <= GIVEN or _share_left(A, vector) <= ROUNDED


def _share_left(A: PETSc.Mat, vector: PETSc.Vec) -> float:
    """The fraction ||A n|| / |||A||n|||, in sums of absolute values."""
    image, sizes = vector.duplicate(), vector.copy()
    A.mult(vector, image)
    sizes.array = np.abs(vector.array_r) * _sums(A)[1]
    left, whole = image.norm(_one()), sizes.norm(_one())
    return left / whole if whole > 0 else 0.0


def _knows_left(system: LinearSystem) -> bool:
    from petsc4py import PETSc

    left = system.A.getTransposeNullSpace()
    if system.is_spd and not left:
        return True
    transpose = system.A.transpose(PETSc.Mat())
    is_null = all(_is_null(transpose, vector) for vector in basis_of(left or system.nullspace, system.b))
    if left and not is_null:
        raise SolveError("the nullspace set by A.setTransposeNullSpace is none of the transpose of this matrix")
    return is_null


def _require_rows(system: LinearSystem) -> None:
    """Raise SolveError where constants or rows of zeros show that A is singular."""
    zero_rows = system.A.findZeroRows()
    if zero_rows:  # NULL where there is none
        raise SolveError(f"the matrix is singular: {_named(zero_rows)}: each unknown needs an equation")
    ones = system.b.duplicate()
    ones.set(1.0)
    if backward_error(system.A, ones) <= FOUND:
        raise SolveError(CONSTANTS)


def _require_complete(system: LinearSystem, make: Callable[[], Strategy]) -> None:
    """Raise SolveError where A takes more to zero than the system says."""
    try:
        found = null_vector_of(system, make)
    except numerical_failures():  # the strategy will have a reason
        return
    if found is not None:
        what = "it takes" if system.nullspace is None else "beside the nullspace given, it takes"
        raise SolveError(f"the matrix is singular: {what} {_described(found)} to zero; {ADVICE}")


def _described(vector: PETSc.Vec) -> str:
    values = vector.array_r
    largest = np.abs(values).max(initial=0.0)
    taken = np.abs(values) > 1e-6 * largest
    if vector.comm.size == 1 and np.ptp(values[taken]) <= 1e-6 * largest:
        return f"a vector that is constant on {taken.sum()} of its {values.size} unknowns, and zero elsewhere,"
    return "a vector that is not constant"


def _named(zero_rows: PETSc.IS) -> str:
    number = zero_rows.getSize()
    if zero_rows.getLocalSize() == 0:
        return f"{number} of its rows, on another rank, hold no entry but zeros"
    row = zero_rows.indices[0]
    return f"its row {row} holds no entry but zeros" + (f", nor do {number - 1} others" if number > 1 else "")


def _require_consistent(system: LinearSystem, rtol: float) -> None:
    left = system.A.getTransposeNullSpace() or system.nullspace
    products = [system.b.dot(vector) for vector in left.getVecs()]
    if left.hasConstant():
        products.append(system.b.sum() / math.sqrt(system.b.getSize()))
    part = math.hypot(*products) / system.b.norm()
    if not part <= rtol:
        raise SolveError(
            f"the right-hand side is not consistent: its part along the nullspace is {part:.1e} of it, which no x can "
            f"bring below the bound {rtol:.0e}; subtract it (nullspace.remove(b)) where it is an error of rounding or "
            "discretisation, else mend the data: sources and what leaves by the boundary must balance"
        )
