"""Whether enough has come to begin to train: samples, and simulations."""

from __future__ import annotations

import numpy as np

from penstock.learner.buffers.table import SlotTable

MIN_SIMULATIONS = 10  # what statistics are taken of: of one simulation a scalar has no spread


class Watermark:
    """How many samples must be in before the first batch.

    They must be of MIN_SIMULATIONS simulations, or of as many as find room. Units under way take slots too, and workers
    that die leave more under way than there are workers: the watermark is then lowered to what those leave room for.
    """

    def __init__(self, num_samples: int, table: SlotTable):
        self.is_reached = False
        self._num_units = num_samples // table.unit.num_steps
        self._table = table
        self._was_drained = False  # before a resume: where the stream goes on, it fills to its watermark once more
        self._first_simulations: set[int] = set()  # of the samples before it

    @property
    def num_units(self) -> int:
        """Whole units at it, or as many as those under way leave room for: one at least."""
        return max(1, min(self._num_units, len(self._table) - len(self._table.under_way)))

    def look(self, simulations: np.ndarray, *, is_full: bool) -> None:
        """These have just come. A full buffer is at its watermark: no more would come."""
        was_reached = self.is_reached and not self._was_drained
        self.is_reached = was_reached or self._is_at(simulations, is_full)
        self._was_drained = False

    def _is_at(self, simulations: np.ndarray, is_full: bool) -> bool:
        self._first_simulations.update(simulations.tolist())
        num_whole = self._table.num_whole
        num_simulations = len(self._first_simulations) if self._table.unit.num_steps == 1 else num_whole
        return (num_simulations >= MIN_SIMULATIONS or is_full) and num_whole >= self.num_units

    def restore(self, is_reached: bool, was_drained: bool) -> None:
        """As it was saved with the table's contents. was_drained: the stream had ended."""
        self.is_reached, self._was_drained = is_reached, was_drained
        self._first_simulations = set(self._table.simulations[self._table.taken()].tolist())
