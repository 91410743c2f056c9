"""Every way to solve, on every case: `python -m benchmarks solvers`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import report
from benchmarks.solvers import end_to_end, page
from benchmarks.solvers.cases import cases
from benchmarks.solvers.published import published_arms
from benchmarks.solvers.report import footer
from penstock.errors import PenstockError
from penstock.solvers.referee.arms import Arm, AssembledOnceArm, AutoArm
from penstock.solvers.referee.case import Case
from penstock.solvers.referee.goals import AccuracyGoal, Goal, ResidualGoal
from penstock.solvers.referee.lineup import own_arms, skr_arms, user_arms
from penstock.solvers.referee.referee import Comparison, compare, structure_of
from penstock.solvers.referee.table import section_of

RTOL = 1e-8
ACCURACY = 1e-4
SYSTEMS = ((12_000, 40), (120_000, 10), (None, 3))
"""Numbers of systems of a case, by the largest number of unknowns."""
WINDOW = 64  # samples of a lease, which is a turn end to end


def run(selection: str | None = None, num_systems: int | None = None) -> None:
    """Compare all arms on the selected cases; print their tables and publish them.

    A case that fails is reported, and the next one goes on. Raises PenstockError in the end if there was one, and when
    it is interrupted.

    Args:
        selection: beginning of the names of the cases; absent for all.
        num_systems: systems of a case; absent for a number by size.
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
    """The jobs by name; a job returns its section of the page."""

    def compared(case: Case, accuracy: float | None) -> dict[str, Any]:
        return section_of(compare_on(case, num_systems or default_systems(case), accuracy), footer(command))

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
    return case.num_systems or by_size


def compare_on(case: Case, num_systems: int, accuracy: float | None) -> Comparison:
    structure = structure_of(case)
    target = {"accuracy": accuracy} if accuracy else {"rtol": RTOL}
    arms: list[Arm] = [
        *([skr_arms(structure)[0]] if accuracy else published_arms(structure)),
        *user_arms(structure),
        *own_arms(structure, case.first()),
        AutoArm(**target),
    ]
    if structure.has_constant_matrix:
        arms.append(AssembledOnceArm(**target))

    def goal(calibrations: range) -> Goal:
        return AccuracyGoal(accuracy, case, calibrations) if accuracy else ResidualGoal(RTOL)

    return compare(case, arms, num_systems, goal)
