"""What a problem is, and what passes between a problem and the linear solver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.sample import FieldSpec, Layout, Sample
from penstock.solvers.parameters.space import ParameterSpace

if TYPE_CHECKING:
    from petsc4py import PETSc

Parameters = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The regular grid behind a system, for solvers that can use one."""

    shape: tuple[int, ...]
    """Points along each axis."""
    spacing: tuple[float, ...]
    """Distance of neighbouring points along each axis, in the problem's unit of length."""
    permutation: np.ndarray
    """int [number of dofs]: the C-order grid point of each degree of freedom."""


@dataclass(kw_only=True, eq=False)  # frozen takes 1 us longer
class LinearSystem:
    """One A x = b. A and b belong to the problem and may be overwritten once `solve` has returned."""

    A: PETSc.Mat
    b: PETSc.Vec
    is_spd: bool = False
    """A is symmetric positive definite."""
    family: str = "default"
    """Systems of one size that share a recycle space."""
    guess: PETSc.Vec | None = None
    """Initial guess; zero where absent."""
    grid: Grid | None = None
    nullspace: PETSc.NullSpace | None = None
    """What A takes to zero, by orthonormal vectors; where absent, that of A.getNullSpace(). x is orthogonal to it."""
    near_nullspace: PETSc.NullSpace | None = None
    """For algebraic multigrid: what A takes nearly to zero; where absent, that of A.getNearNullSpace()."""


class Outcome(StrEnum):
    """How a solve ended. Only CONVERGED may be used."""

    CONVERGED = "converged"
    ITERATION_LIMIT = "iteration limit reached"
    BREAKDOWN = "breakdown"
    STAGNATION = "stagnation"
    NOT_FINITE = "not finite"
    REFUSED = "refused"
    """The system is none, or has no solution or many: no strategy was tried."""


@dataclass(kw_only=True, eq=False)  # frozen takes 1 us longer
class Solution:
    """The outcome of a solve, as a value."""

    x: PETSc.Vec
    """The caller's own from here on."""
    outcome: Outcome
    relative_residual: float
    """True relative residual ||b - A x|| / ||b||, by a product made for this purpose alone."""
    iterations: int
    """Products with A that the method made; 0 for a direct solve."""
    seconds: float
    strategy: str
    reason: str = ""
    """What each strategy said that failed on the system, in the order they were tried; "" where the first one worked.
    One line."""

    @property
    def converged(self) -> bool:
        return self.outcome is Outcome.CONVERGED


Solve = Callable[[LinearSystem], Solution]
"""What a problem is given. Raises `SolveError` for a system that no strategy of the retry ladder solves."""


class SolveError(Exception):
    """A system that could not be solved; its simulation is refused and counted, and the run goes on."""


class Problem(ABC):
    """A parametric PDE with its discretisation.

    A new PDE gives `space`, `inputs`, `outputs` and `simulate`. Construction must be cheap (it happens in the driver,
    where neither MPI nor DOLFINx need exist): build meshes and forms on first use.
    """

    space: ParameterSpace
    """What is drawn for a simulation."""
    inputs: tuple[FieldSpec, ...]
    outputs: tuple[FieldSpec, ...]
    num_steps: int = 1
    """Samples of every simulation, steps 0 to num_steps - 1, where trajectories or pairs are to be drawn: a simulation
    that yields another number then fails. At 1 any number may come, for single samples don't mind."""

    @abstractmethod
    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        """Solve for one draw and yield its samples in the order of their steps."""

    def draw(self, generator: np.random.Generator) -> Parameters:
        """One draw; `generator` is seeded by the simulation, so that any worker can redo it."""
        return self.space.draw(generator)

    def features(self, parameters: Parameters) -> np.ndarray:
        """[F] the vector by whose Euclidean distance a lease is sorted."""
        return self.space.features(parameters)

    @property
    def rank_names(self) -> tuple[str, ...]:
        """Names of `ranks`: those of the space, and none where `draw` is overridden, since draws then are not its."""
        return self.space.rank_names if type(self).draw is Problem.draw else ()

    def ranks(self, generator: np.random.Generator) -> np.ndarray:
        """[F] the ranks, uniform on [0, 1], of what `draw` makes of such a generator: they show a stream's bias."""
        return self.space.ranks(generator) if self.rank_names else np.empty(0)

    @cached_property
    def layout(self) -> Layout:
        return Layout(self.inputs, self.outputs)
