"""What `penstock runs` prints: the runs of a folder, sorted and filtered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from penstock.errors import PenstockError, shortened
from penstock.orchestrator.history.ages import age_of
from penstock.orchestrator.history.standing import KEYS, Standing, standings
from penstock.orchestrator.views.card import console
from penstock.orchestrator.views.numbers import digits
from penstock.registry import nearest

SORTED_BY = {key.removesuffix("_s"): key for key in KEYS}
COLUMNS = ("run", "state", "age", "problem", "model", "error", "samples", "host", "remark")


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
            print(json.dumps(run.to_json()))
    elif not found:
        print(f"there is no {'such ' if conditions else ''}run under {runs}")
    else:
        console().print(table(found))


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
    for condition in conditions:
        key, is_given, pattern = condition.partition("=")
        if not is_given:
            raise PenstockError(f"--where {condition}: give key=value, such as state=failed or model.width=32")
        known = {*KEYS, *(name for run in found for name in run.config)}
        if found and key not in known:
            raise PenstockError(f"--where {condition}: no run has {key!r}: {nearest(key, known)}")
        found = [run for run in found if fnmatchcase(_value(run, key), pattern)]
    return list(found)


def table(found: Sequence[Standing], sizes: Mapping[str, str] | None = None) -> Table:
    """A table of runs.

    Args:
        found: the runs.
        sizes: what each takes on the disk, by name; None for a table without.

    Returns:
        The table.
    """
    shown = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in ("disk", *COLUMNS) if sizes else COLUMNS:
        justify = "right" if column in ("disk", "age", "error", "samples") else "left"
        shown.add_column(column, justify=justify, no_wrap=True)
    for run in found:
        cells = (run.problem, run.model, None if run.error is None else digits(run.error), run.samples, run.host)
        remark = shortened(run.remark) if run.remark else ""
        disk = (sizes[run.name],) if sizes else ()
        shown.add_row(
            *disk, run.name, run.state, age_of(run.age_s), *("-" if x is None else str(x) for x in cells), remark
        )
    return shown


def _value(run: Standing, key: str) -> str:
    value: Any = getattr(run, key) if key in KEYS else run.config.get(key)
    if isinstance(value, bool | None):
        value = {True: "true", False: "false", None: "null"}[value]
    return str(value)
