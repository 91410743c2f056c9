"""`penstock problems show`: what a problem is, what it costs, and a picture of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from penstock.arrays import zarr_store
from penstock.arrays.ragged import padded
from penstock.errors import PenstockError
from penstock.layout import Layout
from penstock.messages import whole_simulations
from penstock.orchestrator.actors.local_worker import start_petsc
from penstock.orchestrator.config.reading import lay_over
from penstock.orchestrator.solving import build_problem, problem_class
from penstock.orchestrator.views import card
from penstock.orchestrator.views.pictures.samples import draw_samples, names_of
from penstock.solvers.measurement import Measurement, measure
from penstock.solvers.problem import RETRIED

NUM_DRAWS = 4


def show_problem(name: str, options: tuple[str, ...], output: Path | None) -> None:
    """Solve four draws of a problem, draw them to a PNG, and print its card.

    Without options, of a problem that can't do without, its docstring is printed, and which it needs.

    Args:
        name: the problem's name, or `./file.py:Class`.
        options: `key=value`, options of the problem.
        output: the picture; None for <name>.png in the current folder.

    Raises:
        PenstockError: there is no such problem, it refuses its options, it can't be solved, or the picture can't be
            written.
    """
    values: dict[str, Any] = {}
    for option in options:
        lay_over(values, option)
    if not values and (lines := card.without_options(name, problem_class(name))):
        print("\n".join(lines))
        return
    problem = build_problem(name, values)
    if problem.lacks:
        raise PenstockError(f"problem.{problem.lacks}")
    picture = output or Path(f"{name.rpartition(':')[2]}.png")
    if not picture.absolute().parent.is_dir():  # before anything is solved
        raise PenstockError(f"can't write {picture}: there is no such folder: give another --output")
    for line in card.about(problem, values):
        print(line)
    card.console().print(card.fields_table(problem.layout))
    start_petsc()
    measured = measure(problem, NUM_DRAWS)
    for line in card.costs(measured, is_external=problem.is_external):
        print(line)
    for restart in (restart for chunk in measured.chunks for restart in chunk.restarts):
        print(f"draw {restart.simulation}: {restart.reason}; {RETRIED}")
    for number, reason in measured.failed.items():
        print(f"draw {number} failed: {reason}")
    if problem.layout.geometries:
        _draw(picture, measured, problem.layout)
        print(f"wrote {os.path.relpath(picture)}")


def _draw(path: Path, measured: Measurement, layout: Layout) -> None:
    """Draw the first and the last sample of every draw."""
    rows, simulations, steps = whole_simulations(measured.chunks)
    ends: list[int] = []
    for simulation in np.unique(simulations):
        own = np.flatnonzero(simulations == simulation)
        ends += dict.fromkeys((own[np.argmin(steps[own])], own[np.argmax(steps[own])]))
    named = zarr_store.by_name({name: padded(values) for name, values in rows.items()}, layout)
    try:
        draw_samples(path, named, ends, layout, names_of(simulations[ends], steps[ends], layout))
    except OSError as error:
        raise PenstockError(f"can't write {path}: {error.strerror or error}: give another --output") from error
