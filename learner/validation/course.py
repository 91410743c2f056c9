"""The validations of a training: of which weights the last errors are."""

from __future__ import annotations

import math
from typing import Any

from penstock.learner.surrogate import Surrogate
from penstock.learner.validation.validation import Validation


class Diverged(Exception):
    """Errors that are not finite."""


class ValidationCourse:
    """A validation set measured again and again while its model is trained.

    The attributes may be read from other threads at any time.
    """

    def __init__(self, validation: Validation | None = None):
        self.validation = validation
        """The set; None while it is not known, or where there is none."""
        self.errors: dict | None = None
        """`Errors.as_dict()` of the last validation that is complete."""
        self.step = 0
        """Of the weights that `errors` are of."""
        self._running_step = 0

    @property
    def is_running(self) -> bool:
        """Whether slices are left of what `begin` began."""
        return self.validation is not None and self.validation.is_running

    def begin(self, surrogate: Surrogate, step: int) -> None:
        """Begin to measure the weights of a step, unless their errors are known."""
        if self.validation is not None and self.step != step:
            self.validation.begin(surrogate)
            self._running_step = step

    def advance(self) -> None:
        """Evaluate the next slice.

        Raises:
            Diverged: it was the last one, and the errors are not finite.
        """
        errors = self.validation.advance()
        if errors is None:
            return
        if not math.isfinite(errors.relative_l2.max):
            raise Diverged(f"the validation error is not finite at step {self._running_step}")
        self.errors, self.step = errors.as_dict(), self._running_step

    def errors_at(self, step: int) -> dict | None:
        """The errors of the weights of a step; None where others were measured last."""
        return self.errors if self.step == step else None

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, as JSON."""
        return {"validation_errors": self.errors, "validated_step": self.step}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self.errors, self.step = state["validation_errors"], state["validated_step"]
