"""Problems, and what passes between a problem and the linear solver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.layout import Derivative, FieldSpec, Layout, Sample
from penstock.registry import summary_of
from penstock.solvers.parameters.space import ParameterSpace, generator_of

if TYPE_CHECKING:
    from mpi4py import MPI
    from petsc4py import PETSc

Parameters = Mapping[str, Any]
RETRIED = "the program is started again, and the simulation retried"  # after a fault of an external one


@dataclass(frozen=True, kw_only=True)
class GridDofs:
    """The regular grid behind a system, for solvers that can use one."""

    shape: tuple[int, ...]
    """Points along each axis."""
    spacing: tuple[float, ...]
    """Distance of neighbours along each axis, in the problem's unit of length."""
    permutation: np.ndarray
    """The C-order grid point of each degree of freedom, int [number of dofs]."""


@dataclass(kw_only=True, eq=False)  # frozen takes 1 us longer
class LinearSystem:
    """One system A x = b.

    A and b belong to the problem and may be overwritten once `solve` has returned.
    """

    A: PETSc.Mat
    """The matrix, of any of PETSc's types."""
    b: PETSc.Vec
    """The right-hand side."""
    is_spd: bool = False
    """Whether A is symmetric positive definite."""
    family: str = "default"
    """Name of the family: systems of one size that share a recycle space.

    Systems of different size, one per draw, may be one family too: a strategy is then found once for all of them.
    """
    guess: PETSc.Vec | None = None
    """Initial guess; zero where absent."""
    grid: GridDofs | None = None
    """The regular grid behind the unknowns, if there is one."""
    nullspace: PETSc.NullSpace | None = None
    """The vectors that A takes to zero, orthonormal; x is orthogonal to them.

    Where absent, A.getNullSpace() counts.
    """
    near_nullspace: PETSc.NullSpace | None = None
    """The vectors that A takes nearly to zero, for algebraic multigrid.

    Where absent, A.getNearNullSpace() counts.
    """


class Outcome(StrEnum):
    """How a solve ended. Only CONVERGED may be used."""

    CONVERGED = "converged"
    ITERATION_LIMIT = "iteration limit reached"
    BREAKDOWN = "breakdown"
    STAGNATION = "stagnation"
    NOT_FINITE = "not finite"
    REFUSED = "refused"
    """No strategy was tried: the system is malformed, or has no solution or many."""


@dataclass(kw_only=True, eq=False)  # frozen takes 1 us longer
class Solution:
    """The outcome of a solve, as a value."""

    x: PETSc.Vec
    """The solution, which belongs to the caller."""
    outcome: Outcome
    """How the solve ended."""
    relative_residual: float
    """True relative residual ||b - A x|| / ||b||, from a separate product with A."""
    iterations: int
    """Products with A that the method made; 0 for a direct solve."""
    seconds: float
    """Wall-clock time of all attempts, in seconds."""
    strategy: str
    """Name of the strategy that gave x."""
    reason: str = ""
    """The reports of the strategies that failed on the system, on one line.

    They stand in the order of the attempts; "" where the first strategy worked.
    """

    @property
    def converged(self) -> bool:
        """Whether x may be used."""
        return self.outcome is Outcome.CONVERGED


Solve = Callable[[LinearSystem], Solution]
"""The function that a problem is given to solve its systems.

It raises `SolveError` for a system that no strategy of the retry ladder solves.
"""

Turns = Generator["LinearSystem | Sample", "Solution | None", None]
"""The turns of a simulation: it yields systems, each answered by its solution, and samples."""


class Unfit(ValueError):
    """An option of a strategy that does not suit the systems, or this PETSc.

    Its text begins with the option's name.
    """


class SolveError(Exception):
    """A system that could not be solved.

    Its simulation is refused and counted, and the run goes on.
    """


