"""What a sample of each problem costs on one core, and who takes the time."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from benchmarks.solvers.report import report
from penstock.errors import PenstockError
from penstock.messages import ACTIVITIES, Lease
from penstock.orchestrator.actors.solver_actor import make_worker
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.solving import Solving
from penstock.solvers import measurement
from penstock.solvers.problems import PROBLEMS

WARM_UP = 4  # simulations, in which `auto` decides and what serves all simulations is built
WINDOW = 8
INTRODUCTION = """
Each problem with its default options was solved for about {seconds:g} seconds by one worker as in a run, with the
default `strategy: auto` and accuracy, after {warm_up} simulations in which `auto` decided. "assembly" is all that
`simulate` does itself: assembly, evaluation, and for problems without systems the whole scheme. "solve" is the time in
`solve`, its check included. "unknowns" are those of the largest system in {drawn} draws.
"""
DRAWN = 2  # in which unknowns are counted


@dataclass
class Tally:
    """What came of one problem."""

    num_samples: int = 0
    num_simulations: int = 0
    num_failed: int = 0
    seconds: Counter[str] = field(default_factory=Counter)
    """Time by activity, see `ACTIVITIES`."""
    strategies: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Number of systems by family and by the strategy that solved them."""

    def row(self, name: str, total: float, unknowns: str) -> list[str]:
        """The row of the table.

        Args:
            name: of the problem.
            total: seconds that the simulations took.
            unknowns: as the table says them.
        """
        busy = sum(self.seconds.values()) or 1.0
        chosen = dict.fromkeys(strategy for (_, strategy), _ in self.strategies.most_common())
        return [
            name,
            f"{self.num_samples / total:.3g}",
            unknowns,
            f"{sum(self.strategies.values()) / max(1, self.num_samples):.3g}",
            *(f"{100 * self.seconds[activity] / busy:.0f} %" for activity in ACTIVITIES),
            ", ".join(chosen) or "-",
            str(self.num_failed),
        ]


def config_of(name: str, options: Mapping[str, Any] = MappingProxyType({}), workers: int = 1) -> Config:
    """The configuration of a run that solves a problem, with defaults for all else.

    Args:
        name: of the problem.
        options: of the problem.
        workers: number of solver workers.
    """
    values = {"problem": {"name": name, **options}, "training": {"stop_after": {"steps": 1}}}
    return Config.model_validate(values | {"solver": {"workers": workers}})


def names_of(names: list[str]) -> list[str]:
    """These problems, or all that solve and need nothing else where there are none.

    Raises:
        PenstockError: there is no such problem.
    """
    if unknown := [name for name in names if name not in PROBLEMS]:
        raise PenstockError(f"there is no problem {unknown[0]!r}: `penstock problems` lists them")
    return names or [name for name in PROBLEMS if name not in ("store", "external")]


def measure(name: str, seconds: float) -> list[str]:
    """The row of a problem.

    Args:
        name: of the problem.
        seconds: time to solve for, after the warm-up.
    """
    worker = make_worker(Solving.of(config_of(name)))
    for _ in worker.stream(Lease(number=0, simulations=tuple(range(WARM_UP)))):
        pass
    tally, began, first = Tally(), time.perf_counter(), WARM_UP
    while (total := time.perf_counter() - began) < seconds or not tally.num_simulations:
        for chunk in worker.stream(Lease(number=first, simulations=tuple(range(first, first + WINDOW)))):
            tally.num_samples += len(chunk)
            tally.num_simulations += len(chunk.finished) + len(chunk.failed)
            tally.num_failed += len(chunk.failed)
            tally.seconds.update(chunk.seconds)
            tally.strategies.update((solve.family, solve.strategy) for solve in chunk.solves)
        first += WINDOW
    return tally.row(name, total, unknowns(name))


def unknowns(name: str) -> str:
    """Unknowns of the largest system in a few draws of a problem, "-" where there are none."""
    systems = measurement.measure(Solving.of(config_of(name)).problem, DRAWN).systems
    return f"{max(met.most for met in systems.values()):,}" if systems else "-"


def run(names: list[str], seconds: float) -> None:
    """Measure problems, and print and write the table.

    Args:
        names: of the problems; all of them where there are none.
        seconds: time per problem.

    Raises:
        PenstockError: there is no such problem.
    """
    rows = []
    for name in names_of(names):
        print(name, file=sys.stderr, flush=True)
        rows.append(measure(name, seconds))
    header = ["problem", "samples/s", "unknowns", "systems per sample", *ACTIVITIES, "solved by", "failed"]
    introduction = INTRODUCTION.format(seconds=seconds, warm_up=WARM_UP, drawn=DRAWN)
    command = " ".join(["problems", *names])
    report("problems.md", "Problems: samples per second on one core", introduction, header, rows, command)
