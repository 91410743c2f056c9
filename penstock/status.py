"""What a run's processes report about themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import numpy as np

from penstock.messages import Decision, LeaseEnd, Restart, SolveRecord
from penstock.transport.endpoint import Endpoint

NUM_REASONS = 5  # reasons of failed simulations in a summary, at most
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def kind_of(reason: str) -> str:
    """The reason of a failure without its numbers, equal for failures of one kind."""
    return NUMBER.sub("", reason)


@dataclass(frozen=True)
class Ended:
    """How the simulations of a design have ended so far."""

    delivered: list[list[int]] = field(default_factory=list)
    """Intervals of their ids, ends exclusive."""
    failed: Mapping[int, str] = field(default_factory=dict)
    """Reason by id."""

    @property
    def num_delivered(self) -> int:
        """Number of simulations that were delivered."""
        return sum(end - start for start, end in self.delivered)

    def failed_reasons(self) -> list[dict[str, Any]]:
        """The most frequent reasons why simulations failed, each with an example.

        Reasons that differ in numbers alone count as one.

        Returns:
            Up to NUM_REASONS times `{count, simulation, reason}`, the most frequent first. The example is the
            simulation of the lowest id.
        """
        alike: dict[str, list[int]] = {}
        for simulation, reason in sorted(self.failed.items()):
            alike.setdefault(kind_of(reason), []).append(simulation)
        most_frequent = sorted(alike.values(), key=len, reverse=True)[:NUM_REASONS]
        return [{"count": len(ids), "simulation": ids[0], "reason": self.failed[ids[0]]} for ids in most_frequent]


@dataclass(frozen=True, kw_only=True)
class Ready:
    """What a process reports once it can work."""

    pid: int
    conditions: Mapping[str, Any]
    """What the bits of its results depend on besides the configuration."""


@dataclass(frozen=True, kw_only=True)
class Prepared(Ready):
    """What the learner reports once it is built and restored."""

    device: str
    """Name of the device, for people."""
    buffer_bytes: int
    """Size of the buffer's arrays."""
    buffer_place: str
    """Name of the memory that they are in, for people."""
    weight_bytes: int
    """Size of the weights, without gradients and copies."""
    step: int
    """Optimizer steps before; 0 in a new run."""
    training: Ended
    validation: Ended
    endpoint: Endpoint | None
    """Where it receives samples of other processes; None where none send any."""
    pids: tuple[int, ...] = ()
    """Process ids of all ranks by number, where there are several; `pid` is that of rank 0."""


@dataclass(frozen=True, kw_only=True)
class TrainingTimes:
    """What the time of the training loop went to since it began, in seconds."""

    training: float = 0.0
    """Batches and steps, waits for batches included."""
    aside: float = 0.0
    """Validation and the saving of checkpoints."""
    compiling: float = 0.0


@dataclass(frozen=True, kw_only=True)
class IntakeTimes:
    """What the time of the learner's intake went to since it began, in seconds.

    Of several ranks it is their mean.
    """

    starved: float = 0.0
    """It waited for the stream."""
    taking: float = 0.0
    """It took chunks in."""
    full: float = 0.0
    """It waited for room in the buffer."""
    held: float = 0.0
    """The rate limiter held it."""
    paused: float = 0.0
    """A checkpoint was being written."""


