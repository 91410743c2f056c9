"""What `penstock problems` and `penstock models` print."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from penstock.errors import PenstockError
from penstock.orchestrator.views import card
from penstock.orchestrator.views.numbers import digits
from penstock.registry import load_class, needed, with_defaults
from penstock.solvers.problem import Problem
from penstock.solvers.problems import PROBLEMS

OWN = "./my_file.py:MyClass or my_package.module:MyClass"
COLUMNS = ("name", "dimension", "fields on", "steady or\ntransient", "samples per\nsimulation")
MEASURED = ("seconds per sample", "systems")
MODEL_COLUMNS = ("name", "fields on", "resolution-free", "parameters", "files")


def show_problems(*, measures: bool) -> None:
    """Print a table of the problems, as they are with their default options.

    Args:
        measures: whether to solve two draws of each, for the systems and the seconds per sample; each row is printed
            once it is measured.
    """
    progress = Console(stderr=True)
    with progress.status("reading the problems"):
        classes = [load_class(name, PROBLEMS, "problem") for name in PROBLEMS]
        rows = {(name, *_described(cls)): cls for name, cls in zip(PROBLEMS, classes, strict=True)}
    if measures:
        _print_measured((*COLUMNS, *MEASURED), {row: partial(_measured, cls) for row, cls in rows.items()}, progress)
        print("Every system was solved directly, on one core; a run takes the fastest way that it finds.")
    else:
        listed = _table(*COLUMNS, "what it is")
        for row, cls in rows.items():
            listed.add_row(*row, _first_line(cls))
        card.console().print(listed)
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


def show_models(*, measures: bool) -> None:
    """Print a table of the models, as they are with their default options.

    Args:
        measures: whether to train each for a few steps; each row is printed once it is measured.
    """
    from penstock.learner.models import MODELS
    from penstock.learner.rehearsal.comparison import WHERE, seconds_per_step

    rows = {(name, *_described_model(name)): name for name in MODELS}
    if measures:
        header = (*MODEL_COLUMNS, "seconds per step")

        def measured(name: str) -> tuple[str]:
            seconds = seconds_per_step(name)
            return ("-" if seconds is None else digits(seconds),)

        _print_measured(header, {row: partial(measured, name) for row, name in rows.items()}, Console(stderr=True))
    else:
        listed = _table(*MODEL_COLUMNS, "what it is")
        for row, name in rows.items():
            listed.add_row(*row, _first_line(MODELS[name]))
        card.console().print(listed)
    print(f"Parameters{' and steps' if measures else ''} are those of the default options, {WHERE}.")
    print("Resolution-free: a finer grid, or more points, is the same function up to the error of the coarser one.")
    if measures:
        print("A step is of the model's own optimizer, on 8 samples in float32: processor time on one core, a median.")
    print("`penstock models show NAME` has all about one of them; see docs/models/index.md.")
    print(f"your own: `model: {{name: {OWN}}}`; see docs/custom-problem.md")


def _described_model(name: str) -> tuple[str, ...]:
    """The cells of MODEL_COLUMNS after the name."""
    from penstock.learner.export.files import FORMATS, NOT_WRITTEN
    from penstock.learner.models import MODELS
    from penstock.learner.rehearsal.comparison import num_parameters

    cls, num = MODELS[name], num_parameters(name)
    free = [geometry.label for geometry in cls.resolution_free]
    inside = inspect.signature(cls).parameters.get("model")  # of a model that is made of another one
    everywhere = "yes" if inside is None else f"with {inside.default}"
    return (
        ", ".join(geometry.label for geometry in cls.accepts),
        (everywhere if len(free) == len(cls.accepts) else f"on {', '.join(free)}") if free else "no",
        "-" if num is None else f"{num:,}",
        ", ".join(kind for kind in FORMATS if kind not in NOT_WRITTEN.get(name, ())),
    )


def show_model(name: str) -> None:
    """Print a model: its options, the geometries that it takes, its docstring.

    Args:
        name: its name.

    Raises:
        PenstockError: there is no such model.
    """
    from penstock.learner.models import MODELS
    from penstock.learner.optimizers import recipe_of

    cls = load_class(name, MODELS, "model")
    out = Console(soft_wrap=True, highlight=False, markup=False)
    options = [f"{p.name}={p.default}" for p in inspect.signature(cls).parameters.values() if p.default is not p.empty]
    kinds = " or ".join(geometry.label for geometry in getattr(cls, "accepts", ())) or "any geometry"
    out.print(f"{name}  ({', '.join(options)})  fields on {kinds}", style="bold")
    out.print(inspect.cleandoc(cls.__doc__ or cls.__name__))
    recipe = recipe_of(cls, with_defaults(cls, {}, given=1))
    out.print(
        f"\nTrained with {recipe.optimizer} and a learning rate of {recipe.learning_rate:g} where nothing is said."
    )


def _table(*columns: str, **options: bool) -> Table:
    return Table(*columns, box=SIMPLE_HEAD, show_edge=False, pad_edge=False, **options)


def _first_line(cls: type) -> str:
    return inspect.cleandoc(cls.__doc__).partition("\n")[0]


def _print_measured(
    header: Sequence[str], rows: Mapping[tuple[str, ...], Callable[[], tuple[str, ...]]], progress: Console
) -> None:
    """Print a table row by row, each with what was measured at its end.

    Args:
        header: names of all columns.
        rows: what measures the last columns, by the cells of the others.
        progress: where it says what is being measured.
    """
    out, num_given = card.console(), len(next(iter(rows)))
    cells = zip(*rows, header[:num_given], strict=True)
    widths = [max(len(line) for cell in column for line in cell.split("\n")) for column in cells]
    last = [max(map(len, title.split("\n"))) for title in header[num_given:-1]]
    for row, measure in rows.items():
        with progress.status(f"measuring {row[0]}"):  # ends before the row, which it would take to its own stream
            measured = measure()
        line = _table(show_header=row == next(iter(rows)))
        for title, width in zip(header, (*widths, *last, None), strict=True):
            line.add_column(title, width=width)
        line.add_row(*row, *measured)
        out.print(line)
