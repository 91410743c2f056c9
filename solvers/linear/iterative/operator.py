"""The operators that our methods iterate with: A and M⁻¹ on local arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from penstock.solvers.linear.direct.matrix_copy import serves
from penstock.solvers.linear.preconditioners.by_name import set_preconditioner
from penstock.solvers.problem import LinearSystem

if TYPE_CHECKING:
    from mpi4py import MPI
    from petsc4py import PETSc

_SUM = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_double), ctypes.c_int)


class Handle(ctypes.Structure):
    """The struct `Operator` of kernels.h."""

    _fields_ = [
        ("A", ctypes.c_void_p),
        ("M", ctypes.c_void_p),
        ("nullspace", ctypes.c_void_p),
        ("source", ctypes.c_void_p),
        ("target", ctypes.c_void_p),
        ("sum", _SUM),
        ("num_rows", ctypes.c_int),
        ("is_left", ctypes.c_int),
    ]


class Operator:
    """A system's A, M⁻¹ and K on local arrays, with inner products over all ranks.

    K is A M⁻¹, or M⁻¹ A where M acts from the left. Products with A are counted. `handle` is for the kernels; it lives
    as long as its operator.

    Leaving `with operator:` by an error of PETSc keeps M and the vectors for ever: PETSc 3.25's multigrid still holds
    them after an error inside it, and would crash once they were destroyed.
    """

    def __init__(self, system: LinearSystem, pc: PETSc.PC, *, is_left: bool = False):
        self.num_products = 0
        self.num_rows = system.b.getLocalSize()
        self.is_left = is_left
        self._system = system
        self._pc = pc
        self._source, self._target = system.b.duplicate(), system.b.duplicate()
        self._comm = system.A.comm.tompi4py() if system.A.comm.size > 1 else None
        self.handle = Handle(
            A=system.A.handle,
            M=pc.handle,
            nullspace=system.nullspace.handle if system.nullspace is not None else None,
            source=self._source.handle,
            target=self._target.handle,
            sum=_SUM() if self._comm is None else _sum_over(self._comm),
            num_rows=self.num_rows,
            is_left=is_left,
        )

    def __enter__(self) -> Operator:
        return self

    def __exit__(self, _, error: BaseException | None, __) -> None:
        from petsc4py import PETSc

        if isinstance(error, PETSc.Error):
            for kept in (self._pc, self._source, self._target):
                kept.incRef()

    def multiply(self, source: np.ndarray, target: np.ndarray) -> None:
        """Set target = K source, with M⁻¹ left out where it acts from the right."""
        if self.is_left:
            between = np.empty_like(target)
            self.multiply_by(self._system.A, source, between)
            self.precondition(between, target)
        else:
            self.multiply_by(self._system.A, source, target)

    def multiply_by(self, matrix: PETSc.Mat, source: np.ndarray, target: np.ndarray) -> None:
        """Set target = matrix source, for A or a matrix laid out like it."""
        self.num_products += 1
        self._on_vectors(matrix.mult, source, target)

    def precondition(self, source: np.ndarray, target: np.ndarray) -> None:
        """Set target = M⁻¹ source."""
        self._on_vectors(self._precondition, source, target)

    def right_hand_side(self) -> np.ndarray:
        """The right-hand side b, or M⁻¹ b on the left."""
        return self._of_residual(self._system.b.array_r.copy())

    def residual(self, x: np.ndarray) -> np.ndarray:
        """The residual b - A x, or M⁻¹ (b - A x) on the left."""
        return self._of_residual(self.true_residual(x))

    def true_residual(self, x: np.ndarray) -> np.ndarray:
        """The residual b - A x, on every side."""
        r = np.empty_like(x)
        self.multiply_by(self._system.A, x, r)
        return np.subtract(self._system.b.array_r, r, out=r)

    def inner(self, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        """The product Xᵀ Y of matrices or vectors, over all ranks."""
        return self.sum(X.T @ Y)

    def sum(self, local: np.ndarray) -> np.ndarray:
        """The sum over all ranks."""
        if self._comm is None:
            return local
        local = np.asarray(local, order="C")
        total = np.empty_like(local)
        self._comm.Allreduce(local, total)
        return total

    def norm(self, y: np.ndarray) -> float:
        return float(np.sqrt(self.inner(y, y)))

    def _of_residual(self, r: np.ndarray) -> np.ndarray:
        if not self.is_left:
            return r
        preconditioned = np.empty_like(r)
        self.precondition(r, preconditioned)
        return preconditioned

    def _precondition(self, source: PETSc.Vec, target: PETSc.Vec) -> None:
        self._pc.apply(source, target)
        if self._system.nullspace is not None:
            self._system.nullspace.remove(target)

    def _on_vectors(self, function: Callable, source: np.ndarray, target: np.ndarray) -> None:
        self._source.placeArray(source)
        self._target.placeArray(target)
        function(self._source, self._target)
        self._source.resetArray()
        self._target.resetArray()


def _sum_over(comm: MPI.Comm) -> Callable:
    """The sum over all ranks, as a function for the kernels.

    It goes through Python, because MPI's handles differ from build to build.
    """

    @_SUM
    def sum_in_place(values, count):
        array = np.ctypeslib.as_array(values, (count,))
        comm.Allreduce(array.copy(), array)

    return sum_in_place


def preconditioner_for(system: LinearSystem, name: str | None, kept: PETSc.PC | None) -> PETSc.PC:
    """The system's preconditioner of this name, set up.

    It reuses the PC kept from the last system, if there is one.
    """
    from petsc4py import PETSc

    pc = kept if serves(kept, system.A) else PETSc.PC().create(system.A.comm)
    set_preconditioner(pc, name, system)
    pc.setOperators(system.A)
    pc.setUp()  # does nothing where neither matrix nor values changed
    return pc


class SeenMatrix:
    """A matrix with the state of its values, which problems overwrite in place."""

    def __init__(self):
        self._matrix: PETSc.Mat | None = None
        self._state = -1

    def note(self, matrix: PETSc.Mat) -> None:
        self._matrix, self._state = matrix, matrix.stateGet()

    def is_current(self, matrix: PETSc.Mat) -> bool:
        return self._matrix == matrix and self._state == matrix.stateGet()
