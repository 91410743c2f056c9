"""Whether a worker's memory is flat over thousands of systems, for every problem."""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from benchmarks.problems import WINDOW, config_of, names_of
from benchmarks.solvers.report import report
from penstock.machine import own_bytes
from penstock.messages import Lease
from penstock.orchestrator.actors.solver_actor import make_worker
from penstock.orchestrator.solving import Solving

SMALL: dict[str, dict[str, Any]] = {  # where the default takes minutes for 2000 systems
    "burgers": {"resolution": 256},
    "burgers_shocks": {"resolution": 128},
    "cavity": {"resolution": 8},
    "cook": {"resolution": 8},
    "cylinder": {"resolution": 8},
    "diffusion_reaction": {"resolution": 32},
    "elasticity": {"resolution": 16},
    "gray_scott": {"resolution": 32},
    "helmholtz": {"resolution": 32},
    "helmholtz_real": {"resolution": 50},
    "hyperelastic_block": {"resolution": 4},
    "navier_stokes": {"resolution": 32},
    "random_cylinder": {"resolution": 8},
    "shallow_water": {"resolution": 32},
    "square_with_holes": {"resolution": 20},
    "vortex_street": {"resolution": 8},
}
MARKS = (0.25, 0.5, 1.0)
LEAST_SIMULATIONS = 10 * WINDOW  # of which the first two or so bring what is kept
BOUND = 0.01
INTRODUCTION = """
Each problem was solved by one worker as in a run, in a fresh process, with the default strategy and accuracy, until
every family of its systems had {num} of them, in {least} simulations at least; problems without systems until there
were {num} samples. The memory is
what is resident and not shared with other processes, in MB, at {marks} of that; the growth is that from the first mark
to the last. A problem with varying geometry makes a new mesh for every simulation. Resolutions other than the default:
{small}.
"""


@dataclass(frozen=True)
class Course:
    """The memory of a worker while it solves."""

    num_simulations: int
    num_failed: int
    marks: tuple[int, ...]
    """Bytes at each of `MARKS`."""

    @property
    def growth(self) -> float:
        """From the first mark to the last, as a share of the first."""
        return self.marks[-1] / self.marks[0] - 1


def course(name: str, num: int) -> Course:
    """The memory of a worker of this process.

    Args:
        name: of the problem.
        num: systems of every family, or samples.
    """
    worker = make_worker(Solving.of(config_of(name, SMALL.get(name, {}))))
    systems: Counter[str] = Counter()
    num_simulations = num_samples = num_failed = 0
    marks: list[int] = []
    while len(marks) < len(MARKS):
        first = num_simulations
        for chunk in worker.stream(Lease(number=first, simulations=tuple(range(first, first + WINDOW)))):
            num_samples += len(chunk)
            num_failed += len(chunk.failed)
            systems.update(solve.family for solve in chunk.solves)
        num_simulations += WINDOW
        done = min(min(systems.values(), default=num_samples) / num, num_simulations / LEAST_SIMULATIONS)
        if done >= MARKS[len(marks)]:
            marks.append(own_bytes())
    return Course(num_simulations, num_failed, tuple(marks))


def run(names: list[str], num: int) -> int:
    """Measure problems, and print and write the table.

    Args:
        names: of the problems; all of them where there are none.
        num: systems of every family.

    Returns:
        The exit status: 1 where a worker has grown by more than `BOUND`.

    Raises:
        PenstockError: there is no such problem.
    """
    rows, grown = [], []
    for name in names_of(names):
        print(name, file=sys.stderr, flush=True)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            measured = process.submit(course, name, num).result()
        megabytes = [f"{mark / 1e6:.1f}" for mark in measured.marks]
        counts = [str(measured.num_simulations), str(measured.num_failed)]
        rows.append([name, *counts, *megabytes, f"{100 * measured.growth:+.2f} %"])
        print("  ".join(rows[-1]), file=sys.stderr, flush=True)
        if measured.growth > BOUND:
            grown.append(name)
    marks = [f"{100 * mark:.0f} %" for mark in MARKS]
    header = ["problem", "simulations", "failed", *(f"MB at {mark}" for mark in marks), "growth"]
    small = "; ".join(f"{name} {options['resolution']}" for name, options in SMALL.items())
    introduction = INTRODUCTION.format(num=num, least=LEAST_SIMULATIONS, marks=", ".join(marks), small=small)
    command = " ".join(["memory", *names])
    report("memory.md", "Memory of a worker over many systems", introduction, header, rows, command)
    return int(bool(grown))
