"""Where a learner keeps its checkpoints and its validation set."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from penstock.layout import Layout
from penstock.learner.validation.collect import Collected


class Store(Protocol):
    """A place for checkpoints and validation set: the run's folder, or a `PlainStore`."""

    checkpoints: Path | None
    """Folder of the checkpoints; None if none are to be saved."""
    staging: Path | None
    """What `grant` (staging.py) gave to the learner; None where no other one could write."""

    def read_validation(self, layout: Layout) -> Collected | None:
        """Return the validation set that was kept.

        Args:
            layout: layout of the samples.

        Returns:
            The set; None if none was written.

        Raises:
            PenstockError: a set was written, and is damaged or lost.
        """

    def write_validation(self, collected: Collected, layout: Layout) -> None:
        """Keep a validation set.

        Args:
            collected: the set.
            layout: layout of its samples.
        """


class PlainStore:
    """A store for notebooks, tests and benches, with the validation set in memory.

    Args:
        checkpoints: folder of the checkpoints; None to save none.
        validation: a validation set from earlier; None if it is to be collected.
    """

    def __init__(self, checkpoints: Path | None = None, validation: Collected | None = None):
        self.checkpoints = checkpoints
        self.staging = None
        self._validation = validation

    def read_validation(self, layout: Layout) -> Collected | None:
        return self._validation

    def write_validation(self, collected: Collected, layout: Layout) -> None:
        self._validation = collected
