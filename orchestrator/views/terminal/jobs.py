"""What `penstock jobs` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from penstock.errors import PenstockError
from penstock.orchestrator.launch.job import Job, State
from penstock.orchestrator.launch.launching import state_of
from penstock.orchestrator.store.run_folder import RUNS, RunFolder
from penstock.orchestrator.views.card import console


def show_jobs(folders: Sequence[RunFolder]) -> None:
    """Print a table of launched runs.

    Args:
        folders: their folders.
    """
    if not folders:
        print(f"no run under {RUNS.resolve()} was launched: start one with `penstock launch`")
        return
    columns = ("run", "launched", "job", "is", "run's state", "submitted")
    table = Table(*columns, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for folder in folders:
        table.add_row(folder.path.name, *_row(folder))
    console().print(table)


def _row(folder: RunFolder) -> tuple[str, ...]:
    """What is known of a run, however little of its folder can be read."""
    try:
        job, state = Job.of(folder), folder.read("run.json").get("state", "-")
    except (PenstockError, OSError) as error:
        return "-", "-", "-", str(error), "-"
    if job is None:  # the folder is being deleted
        return "-", "-", "-", state, "-"
    try:
        where = state_of(folder, job)
    except (PenstockError, OSError) as error:
        return job.launcher, job.id, f"unknown: {error}", state, job.submitted
    if where is State.GONE and state == "running":
        state = "broken off"
    return job.launcher, job.id, str(where), state, job.submitted
