"""`penstock bench`: what limits a user's run, its solves and its training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from penstock.errors import PenstockError, describe, text_of
from penstock.layout import Layout
from penstock.learner.buffers.buffer import Reservoir
from penstock.learner.ladder.ladder import ladder
from penstock.learner.ladder.samples import full_reservoir
from penstock.learner.step import Step
from penstock.orchestrator.actors.solver_actor import reference_solver
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.plan import Plan, resolve
from penstock.orchestrator.run.placement import pick_device
from penstock.orchestrator.solving import Solving
from penstock.registry import read_source
from penstock.solvers import mpi
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problem import LinearSystem, Problem, Solution, SolveError
from penstock.solvers.referee.arms import Arm, AutoArm, Role, StrategyArm, own_arms, skr_arms, user_arms
from penstock.solvers.referee.case import Case
from penstock.solvers.referee.goals import AccuracyGoal, Goal, ResidualGoal
from penstock.solvers.referee.referee import compare, structure_of
from penstock.solvers.referee.table import section_of

COMPARED = ("seqaij", "mpiaij")
"""Types of matrices that are compared; systems are not converted."""

LEGEND = """Arms called "user" are loops as a PETSc user writes them, "SKR" is GCRO-DR(40, 20) as Wang et al. (2024) use
it, "reset" the same without recycling, "yours" the configuration's strategy. "auto" checks every solution,
as a run does with any strategy; the times of the other arms exclude the check. An error of up to twice the goal counts
as solved. A ratio is the time of an arm over that of auto, for the sum of all systems and, in brackets, the median:
above 1, auto is faster."""

LADDER_LEGEND = """L1 is the step on one batch that stays on the device, L2 the step fed from a full buffer, L2p the
same while a thread puts samples into the buffer as fast as the buffer accepts them, "feed" the batches without a step.
The gap from L1 to L2 is what feeding costs, that from L2 to L2p what ingestion costs; a run reaches L2 at most.
DataLoader is torch's, over the same buffer. Ratios are medians over rounds, with quartiles in brackets."""


def bench_solvers(config: Config, num_systems: int) -> None:
    """Compare all ways to solve on the systems of the configuration's problem.

    These are penstock's strategies, and loops as an experienced PETSc user writes them. A table is printed for each
    family of systems.

    Args:
        config: the run's configuration.
        num_systems: number of systems of each family to compare on.

    Raises:
        PenstockError: the problem solves no system, or can't be solved.
    """
    name = config.problem.name
    solving = Solving(  # not a Plan: the model may be anything
        config=config,
        problem_source=read_source(name, "problem.name"),
        strategy_source=read_source(config.solver.strategy.name, "solver.strategy"),
    )
    problem = solving.problem
    solving.strategy()  # refused before anything is solved
    mpi.start()
    systems = _systems_of(problem, config)
    if not systems:
        raise PenstockError(f"problem {name!r} solves no linear system in its first simulation: nothing to compare")
    families = list(dict.fromkeys(family for family, _ in systems))
    for family in families:
        sizes = [size for other, size in systems if other == family]
        case = Case(
            name=name if len(families) == 1 else f"{name}, {family}",
            title="Systems that follow from one another" if len(sizes) > 1 else "One system per simulation",
            problem=problem,
            num_unknowns=sizes[0],
            is_sequence=len(systems) > 1,
            family=family,
            seed=config.seed,
            design="training",
            of_deviation=config.solver.accuracy_of == "deviation",
        )
        with _in_one_line(config):
            _compare(case, solving, num_systems, num_first=len(sizes))
    print(LEGEND)


def _systems_of(problem: Problem, config: Config) -> list[tuple[str, int]]:
    """Family and number of unknowns of each system of the first simulation.

    The systems are solved as those of the validation set are.

    Raises:
        PenstockError: a system can't be solved or compared.
    """
    found, solver = [], reference_solver(config.solver)

    def solve(system: LinearSystem) -> Solution:
        solution = solver(system)
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

    with _in_one_line(config):
        for _ in problem.simulate(problem.draw(generator_of(config.seed, "training", 0)), solve):
            pass
    return found


@contextmanager
def _in_one_line(config: Config) -> Iterator[None]:
    """Report what simulations raise in one line, with the exit code of a run, 3."""
    try:
        yield
    except (SolveError, ArithmeticError) as error:
        raise PenstockError(f"problem {config.problem.name!r}: {text_of(error)}", exit_code=3) from error
    except Exception as error:
        file = config.problem.name.rpartition(":")[0]
        raise PenstockError(f"problem {config.problem.name!r}: {describe(error, file)}", exit_code=3) from error


def _compare(case: Case, solving: Solving, num_systems: int, num_first: int) -> None:
    """Print the table of one family, with `num_first` systems per simulation."""
    solver = solving.config.solver
    accuracy, rtol = solver.accuracy, solver.rtol
    structure = structure_of(case, later=num_first if case.is_sequence else None)
    target = {"rtol": rtol} if accuracy is None else {"accuracy": accuracy, "of_deviation": case.of_deviation}
    arms: list[Arm] = [
        *user_arms(structure),
        *own_arms(structure, case.first()),
        *skr_arms(structure),
        AutoArm(**target),
    ]
    if solver.strategy.name != "auto":
        arms.append(StrategyArm(f"yours: {solver.strategy.name}", Role.OURS, solving.strategy))
    print(
        f"{case.name}: {len(arms)} ways to solve, {num_systems} systems of {case.num_unknowns:,} unknowns", flush=True
    )

    def goal(calibrations: range) -> Goal:
        return ResidualGoal(rtol) if accuracy is None else AccuracyGoal(accuracy, case, calibrations)

    print(section_of(compare(case, arms, num_systems, goal))["text"])


@dataclass(frozen=True)
class _OwnRun:
    """A configuration's model and data, in the form that `ladder` takes."""

    plan: Plan
    counts_bytes: bool = False

    @property
    def title(self) -> str:
        config = self.plan.config
        return f"{config.model.name} on {config.problem.name}, batch {self.batch_size}"

    @property
    def layout(self) -> Layout:
        return self.plan.batch_layout

    @property
    def batch_size(self) -> int:
        return self.plan.config.training.batch_size

    def step(self, device: torch.device) -> Step:
        return self.plan.step(self.plan.surrogate().to(device))

    def full_reservoir(self, **placement: Any) -> Reservoir:
        return full_reservoir(self.layout, self.plan.config.buffer.capacity, **placement)


def bench_learner(config: Config, seconds: float) -> None:
    """Measure a training step alone, fed from a full buffer, and beside ingestion.

    Args:
        config: the run's configuration.
        seconds: time for each measurement.

    Raises:
        PenstockError: the configuration can't be resolved.
    """
    device = pick_device(config.training.device)
    section = ladder(_OwnRun(resolve(config)), device, seconds)
    print(f"## {section.title}\n\n{section.text}\n\n{LADDER_LEGEND}")
