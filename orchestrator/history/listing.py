"""What `penstock runs` prints: the runs of a folder, sorted and filtered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.measure import Measurement
from rich.table import Table

from penstock.errors import PenstockError
from penstock.orchestrator.history.ages import age_of
from penstock.orchestrator.history.standing import KEYS, Standing, standings
from penstock.orchestrator.views.card import console
from penstock.orchestrator.views.numbers import digits
from penstock.registry import nearest

SORTED_BY = {key.removesuffix("_s"): key for key in KEYS}
COLUMNS = ("run", "state", "age", "problem", "model", "error", "samples", "host")
REMARK = "remark"
"""The last column."""
WIDEST = 10_000  # wider than any table: for a measurement that nothing bounds


def show_runs(runs: Path, sort: str, conditions: Sequence[str], *, as_json: bool) -> None:
    """Print the runs of a folder.

    Args:
        runs: the folder.
        sort: what they are sorted by, a key of SORTED_BY; those without a value come last.
        conditions: `key=value`; see `matching`.
        as_json: whether to print a record per line instead of a table.

    Raises:
        PenstockError: there is no such folder or key.
    """
    if sort not in SORTED_BY:
        raise PenstockError(f"--sort {sort}: {nearest(sort, SORTED_BY)}")
    key = SORTED_BY[sort]
    found = matching(list(standings(runs)), conditions)
    found.sort(key=lambda run: (getattr(run, key) is None, getattr(run, key)))
    if as_json:
        for run in found:
            print(json.dumps({"kind": "run", **run.to_json()}))
    elif not found:
        print(f"there is no {'such ' if conditions else ''}run under {runs}")
    else:
        show(found)


def matching(found: Sequence[Standing], conditions: Sequence[str]) -> list[Standing]:
    """The runs that meet all conditions.

    Args:
        found: runs.
        conditions: `key=value`. The key is one of KEYS or a dotted key of the configuration; the value may have
            wildcards, as `name=darcy-*`.

    Returns:
        Those whose values are as asked for.

    Raises:
        PenstockError: a condition is not of this form, or no run has such a key.
    """
    known, matched = {*KEYS, *(name for run in found for name in run.config)}, list(found)
    for condition in conditions:
        key, is_given, pattern = condition.partition("=")
        if not is_given:
            raise PenstockError(f"--where {condition}: give key=value, such as state=failed or model.width=32")
        if found and key not in known:
            raise PenstockError(f"--where {condition}: no run has {key!r}: {nearest(key, known)}")
        matched = [run for run in matched if fnmatchcase(_value(run, key), pattern)]
    return matched


def show(found: Sequence[Standing], sizes: Mapping[str, str] | None = None) -> None:
    """Print a table of runs.

    The remarks take what the other columns leave of the width, and those are never cut: where the terminal is narrower
    than they are, its lines break.

    Args:
        found: the runs.
        sizes: what each takes on the disk, by name; None for a table without.
    """
    screen = console()
    needed = Measurement.get(screen, screen.options.update(width=WIDEST), _table(found, sizes, len(REMARK))).maximum
    left = max(0, screen.width - needed)
    screen.width = max(screen.width, needed)
    screen.print(_table(found, sizes, len(REMARK) + left))


def _table(found: Sequence[Standing], sizes: Mapping[str, str] | None, remark_width: int) -> Table:
    shown = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in ("disk", *COLUMNS) if sizes else COLUMNS:
        justify = "right" if column in ("disk", "age", "error", "samples") else "left"
        shown.add_column(column, justify=justify, no_wrap=True)
    shown.add_column(REMARK, no_wrap=True, max_width=remark_width)
    for run in found:
        disk = (sizes[run.name],) if sizes else ()
        shown.add_row(*disk, *texts_of(run), run.remark)
    return shown


def texts_of(run: Standing) -> tuple[str, ...]:
    """The texts of a run in COLUMNS."""
    known = (run.problem, run.model, None if run.error is None else digits(run.error), run.samples, run.host)
    return (run.name, run.state, age_of(run.age_s), *("-" if value is None else str(value) for value in known))


def _value(run: Standing, key: str) -> str:
    value: Any = getattr(run, key) if key in KEYS else run.config.get(key)
    if isinstance(value, bool | None):
        value = {True: "true", False: "false", None: "null"}[value]
    return str(value)
