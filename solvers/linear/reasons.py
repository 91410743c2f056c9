"""Reasons why a system was not solved, in one line each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from penstock.solvers.linear.forms import tells_entries
from penstock.solvers.linear.strategy import Attempt
from penstock.solvers.problem import LinearSystem, Outcome

if TYPE_CHECKING:
    from petsc4py import PETSc


# What to do about a message of PETSc, by a part of it.
CURES = {
    "missing diagonal": "PETSc's LU and ILU need them: store the zeros, as zero*p*q*dx with a Constant zero does in a "
    "form, or take {name: direct, solver: mumps}",
}


def numerical_failures() -> tuple[type[Exception], ...]:
    """The exceptions of PETSc and NumPy for which the system is at fault.

    Examples are a zero pivot, and a dense step that fails. The function is called in an `except`, which is evaluated
    only once something was raised: importing PETSc in a function takes a third of a microsecond.
    """
    from petsc4py import PETSc

    return PETSc.Error, np.linalg.LinAlgError


def broken_down(system: LinearSystem, error: Exception) -> Attempt:
    """The result of an attempt that an error ended: x = 0, and the error's message."""
    x = system.b.duplicate()
    x.zeroEntries()
    return Attempt(x=x, outcome=Outcome.BREAKDOWN, reason=said_by(error))


def said_by(error: Exception) -> str:
    """The message of an error, without PETSc's traceback.

    What to do about it follows, where that is known.

    An error in Python code below PETSc is the cause of PETSc's error. PETSc's text is "error code 73", then one line
    "[0] PCSetUp() at ..." per function, and the message last.
    """
    error = error.__cause__ or error
    lines = [line.removeprefix("[0] ").strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and "() at " not in line]
    line = said[-1] if said else type(error).__name__
    cures = [cure for part, cure in CURES.items() if part in line]
    return "; ".join([line, *cures])


def not_finite(what: str, are_finite: np.ndarray, of: PETSc.Object) -> str:
    """The line about a matrix or a vector with rows that are not finite.

    Args:
        what: its name.
        are_finite: which of its local rows are finite.
        of: the matrix or vector.

    Returns:
        The line, with the number of such rows on all ranks and the first of them; "" where there is none.
    """
    wrong = np.flatnonzero(~are_finite)
    count, row = len(wrong), math.inf
    if count:
        row = of.getOwnershipRange()[0] + int(wrong[0])
    if of.comm.size > 1:
        from mpi4py import MPI

        comm = of.comm.tompi4py()
        count, row = comm.allreduce(count), comm.allreduce(row, MPI.MIN)
    if count == 0:
        return ""
    where = f"row {row}" if count == 1 else f"{count} rows, first in row {row}"
    return (
        f"{what} holds values that are not finite in {where} (counted from 0): look for a division by zero, an "
        "overflow, or the root or logarithm of a negative number in what is computed from this draw"
    )


def advice(system: LinearSystem, x: PETSc.Vec) -> list[str]:
    """A wrong statement of the problem about its system, if there is one.

    Two products with A show it, and x, if that is the solution.
    """
    if not system.is_spd:
        return []
    if not is_symmetric(system):
        fault = "symmetric"
    elif x.dot(system.b) < 0 or system.A.getDiagonal().min()[1] <= 0:  # xᵀ A x, and eᵀ A e
        fault = "positive definite"
    else:
        return []
    return [f"is_spd=True is wrong for this matrix, which is not {fault}: leave it out"]


def is_symmetric(system: LinearSystem) -> bool:
    """Whether A v = Aᵀ v for a random v, up to rounding.

    A matrix that only multiplies is taken to be symmetric, as the problem says.
    """
    if not tells_entries(system.A):
        return True
    v, difference, product = system.b.duplicate(), system.b.duplicate(), system.b.duplicate()
    v.setRandom()
    system.A.mult(v, product)
    system.A.multTranspose(v, difference)
    difference.axpy(-1.0, product)
    return difference.norm() <= 1e-8 * product.norm()


def reason_of(ksp: PETSc.KSP) -> str:
    """PETSc's names for the failure of a KSP and its preconditioner; "" if none."""
    from petsc4py import PETSc

    reason, failure = ksp.getConvergedReason(), ksp.getPC().getFailedReason()
    if reason >= 0:
        return ""
    line = f"PETSc: {_name(PETSc.KSP.ConvergedReason, reason)}"
    return f"{line}, {_name(PETSc.PC.FailedReason, failure)}" if failure != PETSc.PC.FailedReason.NOERROR else line


def _name(reasons: type, value: int) -> str:
    return next((name for name, known in vars(reasons).items() if known == value), str(value))
