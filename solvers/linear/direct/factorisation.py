"""Sparse factorisations by PETSc, and by MUMPS with its settings and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penstock.solvers.linear.direct.matrix_copy import pattern_of
from penstock.solvers.problem import LinearSystem

if TYPE_CHECKING:
    from petsc4py import PETSc

# MUMPS begins with 20 %; Stokes flow with a viscosity of 1e-6 needs 80 to 160 %.
MAX_WORKSPACE_PERCENT = 5000

# Indices of MUMPS's ICNTL.
WORKSPACE, NULL_PIVOTS = 14, 24
# Values of INFOG(1). For those of the workspace the manual's remedy is a larger ICNTL(14).
OUT_OF_WORKSPACE = (-8, -9, -11, -14, -15, -17, -20)
OUT_OF_MEMORY = (-7, -13, -22)
SINGULAR = (-6, -10)


class Factorisation:
    """A factorisation by one of `direct.SOLVERS`: Cholesky where A is SPD, else LU.

    PETSc makes a new factor for a new matrix object or pattern, without MUMPS's settings, so they are set again then.
    The settings are: null pivots are no fault where the system has a nullspace; and more workspace where MUMPS ran out
    of it, doubled until it is enough, and kept for later factorisations.

    Args:
        pc: a PC without a type as yet.
        package: one of `direct.SOLVERS`.
    """

    def __init__(self, pc: PETSc.PC, package: str):
        self.package = package
        self._pc = pc
        self._settings: dict[int, int] = {}
        self._matrix: PETSc.Mat | None = None
        self._pattern = -1
        self._is_spd = False
        self._fill: float | None = None  # computed on first use

    @property
    def fill(self) -> float:
        """Entries per row of the factor; of one triangle where it is LU."""
        if self._fill is None:
            factor = self._pc.getFactorMatrix()
            num_triangles = 2 if self._pc.getType() == self._pc.Type.LU else 1
            self._fill = factor.getInfo()["nz_used"] / (num_triangles * factor.getSize()[0])
        return self._fill

    def set_up(self, matrix: PETSc.Mat, system: LinearSystem) -> None:
        """Factor the matrix, which has the values of the system's A.

        Raises LinAlgError with MUMPS's error.
        """
        is_known = self._matrix == matrix and self._pattern == pattern_of(matrix) and self._is_spd == system.is_spd
        has_settings = system.nullspace is None or NULL_PIVOTS in self._settings
        if not has_settings:
            self._settings[NULL_PIVOTS] = 1
        if not (is_known and has_settings):
            self._begin(matrix, system)
        self._pc.setOperators(matrix)
        self._pc.setUp()
        if self.package == "mumps":
            self._enlarge_workspace(matrix, system)

    def _begin(self, matrix: PETSc.Mat, system: LinearSystem) -> None:
        self._matrix, self._pattern, self._is_spd = matrix, pattern_of(matrix), system.is_spd
        self._fill = None
        self._pc.reset()
        self._pc.setOperators(matrix)
        self._pc.setType(self._pc.Type.CHOLESKY if system.is_spd else self._pc.Type.LU)
        self._pc.setFactorSolverType(self.package)
        if self.package == "petsc":
            self._pc.setFactorOrdering(matrix.OrderingType.ND)
            return
        self._pc.setFactorSetUpSolverType()
        for control, value in self._settings.items():
            self._pc.getFactorMatrix().setMumpsIcntl(control, value)

    def _enlarge_workspace(self, matrix: PETSc.Mat, system: LinearSystem) -> None:
        while (said := self._pc.getFactorMatrix().getMumpsInfog(1)) < 0:
            percent = 2 * self._pc.getFactorMatrix().getMumpsIcntl(WORKSPACE)
            if said not in OUT_OF_WORKSPACE or percent > MAX_WORKSPACE_PERCENT:
                raise np.linalg.LinAlgError(self._complaint(said))
            self._settings[WORKSPACE] = percent
            self._begin(matrix, system)
            self._pc.setUp()

    def _complaint(self, said: int) -> str:
        """The error of MUMPS in one line, with a remedy."""
        factor = self._pc.getFactorMatrix()
        line = f"MUMPS ended with INFOG(1) = {said}, INFOG(2) = {factor.getMumpsInfog(2)}: "
        if said in OUT_OF_MEMORY:
            return line + "no memory left for the factor; take fewer solver.workers or an iterative strategy"
        if said in OUT_OF_WORKSPACE:
            percent = factor.getMumpsIcntl(WORKSPACE)
            return line + f"a workspace {percent} % above its estimate is too small; scale the equations alike"
        if said in SINGULAR:
            return line + "the matrix is singular; give its nullspace, or fix the solution by a condition"
        return line + "see its manual"
