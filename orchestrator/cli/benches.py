"""`penstock bench`: what limits a run of the user's own, its solves and its training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from penstock.errors import PenstockError
from penstock.learner.buffers.buffer import Reservoir
from penstock.learner.ladder.ladder import ladder
from penstock.learner.ladder.samples import full_reservoir
from penstock.learner.step import Step
from penstock.orchestrator.assembly import make_draw, make_step, make_surrogate, pick_device
from penstock.orchestrator.blueprint import Blueprint
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.plan import resolve
from penstock.sample import Layout
from penstock.solvers import mpi
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problem import LinearSystem, Outcome, Problem, Solution
from penstock.solvers.referee.arms import Arm, AutoArm, own_arms, skr_arms, user_arms
from penstock.solvers.referee.case import Case, ExactSolver
from penstock.solvers.referee.goals import AccuracyGoal, Goal, ResidualGoal
from penstock.solvers.referee.referee import compare, structure_of
from penstock.solvers.referee.table import render, section_of

RUNGS = (
    "L1 is the step on one batch that lies on the device, L2 the step fed from a full buffer, L2p the same while a\n"
    "thread puts samples in. Medians over rounds, quartiles in brackets; ratios pair the rounds, above 1 is faster."
)


def bench_solvers(config: Config, num_systems: int) -> None:
    """Let all strategies, and loops as a PETSc user writes them, solve the systems of the configuration's problem.

    Prints a table per family of systems. Raises PenstockError for a problem without systems.
    """
    blueprint = resolve(config)
    problem, name = blueprint.problem(), config.problem.name
    mpi.start()
    systems = _systems_of(problem, config.seed)
    if not systems:
        raise PenstockError(f"problem {name!r} solves no linear system in its first simulation: nothing to compare")
    for family in dict.fromkeys(family for family, _ in systems):
        sizes = [size for other, size in systems if other == family]
        case = Case(
            name=name if family in ("default", name) else f"{name}, {family}",
            title="Systems that follow from one another" if len(systems) > 1 else "One system per simulation",
            problem=problem,
            num_unknowns=sizes[0],
            is_sequence=len(systems) > 1,
            family=family,
            seed=config.seed,
            design="training",
        )
        _compare(case, config, num_systems)


def _systems_of(problem: Problem, seed: int) -> list[tuple[str, int]]:
    """Family and unknowns of the systems of the first simulation."""
    found, exact = [], ExactSolver()

    def solve(system: LinearSystem) -> Solution:
        found.append((system.family, system.A.getSize()[0]))
        x = system.b.duplicate()
        x.array = exact(system)
        return Solution(
            x=x, outcome=Outcome.CONVERGED, relative_residual=0.0, iterations=0, seconds=0.0, strategy="exact"
        )

    for _ in problem.simulate(problem.draw(generator_of(seed, "training", 0)), solve):
        pass
    return found


def _compare(case: Case, config: Config, num_systems: int) -> None:
    accuracy, rtol = config.solver.accuracy, config.solver.rtol
    structure = structure_of(case)
    target = {"rtol": rtol} if accuracy is None else {"accuracy": accuracy}
    arms: list[Arm] = [
        *user_arms(structure),
        *own_arms(structure, case.first()),
        *skr_arms(structure),
        AutoArm(**target),
    ]
    print(
        f"{case.name}: {len(arms)} ways to solve, {num_systems} systems of {case.num_unknowns:,} unknowns", flush=True
    )

    def goal(calibrations: range) -> Goal:
        return ResidualGoal(rtol) if accuracy is None else AccuracyGoal(accuracy, case, calibrations)

    print(render(section_of(compare(case, arms, num_systems, goal))))


@dataclass(frozen=True)
class _OwnRun:
    """A configuration's model and data, as `ladder` takes them."""

    blueprint: Blueprint
    counts_bytes: bool = False

    @property
    def title(self) -> str:
        config = self.blueprint.config
        return f"{config.model.name} on {config.problem.name}, batch {self.batch_size}"

    @property
    def layout(self) -> Layout:
        return make_draw(self.blueprint).layout(self.blueprint.problem().layout)

    @property
    def batch_size(self) -> int:
        return self.blueprint.config.training.batch_size

    def step(self, device: torch.device) -> Step:
        return make_step(self.blueprint, make_surrogate(self.blueprint).to(device))

    def full_reservoir(self, **placement: Any) -> Reservoir:
        return full_reservoir(self.layout, self.blueprint.config.buffer.capacity, **placement)


def bench_learner(config: Config, seconds: float) -> None:
    """Measure the configuration's training step alone, fed from a full buffer, and beside an ingest thread."""
    device = pick_device(config.training.device)
    section = ladder(_OwnRun(resolve(config)), device, seconds)
    print(f"## {section.title}\n\n{RUNGS}\n\n{section.text}")
