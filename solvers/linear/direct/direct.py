"""The strategy of sparse direct solves."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from penstock.solvers.linear.check import ROUNDING, Bound, check_of, extended_residual_of
from penstock.solvers.linear.direct.factorisation import Factorisation
from penstock.solvers.linear.direct.matrix_copy import serves
from penstock.solvers.linear.preconditioners.by_name import require_known
from penstock.solvers.linear.reasons import numerical_failures, reason_of
from penstock.solvers.linear.strategy import Attempt, Strategy, Tolerance
from penstock.solvers.problem import LinearSystem, Outcome

if TYPE_CHECKING:
    from petsc4py import PETSc

SOLVERS = ("mumps", "petsc")

# PETSc factors row by row, MUMPS in dense blocks, each of which costs a start. Ratio of PETSc's to MUMPS's time of a
# solve with new values, on one core: 0.4 at 1,024 unknowns of a 5-point stencil, 0.65 at 4,096, 0.85 at 9,604, 1.1 at
# 65,536; 0.65 at 4,225 of P1 elements (25 entries of the factor per row), 1.15 at 10,000 (29 per row); 1.1 for 1,728 of
# a 7-point stencil in 3D (41 per row).
MAX_ROWS_OF_PETSC = 10_000
MAX_FILL_OF_PETSC = 27.0

# Once a factor is kept, only the back-solve counts. PETSc's takes 1.7 ms where MUMPS's takes 8.4 (256 x 256 cells,
# 5-point stencil, 40 entries of MUMPS's factor per row), and the new factorisation 50. In 3D that takes longer than it
# gains: 0.96 s, for 5.0 instead of 11.7 ms, at 32 x 32 x 32 (195 entries per row).
MIN_USES_OF_A_KEPT_FACTOR = 8
MAX_FILL_OF_A_KEPT_FACTOR = 100.0

# A factor for blocks takes as long as 100 back-solves, and then saves half of each.
MIN_USES_OF_A_BLOCK_FACTOR = 100

MAX_REFINEMENTS = 3
# No x can be better than this; its error is 1e-16 times A's condition.
BACKWARD_STABLE = Bound(math.inf, ROUNDING)
# A refinement that is longer than this fraction of ||x|| shows that x has no digits worth the name.
SINGULAR = 1e-3
# The error is estimated for systems 1, 8, 64, ..., at the price of one back-solve each.
ESTIMATES = 8
ONE_RANK = "solver = 'petsc' factors matrices of one rank only; take 'mumps'"
HOPELESS = "refinement does not converge: A is singular, or nearly so"


class Direct(Strategy):
    """Direct solves: Cholesky where A is SPD, otherwise LU.

    Steps of iterative refinement follow where the check of x asks for them.

    The symbolic factorisation is kept while the same matrix keeps its pattern: a Darcy solve then takes 1.6 ms instead
    of 4.3 at 4,225 unknowns, 66 instead of 256 at 65,536 (one core). The numeric factor is kept while the values stay,
    too. For PETSc a new matrix object has a new pattern: overwrite one matrix to gain. MUMPS is 8 % faster where the
    option SPD of the matrix itself is set.

    Args:
        solver: who factors. "mumps"; "petsc", which needs one rank and does not pivot; or None, which takes PETSc for
            small matrices and, in 2D, for a factor that serves many right-hand sides. Otherwise, and from the first
            system on that PETSc does not solve, None takes MUMPS.
    """

    name = "direct"
    needs_entries = True
    meets_accuracy = True

    def __init__(self, *, solver: str | None = None):
        if solver is not None:
            require_known("solver", solver, SOLVERS)
        if solver == "petsc":
            self.needs_one_rank = ONE_RANK
        self.solver = solver
        self.reset()

    def reset(self) -> None:
        self._ksp: PETSc.KSP | None = None
        self._factorisation: Factorisation | None = None
        self._package = self.solver
        self._petsc_serves = True
        self._num_solved = 0
        self._next_estimate = 1
        self._matrix: PETSc.Mat | None = None  # the factored matrix, with the state of its values
        self._matrix_state = -1
        self._num_uses = 0  # systems that the factor has served

    @property
    def label(self) -> str:
        return f"{self.name} ({self._package})" if self._package else self.name

    @property
    def recycles(self) -> bool:
        return self._num_solved > 1  # the kept pivot order may not suit the new values

    @property
    def fill(self) -> float:
        """Entries per row of the kept factor; of one triangle where it is LU."""
        return self._factorisation.fill

    def is_settled(self, tolerance: Tolerance) -> bool:
        """Whether another factor may serve in place of the kept one.

        That one is PETSc's and thin, it has served many systems, and the error need not be estimated for the next.
        """
        is_due = tolerance.accuracy is not None and self._num_solved + 1 >= self._next_estimate
        return self._package == "petsc" and self._num_uses >= MIN_USES_OF_A_BLOCK_FACTOR and not is_due

    def note_solved(self, count: int) -> None:
        """Count systems with the factored matrix that were solved by another factor."""
        self._num_solved += count

    def solve(self, system: LinearSystem, tolerance: Tolerance, *, copied: PETSc.Mat | None = None) -> Attempt:
        """Solve one system, as every strategy does.

        Args:
            system: the system.
            tolerance: when to stop.
            copied: a copy of A to factor, whose factor is kept while A may be overwritten; A itself where absent.
        """
        self._num_solved += 1
        matrix = copied or system.A
        if self.solver is None:
            self._choose_package(system, matrix)
        elif self.solver == "petsc" and system.A.comm.size > 1:
            raise ValueError(ONE_RANK)
        may_change = self.solver is None and self._package == "petsc"
        try:
            attempt = self._solve(system, matrix, tolerance)
        except numerical_failures():  # PETSc needs every diagonal entry in the pattern
            if not may_change:
                raise
            attempt = None
        if may_change and (attempt is None or attempt.outcome is not Outcome.CONVERGED):
            self._petsc_serves = False
            self._take("mumps")
            attempt = self._solve(system, matrix, tolerance)
        return attempt

    def _choose_package(self, system: LinearSystem, matrix: PETSc.Mat) -> None:
        num_uses = self._num_uses
        if self._matrix == matrix and self._matrix_state == matrix.stateGet():
            self._num_uses += 1
        else:
            self._num_uses = 1
        is_small = system.A.getSize()[0] <= MAX_ROWS_OF_PETSC
        if system.A.comm.size > 1 or system.nullspace is not None or not self._petsc_serves:
            self._take("mumps")
        elif self._package is None:
            self._take("petsc" if is_small else "mumps")
        elif self._package == "petsc" and self._num_uses == 1:
            is_thin = is_small and self.fill <= MAX_FILL_OF_PETSC
            if not is_thin and num_uses < MIN_USES_OF_A_KEPT_FACTOR:
                self._take("mumps")
        elif self._num_uses == MIN_USES_OF_A_KEPT_FACTOR and self.fill <= MAX_FILL_OF_A_KEPT_FACTOR:
            self._take("petsc")

    def _take(self, package: str) -> None:
        if package != self._package:
            self._ksp, self._package = None, package

    def _solve(self, system: LinearSystem, matrix: PETSc.Mat, tolerance: Tolerance) -> Attempt:
        start = time.thread_time()
        if self._ksp is None or (self._matrix != matrix and not serves(self._ksp, matrix)):
            self._ksp = self._new_ksp(system)
        self._factorisation.set_up(matrix, system)
        self._matrix, self._matrix_state = matrix, matrix.stateGet()
        setup_seconds = time.thread_time() - start
        x = system.b.duplicate()
        self._ksp.solve(system.b, x)
        if self._ksp.getConvergedReason() < 0:
            reason = reason_of(self._ksp)
            return Attempt(x=x, outcome=Outcome.BREAKDOWN, reason=reason, setup_seconds=setup_seconds)
        return self._refined(system, x, tolerance, setup_seconds)

    def _refined(self, system: LinearSystem, x: PETSc.Vec, tolerance: Tolerance, setup_seconds: float) -> Attempt:
        """The attempt for x, after iterative refinement where that is needed.

        Refinement goes on while each step is less than half as long as the one before. A step's length is the error
        before it. Where an accuracy is asked for, some steps are made only to measure that: with a condition of 1e13,
        residuals of 1e-16 leave errors of 1e-3.
        """
        largest = tolerance.accuracy or SINGULAR
        is_due = tolerance.accuracy is not None and self._num_solved >= self._next_estimate
        length = math.inf
        for _ in range(MAX_REFINEMENTS + 1):
            check = check_of(system, x)
            is_kept = tolerance.bound.is_kept_by(check)
            is_accurate = length < math.inf and length <= largest * tolerance.size_of(x)
            if is_accurate and is_kept:
                self._next_estimate = ESTIMATES * self._num_solved
            if is_kept and (is_accurate or not is_due):
                return Attempt(x=x, outcome=Outcome.CONVERGED, check=check, setup_seconds=setup_seconds)
            if is_accurate and BACKWARD_STABLE.is_kept_by(check):
                solved = Outcome.CONVERGED
                return Attempt(x=x, outcome=solved, bound=BACKWARD_STABLE, check=check, setup_seconds=setup_seconds)
            correction = x.duplicate()
            self._ksp.solve(extended_residual_of(system, x), correction)
            if not correction.norm() <= 0.5 * length:
                break
            length = correction.norm()
            x.axpy(1.0, correction)
        bound = BACKWARD_STABLE if is_kept else None  # the residual alone must not count
        return Attempt(
            x=x, outcome=Outcome.STAGNATION, reason=HOPELESS, bound=bound, check=check, setup_seconds=setup_seconds
        )

    def _new_ksp(self, system: LinearSystem) -> PETSc.KSP:
        from petsc4py import PETSc

        ksp = PETSc.KSP().create(system.A.comm)
        ksp.setType(PETSc.KSP.Type.PREONLY)
        self._factorisation = Factorisation(ksp.getPC(), self._package)
        return ksp
