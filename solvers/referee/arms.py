"""The arms of a comparison: ways to solve the systems of a case in turn."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from penstock.messages import Decision
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.auto.auto import Auto
from penstock.solvers.linear.check import residual_of
from penstock.solvers.linear.reasons import reason_of
from penstock.solvers.linear.strategy import Strategy, Tolerance
from penstock.solvers.problem import LinearSystem, Outcome

if TYPE_CHECKING:
    from petsc4py import PETSc

MAX_ITERATIONS = 10_000


class Role(StrEnum):
    """The role of an arm in a comparison."""

    BASELINE = "baseline"
    SKR = "SKR"
    USER = "user"
    OURS = "ours"
    AUTO = "auto"
    ASSEMBLED_ONCE = "auto, assembled once"


@dataclass(frozen=True)
class Structure:
    """The structure of a case's systems, which decides which arms make sense."""

    num_unknowns: int
    is_spd: bool
    is_spatial: bool
    """Whether the grid has three dimensions."""
    has_constant_matrix: bool
    is_sequence: bool


class ArmError(Exception):
    """A system that an arm did not solve, with the reason."""


@dataclass(frozen=True)
class Solved:
    """The solution of one system by an arm, with its costs.

    Set-up is everything before the first iteration or back-solve.
    """

    x: PETSc.Vec | None
    iterations: int
    solve_s: float
    setup_s: float = 0.0

    @property
    def seconds(self) -> float:
        return self.setup_s + self.solve_s

    def __add__(self, later: Solved) -> Solved:
        """The costs of one system in two solves, the later one from the x of the first."""
        return Solved(
            later.x, self.iterations + later.iterations, self.solve_s + later.solve_s, self.setup_s + later.setup_s
        )


class Arm(ABC):
    """One way to solve, which may keep and learn from system to system.

    Args:
        title: name of the arm in tables.
        role: its role.
        is_sorted: whether it solves the systems in sorted order.
        control: title of the arm that differs by its lack of recycling alone.
        num_cold: number of first systems in which it sets up data that it keeps, or learns.
        max_systems: number of systems after which it leaves a case, warming up included.
    """

    def __init__(
        self,
        title: str,
        role: Role,
        *,
        is_sorted: bool = False,
        control: str | None = None,
        num_cold: int = 1,
        max_systems: int | None = None,
    ):
        self.title = title
        self.role = role
        self.is_sorted = is_sorted
        self.control = control
        self.num_cold = num_cold
        self.max_systems = max_systems

    @abstractmethod
    def solve(self, system: LinearSystem, rtol: float) -> Solved:
        """Solve a system. Raises ArmError, and PETSc's errors."""

    def improve(self, system: LinearSystem, x: PETSc.Vec, rtol: float) -> Solved:
        """Go on from an x that is not good enough."""
        return self.solve(replace(system, guess=x), rtol)


