"""The running mean of the training loss, and what notices training that diverges without a NaN."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOSS_MEMORY = 0.98  # the reported loss is a mean over about 50 steps
FACTOR = 10.0
LASTING_STEPS = 200  # one odd batch must be 25,000 times as bad as the rest to keep a mean of 50 steps up for so long


class LossWatch:
    """Says when the running loss is far above its lowest value, near that of untrained weights or beyond, and stays.

    Far is FACTOR times, and near more than half the first value. Who trains on a few samples until others come sees the
    loss rise by more than FACTOR, too, but it stays far below the first one.

    first_step: what comes before is not looked at.
    """

    def __init__(self, first_step: int = 0):
        self.warning: str | None = None
        self._first_step = first_step
        self._first: float | None = None
        self._lowest = math.inf
        self._high_since: int | None = None

    def see(self, loss: float, step: int) -> None:
        """Takes note of the running loss after a step."""
        if step < self._first_step:
            return
        self._first = loss if self._first is None else self._first
        self._lowest = min(self._lowest, loss)
        if loss <= max(FACTOR * self._lowest, self._first / 2):
            self._high_since = self.warning = None
            return
        self._high_since = step if self._high_since is None else self._high_since
        if self.warning is None and step - self._high_since >= LASTING_STEPS:
            self.warning = (
                f"training diverges: its loss was {self._lowest:.2g} and is {loss:.2g} since step {self._high_since}"
            )


class RunningLoss:
    """The mean of the last steps' losses. It stays on the device until it is read: reading waits for queued steps."""

    def __init__(self):
        self.value: float | None = None
        """As it was read last."""
        self._mean: Tensor | None = None
        self._watch = LossWatch()

    @property
    def warning(self) -> str | None:
        return self._watch.warning

    def add(self, loss: Tensor) -> None:
        """Take in the loss of one more step."""
        self._mean = loss if self._mean is None else self._mean.lerp_(loss, 1 - LOSS_MEMORY)

    def read(self, step: int) -> float | None:
        """Bring `value` up to date, after that many steps; returns it. None before the first."""
        if self._mean is not None:
            self.value = self._mean.item()
            if math.isfinite(self.value):
                self._watch.see(self.value, step)
        return self.value

    def restore(self, value: float | None, step: int, device: torch.device) -> None:
        """Go on from what was read at that step; for a while the mean is of another loss, if that was changed."""
        self.value = value
        self._mean = None if value is None else torch.tensor(value, device=device)
        self._watch = LossWatch(step + LASTING_STEPS)
