"""Where a run stands, read from its folder alone, whatever there is of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from penstock.errors import PenstockError, one_line
from penstock.orchestrator.config.reading import read_values
from penstock.orchestrator.store.locks import is_held
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.views.terminal.monitor import last_record
from penstock.record import Summary, in_words

MARKS = ("config.yaml", "run.json", "metrics.jsonl", "events.jsonl")
"""Files of which a run folder has one at least, however little was written or is left of it."""
NAME = re.compile(r"-(\d{8}-\d{6})(?:-\d+)?$")  # how RunFolder.create names one
STATES = {
    "submitted": "its job waits to begin",
    "starting": "its driver has begun and has recorded nothing yet",
    "running": "its driver has it",
    "ended": "it has done what it was asked for",
    "stopped": "it was asked to end before, with a checkpoint",
    "failed": "it has said why it could not go on",
    "dead": "it was running, and its driver is gone without a word",
    "broken": "too little of the folder can be read",
}
"""The states of a run, and what each means."""
UNREADABLE = (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError)
"""What JSON of another version, or of no version, leads to."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is known of a run."""

    name: str
    path: Path
    state: str
    """A key of STATES."""
    age_s: float | None = None
    """Seconds since it began."""
    idle_s: float | None = None
    """Seconds since it last wrote a record."""
    problem: str | None = None
    model: str | None = None
    error: float | None = None
    """Mean relative L2 error of the last validation."""
    samples: int | None = None
    """Unique samples."""
    host: str | None = None
    remark: str | None = None
    """Why it ended, or what is wrong with the folder."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Its configuration by dotted keys, as it was recorded."""

    def to_json(self) -> dict[str, Any]:
        """All but the configuration."""
        return {name: value for name, value in asdict(self).items() if name != "config"} | {"path": str(self.path)}


KEYS = tuple(each.name for each in fields(Standing) if each.name not in ("path", "config"))
"""What runs can be sorted by."""


def is_run_folder(path: Path) -> bool:
    """Whether a folder is, or was to be, that of a run."""
    try:
        if path.is_symlink() or not path.is_dir():
            return False
        return NAME.search(path.name) is not None or any((path / mark).exists() for mark in MARKS)
    except OSError:  # one that can't be looked into
        return NAME.search(path.name) is not None


def standings(runs: Path) -> Iterator[Standing]:
    """The runs of a folder, by name; links such as `latest` are left out.

    Args:
        runs: the folder.

    Raises:
        PenstockError: it can't be read.
    """
    try:
        paths = sorted(runs.iterdir())
    except OSError as error:
        raise PenstockError(f"{runs}: {error.strerror}: give a folder that holds run folders") from error
    yield from map(standing, filter(is_run_folder, paths))


def standing(path: Path) -> Standing:
    """Where a run stands; what can't be read of it is a remark, never an error."""
    folder, remarks = RunFolder(path.absolute()), []
    config = _tried(lambda: flat(read_values(path / "config.yaml")), {}, remarks)
    run = _tried(lambda: _mapping(folder, "run.json"), {}, remarks)
    state = _tried(lambda: _state(folder, run), "broken", remarks)
    known: dict[str, Any] = {"error": None, "samples": None}
    for read in (_of_summary, _of_last_record):
        if known["samples"] is None:
            known = _tried(partial(read, folder), known, remarks)
    written = [stamp for stamp in (_changed_at(path / name) for name in (*MARKS, "summary.json")) if stamp]
    now, began = time.time(), _began_at(path)
    if not path.exists():
        state, remarks = "broken", ["it is gone: it was deleted just now"]
    elif not run and not remarks and state == "broken":
        remarks.append("there is no run.json: it ended before it began, or has the logs of another command")
    cause, places = run.get("cause"), (f"{path.absolute()}/", f"{path}/")
    for place in places:  # a remark stands beside the name of the run
        remarks = [remark.replace(place, "") for remark in remarks]
    return Standing(
        name=path.name,
        path=path.absolute(),
        state=state,
        age_s=None if began is None else now - began,
        idle_s=now - max(written) if written else None,
        problem=_text(config.get("problem.name", config.get("problem"))),
        model=_text(config.get("model.name", config.get("model"))),
        host=_text(run.get("host")),
        remark="; ".join(filter(None, [*remarks, one_line(in_words(str(cause))) if cause else ""])) or None,
        config=config,
        **known,
    )


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted keys; an empty mapping has none."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _tried[Result](read: Callable[[], Result], otherwise: Result, remarks: list[str]) -> Result:
    """What `read` returns; if it can't be read, why is added to the remarks."""
    try:
        return read()
    except PenstockError as error:
        remarks.append(str(error))
    except OSError as error:
        remarks.append(f"{error.filename}: {error.strerror}")
    except UNREADABLE as error:
        remarks.append(one_line(f"a record is damaged or of another version ({type(error).__name__}: {error})"))
    return otherwise


def _mapping(folder: RunFolder, name: str) -> dict[str, Any]:
    content = folder.read(name)
    if not isinstance(content, dict):
        raise PenstockError(f"{folder.path / name} is damaged: it holds no mapping")
    return content


def _state(folder: RunFolder, run: Mapping[str, Any]) -> str:
    state = run.get("state")
    if state is None:
        return "starting" if is_held(folder.path / "config.yaml") else "broken"
    if state == "running" and not folder.is_running():
        return "dead"
    if state not in STATES:
        raise PenstockError(f"run.json: {state!r} is no state that this version knows")
    return state


def _of_summary(folder: RunFolder) -> dict[str, Any]:
    if not (content := _mapping(folder, "summary.json")):
        return {"error": None, "samples": None}
    summary = Summary.from_json(content)
    return {"error": _error(summary.validation), "samples": int(summary.unique)}


def _of_last_record(folder: RunFolder) -> dict[str, Any]:
    if (record := last_record(folder)) is None:
        return {"error": None, "samples": None}
    return {"error": _error(record.validation), "samples": int(record.unique)}


def _error(validation: Mapping[str, Any] | None) -> float | None:
    return float(validation["relative_l2"]["mean"]) if validation else None


def _began_at(path: Path) -> float | None:
    """When the run began, by the name of its folder, or by that of its configuration."""
    if found := NAME.search(path.name):
        try:
            return datetime.strptime(found[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC).timestamp()
        except ValueError:  # digits that are no time
            pass
    return _changed_at(path / "config.yaml")


def _changed_at(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
