"""The running mean of the training loss, and a watch for divergence without a NaN."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOSS_MEMORY = 0.98  # the reported loss is a mean over about 50 steps
FACTOR = 10.0
LASTING_STEPS = 200  # a single batch keeps a mean of 50 steps up for that long only with 25,000 times the usual loss


class LossWatch:
    """Warns when the running loss has risen far and stays high.

    High means more than FACTOR times its lowest value, and more than half its first one, which in a new run is that of
    untrained weights. To stay high means for LASTING_STEPS steps. If training begins on a few samples and others come
    later, the loss rises by more than FACTOR too, but remains far below its first value.

    Args:
        first_step: step from which on the loss is looked at.
    """

    def __init__(self, first_step: int = 0):
        self.warning: str | None = None
        self._first_step = first_step
        self._first: float | None = None
        self._lowest = math.inf
        self._high_since: int | None = None

    def see(self, loss: float, step: int) -> None:
        """Take note of the running loss after a step, and set or clear `warning`.

        Args:
            loss: the running loss, finite.
            step: number of steps done.
        """
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
    """The mean loss of about the last 50 steps.

    It stays on the device until it is read, because reading waits for all queued steps.
    """

    def __init__(self):
        self.value: float | None = None
        """The mean as it was read last; None before that."""
        self._mean: Tensor | None = None
        self._watch = LossWatch()

    @property
    def warning(self) -> str | None:
        return self._watch.warning

    def add(self, loss: Tensor) -> None:
        """Take in the loss of one more step.

        Args:
            loss: scalar on the device. The first one is kept and changed in place.
        """
        self._mean = loss if self._mean is None else self._mean.lerp_(loss, 1 - LOSS_MEMORY)

    def read(self, step: int) -> float | None:
        """Bring `value` up to date, and show it to the watch if it is finite.

        Args:
            step: number of steps done.

        Returns:
            `value`; None before the first step.
        """
        if self._mean is not None:
            self.value = self._mean.item()
            if math.isfinite(self.value):
                self._watch.see(self.value, step)
        return self.value

    def restore(self, value: float | None, step: int, device: torch.device) -> None:
        """Continue from a value that was read earlier.

        If the loss was changed since, the mean is partly of the old one for a while; so the watch begins LASTING_STEPS
        later.

        Args:
            value: the mean; None if no step was done.
            step: number of steps done by then.
            device: device of the losses to come.
        """
        self.value = value
        self._mean = None if value is None else torch.tensor(value, device=device)
        self._watch = LossWatch(step + LASTING_STEPS)
