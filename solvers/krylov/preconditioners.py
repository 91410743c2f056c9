"""PETSc preconditioners by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.registry import nearest
from penstock.solvers.krylov.grid import GRID_PRECONDITIONERS
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
    "multigrid",
    "fast_poisson",
)
"""Names of preconditioners. Not every PETSc is built with "hypre" and "ml"; the last two are `grid`'s."""

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
    """Give `pc` its type. Raises ValueError when this PETSc lacks it, or where it cannot serve the system."""
    from petsc4py import PETSc

    name = name or default_preconditioner(system)
    if name in GRID_PRECONDITIONERS:
        context = GRID_PRECONDITIONERS[name](system)
        pc.setType(PETSc.PC.Type.PYTHON)
        pc.setPythonContext(context)
        return
    try:
        pc.setType(name)
    except PETSc.Error as error:
        if error.ierr == UNKNOWN_TYPE:
            raise ValueError(f"pc = {name!r} is not part of this build of PETSc") from None
        raise
