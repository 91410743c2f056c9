"""When training ends, and what else is said of a learner in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.learner.schedules import Schedule
from penstock.learner.stream.rate_limiter import RateLimiter
from penstock.learner.validation.validation import BATCH_SIZE


@dataclass(frozen=True, kw_only=True)
class StopAfter:
    """When training ends: at whichever limit is reached first."""

    minutes: float | None = None
    """Wall time since the first batch could be drawn, waits included and torch.compile not; carried over on resume."""
    steps: int | None = None
    samples: int | None = None
    """Unique samples, each counted once a batch had it."""
    simulations: int | None = None
    """Delivered or failed. The stream ends after them, and the buffer is drained before training ends."""
    error: float | None = None
    """Mean validation error. The learning rate can't be planned by it, so one of the others is needed too."""

    def __post_init__(self):
        limits = self._limits()
        if not limits:
            raise ValueError(
                "stop_after needs one of minutes, steps, samples, simulations: the learning rate follows it"
            )
        for name, limit in {**limits, "error": self.error}.items():
            if limit is not None and not limit > 0:
                raise ValueError(f"stop_after.{name} must be above 0, not {limit}")

    def _limits(self) -> dict[str, float]:
        limits = {
            "minutes": self.minutes,
            "steps": self.steps,
            "samples": self.samples,
            "simulations": self.simulations,
        }
        return {name: limit for name, limit in limits.items() if limit is not None}

    def fractions(self, *, minutes: float, steps: int, samples: float, simulations: float) -> dict[str, float]:
        """What part of each limit is done, for the limits that are set."""
        done = {"minutes": minutes, "steps": steps, "samples": samples, "simulations": simulations}
        return {name: done[name] / limit for name, limit in self._limits().items()}

    def progress(self, **done: float) -> float:
        """The largest of the `fractions`, in [0, 1]."""
        return min(1.0, max(self.fractions(**done).values()))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is chosen of a learner beside its parts."""

    batch_size: int
    stop_after: StopAfter
    schedule: Schedule = Schedule()  # noqa: RUF009 (frozen)
    """Of the learning rate, whose peak is the step's."""
    batches_per_simulation: float | None = None
    """To which training and ingest are held; None where neither waits."""
    validation_simulations: int = 0
    """Gathered before training; 0 for no validation set."""
    validation_batch_size: int = BATCH_SIZE
    """Samples of a slice, which holds up the next step."""
    validation_every_s: float = 30.0
    checkpoint_every_s: float = 120.0
    checkpoints_kept: int = 2
    """The newest ones, besides the best."""
    saves_buffer: bool = True
    """In the newest checkpoint; without it a resumed learner is given the buffer's simulations again."""

    def rate_limiter(self) -> RateLimiter | None:
        """A new one, where one is wanted."""
        return None if self.batches_per_simulation is None else RateLimiter(self.batches_per_simulation)
