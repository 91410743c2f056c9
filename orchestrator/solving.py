"""What a solver's process is built from.

It imports no torch, whose memory each of these processes would take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any

from penstock.errors import PenstockError
from penstock.layout import Layout
from penstock.learner.stream.order import Deterministic, FreeRunning, Order
from penstock.orchestrator.config.config import Config, ProblemSection
from penstock.registry import build, load_class, read_source
from penstock.solvers import mpi
from penstock.solvers.linear import STRATEGIES
from penstock.solvers.linear.strategy import Strategy
from penstock.solvers.problem import Problem
from penstock.solvers.problems import PROBLEMS

if TYPE_CHECKING:
    from penstock.solvers.parameters.point_sets import PointSet

MONTE_CARLO = "monte_carlo"


@dataclass(frozen=True, kw_only=True)
class Solving:
    """The chosen problem and how it is solved, with the text of the user's files.

    Only its fields travel to other processes; what it has built stays where it was built, once per process.
    """

    config: Config
    """The configuration, with every option of every part spelt out."""
    problem_source: str | None
    """Text of the file that `problem.name` points into, if it does."""
    strategy_source: str | None
    """Text of the file that `solver.strategy.name` points into, if it does."""

    @classmethod
    def of(cls, config: Config) -> Solving:
        """With the user's files as they are now.

        Args:
            config: the configuration.

        Raises:
            PenstockError: a file can't be read.
        """
        problem, strategy = config.problem.name, config.solver.strategy.name
        return cls(
            config=config,
            problem_source=read_source(problem, "problem.name"),
            strategy_source=read_source(strategy, "solver.strategy"),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @cached_property
    def problem(self) -> Problem:
        """The problem.

        Raises:
            PenstockError: it does not exist, or refuses its options.
        """
        choice = self.config.problem
        problem = build_problem(choice.name, choice.options, self.problem_source)
        if (ranks := self.config.solver.ranks) > 1 and not problem.is_parallel:
            raise PenstockError(
                f"solver.ranks = {ranks}: {choice.name} with these options solves on one rank: give 1, and more "
                "solver.workers"
            )
        if choice.parameters:
            _narrow(problem, choice)
        if choice.design != MONTE_CARLO and not (problem.quantile_names and problem.space.takes_quantiles):
            raise PenstockError(
                f"problem.design = {choice.design!r} chooses parameters by their quantiles, and those of {choice.name} "
                f"can't all be chosen so: give {MONTE_CARLO}"
            )
        if choice.swap:
            _swap(problem, choice)
        return problem

    def require_ready(self) -> None:
        """Raise PenstockError where this machine lacks what simulations need."""
        if lacks := self.problem.lacks:
            raise PenstockError(f"problem.{lacks}")

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of options that have no effect."""
        name = self.config.solver.strategy.name
        if not self.problem.is_external or name == "auto":
            return ()
        return (f"solver.strategy = {name!r} has no effect: the program solves its own systems",)

    def point_sets(self) -> dict[str, PointSet]:
        """New point sets, by the design whose simulations lie on them.

        There are none for independent draws.
        """
        name = self.config.problem.design
        if name == MONTE_CARLO:
            return {}
        from penstock.solvers.parameters.point_sets import POINT_SETS  # scipy.stats takes 0.5 s to import

        return {"training": POINT_SETS[name](len(self.problem.quantile_names), self.config.seed, "training")}

    def strategy(self) -> Strategy:
        """A new strategy.

        Raises:
            PenstockError: it does not exist, or refuses its options.
        """
        choice = self.config.solver.strategy
        cls = load_class(choice.name, STRATEGIES, "solver.strategy", self.strategy_source)
        strategy = build(cls, choice.options, "solver.strategy")
        if not isinstance(strategy, Strategy) or not isinstance(getattr(strategy, "name", None), str):
            raise PenstockError(
                f"solver.strategy: {choice.name!r} must be a subclass of penstock.solvers.linear.strategy.Strategy "
                "that has a name"
            )
        if (ranks := self.config.solver.ranks) > 1 and (why := strategy.needs_one_rank):
            raise PenstockError(f"solver.strategy: {choice.name}: {why} (solver.ranks = {ranks})")
        return strategy

    @cached_property
    def order(self) -> Order:
        """The order of the run, free-running or deterministic."""
        solver = self.config.solver
        if not self.config.deterministic:
            return FreeRunning()
        limit = self.config.training.stop_after.simulations
        return Deterministic(num_lanes=solver.workers, window=solver.window, limit=limit)


def _narrow(problem: Problem, choice: ProblemSection) -> None:
    """Narrow what the problem draws to `problem.parameters`. Raises PenstockError."""
    if not problem.draws_from_space:
        raise PenstockError(
            f"problem.parameters: {choice.name} draws its parameters itself, so their distributions can't be narrowed"
        )
    try:
        problem.space = problem.space.narrowed(choice.parameters)
    except ValueError as error:
        raise PenstockError(f"problem.parameters.{error}") from error
    except AttributeError as error:
        raise PenstockError(f"problem.parameters: {choice.name}: {error}") from error


def _swap(problem: Problem, choice: ProblemSection) -> None:
    """Swap the roles of inputs and outputs in the layout. Raises PenstockError.

    Samples stay as they are, because a layout finds quantities by name.
    """
    if problem.num_steps > 1 or any(spec.name == "time" for spec in problem.inputs):
        raise PenstockError(
            f"problem.swap: {choice.name} yields several samples per simulation, or a time, and an inverse map has one"
        )
    if problem.tangents:
        raise PenstockError(f"problem.swap: derivatives of {choice.name} are by its inputs: give them as outputs")
    if not problem.inputs:
        raise PenstockError(f"problem.swap: {choice.name} has no inputs that could be predicted")
    problem.layout = Layout(problem.outputs, problem.inputs)


def problem_class(name: str, source: str | None = None) -> type[Problem]:
    """The class of a problem; arguments and errors are those of `build_problem`."""
    mpi.make_ready()  # a user's file may import mpi4py
    return load_class(name, PROBLEMS, "problem.name", source)


def build_problem(name: str, options: Mapping[str, Any], source: str | None = None) -> Problem:
    """A problem, from its name and options.

    Args:
        name: the name.
        options: the options.
        source: text of the user's file, where the file itself is elsewhere.

    Returns:
        The problem.

    Raises:
        PenstockError: it does not exist, or refuses its options.
    """
    problem = build(problem_class(name, source), options, "problem")
    try:
        problem.layout  # noqa: B018  checks the fields now, not in the workers
        if not isinstance(problem.num_steps, Integral) or problem.num_steps < 1:
            raise ValueError(f"num_steps = {problem.num_steps!r} must be an integer of at least 1")
    except (AttributeError, TypeError, ValueError) as error:
        raise PenstockError(f"problem {name!r}: {error}") from error
    return problem
