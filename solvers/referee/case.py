"""Cases of the solvers' bench: a problem, and its systems by number."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from penstock.solvers.linear.auto.calibration import can_factor, relative_error
from penstock.solvers.linear.check import residual_of
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.iterative.petsc import Krylov
from penstock.solvers.linear.strategy import Tolerance
from penstock.solvers.problem import LinearSystem, Outcome, Problem, Solution, Solve, SolveError

if TYPE_CHECKING:
    from petsc4py import PETSc

# Unknowns up to which MUMPS makes the exact solution in three dimensions, too.
LARGEST_REFERENCE = 40_000

COMPARED = ("seqaij", "mpiaij")  # types of matrices; systems are not converted

MAX_ABSENT = 20  # successive simulations without a system of the family, after which it is taken to be gone

Visitor = Callable[[int, LinearSystem], bool | None]
"""A function of a system's number and the system; a true result ends the visit."""


class ExactSolver:
    """The solver of exact solutions A⁻¹ b, up to rounding.

    It uses MUMPS and a step of refinement. Where MUMPS would take half a minute, it uses GAMG with CG, or with GMRES
    where A is not SPD.
    """

    def __init__(self):
        self._direct = Direct(solver="mumps")
        self._krylov = Krylov(pc="gamg")

    def __call__(self, system: LinearSystem) -> np.ndarray:
        """The exact solution. Raises ArithmeticError where there is none."""
        if system.b.norm() == 0:
            return np.zeros(system.b.getSize())
        is_direct = can_factor(system) or system.A.getSize()[0] <= LARGEST_REFERENCE
        # Rounding may leave residuals above 1e-10, where a coefficient jumps by 1e4.
        strategy, rtol = (self._direct, 1e-8) if is_direct else (self._krylov, 1e-10)
        attempt = strategy.solve(system, Tolerance(rtol))
        if attempt.outcome is not Outcome.CONVERGED:
            raise ArithmeticError(f"no exact solution: {attempt.outcome}")
        x = attempt.x.array_r.copy()
        if is_direct:
            x += strategy.solve(replace(system, b=residual_of(system, attempt.x)), Tolerance(rtol)).x.array_r
        return x


