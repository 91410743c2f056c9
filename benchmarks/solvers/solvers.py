"""`python -m benchmarks solvers`: every way to solve, on every case."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks import report
from benchmarks.solvers import constant, convection, darcy, end_to_end, helmholtz, page, sequences, skr
from benchmarks.solvers.arms import (
    Arm,
    AssembledOnceArm,
    AutoArm,
    own_arms,
    published_arms,
    skr_arm,
    user_arms,
)
from benchmarks.solvers.case import Case
from benchmarks.solvers.comparison import (
    AccuracyGoal,
    Comparison,
    Goal,
    References,
    ResidualGoal,
    compare,
    structure_of,
)
from benchmarks.solvers.report import footer
from penstock.errors import PenstockError

RTOL = 1e-8
ACCURACY = 1e-4
SYSTEMS = ((12_000, 40), (120_000, 10), (None, 3))
"""Systems of a case up to so many unknowns."""
WINDOW = 64  # samples of a turn end to end: a lease


def cases() -> list[Case]:
    """All of them, in the order of the tables."""
    return [case for module in (skr, darcy, constant, convection, helmholtz, sequences) for case in module.CASES]


def run(selection: str | None = None, num_systems: int | None = None) -> None:
    """Compare all arms on the cases whose names begin with `selection`; print their tables and publish them.

    A case that fails is told, and the next one goes on. Raises PenstockError in the end if there was one, and when it
    is interrupted.
    """
    if num_systems is not None and num_systems < 1:
        raise PenstockError(f"--systems {num_systems}: must be at least 1")
    command = "solvers"
    for option, value in (("case", selection), ("systems", num_systems)):
        if value is not None:
            command += f" --{option} {value!r}"
    jobs = {name: job for name, job in all_jobs(num_systems, command).items() if _begins(name, selection)}
    if not jobs:
        raise PenstockError(f"--case {selection}: no case begins so; there are {', '.join(all_jobs(None, ''))}")
    report.require_folder()
    known = page.known_sections()
    faults = []
    start = time.perf_counter()
    try:
        for number, (name, job) in enumerate(jobs.items(), 1):
            took = known.get(name, {}).get("seconds")
            minutes = (time.perf_counter() - start) / 60
            last = f", {took:.0f} s the last time" if took else ""
            print(f"{minutes:5.1f} min, {number} of {len(jobs)}: {name}{last}", file=sys.stderr)
            try:
                section = job()
            except Exception as error:  # a case that can't be prepared
                faults.append(f"{name} ({' '.join(f'{type(error).__name__}: {error}'.split())[:160]})")
                print(f"failed: {faults[-1]}", file=sys.stderr)
                continue
            print(section["text"], flush=True)
            page.publish(name, section)
    except (KeyboardInterrupt, SystemExit):  # `penstock` leaves by the latter on Ctrl-C
        raise PenstockError(f"interrupted; the cases finished so far are in {report.FOLDER / page.RAW}") from None
    print(f"{(time.perf_counter() - start) / 60:5.1f} min for all of it", file=sys.stderr)
    if faults:
        raise PenstockError(f"not compared: {'; '.join(faults)}")


def all_jobs(num_systems: int | None, command: str) -> dict[str, Callable[[], dict[str, Any]]]:
    """What can be run, by name; a job returns its section of the page."""

    def compared(case: Case, accuracy: float | None) -> dict[str, Any]:
        return page.section_of(compare_on(case, num_systems or default_systems(case), accuracy), command)

    def produced() -> dict[str, Any]:
        start = time.process_time()
        text = end_to_end.run(num_systems or WINDOW, ACCURACY)
        return {"text": f"{text}\n{footer(command)}", "seconds": time.process_time() - start}

    jobs = {}
    for case in cases():
        jobs[case.name] = partial(compared, case, None)
        if case.name.startswith("B"):
            jobs[f"{case.name}, accuracy"] = partial(compared, case, ACCURACY)
    return jobs | {"end to end": produced}


def _begins(name: str, selection: str | None) -> bool:
    return name.lower().startswith((selection or "").lower())


def default_systems(case: Case) -> int:
    by_size = next(systems for limit, systems in SYSTEMS if limit is None or case.num_unknowns <= limit)
    return getattr(case, "num_systems", by_size)


def compare_on(case: Case, num_systems: int, accuracy: float | None) -> Comparison:
    structure = structure_of(case)

    def arms() -> Iterator[Arm]:
        yield from [skr_arm(structure)] if accuracy else published_arms(structure)
        yield from user_arms(structure)
        yield from own_arms(structure, case.system(0))
        target = {"accuracy": accuracy} if accuracy else {"rtol": RTOL}
        yield AutoArm(**target)
        if structure.has_constant_matrix:
            yield AssembledOnceArm(**target)

    def goal(references: References, calibrations: range) -> Goal:
        return AccuracyGoal(accuracy, references, calibrations) if accuracy else ResidualGoal(RTOL)

    return compare(case, list(arms()), num_systems, goal)