@dataclass(frozen=True, kw_only=True)
class TrainingStatus:
    """Where training stands."""

    state: str
    """State for people: "training", "waiting for samples", ..."""
    step: int
    progress: float
    """The part of the run that is done, in [0, 1]."""
    trained: int
    """Samples drawn for training, with repetition."""
    loss: float | None
    learning_rate: float
    warning: str | None
    validation: Mapping[str, Any] | None
    """The last errors on the validation set that are complete: `Errors.as_dict()`."""
    wait_seconds: float
    """Time that training waited for batches."""
    seconds: float
    """Wall time of training."""
    times: TrainingTimes = field(default_factory=TrainingTimes)
    samples: float = 0
    """Unique samples that a batch has had."""
    steps_left: float = 0.0
    """Steps that are left if no more samples arrive."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """What has arrived at the learner, and how simulations ended."""

    training: Ended
    validation: Ended
    unique: int
    """Samples that reached the buffer."""
    dropped: int
    """Second copies of samples."""
    retried: int
    """Simulations in which a system took more than one strategy, or an external program was started again."""
    solver_blocked_seconds: float
    """Time that workers waited for the stream, summed over workers."""
    solver_seconds: float = 0.0
    """Time that workers took to draw, assemble, solve and pack since the learner began, summed over workers."""
    solver_unleased_seconds: float = 0.0
    """Time that workers waited for leases meanwhile, summed over workers."""
    intake: IntakeTimes = field(default_factory=IntakeTimes)


@dataclass(frozen=True, kw_only=True)
class BufferStatus:
    """What is in the buffer."""

    samples: int
    capacity: int
    bias: Mapping[str, Any] | None
    """Bias of its samples, see `learner.buffers.bias`; measured every few seconds."""


@dataclass(frozen=True, kw_only=True)
class WorstCase:
    """The row of a validation set with the largest error, as it was predicted.

    Arrays are those of the batches' layout, by block: [1, C, *], and what the row brings along for its geometries.
    """

    step: int
    """Number of optimizer steps up to these weights."""
    row: int
    """Its number in the validation set, which is that of a sample in validation.zarr where rows are samples."""
    arrays: Mapping[str, np.ndarray]
    predictions: Mapping[str, np.ndarray]
    """Predicted outputs in physical units, by block."""
    errors: Mapping[str, float]
    """Relative L2 error by output."""


@dataclass(frozen=True, kw_only=True)
class News:
    """What is reported once."""

    solves: tuple[SolveRecord, ...] = ()
    decisions: tuple[Decision, ...] = ()
    restarts: tuple[Restart, ...] = ()
    lease_ends: tuple[LeaseEnd, ...] = ()
    notes: tuple[str, ...] = ()
    """Lines for people."""
    worst_cases: tuple[WorstCase, ...] = ()
    """Those of the validations since the last status, if a view asks for them."""

    def __add__(self, later: News) -> News:
        return News(**{each.name: getattr(self, each.name) + getattr(later, each.name) for each in fields(self)})


@dataclass(frozen=True)
class Word:
    """A call of the learner that must come once and in turn.

    The network may lose it, or bring it twice.
    """

    number: int
    """Counted from 1."""
    method: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class RankStatus:
    """What a learner rank uses of its machine."""

    resident_bytes: int | None
    """Resident memory of its process; None where there is no /proc."""
    device_bytes: int | None = None
    """Memory of its GPU that torch holds for it; None on a CPU."""


@dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """The status of one of the places of a run's workers, whichever worker fills it."""

    place: int
    """Number of the place."""
    is_ready: bool
    """Whether a worker whose process is ready fills it."""
    silent_seconds: float = 0.0
    """Its silence in seconds; 0 while that is not longer than usual."""
    simulations: int = 0
    """Simulations that have ended here."""
    restarts: int = 0
    """Workers that died here, or had grown too large, and were replaced."""
    resident_bytes: int | None = None
    """Resident memory of the worker's process; None without one, or on another machine."""


@dataclass(frozen=True, kw_only=True)
class LearnerStatus:
    """What the driver asks for, once per second."""

    training: TrainingStatus
    account: Account
    buffer: BufferStatus
    news: News
    silences: Mapping[int, float] = field(default_factory=dict)
    """Seconds for which a worker has given nothing, by the number of its current lease."""
    ranks: tuple[RankStatus, ...] = ()
    """What each learner rank uses, by number."""
    is_done: bool = False
    """Training has ended, and its last checkpoint is on the disk."""
    cause: str | None = None
    """Cause of the end of training."""
    number: int = 0
    """Statuses of this learner, with this one."""
    heard: int = 0
    """Number of the last word of the driver that has come."""


class Json:
    """A dataclass as JSON; another version may have written more fields or fewer."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read the dataclass.

        Args:
            values: the JSON object. Unknown fields are left out, missing ones have their defaults.

        Returns:
            The dataclass.
        """
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def to_json(self) -> dict[str, Any]:
        """The JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Silence(Json):
    """A worker that has given nothing for longer than others take."""

    worker: str
    seconds: float
    simulation: int | None = None
    """The simulation that it is in; None if not known."""

    def __str__(self) -> str:
        place = "" if self.simulation is None else f" in simulation {self.simulation}"
        return f"{self.worker} silent for {self.seconds:.0f} s{place}"