class KeptKSP(Arm):
    """The loop of someone who knows PETSc: one KSP for one matrix.

    The KSP is set up once, and the matrix is overwritten in place. So symbolic factorisations and GAMG's aggregates are
    made once. CG stops on the true residual's norm, GMRES is preconditioned from the right.

    Args:
        title: name of the arm in tables.
        role: its role.
        ksp: PETSc's name of the method.
        pc: PETSc's name of the preconditioner.
        package: for a direct solve, "petsc" or "mumps".
        options: PETSc's options, without dash or prefix.
        knows_constant: the first factor or preconditioner serves all systems.
        max_iterations: iterations after which a system is given up.
        max_systems: number of systems after which it leaves a case.
    """

    def __init__(
        self,
        title: str,
        role: Role,
        *,
        ksp: str,
        pc: str,
        package: str | None = None,
        options: Mapping[str, str] | None = None,
        knows_constant: bool = False,
        max_iterations: int = MAX_ITERATIONS,
        max_systems: int | None = None,
    ):
        super().__init__(title, role, max_systems=max_systems)
        self.type = ksp
        self.pc = pc
        self.package = package
        self.options = dict(options or {})
        self.knows_constant = knows_constant
        self.max_iterations = max_iterations
        self._ksp: PETSc.KSP | None = None

    def solve(self, system: LinearSystem, rtol: float) -> Solved:
        start = time.thread_time()
        ksp = self._ksp = self._ksp or self._create(system)
        ksp.setOperators(system.A)
        ksp.setTolerances(rtol=rtol, atol=0.0, max_it=self.max_iterations)
        ksp.setUp()
        if self.knows_constant:
            ksp.getPC().setReusePreconditioner(True)
        ready = time.thread_time()
        x = system.b.duplicate()
        ksp.setInitialGuessNonzero(system.guess is not None and self.type != "preonly")
        if system.guess is not None:
            system.guess.copy(x)
        ksp.solve(system.b, x)
        end = time.thread_time()
        if ksp.getConvergedReason() < 0:
            raise ArmError(f"{reason_of(ksp)} after {ksp.getIterationNumber()} iterations")
        iterations = 0 if self.type == "preonly" else ksp.getIterationNumber()
        return Solved(x, iterations, end - ready, ready - start)

    def improve(self, system: LinearSystem, x: PETSc.Vec, rtol: float) -> Solved:
        """Go on from an x: by a step of iterative refinement where the solve is direct.

        The same back-solve again would change nothing.
        """
        if self.type != "preonly":
            return super().improve(system, x, rtol)
        start = time.thread_time()
        correction = system.b.duplicate()
        self._ksp.solve(residual_of(system, x), correction)
        correction.axpy(1.0, x)
        return Solved(correction, 0, time.thread_time() - start)

    def _create(self, system: LinearSystem) -> PETSc.KSP:
        from petsc4py import PETSc

        ksp = PETSc.KSP().create(system.A.comm)
        ksp.setType(self.type)
        if self.type == "cg":
            ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
        elif self.type == "gmres":
            ksp.setPCSide(PETSc.PC.Side.RIGHT)
        pc = ksp.getPC()
        pc.setType(self.pc)
        if self.package is not None:
            pc.setFactorSolverType(self.package)
        if self.package == "petsc":
            pc.setFactorOrdering("nd")
        prefix = "penstock_bench_"
        ksp.setOptionsPrefix(prefix)
        table = PETSc.Options(prefix)
        for key, value in self.options.items():
            table.setValue(key, value)
        ksp.setOperators(system.A)
        ksp.setFromOptions()
        ksp.setUp()  # the smoothers on GAMG's levels read their options here
        for key in self.options:
            table.delValue(key)
        return ksp


class StrategyArm(Arm):
    """A strategy of penstock's, asked for a residual.

    The bench checks its solutions, as `LinearSolver` does in a run.
    """

    def __init__(
        self,
        title: str,
        role: Role,
        make: Callable[[], Strategy],
        *,
        is_sorted: bool = False,
        control: str | None = None,
        num_cold: int = 1,
    ):
        super().__init__(title, role, is_sorted=is_sorted, control=control, num_cold=num_cold)
        self._make = make
        self._strategy: Strategy | None = None

    def solve(self, system: LinearSystem, rtol: float) -> Solved:
        start = time.thread_time()
        self._strategy = self._strategy or self._make()
        attempt = self._strategy.solve(system, Tolerance(rtol))
        seconds = time.thread_time() - start
        if attempt.outcome is not Outcome.CONVERGED:
            raise ArmError(f"{attempt.outcome} after {attempt.iterations} products")
        return Solved(attempt.x, attempt.iterations, seconds - attempt.setup_seconds, attempt.setup_seconds)


class AutoArm(Arm):
    """The `LinearSolver` of a run under `strategy: auto`, its checks included.

    Args:
        role: its role, which is its title too.
        num_cold: number of first systems in which it sets up data that it keeps, or learns.
        **target: `rtol`, or `accuracy` and `of_deviation`, as `LinearSolver` takes them.
    """

    def __init__(self, role: Role = Role.AUTO, num_cold: int = 0, **target: float):
        super().__init__(role, role, num_cold=num_cold)  # it has decided and settled before it is compared
        self._solver = LinearSolver(Auto(), **target)

    @property
    def decision(self) -> Decision | None:
        decisions = self._solver.decisions
        return decisions[0] if decisions else None

    def solve(self, system: LinearSystem, rtol: float | None = None) -> Solved:
        """Solve to the target that was given at the start; `rtol` is ignored."""
        setup_before = self._solver.setup_seconds
        start = time.thread_time()
        solution = self._solver(system)
        seconds = time.thread_time() - start
        if not solution.converged:
            raise ArmError(f"{solution.outcome}, relative residual {solution.relative_residual:.1e}")
        setup_s = self._solver.setup_seconds - setup_before
        return Solved(solution.x, solution.iterations, seconds - setup_s, setup_s)


class AssembledOnceArm(AutoArm):
    """`auto` for a problem that assembles its constant matrix once.

    There are no values to compare then.
    """

    def __init__(self, **target: float):
        super().__init__(Role.ASSEMBLED_ONCE, num_cold=16, **target)  # about as many systems as `auto` settles on
        self._matrix: PETSc.Mat | None = None

    def solve(self, system: LinearSystem, rtol: float | None = None) -> Solved:
        self._matrix = self._matrix or system.A.duplicate(copy=True)
        return super().solve(replace(system, A=self._matrix), rtol)
