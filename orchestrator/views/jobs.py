"""What `penstock jobs` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from penstock.errors import PenstockError
from penstock.orchestrator.launch.job import Job
from penstock.orchestrator.launch.launching import state_of
from penstock.orchestrator.store.run_folder import RUNS, RunFolder
from penstock.orchestrator.views.card import console


def show_jobs(jobs: Sequence[tuple[RunFolder, Job]]) -> None:
    """Print a table of launched runs.

    Args:
        jobs: the runs, with their jobs.
    """
    if not jobs:
        print(f"no run under {RUNS.resolve()} was launched: start one with `penstock launch`")
        return
    columns = ("run", "launched", "job", "is", "run's state", "submitted")
    table = Table(*columns, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for folder, job in jobs:
        try:
            state = str(state_of(folder, job))
        except PenstockError as error:
            state = f"unknown: {error}"
        table.add_row(folder.path.name, job.launcher, job.id, state, folder.read("run.json")["state"], job.submitted)
    console().print(table)
