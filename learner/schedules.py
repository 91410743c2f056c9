"""The learning rate over a run.

An online run has no epochs: a schedule follows steps, unique samples or wall time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SHAPES = ("cosine", "constant", "step", "plateau", "one_cycle")
NUM_DROPS, DROP = 4, 0.5  # of "step"
DECAY = 0.2  # the last part of "plateau"
FIRST, LAST = 1 / 25, 1 / 25e4  # factors of "one_cycle"
WARM_UP, RISE = 0.04, 0.3  # the first part, and that of "one_cycle"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate's factor along a run: a warm-up, then a shape.

    The warm-up is linear, from a tenth to 1. The shapes are

        cosine    (1 + cos π s) / 2, where s runs from 0 to 1 after the warm-up (Loshchilov and Hutter, ICLR 2017,
                  arXiv 1608.03983, eq. 5, without restarts)
        constant  1
        step      halved at each quarter, and so 1/16 at the end (Meyer et al., SC 2023, arXiv 2309.16743, whose
                  published configuration halves every 6,250 batches up to 25,000: steps=25000, warm_up=0)
        plateau   1, and in the last fifth a straight line to 0 (Hägele et al., NeurIPS 2024, arXiv 2405.18392)
        one_cycle half a cosine up from 1/25 in the warm-up, and half a cosine down to 1/250,000 after it (Smith and
                  Topin, arXiv 1708.07120, in the two phases of torch's OneCycleLR)

    At most one of `steps`, `samples` and `minutes` gives the length. Without any, it is that of the run, as its
    stop_after says. After its length a schedule keeps its last value.

    Raises:
        ValueError: the shape is unknown, or a value is out of bounds.
    """

    shape: str = "cosine"
    """One of "cosine", "constant", "step", "plateau" and "one_cycle"."""
    warm_up: float | None = None
    """Fraction of the length in which the rate rises, at least 0 and below 1; None for 0.04, of "one_cycle" 0.3."""
    steps: float | None = None
    """Length in optimisation steps."""
    samples: float | None = None
    """Length in unique samples."""
    minutes: float | None = None
    """Length in minutes of wall time since the first batch could be drawn, waits included."""

    def __post_init__(self):
        if self.shape not in SHAPES:
            raise ValueError(f"schedule.shape must be one of {', '.join(SHAPES)}, not {self.shape!r}")
        if not 0 <= self._rise < 1:
            raise ValueError(f"schedule.warm_up must be at least 0 and below 1, not {self.warm_up}")
        lengths = self._lengths()
        if len(lengths) > 1:
            raise ValueError(f"schedule has one length, not {' and '.join(lengths)}")
        for unit, length in lengths.items():
            if not length > 0:
                raise ValueError(f"schedule.{unit} must be above 0, not {length}")

    @property
    def _rise(self) -> float:
        """Fraction of the length in which the rate rises."""
        if self.warm_up is None:
            return RISE if self.shape == "one_cycle" else WARM_UP
        return self.warm_up

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
        if progress < self._rise:
            done = progress / self._rise
            if self.shape == "one_cycle":
                return FIRST + (1 - FIRST) * (1 - _half_cosine(done))
            # From a tenth, not from 0: a run that is limited by time does not know how many steps the warm-up has.
            return 0.1 + 0.9 * done
        after = (progress - self._rise) / (1 - self._rise)
        if self.shape == "cosine":
            return _half_cosine(after)
        if self.shape == "step":
            return DROP ** math.floor(NUM_DROPS * progress)
        if self.shape == "plateau":
            return min(1.0, (1 - progress) / DECAY)
        if self.shape == "one_cycle":
            return LAST + (1 - LAST) * _half_cosine(after)
        return 1.0


def _half_cosine(done: float) -> float:
    """From 1 to 0 as `done` goes from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * done))
