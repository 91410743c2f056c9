"""What a learner keeps: its checkpoints and its validation set."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from penstock.layout import Layout
from penstock.learner.validation.collect import Collected


class Store(Protocol):
    """Where it is kept: the run's folder, or a `PlainStore`."""

    checkpoints: Path | None
    """Their folder; None where none are to be saved."""

    def read_validation(self, layout: Layout) -> Collected | None:
        """What `write_validation` was given; None when it was not called. Raises PenstockError when that is lost."""

    def write_validation(self, collected: Collected, layout: Layout) -> None:
        """Keep the validation set, samples of that layout."""


class PlainStore:
    """For notebooks, tests and benches: checkpoints in a folder, if one is given, and the validation set in memory."""

    def __init__(self, checkpoints: Path | None = None, validation: Collected | None = None):
        self.checkpoints = checkpoints
        self._validation = validation

    def read_validation(self, layout: Layout) -> Collected | None:
        return self._validation

    def write_validation(self, collected: Collected, layout: Layout) -> None:
        self._validation = collected
