"""The learning rate over a run.

An online run has no epochs: a schedule follows steps, unique samples or wall time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SHAPES = ("cosine", "constant", "step")
NUM_DROPS, DROP = 4, 0.5  # of "step"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate's factor along a run: a linear warm-up, then a shape.

    The warm-up leads from a tenth to 1. The shapes are

        cosine    (1 + cos π s) / 2, where s runs from 0 to 1 after the warm-up (Loshchilov and Hutter, ICLR 2017,
                  arXiv 1608.03983, eq. 5, without restarts)
        constant  1
        step      halved at each quarter, and so 1/16 at the end (Meyer et al., SC 2023, arXiv 2309.16743, whose
                  published configuration halves every 6,250 batches up to 25,000: steps=25000, warm_up=0)

    At most one of `steps`, `samples` and `minutes` gives the length. Without any, it is that of the run, as its
    stop_after says. After its length a schedule keeps its last value.

    Raises:
        ValueError: the shape is unknown, or a value is out of bounds.
    """

    shape: str = "cosine"
    """One of "cosine", "constant" and "step"."""
    warm_up: float = 0.04
    """Fraction of the length in which the rate rises, at least 0 and below 1."""
    steps: float | None = None
    """Length in optimisation steps."""
    samples: float | None = None
    """Length in unique samples."""
    minutes: float | None = None
    """Length in minutes of wall time since the first batch could be drawn, waits included."""

    def __post_init__(self):
        if self.shape not in SHAPES:
            raise ValueError(f"schedule.shape must be one of {', '.join(SHAPES)}, not {self.shape!r}")
        if not 0 <= self.warm_up < 1:
            raise ValueError(f"schedule.warm_up must be at least 0 and below 1, not {self.warm_up}")
        lengths = self._lengths()
        if len(lengths) > 1:
            raise ValueError(f"schedule has one length, not {' and '.join(lengths)}")
        for unit, length in lengths.items():
            if not length > 0:
                raise ValueError(f"schedule.{unit} must be above 0, not {length}")

    def _lengths(self) -> dict[str, float]:
        lengths = {"steps": self.steps, "samples": self.samples, "minutes": self.minutes}
        return {unit: length for unit, length in lengths.items() if length is not None}

    def progress(self, *, steps: float, samples: float, minutes: float, of_run: float) -> float:
        """Return the fraction of the length that is done, in [0, 1].

        Args:
            steps: optimisation steps done.
            samples: unique samples trained on.
            minutes: minutes of wall time since the first batch could be drawn.
            of_run: progress of the run, which is returned if the schedule has no length.

        Returns:
            The fraction.
        """
        done = {"steps": steps, "samples": samples, "minutes": minutes}
        return next((min(1.0, done[unit] / length) for unit, length in self._lengths().items()), of_run)

    def __call__(self, progress: float) -> float:
        """Return the learning rate's factor at a progress in [0, 1]."""
        if progress < self.warm_up:
            # From a tenth, not from 0: a run that is limited by time does not know how many steps the warm-up has.
            return 0.1 + 0.9 * progress / self.warm_up
        if self.shape == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (progress - self.warm_up) / (1 - self.warm_up)))
        if self.shape == "step":
            return DROP ** math.floor(NUM_DROPS * progress)
        return 1.0
