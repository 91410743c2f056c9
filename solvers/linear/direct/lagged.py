"""The strategy with a preconditioner that outlives the matrix it was made from."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from penstock.solvers.linear.direct.direct import MAX_FILL_OF_A_KEPT_FACTOR, MAX_ROWS_OF_PETSC
from penstock.solvers.linear.direct.factorisation import Factorisation
from penstock.solvers.linear.direct.matrix_copy import MatrixCopy, serves
from penstock.solvers.linear.iterative.petsc import iterate, new_ksp
from penstock.solvers.linear.preconditioners.by_name import require_known
from penstock.solvers.linear.reasons import numerical_failures
from penstock.solvers.linear.strategy import Attempt, Strategy, Tolerance, require_at_least
from penstock.solvers.problem import LinearSystem, Outcome

if TYPE_CHECKING:
    from petsc4py import PETSc

KINDS = ("factor", "gamg")
# The most systems in a row that are factored before lagging is tried again.
MAX_PAUSE = 64


class Lagged(Strategy):
    """CG or GMRES(30), preconditioned by the factorisation of an earlier matrix.

    CG serves where A is SPD, GMRES(30) otherwise.

    When to factor again is decided in units of one iteration; a factorisation costs ρ of them. With s₁, ..., s_k
    iterations for the k systems since the last one, the next system is factored if s_k > (ρ + s₁ + ... + s_k) / k: if
    one more like the last would cost more than all have cost on average. A system that has taken ρ + s₁ iterations is
    factored on the spot, and goes on from its x; from the second time in a row on, the next 1, 2, 4, ..., 64 systems
    are factored before lagging is tried again.

    It pays where matrices change slowly. For a coefficient exp(g) that a rotation g = g₁ cos t + g₂ sin t turns by two
    degrees per system, against factoring each (one core, 100 x 100 cells): 1.7 times as fast at rtol 1e-8 (8.5
    iterations on average), 2.4 times at 1e-4. For independent 12/3 draws, sorted, which take 40 iterations, 0.8 times.

    Args:
        pc: what is kept of an earlier matrix as the preconditioner. "factor", a factorisation; or "gamg", an algebraic
            multigrid hierarchy.
        refresh_cost: cost ρ > 0 of a new one, in iterations. None measures it, and the same systems may then take
            different iterations in another run; given, they take the same.
        max_iterations: products with A, at least 1, after which a system is given up to the retry ladder.
    """

    name = "lagged"
    gains_from_order = True
    needs_entries = True

    def __init__(self, *, pc: str = "factor", refresh_cost: int | None = None, max_iterations: int = 10_000):
        require_known("pc", pc, KINDS)
        if refresh_cost is not None:
            require_at_least("refresh_cost", refresh_cost, 1)
        require_at_least("max_iterations", max_iterations, 1)
        self.kind = pc  # not `pc`, which names a preconditioner of PETSc
        self.refresh_cost = refresh_cost
        self.max_iterations = max_iterations
        self.reset()

    @property
    def asks_clock(self) -> str | None:
        if self.refresh_cost is not None:
            return None
        return "lagged without refresh_cost, which it would time: give refresh_cost, for instance 10"

    def reset(self) -> None:
        self.recycles = False
        self._ksp: PETSc.KSP | None = None
        self._kept: KeptPreconditioner | None = None
        self._costs: Costs | None = None
        self._num_failures = 0  # failures of the kept preconditioner, in a row
        self._pause = 0  # systems still to be factored because of failures

    def solve(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        if not serves(self._ksp, system.A):
            self.reset()
            self._ksp = new_ksp(None, system)
            self._kept, self._costs = KeptPreconditioner(self.kind), Costs(self.refresh_cost)
            self._ksp.getPC().setType("python")
            self._ksp.getPC().setPythonContext(self._kept)
            return self._solve_anew(system, tolerance)
        if self._pause > 0:
            self._pause -= 1
            return self._solve_anew(system, tolerance)
        if self._costs.refresh_is_due:
            return self._solve_anew(system, tolerance)

        self.recycles = True
        attempt = self._iterate(system, tolerance, min(self._costs.limit, self.max_iterations))
        if attempt.outcome is Outcome.CONVERGED:
            self._num_failures = 0
            return attempt
        self._num_failures += 1
        if self._num_failures > 1:
            self._pause = min(2 ** (self._num_failures - 2), MAX_PAUSE)
        if attempt.outcome is Outcome.ITERATION_LIMIT:
            system = replace(system, guess=attempt.x)
        second = self._solve_anew(system, tolerance)
        return replace(
            second,
            iterations=attempt.iterations + second.iterations,
            setup_seconds=attempt.setup_seconds + second.setup_seconds,
        )

    def _solve_anew(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        self.recycles = False
        try:
            attempt = self._refresh_and_iterate(system, tolerance)
            if attempt.outcome is Outcome.CONVERGED or not self._kept.replace_petsc():
                return attempt
        except numerical_failures():  # PETSc needs every diagonal entry in the pattern
            if not self._kept.replace_petsc():
                raise
        return self._refresh_and_iterate(system, tolerance)

    def _refresh_and_iterate(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        start = time.thread_time()
        is_new = self._kept.refresh(system)
        refresh_seconds = time.thread_time() - start
        self._costs.note_refresh(_total(refresh_seconds, system), is_new=is_new)
        attempt = self._iterate(system, tolerance, self.max_iterations)
        return replace(attempt, setup_seconds=refresh_seconds + attempt.setup_seconds)

    def _iterate(self, system: LinearSystem, tolerance: Tolerance, max_iterations: int) -> Attempt:
        start = time.thread_time()
        self._ksp.setOperators(system.A)
        attempt = iterate(self._ksp, system, tolerance, max_iterations=max_iterations)
        self._costs.note_solve(attempt.iterations, _total(time.thread_time() - start, system))
        return attempt


class KeptPreconditioner:
    """A preconditioner with a private copy of its matrix.

    It is the context of a PETSc PC of type "python". The copy of the matrix is both operators of the PC inside. With
    the new matrix as the first of the two, which is what a KSP sets, GAMG mixes the old with the new, and CG breaks
    down on an indefinite preconditioner.
    """

    def __init__(self, kind: str):
        self._kind = kind
        self._package: str | None = None
        self._petsc_serves = True
        self._matrix: MatrixCopy | None = None
        self._pc: PETSc.PC | None = None
        self._factorisation: Factorisation | None = None  # it sets the PC up; None for GAMG, which sets itself up

    def apply(self, outer: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        self._pc.apply(x, y)

    def refresh(self, system: LinearSystem) -> bool:
        """Rebuild it for the values of `system`; True where it was built from nothing."""
        if self._matrix is None:
            self._matrix = MatrixCopy(system.A)
        else:
            self._matrix.overwrite(system.A)
        package = self._choice(system) if self._kind == "factor" else None
        is_new = self._pc is None or package != self._package
        if is_new:
            self._package = package
            self._pc = self._new_pc(system)
        if self._factorisation is not None:
            self._factorisation.set_up(self._matrix.matrix, system)
            return is_new
        if system.near_nullspace is not None:  # the copy may be another object than the last one
            self._matrix.matrix.setNearNullSpace(system.near_nullspace)
        self._pc.setOperators(self._matrix.matrix)
        self._pc.setUp()
        return is_new

    def replace_petsc(self) -> bool:
        """Use MUMPS for good from the next `refresh` on; False where nothing changes."""
        changes = self._package == "petsc"
        self._petsc_serves = False
        return changes

    def _choice(self, system: LinearSystem) -> str:
        """The package to factor with, chosen as in `Direct`.

        An iteration is a back-solve, in which PETSc is faster where the factor is thin.
        """
        if system.A.comm.size > 1 or system.nullspace is not None or not self._petsc_serves:
            return "mumps"
        if self._package is None:
            return "petsc" if system.A.getSize()[0] <= MAX_ROWS_OF_PETSC else "mumps"
        return "petsc" if self._factorisation.fill <= MAX_FILL_OF_A_KEPT_FACTOR else "mumps"

    def _new_pc(self, system: LinearSystem) -> PETSc.PC:
        from petsc4py import PETSc

        pc = PETSc.PC().create(system.A.comm)
        if self._kind == "gamg":
            pc.setType(PETSc.PC.Type.GAMG)
        else:
            self._factorisation = Factorisation(pc, self._package)
        return pc


class Costs:
    """The costs of iterations and refreshes, in units of one iteration.

    They come from means of the thread's time: other programs on the machine slow refreshes and iterations alike.
    """

    def __init__(self, refresh: int | None):
        self._given = refresh
        self._refresh_s = Mean()
        self._iteration_s = Mean()
        self._begin()

    @property
    def refresh(self) -> float:
        """The cost ρ of a refresh; infinite until one has been measured."""
        return self._given or self._refresh_s.value / self._iteration_s.value

    @property
    def refresh_is_due(self) -> bool:
        return self.refresh == math.inf or self._last * self._num_systems > self.refresh + self._total

    @property
    def limit(self) -> int:
        """Iterations that cost as much as a refresh and the first system after it."""
        return math.ceil(self.refresh) + self._first

    def note_refresh(self, seconds: float, *, is_new: bool) -> None:
        """Note the time of a refresh.

        Args:
            seconds: the time that it took.
            is_new: everything was built from nothing, which no later refresh will cost.
        """
        if is_new:
            self._refresh_s, self._iteration_s = Mean(), Mean()
        else:
            self._refresh_s.add(seconds, 1)
        self._begin()

    def note_solve(self, iterations: int, seconds: float) -> None:
        self._iteration_s.add(seconds, iterations)
        self._first = self._first or iterations
        self._last = iterations
        self._total += iterations
        self._num_systems += 1

    def _begin(self) -> None:
        """Begin to count the systems since a refresh: s₁, s_k, their sum and k."""
        self._first = self._last = self._total = self._num_systems = 0


class Mean:
    """A running mean; infinite as long as nothing was added."""

    def __init__(self):
        self._total = 0.0
        self._count = 0

    @property
    def value(self) -> float:
        return self._total / self._count if self._count else math.inf

    def add(self, total: float, count: int) -> None:
        self._total += total
        self._count += count


def _total(seconds: float, system: LinearSystem) -> float:
    """The sum over all ranks, so that all ranks decide alike."""
    return system.A.comm.tompi4py().allreduce(seconds) if system.A.comm.size > 1 else seconds
