"""What is said of a problem: its equation, parameters, fields, systems and costs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from penstock.layout import Layout
from penstock.machine import processor
from penstock.orchestrator.views.numbers import digits
from penstock.registry import needed, with_defaults

if TYPE_CHECKING:
    from penstock.geometry import Geometry
    from penstock.solvers.measurement import MatrixTimes, Measurement, Systems
    from penstock.solvers.problem import Problem

TINY = 1e-15  # a coordinate that is smaller is 0 but for rounding
PLAIN_WIDTH = 160  # of a table that goes to a file or a pipe


def console() -> Console:
    """A console for tables, as wide as the terminal where there is one."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def about(problem: Problem, options: Mapping[str, Any]) -> list[str]:
    """What a problem says of itself: what it solves, its options and parameters.

    Args:
        problem: the problem.
        options: the options that it was given.

    Returns:
        Lines.
    """
    known = with_defaults(type(problem), {}) | dict(options)
    return [
        *problem.about.splitlines(),
        "",
        f"options: {', '.join(f'{key}={value}' for key, value in known.items()) or 'none'}",
        "parameters that are drawn:",
        *(f"    {', '.join(names)}: {law}" for law, names in _alike(problem.space.describe())),
    ]


def without_options(name: str, cls: type) -> list[str]:
    """Docstring and options of a class that can't be built without options.

    Args:
        name: the problem's name.
        cls: its class.

    Returns:
        Lines; none where the class needs no options.
    """
    if not (missing := needed(cls)):
        return []
    given, described = " ".join(f"{key}=..." for key in missing), inspect.cleandoc(cls.__doc__ or cls.__name__)
    return [described, "", f"it needs options: penstock problems show {name} {given}"]


def fields_table(layout: Layout) -> Table:
    """The quantities of a sample: role, name, shape, unit, and what they sit on."""
    table = Table("", "name", "shape", "unit", "on", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    described: list[Geometry] = []
    for role, specs in (("input", layout.inputs), ("output", layout.outputs)):
        for (shape, unit, on), names in _alike({spec.name: (spec.shape, spec.unit, spec.on) for spec in specs}):
            place = _place(on, described) if on is not None else "scalars" if shape else "a scalar"
            table.add_row(role, ", ".join(names), " x ".join(map(str, shape)), unit, place)
    return table


def _alike[Value](values: Mapping[str, Value]) -> list[tuple[Value, list[str]]]:
    """Each value with its names, where neighbours share one."""
    groups = groupby(values.items(), key=itemgetter(1))
    return [(value, [name for name, _ in items]) for value, items in groups]


def _place(geometry: Geometry, described: list[Geometry]) -> str:
    """The geometry in words; by its kind alone if it was described before."""
    if geometry in described:
        return geometry.label if len(described) == 1 else f"{geometry.label}, number {1 + described.index(geometry)}"
    described.append(geometry)
    values = {key: value for key, value in geometry.describe().items() if key != "kind"}
    return f"{geometry.label}: " + ", ".join(f"{key} {_short(value)}" for key, value in values.items())


def _short(value: Any) -> str:
    """A value with three digits of each float, where 6e-17 beside 1 is 0."""
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    return f"{value if abs(value) > TINY else 0.0:.3g}" if isinstance(value, float) else str(value)


def costs(measured: Measurement, *, is_external: bool = False) -> list[str]:
    """The systems that were met, and what a sample took.

    Args:
        measured: the measurement.
        is_external: see `Problem`.

    Returns:
        Lines.
    """
    total = sum(measured.seconds.values())
    by_activity = shares(measured.seconds, is_external=is_external)
    return [
        "systems:",
        *(f"    {line}" for line in systems_lines(measured.systems, measured.num)),
        *(f"    {line}" for line in further_lines(measured.systems)),
        f"seconds per sample: {digits(total)} ({by_activity}) on one core of {processor()}"
        f"{', systems solved directly' if measured.systems else ''}",
        f"seconds of the first simulation, which builds what all use: {digits(measured.first_seconds)}",
    ]


def further_lines(times: Mapping[str, MatrixTimes]) -> list[str]:
    """What a further right-hand side costs, such as one of a derivative.

    Args:
        times: what systems took, by family.

    Returns:
        A line for each family with matrices that change and repeat.
    """
    return [
        f"{family}: a further right-hand side of a matrix takes {100 * share:.0f} % of the first one's time"
        for family, each in times.items()
        if (share := each.kept_share) is not None
    ]


def shares(seconds: Mapping[str, float], *, is_external: bool) -> str:
    """The shares of activities in their sum, in percent, separated by commas.

    What is not penstock's own solving is the program's, where it is an external one.
    """
    total = sum(seconds.values()) or 1.0
    names = {"assembly": "program"} if is_external else {}
    return ", ".join(f"{names.get(name, name)} {100 * each / total:.0f} %" for name, each in seconds.items())


def systems_solved(solved_by: Mapping[str, int]) -> str:
    """Which strategies solved how many systems, in one line.

    Args:
        solved_by: systems by strategy, that of the configuration first.

    Returns:
        The line.
    """
    (chosen, count), *rest = solved_by.items()
    others = sorted(((name, each) for name, each in rest if each), key=itemgetter(1), reverse=True)
    if chosen == "auto":
        tried = [f"{count} while auto chose"] if count else []
        return "systems: " + ", ".join([*(f"{each} by {name}" for name, each in others), *tried])
    if not others:
        return f"systems: {count} by {chosen}"
    share = f"{chosen} solved {count} of {sum(solved_by.values())} systems, "
    return share + (f"{others[0][0]} the rest" if len(others) == 1 else ", ".join(f"{n} {each}" for n, each in others))


def systems_lines(systems: Mapping[str, Systems], num_simulations: int) -> list[str]:
    """One line for each family of systems that were met.

    Args:
        systems: the systems, by family.
        num_simulations: number of simulations in which they were met.

    Returns:
        The lines; "none" alone if there was no system.
    """
    lines = []
    for family, met in systems.items():
        size = f"{met.fewest:,}" if met.fewest == met.most else f"{met.fewest:,} to {met.most:,}"
        kind = "SPD" if met.is_spd else "symmetric" if met.is_symmetric else "not symmetric"
        prefix = f"{family}: " if len(systems) > 1 else ""
        lines.append(f"{prefix}{size} unknowns, {kind}, {digits(met.count / num_simulations)} per simulation")
    return lines or ["none"]
