"""What every process of a run is built from."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

from penstock.errors import PenstockError
from penstock.orchestrator.config.config import Config
from penstock.registry import build, load_class
from penstock.solvers import mpi
from penstock.solvers.linear import STRATEGIES
from penstock.solvers.linear.strategy import Strategy
from penstock.solvers.problem import Problem
from penstock.solvers.problems import PROBLEMS


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """All that a process of a run is built from; it travels to every actor, with the text of the user's own files.

    Made by `plan.resolve`.
    """

    config: Config
    """With every option of every part spelt out."""
    problem_source: str | None
    """Text of the file that `problem.name` points into, if it does."""
    model_source: str | None

    def problem(self) -> Problem:
        """Raises PenstockError for a problem that does not exist or refuses its options."""
        mpi.make_ready()  # a user's file may import mpi4py
        choice = self.config.problem
        cls = load_class(choice.name, PROBLEMS, "problem.name", self.problem_source)
        problem = build(cls, choice.options, "problem")
        try:
            problem.layout  # noqa: B018  its check is wanted now, not in the workers
            if not isinstance(problem.num_steps, Integral) or problem.num_steps < 1:
                raise ValueError(f"num_steps = {problem.num_steps!r} must be an integer of at least 1")
        except (AttributeError, TypeError, ValueError) as error:
            raise PenstockError(f"problem {choice.name!r}: {error}") from error
        return problem

    def strategy(self) -> Strategy:
        """A fresh strategy of `solver.strategy`. Raises PenstockError."""
        choice = self.config.solver.strategy
        cls = load_class(choice.name, STRATEGIES, "solver.strategy", takes_files=False)
        strategy = build(cls, choice.options, "solver.strategy")
        if not isinstance(strategy, Strategy) or not isinstance(getattr(strategy, "name", None), str):
            raise PenstockError(
                f"solver.strategy: {choice.name!r} must be a subclass of penstock.solvers.linear.strategy.Strategy "
                "that has a name"
            )
        return strategy
