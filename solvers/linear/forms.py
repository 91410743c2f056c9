"""The forms in which strategies get a system.

A system has an AIJ matrix with plain vectors, or a matrix that only multiplies.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from penstock.solvers.problem import LinearSystem, SolveError

if TYPE_CHECKING:
    from petsc4py import PETSc

    from penstock.solvers.linear.strategy import Strategy

# PETSc's types of matrices that only multiply and have no entries to read.
PRODUCTS = ("python", "shell")


def tells_entries(matrix: PETSc.Mat) -> bool:
    return matrix.getType() not in PRODUCTS


class Form:
    """The form in which the strategy of one family gets its systems.

    A matrix of another type (MATNEST, BAIJ, SBAIJ, dense, ...) is copied to AIJ, because most preconditioners and
    factorisations serve that type alone; the copy takes as long as some products. It is one object while its pattern
    stays, so that strategies can keep their data about it. Vectors of type "nest" are copied, too.

    Args:
        strategy: the family's strategy.
    """

    def __init__(self, strategy: Strategy):
        self._strategy = strategy
        self._plain: PETSc.Mat | None = None  # the last one that needed no copy
        self._copy: PETSc.Mat | None = None

    def of(self, system: LinearSystem) -> LinearSystem:
        """The system in that form. Raises SolveError where it is malformed."""
        if self._plain is not None and self._plain == system.A and _fits(system):
            return system
        _require_system(system)
        matrix = self._aij(system.A)
        if self._strategy.needs_entries and not tells_entries(matrix):
            raise SolveError(
                f"strategy {self._strategy.name!r} needs the entries of the matrix, and one of type "
                f"{matrix.getType()!r} only multiplies: take auto, or cg, krylov or gcrodr with "
                "pc none or jacobi"
            )
        if matrix == system.A:
            self._plain = matrix
        if matrix != system.A:
            left = _flat_space(system.A.getTransposeNullSpace(), system.A)
            matrix.setTransposeNullSpace(left)
        return replace(
            system,
            A=matrix,
            b=flat(system.b, system.A),
            guess=None if system.guess is None else flat(system.guess, system.A),
            nullspace=_flat_space(system.nullspace, system.A),
            near_nullspace=_flat_space(system.near_nullspace, system.A),
        )

    def _aij(self, matrix: PETSc.Mat) -> PETSc.Mat:
        from petsc4py import PETSc

        kind, num_ranks = matrix.getType(), matrix.comm.size
        if kind in ("seqaij", *PRODUCTS) or (kind == "mpiaij" and num_ranks > 1):
            return matrix
        if kind == "mpiaij":
            return matrix.getDiagonalBlock()  # the whole matrix, in the same memory
        try:
            converted = matrix.convert("aij", PETSc.Mat())
        except PETSc.Error:
            raise SolveError(f"penstock can't use a matrix of type {kind!r}: make it one of type 'aij'") from None
        if self._copy is not None and _have_one_pattern(self._copy, converted):
            converted.copy(self._copy, PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
        else:
            self._copy = converted
        return self._copy


def flat(vector: PETSc.Vec, matrix: PETSc.Mat) -> PETSc.Vec:
    """A plain copy of a nested vector, or the vector itself.

    The copy is in the order of the matrix's rows.
    """
    from petsc4py import PETSc

    if vector.getType() != "nest":
        return vector
    plain = PETSc.Vec().createMPI((vector.getLocalSize(), vector.getSize()), comm=vector.comm)
    for part, places in _parts(vector, matrix):
        plain.array[places] = part.array_r
    return plain


def unflat(plain: PETSc.Vec, like: PETSc.Vec, matrix: PETSc.Mat) -> PETSc.Vec:
    """The values of a plain vector, laid out like another one.

    Where that one is plain too, the vector itself is returned.
    """
    if like.getType() != "nest":
        return plain
    nested = like.duplicate()
    for part, places in _parts(nested, matrix):
        part.array = plain.array_r[places]
    return nested


def _parts(vector: PETSc.Vec, matrix: PETSc.Mat):
    """The vectors in a nested one, and the local rows of each."""
    parts = vector.getNestSubVecs()
    if matrix.getType() == "nest":
        first = matrix.getOwnershipRange()[0]
        return [(part, rows.indices - first) for part, rows in zip(parts, matrix.getNestISs()[0], strict=True)]
    ends = np.cumsum([part.getLocalSize() for part in parts])
    return [(part, slice(end - part.getLocalSize(), end)) for part, end in zip(parts, ends, strict=True)]


def _flat_space(space: PETSc.NullSpace | None, matrix: PETSc.Mat) -> PETSc.NullSpace | None:
    from petsc4py import PETSc

    if not space or not any(vector.getType() == "nest" for vector in space.getVecs()):
        return space
    vectors = [flat(vector, matrix) for vector in space.getVecs()]
    return PETSc.NullSpace().create(constant=space.hasConstant(), vectors=vectors, comm=space.comm)


def _have_one_pattern(one: PETSc.Mat, other: PETSc.Mat) -> bool:
    if one.getSizes() != other.getSizes():
        return False
    same = all(np.array_equal(*pair) for pair in zip(one.getRowIJ(), other.getRowIJ(), strict=True))
    return same if one.comm.size == 1 else bool(one.comm.tompi4py().allreduce(not same) == 0)


def _fits(system: LinearSystem) -> bool:
    """Whether all vectors of the system are plain and suit the matrix.

    A matrix does not change its size.
    """
    if not system.A.isAssembled() or system.nullspace is not None or system.near_nullspace is not None:
        return False
    size, b, guess = system.A.getSizes()[0], system.b, system.guess
    if b.getSizes() != size or b.getType() == "nest":
        return False
    return guess is None or (guess.getSizes() == size and guess.getType() != "nest")


def _require_system(system: LinearSystem) -> None:
    """Raise SolveError with the fault if the system is malformed."""
    from petsc4py import PETSc

    if PETSc.ScalarType is not np.float64:
        raise SolveError(f"this PETSc computes with {np.dtype(PETSc.ScalarType)}, and penstock needs one with float64")
    A = system.A
    num_rows, num_columns = A.getSize()
    if num_rows != num_columns:
        raise SolveError(f"the matrix has {num_rows} rows and {num_columns} columns: it must be square")
    if not A.isAssembled():
        raise SolveError("the matrix is not assembled: call A.assemble() once its values are set")
    for name, vector in (("right-hand side", system.b), ("guess", system.guess)):
        if vector is None:
            continue
        if vector.getSize() != num_rows:
            raise SolveError(f"the {name} has {vector.getSize()} entries and the matrix {num_rows} rows")
        if vector.getLocalSize() != A.getLocalSize()[0] or vector.comm.size != A.comm.size:
            raise SolveError(f"the {name} and the matrix are not distributed alike over the ranks")
    for name, space in (("nullspace", system.nullspace), ("near-nullspace", system.near_nullspace)):
        for vector in [] if space is None else space.getVecs():
            if vector.getSize() != num_rows:
                raise SolveError(
                    f"a vector of the {name} has {vector.getSize()} entries and the matrix {num_rows} rows"
                )
