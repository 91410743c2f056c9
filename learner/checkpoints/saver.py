"""Checkpoints of a learner while it trains: what is saved as delivered is in the buffer that is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.learner.checkpoints import checkpoint
from penstock.learner.stream.ingest import Ingest


class Saver:
    """Writes the checkpoints of a folder, one at a time, beside training.

    keep: of the newest ones, besides the best. with_buffer: the newest holds the buffer too.
    """

    def __init__(self, folder: Path, ingest: Ingest, *, keep: int, with_buffer: bool):
        self._folder = folder
        self._ingest = ingest
        self._keep = keep
        self._with_buffer = with_buffer
        self._writer = checkpoint.Writer()

    @property
    def is_writing(self) -> bool:
        """Whether a save would have to wait."""
        return self._writer.is_writing

    def save(self, step: int, state_of: Callable[..., dict[str, Any]]) -> None:
        """Save what state_of(with_buffer=...) gives, and return once everything is copied that may change.

        Ingest is held from before it is called until the buffer is on its way to the disk. Raises PenstockError when
        the save before has failed.
        """
        self._writer.wait()  # here, while ingestion goes on
        self._ingest.pause()
        try:
            state = state_of(with_buffer=self._with_buffer)
        except BaseException:
            self._ingest.resume()
            raise
        self._writer.save(self._folder, step, **state, keep=self._keep, release=self._ingest.resume)

    def newest(self) -> checkpoint.Checkpoint | None:
        """What a learner goes on from; None where nothing was saved. Raises PenstockError for a damaged one."""
        return None if checkpoint.latest(self._folder) is None else checkpoint.load(self._folder)

    def wait(self) -> None:
        """Until nothing is being written. Raises PenstockError when the last save failed, and only once."""
        self._writer.wait()
