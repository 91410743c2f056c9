"""Preconditioners by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.registry import nearest
from penstock.solvers.linear.forms import tells_entries
from penstock.solvers.linear.preconditioners.grid import GRID_PRECONDITIONERS, is_same, require_grid
from penstock.solvers.problem import LinearSystem, Unfit

if TYPE_CHECKING:
    from petsc4py import PETSc

# Written down, because options are checked in the driver, where PETSc need not exist.
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
"""Names of preconditioners.

Not every PETSc is built with "hypre" and "ml"; the last two names are those of grid.py.
"""

SEQUENTIAL = ("icc", "ilu", "eisenstat", *GRID_PRECONDITIONERS)
"""Names of those that need the whole matrix on one rank."""

UNKNOWN_TYPE = 86  # PETSC_ERR_UNKNOWN_TYPE


def require_known(name: str, value: str, known) -> None:
    """Raise ValueError with the nearest name unless `value` is one of `known`."""
    if value not in known:
        raise ValueError(f"{name} = {value!r} is not known; {nearest(value, known)}")


def needs_one_rank(name: str | None) -> str | None:
    """Why a strategy with this preconditioner can't solve distributed systems.

    None where it can.
    """
    if name not in SEQUENTIAL:
        return None
    return f"pc = {name!r} works on one rank: give another, for instance bjacobi, or gamg where A is SPD"


def default_preconditioner(system: LinearSystem) -> str:
    """The name of the default preconditioner, an incomplete factorisation.

    PETSc's is sequential, so it is by blocks where A is distributed. A matrix that only multiplies has none.
    """
    if not tells_entries(system.A):
        return "none"
    if system.A.comm.size > 1:
        return "bjacobi"
    return "icc" if system.is_spd else "ilu"


def set_preconditioner(pc: PETSc.PC, name: str | None, system: LinearSystem) -> None:
    """Give `pc` its type, before its operators.

    A `pc` kept from an earlier system stays as it is where it can; those of grid.py are made again for another grid.
    Raises Unfit when this PETSc lacks the type, and the errors of `require_grid`.
    """
    from petsc4py import PETSc

    name = name or default_preconditioner(system)
    if name in GRID_PRECONDITIONERS:
        grid = require_grid(name, system)
        if pc.getType() != PETSc.PC.Type.PYTHON or not is_same(pc.getPythonContext().grid, grid):
            pc.reset()
            pc.setType(PETSc.PC.Type.PYTHON)
            pc.setPythonContext(GRID_PRECONDITIONERS[name](grid))
        return
    _set_type(pc, name)


def require_built(name: str | None) -> None:
    """Raise Unfit when this PETSc lacks a preconditioner."""
    from petsc4py import PETSc

    if name is not None and name not in GRID_PRECONDITIONERS:
        _set_type(PETSc.PC().create(PETSc.COMM_SELF), name)


def _set_type(pc: PETSc.PC, name: str) -> None:
    from petsc4py import PETSc

    try:
        pc.setType(name)
    except PETSc.Error as error:
        if error.ierr == UNKNOWN_TYPE:
            raise Unfit(f"pc = {name!r} is not part of this build of PETSc: take another, for instance gamg") from None
        raise