@dataclass
class Case:
    """A problem with its systems, numbered 0, 1, 2, ... through its simulations.

    Args:
        name: short name; one that ends in the number of unknowns is one size of several, and shares a plot with the
            others.
        title: one line of prose.
        problem: the problem.
        num_unknowns: unknowns of each system.
        is_sequence: a simulation has many systems, which follow from one another, so they are solved in order and
            never sorted; otherwise it has one.
        num_systems: number of systems in a table; where absent, it goes by size.
        family: the only family that counts, where there are several.
        seed: seed of the draws.
        design: design of the draws.
        of_deviation: errors are relative to the deviation of A⁻¹ b from its mean.
    """

    name: str
    title: str
    problem: Problem
    num_unknowns: int
    is_sequence: bool = False
    num_systems: int | None = None
    family: str | None = None
    seed: int = 0
    design: str = "bench"
    of_deviation: bool = False
    assemblies: list[float] = field(default_factory=list)
    """Seconds that the problem took for each system visited since this was cleared.

    They begin with the solution of the system before it, of whatever family.
    """
    _exact: dict[int, np.ndarray] = field(default_factory=dict)
    _ends: list[int] = field(default_factory=list)
    """Number of the first system after each simulation that was run to its end."""
    _solver: ExactSolver = field(default_factory=ExactSolver)

    def visit(self, numbers: Iterable[int], visitor: Visitor) -> None:
        """Let the visitor see these systems.

        Numbers must rise where the systems are a sequence. The simulation goes on with exact solutions, whatever the
        visitor does, so that every visit meets the same systems. They are made outside of what `assemblies` times.

        Raises ArithmeticError where the family's systems end.
        """
        if self.is_sequence:
            self._visit_sequence(iter(numbers), visitor)
            return
        for number in numbers:
            if any(visitor(number, system) for system in self._first_system(number)):
                return

    def first(self) -> LinearSystem:
        """The system with number 0."""
        found: list[LinearSystem] = []
        self.visit([0], lambda _, system: found.append(system))
        return found[0]

    def features(self, number: int) -> np.ndarray:
        """The vector [F] to sort by: the features of the simulation's parameters."""
        return self.problem.features(self._parameters(number))

    def prepare(self, number: int, system: LinearSystem) -> None:
        """Make the exact solution of this system, unless it is known."""
        if number not in self._exact:
            self._exact[number] = self._solver(system)

    def error(self, number: int, system: LinearSystem, x: PETSc.Vec) -> float:
        """The error of a solution of a prepared system.

        That is ||x - A⁻¹ b|| over ||A⁻¹ b||, or over the deviation of A⁻¹ b from its mean.
        """
        size = Tolerance(0.0, of_deviation=self.of_deviation)
        return relative_error(system, x, _vector(system, self._exact[number]), size)

    def _parameters(self, simulation: int):
        return self.problem.draw_numbered(self.seed, self.design, simulation)

    def _first_system(self, simulation: int) -> Iterator[LinearSystem]:
        found: list[LinearSystem] = []

        def solve(system: LinearSystem) -> Solution:
            self.assemblies.append(time.thread_time() - start)
            found.append(system)
            raise _Enough

        parameters = self._parameters(simulation)
        start = time.thread_time()
        try:
            for _ in self.problem.simulate(parameters, solve):
                pass
        except _Enough:
            yield from found

    def _visit_sequence(self, numbers: Iterator[int], visitor: Visitor) -> None:
        wanted = next(numbers, None)
        number = simulation = num_absent = 0

        def solve(system: LinearSystem) -> Solution:
            nonlocal number, wanted, start
            if self.family not in (None, system.family) or system.b.norm() == 0:  # x = 0 tells nothing
                solution = _solution(system, self._solver(system))
                start = time.thread_time()  # what came before was for that system
                return solution
            self.assemblies.append(time.thread_time() - start)
            if number == wanted:
                wanted = None if visitor(number, system) else next(numbers, None)
            if wanted is None:
                raise _Enough
            self.prepare(number, system)
            solution = _solution(system, self._exact[number])
            number += 1
            start = time.thread_time()
            return solution

        try:
            while wanted is not None:
                if simulation < len(self._ends) and self._ends[simulation] <= wanted:
                    number = self._ends[simulation]
                else:
                    before, start = number, time.thread_time()
                    for _ in self.problem.simulate(self._parameters(simulation), solve):
                        pass
                    if simulation == len(self._ends):
                        self._ends.append(number)
                    num_absent = num_absent + 1 if number == before else 0
                    if num_absent == MAX_ABSENT:
                        raise ArithmeticError(
                            f"no system of family {self.family!r} in {MAX_ABSENT} successive simulations: name "
                            "families by the kind of their systems, not by the draw"
                        )
                simulation += 1
        except _Enough:
            return


class _Enough(BaseException):
    """The signal that ends a simulation when no more of its systems are wanted.

    It is no Exception, because a problem may catch those.
    """


def _solution(system: LinearSystem, exact: np.ndarray) -> Solution:
    return Solution(
        x=_vector(system, exact),
        outcome=Outcome.CONVERGED,
        relative_residual=0.0,
        iterations=0,
        seconds=0.0,
        strategy="exact",
    )


def _vector(system: LinearSystem, values: np.ndarray) -> PETSc.Vec:
    vector = system.b.duplicate()
    vector.array = values
    return vector


def systems_of(problem: Problem, seed: int, solve: Solve) -> list[tuple[str, int]]:
    """Family and number of unknowns of each system of the first simulation.

    Args:
        problem: the problem.
        seed: seed of the draws.
        solve: solves them.

    Raises:
        SolveError: a system can't be solved, or its matrix is of a type that is not compared.
    """
    found: list[tuple[str, int]] = []

    def note(system: LinearSystem) -> Solution:
        solution = solve(system)
        if not solution.converged:
            raise SolveError(f"system {len(found)} (family {system.family!r}): {solution.reason}")
        if system.A.getType() not in COMPARED:
            raise SolveError(
                f"the bench compares ways to solve for matrices of type 'aij', and that of family {system.family!r} is "
                f"of type {system.A.getType()!r}"
            )
        if system.b.norm() > 0:  # otherwise x = 0, and there is nothing to compare
            found.append((system.family, system.A.getSize()[0]))
        return solution

    for _ in problem.simulate(problem.draw_numbered(seed, "training", 0), note):
        pass
    return found
