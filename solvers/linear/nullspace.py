"""Singular systems: the nullspace that is given, and the one that is missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from penstock.messages import keep_last
from penstock.solvers.linear.check import kernels_for
from penstock.solvers.linear.forms import tells_entries
from penstock.solvers.linear.null_vectors import FOUND, backward_error, is_found, level_of, sums_of, suspect_of
from penstock.solvers.linear.reasons import is_symmetric, not_finite, numerical_failures
from penstock.solvers.linear.strategy import Strategy
from penstock.solvers.problem import LinearSystem, SolveError

if TYPE_CHECKING:
    from petsc4py import PETSc

# Largest ω of a vector of the nullspace that was given; rounding leaves 1e-13.
GIVEN = 1e-10
# Largest ||A n|| that counts as rounding, as a fraction of |||A||n|||.
ROUNDED = 1e-12
ORTHONORMAL = 1e-8
# The first 4 kinds of systems in a family are examined whatever it costs.
THOROUGH = 4

ADVICE = (
    "give all of its nullspace (constants, the level of a pressure, the rigid-body modes of an elastic body) as "
    "LinearSystem.nullspace, WeakForm(nullspace=...) or by A.setNullSpace, or fix the solution by a boundary condition"
)
CONSTANTS = (
    "the matrix is singular: it takes constants to zero; give that nullspace (PETSc.NullSpace().create(constant=True)) "
    "as LinearSystem.nullspace, WeakForm(nullspace=...) or by A.setNullSpace, or fix the solution by a boundary "
    "condition"
)
LEVEL = (
    "the matrix is singular: its transpose takes {} to zero, so these equations add up to 0 = Σ b, and the solution "
    "has no level: is the flux given all around, with no sink? As A is not symmetric, what A itself takes to zero is "
    "not constant and changes with its data: fix the solution by a boundary condition or a sink, or give both "
    "nullspaces of each system, by A.setNullSpace and A.setTransposeNullSpace"
)
UNKNOWN = (
    "the right-hand side may not be consistent: as A is not symmetric, that is up to the nullspace of its transpose; "
    "give that by A.setTransposeNullSpace"
)


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
        _require_finite(system.A)
        _require_null(system)
        _require_rows(system)
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


def _require_finite(A: PETSc.Mat) -> None:
    """Raise SolveError for entries that are not finite.

    PETSc's norms pass over NaN, or overflow.
    """
    starts, _, values = A.getValuesCSR()
    wrong = np.flatnonzero(~np.isfinite(values))
    are_finite = np.ones(len(starts) - 1, bool)
    are_finite[np.searchsorted(starts, wrong, side="right") - 1] = False
    if reason := not_finite("the matrix", are_finite, A):
        raise SolveError(reason)


def _one():
    from petsc4py import PETSc

    return PETSc.NormType.NORM_1


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
    basis = [] if system.nullspace is None else basis_of(system.nullspace, system.b)
    for number, vector in enumerate(basis):
        if not _is_null(system.A, vector):
            raise SolveError(
                f"A does not take vector {number} of the nullspace to zero ({_share_left(system.A, vector):.2g} of "
                "|A||n|, should be 0): check the boundary conditions and their `of=`; leave the nullspace out if A is "
                "regular"
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
    sizes.array = np.abs(vector.array_r) * sums_of(A)[1]
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
    """Raise SolveError where constants or rows of zeros are not in the nullspace."""
    zero_rows = system.A.findZeroRows()
    if zero_rows and (rows := _beyond_nullspace(zero_rows, system)).getSize() > 0:  # NULL where there is none
        given = "" if system.nullspace is None else "beyond the nullspace given, "
        raise SolveError(f"the matrix is singular: {given}{_named(rows)}: each unknown needs an equation")
    if system.nullspace is not None:
        return
    ones = system.b.duplicate()
    ones.set(1.0)
    if backward_error(system.A, ones) <= FOUND:
        raise SolveError(CONSTANTS)


def _beyond_nullspace(zero_rows: PETSc.IS, system: LinearSystem) -> PETSc.IS:
    """The rows of zeros that the nullspace given does not explain.

    A row of zeros puts its unit vector into the nullspace of the transpose. Where that is not known, the dimension has
    to do, which is the same. A nullspace that a function gives can't be asked, and explains all.
    """
    from petsc4py import PETSc

    if system.nullspace is None:
        return zero_rows
    if _kind_of(system)[1] == 0:
        return PETSc.IS().createGeneral([], comm=zero_rows.comm)
    left, rows = system.A.getTransposeNullSpace(), zero_rows.indices
    if not left and not is_symmetric(system):
        are_explained = np.full(len(rows), zero_rows.getSize() <= _kind_of(system)[1])
    else:
        places = rows - system.A.getOwnershipRange()[0]
        basis = basis_of(left or system.nullspace, system.b)
        are_explained = sum((vector.array_r[places] ** 2 for vector in basis), np.zeros(len(rows))) >= 1 - ORTHONORMAL
    return PETSc.IS().createGeneral(rows[~are_explained], comm=zero_rows.comm)


def _require_complete(system: LinearSystem, make: Callable[[], Strategy]) -> None:
    """Raise SolveError where A takes more to zero than the system says.

    Where A is not symmetric, its transpose may be the proof, because rounding hides less there, or the cause.
    """
    from petsc4py import PETSc

    transpose = left = None
    try:
        right = suspect_of(system, make)
        if right is None:
            return
        if system.nullspace is None and not is_symmetric(system):
            transpose = system.A.transpose(PETSc.Mat())
            left = suspect_of(replace(system, A=transpose), make)
    except numerical_failures():  # the strategy will have a reason
        return
    if not is_found(system.A, right) and (left is None or not is_found(transpose, left)):
        return
    level = None if left is None or level_of(right) is not None else level_of(left)
    if level is not None and _is_null(transpose, level):
        raise SolveError(LEVEL.format(_described(level)))
    what = "it takes" if system.nullspace is None else "beside the nullspace given, it takes"
    raise SolveError(f"the matrix is singular: {what} {_described(right)} to zero; {ADVICE}")


def _described(vector: PETSc.Vec) -> str:
    level = level_of(vector)
    if level is None:
        return "a vector that is not constant"
    if (num_taken := int(level.sum())) == level.getSize():
        return "constants"
    return f"a vector that is constant on {num_taken} of its {level.getSize()} unknowns, and zero elsewhere,"


def _named(zero_rows: PETSc.IS) -> str:
    number = zero_rows.getSize()
    if zero_rows.getLocalSize() == 0:
        return f"{number} of its rows, on another rank, hold no entry but zeros"
    others = "" if number == 1 else ", nor does another" if number == 2 else f", nor do {number - 1} others"
    return f"its row {zero_rows.indices[0]} holds no entry but zeros{others}"


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
