"""Whether enough samples and simulations have arrived to start training."""

from __future__ import annotations

import numpy as np

from penstock.learner.buffers.table import SlotTable

MIN_SIMULATIONS = 10  # for the statistics: within one simulation a scalar has no spread


class Watermark:
    """The number of samples that must be in the buffer before the first batch.

    They must come from at least MIN_SIMULATIONS simulations, or from as many as the buffer has room for. Units under
    way take slots too, and workers that die leave more units under way than there are workers: the watermark is then
    lowered to what those leave room for.

    Args:
        num_samples: the watermark, in samples.
        table: account of the buffer's slots.
    """

    def __init__(self, num_samples: int, table: SlotTable):
        self.is_reached = False
        self._num_units = num_samples // table.unit.num_steps
        self._table = table
        self._was_drained = False  # before a resume; if the stream goes on, the watermark holds again
        self._first_simulations: set[int] = set()  # of the samples up to the watermark

    @property
    def num_units(self) -> int:
        """The watermark in whole units, lowered to what leaves room for those under way.

        It is at least 1.
        """
        return max(1, min(self._num_units, len(self._table) - len(self._table.under_way)))

    def look(self, simulations: np.ndarray, *, is_full: bool) -> None:
        """Take note of samples that have just arrived.

        Args:
            simulations: the samples' simulations, int64 [N].
            is_full: whether no more samples would find a slot, so that MIN_SIMULATIONS need not be reached.
        """
        was_reached = self.is_reached and not self._was_drained
        self.is_reached = was_reached or self._is_at(simulations, is_full)
        self._was_drained = False

    def _is_at(self, simulations: np.ndarray, is_full: bool) -> bool:
        self._first_simulations.update(simulations.tolist())
        num_whole = self._table.num_whole
        num_simulations = len(self._first_simulations) if self._table.unit.num_steps == 1 else num_whole
        return (num_simulations >= MIN_SIMULATIONS or is_full) and num_whole >= self.num_units

    def restore(self, is_reached: bool, was_drained: bool) -> None:
        """Continue from a saved state, once the table's contents are restored.

        Args:
            is_reached: whether the watermark had been reached.
            was_drained: whether the stream had ended.
        """
        self.is_reached, self._was_drained = is_reached, was_drained
        self._first_simulations = set(self._table.simulations[self._table.taken()].tolist())
