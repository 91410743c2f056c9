"""Checkpoints of a learner while it trains, which agree with the saved buffer."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.errors import PenstockError
from penstock.files.patience import Patience
from penstock.learner.checkpoints import checkpoint
from penstock.learner.checkpoints.writer import Writer
from penstock.learner.ranks.group import ALONE, Group
from penstock.learner.stream.ingest import Ingest


class Saver:
    """Writes checkpoints to a folder, one at a time, beside training.

    Ingestion is held while a state is taken, so that the samples saved as delivered are in the buffer that is saved.

    Args:
        folder: folder of the checkpoints.
        ingest: the ingest that fills the buffer.
        keep: number of newest checkpoints that stay, besides the best.
        with_buffer: whether the newest checkpoint holds the buffer too.
        staging: see `checkpoint.save`.
        patience: with a disk that refuses. What could not be written is owed, and training goes on meanwhile.
        group: the ranks that save together, for the thread that writes.
    """

    def __init__(
        self,
        folder: Path,
        ingest: Ingest,
        *,
        keep: int,
        with_buffer: bool,
        staging: Path | None = None,
        patience: Patience,
        group: Group = ALONE,
    ):
        self._folder = folder
        self._ingest = ingest
        self._keep = keep
        self._with_buffer = with_buffer
        self._patience = patience
        self._group = group
        self._writer = Writer(staging, group)

    @property
    def is_writing(self) -> bool:
        """Whether a save would have to wait."""
        return self._writer.is_writing

    def owes(self) -> bool:
        """Whether the last save was refused by the disk, and it is time for the next.

        Raises:
            PenstockError: see `wait`.
        """
        if not self.is_writing:
            self.wait()
        return self._patience.is_refused and not self._patience.pause_s

    def save(self, step: int, state_of: Callable[..., dict[str, Any]]) -> None:
        """Save a state, and return once everything that may change is copied.

        Ingestion is held from before `state_of` is called until the buffer is written.

        Args:
            step: number of the step.
            state_of: called as state_of(with_buffer=...), returns the weights, optimizer, buffer and meta of `save`.

        Raises:
            PenstockError: see `wait`.
        """
        self.wait()  # before the pause, so that ingestion goes on meanwhile
        self._ingest.pause()
        try:
            state = state_of(with_buffer=self._with_buffer)
        except BaseException:
            self._ingest.resume()
            raise
        self._writer.save(self._folder, step, **state, keep=self._keep, release=self._ingest.resume)

    def newest(self) -> checkpoint.Checkpoint | None:
        """Return the checkpoint that a learner resumes from.

        Returns:
            The newest checkpoint; None if there is none.

        Raises:
            PenstockError: the newest checkpoint is damaged or can't be read, or is of another number of ranks; or the
                ranks see different ones.
        """
        step = checkpoint.latest(self._folder)
        if len(set(self._group.gather([-1 if step is None else step])[:, 0])) > 1:
            raise PenstockError(f"the learner ranks see different checkpoints in {self._folder}: they need one folder")
        return None if step is None else checkpoint.load(self._folder, step, group=self._group)

    def wait(self) -> None:
        """Wait until nothing is being written.

        Raises:
            PenstockError: the last save has failed, and another one would, or the disk has refused for too long; it is
                raised only once.
        """
        try:
            was_saved = self._writer.wait()
        except PenstockError as error:
            self._patience.refused(error)
        else:
            if was_saved:
                self._patience.accepted()

    def finish(self, step: int, state_of: Callable[..., dict[str, Any]]) -> None:
        """Wait until the last save is on the disk, and save again while the disk refuses.

        Args:
            step: see `save`.
            state_of: see `save`.

        Raises:
            PenstockError: see `wait`.
        """
        self.wait()
        while self._patience.is_refused:
            time.sleep(self._patience.pause_s)
            self.save(step, state_of)
            self.wait()
