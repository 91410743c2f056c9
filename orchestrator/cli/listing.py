"""What `penstock problems` and `penstock models` print."""

from __future__ import annotations

import inspect
from functools import partial

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from penstock.errors import PenstockError
from penstock.orchestrator.views import card
from penstock.orchestrator.views.numbers import digits
from penstock.registry import load_class, needed
from penstock.solvers.problem import Problem
from penstock.solvers.problems import PROBLEMS

OWN = "./my_file.py:MyClass or my_package.module:MyClass"
COLUMNS = ("name", "dimension", "fields on", "steady or\ntransient", "samples per\nsimulation")
MEASURED = ("seconds per sample", "systems")


def show_problems(*, measures: bool) -> None:
    """Print a table of the problems, as they are with their default options.

    Args:
        measures: whether to solve two draws of each, for the systems and the seconds per sample; each row is printed
            once it is measured.
    """
    out, progress = card.console(), Console(stderr=True)
    with progress.status("reading the problems"):
        classes = [load_class(name, PROBLEMS, "problem") for name in PROBLEMS]
        rows = {(name, *_described(cls)): cls for name, cls in zip(PROBLEMS, classes, strict=True)}
    table = partial(Table, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    if measures:
        header = (*COLUMNS, *MEASURED)
        cells = zip(*(row + MEASURED[:1] for row in rows), header[:-1], strict=True)
        widths = [max(len(line) for cell in column for line in cell.split("\n")) for column in cells]
        for row, cls in rows.items():
            with progress.status(f"measuring {row[0]}"):  # ends before the row, which it would take to its own stream
                measured = _measured(cls)
            line = table(show_header=row[0] == next(iter(PROBLEMS)))
            for title, width in zip(header, (*widths, None), strict=True):
                line.add_column(title, width=width)
            line.add_row(*row, *measured)
            out.print(line)
        print("Every system was solved directly, on one core; a run takes the fastest way that it finds.")
    else:
        listed = table(*COLUMNS, "what it is")
        for row, cls in rows.items():
            listed.add_row(*row, inspect.cleandoc(cls.__doc__).partition("\n")[0])
        out.print(listed)
    print("`penstock problems show NAME` has all about one of them, with a picture.")
    print(f"your own: `problem: {{name: {OWN}}}`; see docs/custom-problem.md")


def _described(cls: type[Problem]) -> tuple[str, ...]:
    """The cells of COLUMNS after the name."""
    if needed(cls):
        return ("-",) * (len(COLUMNS) - 1)  # all depends on its options
    problem = cls()
    geometries = problem.layout.geometries
    return (
        " and ".join(str(dimension) for dimension in sorted({each.dimension for each in geometries})) or "-",
        " and ".join(dict.fromkeys(each.label for each in geometries)) or "-",
        "transient" if problem.is_transient else "steady",
        str(problem.num_steps),
    )


def _measured(cls: type[Problem]) -> tuple[str, str]:
    """The cells of MEASURED."""
    if needed(cls):
        return "-", "-"
    from penstock.orchestrator.actors.local_worker import start_petsc
    from penstock.solvers.measurement import measure

    start_petsc()
    try:
        measured = measure(cls(), 2)
    except PenstockError as error:  # DOLFINx may be missing: the other problems are listed all the same
        return "-", f"fails: {error}"
    return digits(sum(measured.seconds.values())), "\n".join(card.systems_lines(measured.systems, measured.num))


def show_models() -> None:
    """Print the models: options, the geometries that they take, and docstring of each."""
    from penstock.learner.models import MODELS

    out = Console(soft_wrap=True, highlight=False, markup=False)
    for name in MODELS:
        cls = load_class(name, MODELS, "model")
        options = [
            f"{p.name}={p.default}" for p in inspect.signature(cls).parameters.values() if p.default is not p.empty
        ]
        kinds = " or ".join(geometry.label for geometry in cls.accepts)
        out.print(f"{name}  ({', '.join(options)})  fields on {kinds}", style="bold")
        out.print(f"    {inspect.cleandoc(cls.__doc__)}\n".replace("\n", "\n    ").rstrip() + "\n")
    out.print(f"your own: `model: {{name: {OWN}}}`; see docs/custom-problem.md")