def tangents_of(specs: Iterable[FieldSpec], parameters: Iterable[str], derivatives_as: str) -> tuple[Derivative, ...]:
    """The derivatives of inputs that samples must hold.

    Args:
        specs: the inputs that change with the parameters.
        parameters: names of parameters, or of directions in their space.
        derivatives_as: the option of a problem; "outputs", for which there are none, or "tangents".

    Returns:
        Derivatives of all inputs by each parameter.

    Raises:
        ValueError: the option has another value.
    """
    if derivatives_as not in ("outputs", "tangents"):
        raise ValueError(f"derivatives_as = {derivatives_as!r} must be outputs or tangents")
    wanted = parameters if derivatives_as == "tangents" else ()
    return tuple(spec.derivative(parameter) for parameter in wanted for spec in specs)


class Problem(ABC):
    """A parametric PDE with its discretisation.

    A new PDE gives `space`, `inputs`, `outputs` and `simulate`. Construction must be cheap (it happens in the driver,
    where neither MPI nor DOLFINx need exist): build meshes and forms on first use.
    """

    space: ParameterSpace
    """The parameters that are drawn for a simulation, with their distributions."""
    inputs: tuple[FieldSpec, ...]
    """The quantities of a sample that the network is given."""
    outputs: tuple[FieldSpec, ...]
    """The fields of a sample that the network predicts."""
    num_steps: int = 1
    """Number of samples of every simulation, steps 0 to num_steps - 1.

    Above 1, for trajectories and pairs, a simulation that yields another number fails. At 1 it may yield any number,
    because single samples do not depend on one another.
    """

    feeds: Mapping[str, str] = MappingProxyType({})
    """For inputs that hold an output of the step before, the output's name by the input's.

    Such as {"before": "solution"}. With it windows share the frames, and surrogates are rolled out in validation.
    """

    tangents: tuple[Derivative, ...] = ()
    """Derivatives of inputs, which samples hold beside them, and the network is not given.

    With them the outputs that are derivatives by the same parameters are those of the surrogate: see `Layout.tangents`.
    """

    is_transient: bool = False
    """Whether it evolves in time, as `penstock problems` says."""

    is_parallel: bool = False
    """Whether its simulations can be distributed over MPI ranks, see `comm`."""

    is_external: bool = False
    """Whether another program solves it, and penstock nothing: `solver.strategy` has no effect then.

    Such a problem has its `command`, and calls its `on_retry` with the reason when it retries a simulation.
    """

    @property
    def about(self) -> str:
        """What it solves, for people: by default the docstring of its class, without Args."""
        return summary_of(type(self))

    @property
    def lacks(self) -> str | None:
        """What this machine lacks for its simulations, such as a program that isn't built.

        None by default. It is asked before the first simulation, and not where only a surrogate is used.
        """
        return None

    @abstractmethod
    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        """Solve for one draw and yield its samples in the order of their steps.

        Args:
            parameters: the draw.
            solve: solves one `LinearSystem` and returns its `Solution`.

        Yields:
            The samples, with steps 0, 1, 2, ...

        Raises:
            SolveError: a system could not be solved; raised by `solve`.
        """

    def draw(self, generator: np.random.Generator) -> Parameters:
        """Draw the parameters of one simulation.

        Args:
            generator: is seeded by the simulation, so that any worker can redo it.

        Returns:
            The parameters by name.
        """
        return self.space.draw(generator)

    def at_quantiles(self, quantiles: np.ndarray, generator: np.random.Generator) -> Parameters:
        """The parameters of one simulation whose quantiles are chosen.

        Args:
            quantiles: one per `quantile_names`, inside of (0, 1).
            generator: for what they leave open; is seeded by the simulation.

        Returns:
            The parameters by name.
        """
        return self.space.at_quantiles(quantiles, generator)

    def draw_numbered(self, seed: int, design: str, simulation: int) -> Parameters:
        """The draw of one simulation of a run.

        By default it is `draw` with a generator that depends on the arguments alone.

        Args:
            seed: seed of the run.
            design: name of the design, such as "training" or "validation".
            simulation: number of the simulation.

        Returns:
            The parameters by name.
        """
        return self.draw(generator_of(seed, design, simulation))

    def features(self, parameters: Parameters) -> np.ndarray:
        """The vector [F] of a draw; leases are sorted by Euclidean distances of these."""
        return self.space.features(parameters)

    @property
    def quantile_names(self) -> tuple[str, ...]:
        """The names of `quantiles`, which are those of the space.

        There are none where the space does not describe the draws.
        """
        return self.space.quantile_names if self.draws_from_space else ()

    @property
    def draws_from_space(self) -> bool:
        """Whether the space describes the draws: not where a subclass draws itself."""
        cls = type(self)
        return cls.draw is Problem.draw and cls.draw_numbered is Problem.draw_numbered

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantiles [F] of the draw that this generator gives.

        They are uniform on [0, 1] over draws, so they show the bias of a stream.
        """
        return self.space.quantiles(generator) if self.quantile_names else np.empty(0)

    @cached_property
    def comm(self) -> MPI.Comm:
        """The MPI ranks that a simulation is distributed over, those of `solver.ranks`.

        All of them call `simulate` with the same parameters. A problem that `is_parallel` builds its mesh, matrices and
        vectors on this communicator, and yields whole fields on every rank. By default it is this process alone.
        """
        from mpi4py import MPI

        return MPI.COMM_SELF

    @cached_property
    def layout(self) -> Layout:
        """The arrays that hold the problem's samples.

        Raises:
            ValueError: the problem lacks an attribute that it must set, or its fields are refused by `Layout`.
        """
        needed = ("space", "inputs", "outputs") if self.draws_from_space else ("inputs", "outputs")
        if missing := [f"self.{name}" for name in needed if not hasattr(self, name)]:
            raise ValueError(
                f"{' and '.join(missing)} must be set by __init__: a problem has a ParameterSpace `space`, and tuples "
                "of FieldSpecs `inputs` and `outputs`"
            )
        return Layout(self.inputs, self.outputs, dict(self.feeds), self.tangents)


class InterleavedProblem(Problem):
    """A problem whose simulations may take turns, to be solved together.

    Instead of calling `solve`, `turns` yields each system and is sent its solution:

        solution = yield LinearSystem(A=A, b=b)

    Until it is, the turns of other simulations may run. So nothing that belongs to one simulation may be left in an
    attribute over such a line; matrices, vectors and functions that are overwritten before each system may. Where a
    matrix stays the same, a worker solves the systems of eight simulations at once, which can halve their time.
    """

    @abstractmethod
    def turns(self, parameters: Parameters) -> Turns:
        """Solve for one draw, and yield its samples in the order of their steps.

        Args:
            parameters: the draw.

        Yields:
            Systems, each answered by its `Solution`, and samples, with steps 0, 1, 2, ...

        Raises:
            SolveError: a system could not be solved; raised where it was yielded.
        """

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        yield from in_turns(self.turns(parameters), solve)


def in_turns(
    turns: Turns, solve: Solve, kept: Callable[[LinearSystem], LinearSystem | None] = lambda system: None
) -> Generator[Any, Solution | None, None]:
    """Run the turns of a simulation up to each sample.

    Args:
        turns: the turns.
        solve: solves a system at once.
        kept: a copy of a system that can wait for others; None where it can't.

    Yields:
        The samples, and the copies, each to be answered by its solution or an error.
    """
    with closing(turns):
        go_on = partial(next, turns)
        while True:
            try:
                item = go_on()
            except StopIteration:
                return
            if not isinstance(item, LinearSystem):
                yield item
                go_on = partial(next, turns)
                continue
            try:
                copy = kept(item)
                solution = solve(item) if copy is None else (yield copy)
            except Exception as error:  # where `solve` would have raised it
                go_on = partial(turns.throw, error)
            else:
                go_on = partial(turns.send, solution)
