"""The numbers that a learner goes by, and when training ends."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.learner.schedules import Schedule
from penstock.learner.stream.rate_limiter import RateLimiter
from penstock.learner.validation.validation import BATCH_SIZE


@dataclass(frozen=True, kw_only=True)
class StopAfter:
    """When training ends: at whichever limit is reached first.

    Raises:
        ValueError: a limit is not above 0, or none besides `error` is given.
    """

    minutes: float | None = None
    """Wall time since the first batch could be drawn, with waits and without torch.compile; carried over on resume."""
    steps: int | None = None
    """Optimisation steps."""
    samples: int | None = None
    """Unique samples, each counted once a batch has had it."""
    simulations: int | None = None
    """Delivered or failed simulations. The stream ends after them; the buffer is drained before training ends."""
    error: float | None = None
    """Mean relative L2 error of the validation.

    The learning rate can't be planned by it, so another limit is needed too.
    """

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
        """Return the fraction of each limit that is done.

        Args:
            minutes: wall time.
            steps: optimisation steps.
            samples: unique samples.
            simulations: delivered or failed simulations.

        Returns:
            The fraction, which may exceed 1, by name of the limits that are set, except `error`.
        """
        done = {"minutes": minutes, "steps": steps, "samples": samples, "simulations": simulations}
        return {name: done[name] / limit for name, limit in self._limits().items()}

    def progress(self, **done: float) -> float:
        """The largest of the `fractions`, in [0, 1]."""
        return min(1.0, max(self.fractions(**done).values()))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is chosen for a learner beside its parts."""

    batch_size: int
    """Rows per batch."""
    stop_after: StopAfter
    """The limits at which training ends."""
    schedule: Schedule = Schedule()  # noqa: RUF009 (frozen)
    """Schedule of the learning rate; its factor 1 is the learning rate of the step."""
    batches_per_simulation: float | None = None
    """Batches per simulation that training and ingest are held to; with None neither waits."""
    validation_simulations: int = 0
    """Simulations of the validation set, gathered before training; 0 for no validation set."""
    validation_batch_size: int = BATCH_SIZE
    """Rows of a slice of the validation, which delays the next step."""
    validation_every_s: float = 30.0
    """Seconds between validations."""
    keeps_worst: bool = False
    """Whether a status brings the worst case of each validation, to be drawn."""
    checkpoint_every_s: float = 120.0
    """Seconds between checkpoints."""
    checkpoints_kept: int = 2
    """How many of the newest checkpoints are kept, besides the best one."""
    saves_buffer: bool = True
    """Whether the newest checkpoint holds the buffer; if not, a resumed run solves its simulations again."""

    def rate_limiter(self) -> RateLimiter | None:
        """Return a new rate limiter; None if `batches_per_simulation` is None."""
        return None if self.batches_per_simulation is None else RateLimiter(self.batches_per_simulation)
