"""A run with many faults beside runs with none: `python -m benchmarks chaos`."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from random import Random

from benchmarks.chaos.faults import KINDS, SIMULATIONS_PER_FAULT, Recovery, bear, name_of, plan
from benchmarks.chaos.run import Account, Run
from benchmarks.report import footer, paragraph, require_folder, write
from penstock.errors import PenstockError
from penstock.machine import processor
from penstock.report import markdown

UNDISTURBED = 3  # runs, of as many seeds


def run(num_faults: int, seed: int) -> None:
    """Disturb a run, train undisturbed ones, and print and write the table.

    Args:
        num_faults: number of faults.
        seed: of the plan and of the disturbed run; the undisturbed ones have it and those that follow.

    Raises:
        PenstockError: the disturbed run lost something, left something, did not end by itself, or learned less.
    """
    require_folder()
    num_simulations, load = SIMULATIONS_PER_FAULT * num_faults, os.getloadavg()[0]
    account, recoveries = disturbed(num_faults, seed, num_simulations)
    errors = [undisturbed(number, num_simulations) for number in range(seed, seed + UNDISTURBED)]
    if account.error > 2 * max(errors) - min(errors):
        raise PenstockError(f"error {account.error:.4f} where undisturbed runs have {_listed(errors)}", exit_code=1)
    table = markdown(
        [
            row_of(name_of(kind), kind.__doc__, [each.seconds for each in recoveries if each.fault.kind is kind])
            for kind in KINDS
        ],
        ["kind", "what is done", "times", "median, s", "maximum, s"],
    )
    print(table)
    introduction = f"""
        A run of {num_simulations} simulations on two workers, to which {num_faults} faults were done one after
        another, as seed {seed} drew them. It ended by itself: 0 simulations lost, 0 counted twice, no process left, and
        nothing in its temporary folder or in /dev/shm. Only simulations that were asked to raise have failed:
        {len(account.failed)}. The time to recover is that from the blow until both workers were ready and both samples
        and training steps had increased again; that of a resumed run includes the end of the first
        and the start of Ray."""
    conclusion = f"""
        Mean relative L2 validation error: {account.error:.4f} after {account.steps} steps. Undisturbed runs of the same
        configuration with {UNDISTURBED} seeds: {_listed(errors)}."""
    made_by = footer(
        f"python -m benchmarks chaos --faults {num_faults} --seed {seed}",
        f"{processor()}, {os.cpu_count()} cores, load {load:.1f} at the start",
        f"Python {sys.version.split()[0]}",
    )
    text = "\n\n".join(["# Chaos", paragraph(introduction), table, paragraph(conclusion), made_by])
    write("chaos.md", f"{text}\n")


def disturbed(num_faults: int, seed: int, num_simulations: int) -> tuple[Account, list[Recovery]]:
    """The account of a run with faults, and its recoveries.

    Raises PenstockError where something is lost or left; its folder is then kept.
    """
    random = Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    disturbed = Run(folder, num_simulations, seed)
    try:
        recoveries = bear(disturbed, plan(num_faults, random), random, _tell)
        account, left = disturbed.account(), disturbed.left()
    finally:
        disturbed.remove()
    if faults := account.faults() + [f"left: {what}" for what in left]:
        raise PenstockError(f"{'; '.join(faults)} (in {folder})", exit_code=1)
    shutil.rmtree(folder)
    return account, recoveries


def undisturbed(seed: int, num_simulations: int) -> float:
    """The validation error of a run without faults."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), num_simulations, seed)
        try:
            run.train()
            run.finish(0)
            error = run.account().error
        finally:
            run.remove()
    _tell(f"undisturbed, seed {seed}: error {error:.4f}")
    return error


def row_of(name: str, text: str, seconds: list[float]) -> list[str]:
    """A line of the table."""
    times = [f"{statistics.median(seconds):.1f}", f"{max(seconds):.1f}"] if seconds else ["", ""]
    return [name, text.rstrip("."), str(len(seconds)), *times]


def _listed(errors: list[float]) -> str:
    return ", ".join(f"{error:.4f}" for error in errors)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
