"""What `penstock compare` prints: how runs differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from penstock.orchestrator.config.reading import read_values
from penstock.orchestrator.history.standing import flat, standing
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.views.card import console
from penstock.orchestrator.views.numbers import digits
from penstock.orchestrator.views.terminal.monitor import last_record
from penstock.record import Summary

VERSIONS = ("penstock", "versions", "host")
RESULTS = (
    *("step", "delivered", "failed", "retried", "unique", "trained", "dropped", "reuse", "train_seconds", "loss"),
    *("learner_wait_seconds", "solver_blocked_seconds", "iterations_per_system", "seconds_per_system"),
    *("unique_per_train_s", "trained_per_train_s", "solved_by"),
)
"""Entries of summary.json that are compared, besides the errors; docs/metrics.md has their meaning."""
ERRORS = ("relative_l2", "h1", "vrmse")
NONE = "-"


def show_differences(folders: Sequence[RunFolder]) -> None:
    """Print tables of what differs between runs.

    Args:
        folders: their folders, two at least.

    Raises:
        PenstockError: a file of one can't be read.
    """
    names = [folder.path.name for folder in folders]
    for title, rows in differences(folders):
        if rows:
            shown = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
            for head in (title, *names):
                shown.add_column(head, overflow="fold")  # a key that is cut off could be any
            for key, values in rows.items():
                shown.add_row(key, *values)
            console().print(shown)
        else:
            print(f"{title}: no difference")


def differences(folders: Sequence[RunFolder]) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """The entries in which configuration, versions and results differ.

    Args:
        folders: their folders, two at least.

    Yields:
        A title, and the entries, see `differing`.

    Raises:
        PenstockError: a file of one can't be read.
    """
    for title, read in (("configuration", _config), ("versions", _versions), ("results", _results)):
        yield title, differing([read(folder) for folder in folders])


def differing(columns: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The entries in which mappings differ, as text.

    Args:
        columns: the mappings.

    Returns:
        By key, in the order in which the mappings have them, the value in each; "-" where it has none. Numbers have
        three digits where these tell all that differ apart, else all digits.
    """
    rows = {}
    for key in dict.fromkeys(key for column in columns for key in column):
        exact, rounded = (
            [text(column[key]) if key in column else NONE for column in columns] for text in (_exact_text, _text)
        )
        if len(set(exact)) > 1:
            rows[key] = exact if len(set(rounded)) < len(set(exact)) else rounded
    return rows


def _config(folder: RunFolder) -> dict[str, Any]:
    return flat(read_values(folder.path / "config.yaml"))


def _versions(folder: RunFolder) -> dict[str, Any]:
    run = folder.read("run.json")
    return flat({key: run[key] for key in VERSIONS if key in run})


def _results(folder: RunFolder) -> dict[str, Any]:
    """What came out, of a run that goes on what there is so far."""
    found = standing(folder.path)
    results: dict[str, Any] = {"state": found.state, "remark": found.remark or NONE}
    if written := folder.read("summary.json"):
        values = Summary.from_json(written).to_json()
    elif record := last_record(folder):
        values = record.to_json() | {"reuse": record.reuse}
    else:
        return results
    results |= flat({key: values[key] for key in RESULTS if values.get(key) is not None})
    validation = values.get("validation") or {}
    return results | flat({f"validation.{key}": validation[key] for key in ERRORS if validation.get(key) is not None})


def _text(value: Any) -> str:
    """A value as YAML would have it in a line."""
    return digits(value) if isinstance(value, float) else _exact_text(value)


def _exact_text(value: Any) -> str:
    if isinstance(value, float):
        return repr(value).removesuffix(".0")  # 1 and 1.0 are the same
    return value if isinstance(value, str) else json.dumps(value)
