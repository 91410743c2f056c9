"""A Cholesky factor that solves eight right-hand sides in the time of three."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from penstock.solvers.linear.check import Check, kernels_for
from penstock.solvers.problem import LinearSystem

if TYPE_CHECKING:
    from petsc4py import PETSc

# Right-hand sides of a block: the numbers of a vector register of 64 bytes.
SIDES = 8
# Sums of squares outside of these bounds may have left the range of numbers.
SMALLEST, LARGEST = 1e-280, 1e280


class _Factor(ctypes.Structure):
    """The struct `Factor` of block.c."""

    _fields_ = [
        ("num_rows", ctypes.c_int),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "order",
                "row_starts",
                "columns",
                "row_values",
                "column_starts",
                "rows",
                "column_values",
                "inverse_pivots",
            )
        ),
    ]


class _BlockNorms(ctypes.Structure):
    """The struct `Norms` of block.c."""

    _fields_ = [(name, ctypes.c_double * SIDES) for name in ("squared_b", "squared_residual", "backward_error")]


class BlockFactor:
    """The factor L D Lᵀ of an SPD matrix, for blocks of right-hand sides.

    One right-hand side reads all of the factor for two operations per entry; a block reads it once. Per right-hand
    side, at n = 14,145 with 29 entries per row on one core, PETSc's back-solve takes 0.8 ms, its MatMatSolve of 8
    columns 0.8, SciPy's SuperLU 2.9 (1.2 in blocks of 8), MUMPS 2.9 (0.9), and this 0.3. The factor itself is
    SuperLU's without pivoting, in the order of PETSc's nested dissection; it costs as much as 100 back-solves.

    Memory: two copies of L without its diagonal, 12 bytes for each entry, and 24 numbers per row.

    Args:
        matrix: A, sequential AIJ with indices of 32 bits.

    Raises:
        LinAlgError: A is not positive definite.
    """

    def __init__(self, matrix: PETSc.Mat):
        starts, columns, values = matrix.getValuesCSR()
        size = len(starts) - 1
        order = matrix.getOrdering("nd")[0].getIndices().astype(np.int32)
        ordered = scipy.sparse.csr_array((values, columns, starts), shape=(size, size))[order][:, order].tocsc()
        try:
            factors = scipy.sparse.linalg.splu(
                ordered, permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
            )
        except RuntimeError as error:  # "Factor is exactly singular"
            raise np.linalg.LinAlgError(str(error)) from error
        pivots = factors.U.diagonal()
        if not (pivots > 0).all() or (factors.perm_r != np.arange(size)).any():
            raise np.linalg.LinAlgError("the matrix is not positive definite")
        lower = scipy.sparse.tril(factors.L, -1, format="csc")
        by_rows = lower.tocsr()
        self._arrays = (  # which must live as long as the struct
            order,
            *(by_rows.indptr.astype(np.int32), by_rows.indices.astype(np.int32), by_rows.data),
            *(lower.indptr.astype(np.int32), lower.indices.astype(np.int32), lower.data),
            1 / pivots,
        )
        self._factor = _Factor(size, *(array.ctypes.data for array in self._arrays))
        self._work = np.empty(3 * SIDES * size)

    def solve(self, systems: Sequence[LinearSystem]) -> list[Check | None]:
        """Solve up to eight systems with this A.

        Args:
            systems: the systems.

        Returns:
            The check of each solution x, which holds x; None where a number left the range.
        """
        from petsc4py import PETSc

        solutions = [system.b.duplicate() for system in systems]
        handles = ctypes.c_void_p * len(systems)
        norms = _BlockNorms()
        error = _kernel()(
            self._factor,
            systems[0].A.handle,
            len(systems),
            handles(*(system.b.handle for system in systems)),
            handles(*(x.handle for x in solutions)),
            self._work.ctypes.data,
            norms,
        )
        if error:
            raise PETSc.Error(error)
        return [_check(*pair, norms, side) for side, pair in enumerate(zip(systems, solutions, strict=True))]


def can_block(system: LinearSystem) -> bool:
    """Whether there can be a `BlockFactor` for the system."""
    return system.is_spd and system.nullspace is None and kernels_for(system.A) is not None


def _check(system: LinearSystem, x: PETSc.Vec, norms: _BlockNorms, side: int) -> Check | None:
    squared_b, squared_residual = norms.squared_b[side], norms.squared_residual[side]
    if not (SMALLEST < squared_b < LARGEST and (squared_residual == 0 or SMALLEST < squared_residual < LARGEST)):
        return None
    return Check(system, x, squared_b**0.5, squared_residual**0.5, norms.backward_error[side], x.stateGet())


@cache
def _kernel() -> ctypes._CFuncPtr:
    from penstock.solvers.linear.kernels import library

    kernel = library().block_solve
    kernel.argtypes = (
        ctypes.POINTER(_Factor),
        ctypes.c_void_p,
        ctypes.c_int,
        *(ctypes.c_void_p,) * 3,
        ctypes.POINTER(_BlockNorms),
    )
    return kernel
