"""What a run has left so far, read from its folder, complete or not.

Axes:  R records.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.errors import PenstockError
from penstock.messages import Decision
from penstock.orchestrator.history.standing import UNREADABLE, Standing, standing
from penstock.orchestrator.history.tails import Tail
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.store.strategies import Choices
from penstock.record import Record, Summary

CARRIED = ("learner_wait_seconds", "solver_blocked_seconds", "train_seconds")
"""Columns that a checkpoint carries into the next life of a run."""


@dataclass(frozen=True)
class Tails:
    """The files of a run that grow."""

    records: Tail[Record]
    events: Tail[Mapping[str, Any]]

    @classmethod
    def of(cls, folder: RunFolder) -> Tails:
        """The files of a run, not read yet."""
        return cls(Tail(folder.metrics, _record), Tail(folder.events, _event))


@dataclass(frozen=True, kw_only=True)
class Past:
    """The past of a run.

    Files that can't be read are missing, and named in `standing.remark` or `damage`.
    """

    folder: RunFolder
    standing: Standing
    records: Sequence[Record]
    """Lines of metrics.jsonl, in the order in which they were written."""
    events: Sequence[Mapping[str, Any]]
    """Lines of events.jsonl, likewise."""
    run: Mapping[str, Any]
    """The content of run.json."""
    decisions: Sequence[Decision]
    summary: Summary | None
    """None while the run goes on, or if it broke off."""
    damage: Sequence[str]
    """What is damaged, a sentence each."""

    @classmethod
    def of(cls, folder: RunFolder, tails: Tails | None = None) -> Past:
        """The past of a run.

        Args:
            folder: its folder.
            tails: its records and events as they were last read, so that only new lines are read; None reads all.

        Raises:
            PenstockError: metrics.jsonl or events.jsonl is there and can't be read.
        """
        damage: list[str] = []
        tails = tails or Tails.of(folder)

        def tried[Content](read: Callable[[], Content], otherwise: Content) -> Content:
            try:
                return read()
            except PenstockError as error:
                damage.append(str(error))
            except UNREADABLE as error:
                damage.append(f"a record is of another version ({type(error).__name__}: {error})")
            return otherwise

        def decisions() -> list[Decision]:
            return [Decision(**values) for values in folder.read(Choices.FILE).values()]

        def summary() -> Summary | None:
            written = folder.read("summary.json")
            return Summary.from_json(written) if written else None

        return cls(
            folder=folder,
            standing=standing(folder.path),
            records=tails.records.read(),
            events=tails.events.read(),
            run=tried(lambda: folder.read("run.json"), {}),
            decisions=tried(decisions, []),
            summary=tried(summary, None),
            damage=damage,
        )

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.folder.path.name

    @property
    def last(self) -> Record | None:
        """The last record; None before the first."""
        return self.records[-1] if self.records else None

    def column(self, name: str) -> np.ndarray:
        """A column of the records, float64 [R]; NaN where a record has none."""
        values = [getattr(record, name) for record in self.records]
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

    def total(self, name: str) -> np.ndarray:
        """The running sum of a column that counts seconds or joules, float64 [R].

        Most begin at zero with each life of the run: what came before goes on into the next life. Those of CARRIED do
        not, and may go back to a checkpoint: what is done again then counts from there.
        """
        values = np.nan_to_num(self.column(name))
        gains = np.diff(values, prepend=0.0)
        return np.cumsum(np.where(gains < 0, 0.0 if name in CARRIED else values, gains))

    @property
    def seconds(self) -> np.ndarray:
        """Run time at each record in seconds, without pauses before a resume, float64 [R]."""
        return self.total("elapsed_seconds")

    def validations(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """The number of the record in which each validation is first, and its errors."""
        before = None
        for number, record in enumerate(self.records):
            if record.validation and record.validation != before:
                before = record.validation
                yield number, before


def _record(line: bytes) -> Record | None:
    with suppress(*UNREADABLE):
        return Record.from_json(json.loads(line))
    return None


def _event(line: bytes) -> Mapping[str, Any] | None:
    with suppress(ValueError):
        if isinstance(values := json.loads(line), dict):
            return values
    return None
