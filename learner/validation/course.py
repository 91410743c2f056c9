"""The validations in the course of a training, and the weights they measured."""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from typing import Any

from penstock.learner.surrogate import Surrogate
from penstock.learner.validation.validation import Validation
from penstock.status import WorstCase


class Diverged(Exception):
    """Validation errors are not finite."""


class ValidationCourse:
    """A validation set that is evaluated repeatedly while a model is trained.

    Other threads may read the attributes at any time.

    Args:
        validation: the set, if it is known.
        keeps_worst: whether to keep the row with the largest error of each validation for `take_worst`.
    """

    def __init__(self, validation: Validation | None = None, *, keeps_worst: bool = False):
        self.validation = validation
        """The set; None while it is not known, or if there is none."""
        self.errors: dict | None = None
        """`Errors.as_dict()` of the last complete validation; None before the first."""
        self.step = 0
        """Training step of the weights whose errors are in `errors`."""
        self._running_step = 0
        self._keeps_worst = keeps_worst
        self._worst: deque[WorstCase] = deque(maxlen=1)

    @property
    def is_running(self) -> bool:
        """Whether slices are left of what `begin` began."""
        return self.validation is not None and self.validation.is_running

    def begin(self, surrogate: Surrogate, step: int) -> None:
        """Begin to evaluate the weights of a step, unless their errors are known.

        Args:
            surrogate: the surrogate; it is copied.
            step: number of training steps it has had.
        """
        if self.validation is not None and self.step != step:
            self.validation.begin(surrogate)
            self._running_step = step

    def advance(self) -> None:
        """Evaluate the next slice.

        Raises:
            Diverged: it was the last slice, and the errors are not finite.
        """
        errors = self.validation.advance()
        if errors is None:
            return
        if not math.isfinite(errors.relative_l2.max):
            raise Diverged(f"the validation error is not finite at step {self._running_step}")
        self.errors, self.step = errors.as_dict(), self._running_step
        if self._keeps_worst and (worst := self.validation.worst_case(self.step)) is not None:
            self._worst.append(worst)

    def take_worst(self) -> tuple[WorstCase, ...]:
        """The worst case of the last validation, once; empty if there is no new one."""
        with suppress(IndexError):
            return (self._worst.popleft(),)
        return ()

    def errors_at(self, step: int) -> dict | None:
        """Return the errors of the weights of a step.

        Args:
            step: the step.

        Returns:
            The errors; None if the last ones are those of other weights.
        """
        return self.errors if self.step == step else None

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, as JSON."""
        return {"validation_errors": self.errors, "validated_step": self.step}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a saved state.

        Args:
            state: what `state` returned.
        """
        self.errors, self.step = state["validation_errors"], state["validated_step"]
