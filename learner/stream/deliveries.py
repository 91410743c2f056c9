"""Which samples of a design are in, and how its simulations ended."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from penstock.id_set import IdSet
from penstock.messages import Chunk
from penstock.status import Ended


class Deliveries:
    """The account of a design's samples and simulations, each of which counts once.

    The first end of a simulation counts, whatever comes after it. One thread writes the account; others may read
    `ended` at any time.

    Args:
        ended: how simulations had ended before.
    """

    def __init__(self, ended: Ended = Ended()):  # noqa: B008 (frozen)
        self.delivered = IdSet.from_intervals(ended.delivered)
        self.failed = dict(ended.failed)
        """Reason by simulation id."""
        self._changing = threading.Lock()  # of what `ended` reads
        self._ended = IdSet.from_intervals(ended.delivered)  # delivered or failed
        for simulation in self.failed:
            self._ended.add(simulation)
        self._partial: dict[int, set[int]] = {}  # steps that are in, of simulations that have not ended

    @property
    def ended(self) -> Ended:
        """How the simulations have ended so far."""
        with self._changing:
            return Ended(self.delivered.to_intervals(), dict(self.failed))

    @property
    def num_ended(self) -> int:
        """Number of simulations that were delivered or have failed."""
        return len(self.delivered) + len(self.failed)

    def goes_on(self, simulations: np.ndarray) -> np.ndarray:
        """Return which simulations have not ended, bool in the shape of the ids."""
        return ~self._ended.contains(simulations)

    def new_rows(self, chunk: Chunk) -> np.ndarray:
        """Find the rows of a chunk whose (simulation, step) is not in yet.

        Args:
            chunk: the chunk.

        Returns:
            Numbers of the rows, int64, in order. Of several copies in the chunk only the first is among them.
        """
        simulations, steps = chunk.simulations, chunk.steps
        is_new = self.goes_on(simulations)
        for simulation in self._partial.keys() & set(simulations.tolist()):
            is_new &= (simulations != simulation) | np.isin(steps, list(self._partial[simulation]), invert=True)
        order = np.lexsort((steps, simulations))  # stable: the first of several copies stays the first
        is_copy = (np.diff(simulations[order]) == 0) & (np.diff(steps[order]) == 0)
        is_new[order[1:][is_copy]] = False
        return np.flatnonzero(is_new)

    def take(self, simulations: np.ndarray, steps: np.ndarray, *, ending: Collection[int] = ()) -> None:
        """Record samples that are in.

        Args:
            simulations: simulation of each sample, int64 [N].
            steps: step of each sample, int64 [N].
            ending: simulations whose end is recorded right after this, so that their steps need not be kept.
        """
        goes_on = np.isin(simulations, list(ending), invert=True)
        simulations, steps = simulations[goes_on], steps[goes_on]
        for simulation in np.unique(simulations).tolist():
            self._partial.setdefault(simulation, set()).update(steps[simulations == simulation].tolist())

    def accept(self, chunk: Chunk) -> Chunk:
        """Record all of a chunk as in.

        Args:
            chunk: the chunk.

        Returns:
            What of its samples and ends is new. Its arrays are copies: the chunk's may be overwritten soon.
        """
        rows = self.new_rows(chunk)
        simulations, steps = chunk.simulations[rows], chunk.steps[rows]
        finished = np.array(chunk.finished, np.int64)
        finished = tuple(finished[self.goes_on(finished)].tolist())
        failed = {simulation: why for simulation, why in chunk.failed.items() if simulation not in self._ended}
        self.take(simulations, steps, ending=finished)
        self.finish(finished)
        self.fail(failed)
        return replace(
            chunk,
            arrays={name: array[rows] for name, array in chunk.arrays.items()},
            simulations=simulations,
            steps=steps,
            quantiles=chunk.quantiles[rows],
            finished=finished,
            failed=failed,
        )

    def finish(self, simulations: Iterable[int]) -> int:
        """Record simulations as delivered: all their samples are in.

        Args:
            simulations: ids of the simulations.

        Returns:
            How many of them had not ended before.
        """
        finished = np.array(tuple(simulations), np.int64)
        finished = finished[self.goes_on(finished)]
        num_before = len(self.delivered)
        with self._changing:
            self.delivered.update(finished)
        self._ended.update(finished)
        self._partial = {number: steps for number, steps in self._partial.items() if number not in self._ended}
        return len(self.delivered) - num_before

    def fail(self, reasons: Mapping[int, str]) -> list[int]:
        """Record simulations as failed, unless they had ended before.

        Args:
            reasons: reason by simulation id.

        Returns:
            Those of the newly failed that had samples in.
        """
        had_samples = []
        for simulation, reason in reasons.items():
            if simulation not in self._ended:
                with self._changing:
                    self.failed[simulation] = reason
                self._ended.add(simulation)
                if self._partial.pop(simulation, None) is not None:
                    had_samples.append(simulation)
        return had_samples

    def state(self, undelivered: Collection[int] | None = None) -> dict[str, Any]:
        """Return the account for a checkpoint, as JSON.

        Args:
            undelivered: simulations to count as never delivered; with them all samples of simulations under way count
                as not in. None changes nothing.

        Returns:
            The account.
        """
        delivered, partial = self.delivered, self._partial
        if undelivered is not None:
            delivered, partial = IdSet.from_intervals(delivered.to_intervals()), {}
            for simulation in undelivered:
                delivered.discard(simulation)
        return {
            "delivered": delivered.to_intervals(),
            "failed": {str(simulation): reason for simulation, reason in self.failed.items()},
            "partial": {str(simulation): sorted(steps) for simulation, steps in partial.items()},
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Deliveries:
        """Return the account that `state()` described."""
        failed = {int(simulation): reason for simulation, reason in state["failed"].items()}
        deliveries = cls(Ended(state["delivered"], failed))
        deliveries._partial = {int(simulation): set(steps) for simulation, steps in state["partial"].items()}
        return deliveries
