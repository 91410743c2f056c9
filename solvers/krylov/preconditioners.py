"""PETSc preconditioners by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.registry import nearest
from penstock.solvers.problem import LinearSystem

if TYPE_CHECKING:
    from petsc4py import PETSc

# Written down, for options are checked in the driver, where PETSc need not exist.
PRECONDITIONERS = (
    "none",
    "jacobi",
    "pbjacobi",
    "vpbjacobi",
    "bjacobi",
    "sor",
    "eisenstat",
    "icc",
    "ilu",
    "asm",
    "gasm",
    "cholesky",
    "lu",
    "gamg",
    "hypre",
    "ml",
)
"""Names of preconditioners; not every PETSc is built with the last two."""

UNKNOWN_TYPE = 86  # PETSC_ERR_UNKNOWN_TYPE


def require_known(name: str, value: str, known) -> None:
    """Raises ValueError with the nearest name unless `value` is one of `known`."""
    if value not in known:
        raise ValueError(f"{name} = {value!r} is not known; {nearest(value, known)}")


def default_preconditioner(system: LinearSystem) -> str:
    """Incomplete factorisation; PETSc's is sequential, so by blocks where A is distributed."""
    if system.A.comm.size > 1:
        return "bjacobi"
    return "icc" if system.is_spd else "ilu"


def set_preconditioner(pc: PETSc.PC, name: str | None, system: LinearSystem) -> None:
    """Give `pc` its type. Raises ValueError when this PETSc was built without it."""
    from petsc4py import PETSc

    name = name or default_preconditioner(system)
    try:
        pc.setType(name)
    except PETSc.Error as error:
        if error.ierr == UNKNOWN_TYPE:
            raise ValueError(f"pc = {name!r} is not part of this build of PETSc") from None
        raise
