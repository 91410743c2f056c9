"""What a run records of itself, and every view shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from penstock.status import Json, LearnerStatus, Silence

SIDES = ("solvers", "learner", "rate limiter", "buffer", "transport", "none")  # what may limit a run
LIMITS = ("minutes", "steps", "samples", "error")  # of training.stop_after, by which a cause of the end is named


@dataclass(frozen=True, kw_only=True)
class Bottleneck(Json):
    """Which side limits a run, and what each could do alone.

    docs/metrics.md has the meaning of each field.
    """

    side: str
    """One of SIDES."""
    certainty: float
    sentence: str
    learner_per_s: float | None = None
    solvers_per_s: float | None = None
    transport_per_s: float | None = None

    @property
    def first_words(self) -> str:
        """What the sentence says first: the side, and how uncertain that is."""
        first, _, rest = self.sentence.partition(": ")
        return f"{first}: {rest.partition(': ')[0]}" if first.startswith("not certain") else first


@dataclass(frozen=True, kw_only=True)
class Ahead(Json):
    """The progress of a run in its phase, and the time left.

    docs/metrics.md has the meaning of each field.
    """

    until: str = ""
    done: float = 0.0
    total: float = 0.0
    seconds: float | None = None
    at_most: bool = False


@dataclass(frozen=True, kw_only=True)
class Record(Json):
    """One line of metrics.jsonl, all that views show of a run.

    docs/metrics.md has the meaning of each field.
    """

    state: str = "unknown"
    step: int = 0
    progress: float = 0.0
    unique: int = 0
    trained: int = 0
    dropped: int = 0
    buffer_samples: int = 0
    buffer_capacity: int = 0
    loss: float | None = None
    bias: Mapping[str, Any] | None = None
    learning_rate: float = 0.0
    warning: str | None = None
    validation: Mapping[str, Any] | None = None
    learner_wait_seconds: float = 0.0
    solver_blocked_seconds: float = 0.0
    train_seconds: float = 0.0
    time: float = 0.0
    elapsed_seconds: float = 0.0
    delivered: int = 0
    failed: int = 0
    retried: int = 0
    unique_per_s: float = 0.0
    trained_per_s: float = 0.0
    iterations_per_system: float | None = None
    seconds_per_system: float | None = None
    workers: int = 0
    silent: tuple[Silence, ...] = ()
    bottleneck: Bottleneck | None = None
    ahead: Ahead | None = None
    solved_by: Mapping[str, int] = field(default_factory=dict)
    worker_seconds: float = 0.0
    solver_seconds: float = 0.0
    solver_unleased_seconds: float = 0.0
    aside_seconds: float = 0.0
    compiling_seconds: float = 0.0
    energy_joules: float | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Record:
        silent = tuple(Silence.from_json(silence) for silence in values.get("silent", ()))
        ahead = Ahead.from_json(values["ahead"]) if values.get("ahead") else None
        return super().from_json({**values, "silent": silent, "bottleneck": _bottleneck(values), "ahead": ahead})

    @property
    def reuse(self) -> float | None:
        """How often a sample was trained on, on average; None before the first."""
        return self.trained / self.unique if self.unique else None


@dataclass(frozen=True, kw_only=True)
class Summary(Json):
    """The content of summary.json; docs/metrics.md has the meaning of each field."""

    step: int = 0
    elapsed_seconds: float = 0.0
    train_seconds: float = 0.0
    delivered: int = 0
    failed: int = 0
    retried: int = 0
    unique: int = 0
    trained: int = 0
    dropped: int = 0
    loss: float | None = None
    warning: str | None = None
    learner_wait_seconds: float = 0.0
    solver_blocked_seconds: float = 0.0
    iterations_per_system: float | None = None
    seconds_per_system: float | None = None
    cause: str = ""
    solved_by: Mapping[str, int] = field(default_factory=dict)
    reuse: float | None = None
    unique_per_train_s: float | None = None
    trained_per_train_s: float | None = None
    failed_reasons: Sequence[Mapping[str, Any]] = ()
    validation: Mapping[str, Any] | None = None
    bottleneck: Bottleneck | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Summary:
        return super().from_json({**values, "bottleneck": _bottleneck(values)})

    @classmethod
    def of(
        cls,
        record: Record,
        status: LearnerStatus,
        cause: str,
        solved_by: Mapping[str, int],
        bottleneck: Bottleneck | None = None,
    ) -> Summary:
        """The summary of a run.

        Args:
            record: its last record.
            status: its last status.
            cause: what ended it.
            solved_by: systems by strategy, that of the configuration first.
            bottleneck: which side limited the run as a whole; None where that is not known.

        Returns:
            The summary.
        """
        seconds, errors, solved = record.train_seconds, record.validation, status.account.validation
        validation = {
            "simulations": solved.num_delivered,
            "failed": len(solved.failed),
            "failed_reasons": solved.failed_reasons(),
        }
        return cls.from_json(
            {each.name: getattr(record, each.name) for each in fields(record)}
            | {
                "bottleneck": bottleneck and bottleneck.to_json(),
                "cause": cause,
                "solved_by": dict(solved_by),
                "reuse": record.reuse,
                "unique_per_train_s": record.unique / seconds if seconds else None,
                "trained_per_train_s": record.trained / seconds if seconds else None,
                "failed_reasons": status.account.training.failed_reasons(),
                "validation": errors and {**validation, **errors},
            }
        )

    def to_json(self) -> dict[str, Any]:
        values = super().to_json()
        return values if self.validation else {name: value for name, value in values.items() if name != "validation"}


def in_words(cause: str) -> str:
    """What ended a run, in words.

    Args:
        cause: the cause as run.json and summary.json have it.
    """
    if cause in LIMITS:
        return f"training.stop_after.{cause} is reached"
    return "all simulations are done and trained on" if cause == "stream ended" else cause


def _bottleneck(values: Mapping[str, Any]) -> Bottleneck | None:
    """The bottleneck of a record's or a summary's JSON."""
    return Bottleneck.from_json(values["bottleneck"]) if values.get("bottleneck") else None
