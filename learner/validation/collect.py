"""The validation set: samples of simulations that are solved before training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
import torch

from penstock.arrays.ragged import Rows, joined, padded
from penstock.errors import PenstockError
from penstock.layout import Layout
from penstock.learner.buffers.units import Unit
from penstock.learner.stream.deliveries import Deliveries
from penstock.learner.stream.ingest import STREAM_TIMEOUT_S
from penstock.learner.stream.stream import Stream
from penstock.learner.validation.rollouts import rollouts_along
from penstock.learner.validation.validation import Validation
from penstock.messages import Chunk, LeaseEnd, Restart
from penstock.status import Ended, News


@dataclass(frozen=True)
class Collected:
    """The samples of a validation set, and how its simulations ended.

    Samples are ordered by simulation and step.
    """

    arrays: Mapping[str, np.ndarray]
    """`Layout.pack` of the samples; if points vary, padded to the largest sample."""
    simulations: np.ndarray
    """int64 [N]: simulation of each sample."""
    steps: np.ndarray
    """int64 [N]: step of each sample."""
    ended: Ended
    """The simulations that were delivered or have failed."""

    def validation(self, unit: Unit, layout: Layout, *, batch_size: int, device: torch.device | str) -> Validation:
        """Return the validation on all rows that could be drawn from the samples.

        Args:
            unit: what a row is.
            layout: layout of the samples.
            batch_size: number of rows that are evaluated at a time.
            device: where they are evaluated.

        Returns:
            The validation.

        Raises:
            ValueError: a simulation does not have each step once.
            PenstockError: a simulation's geometry changes from step to step.
        """
        rows, simulations, steps = unit.all_rows(self.arrays, layout, self.simulations, self.steps)
        rollouts = rollouts_along(unit, layout, simulations, steps)
        return Validation(
            rows, unit.layout(layout), steps=steps, rollouts=rollouts, batch_size=batch_size, device=device
        )


class Collector:
    """Takes the samples of the validation design from a stream.

    As in the ingest, each sample and each simulation's end counts once. `deliveries.ended` may be read at any time.

    Args:
        stream: the stream.
        layout: layout of the samples.
        num_simulations: number of simulations in the set.
        ended: simulations that had ended before.
    """

    def __init__(self, stream: Stream, layout: Layout, num_simulations: int, ended: Ended = Ended()):  # noqa: B008
        self.deliveries = Deliveries(ended)
        self._stream = stream
        self._layout = layout
        self._num_simulations = num_simulations
        self._rows: list[tuple[dict[str, Rows], np.ndarray, np.ndarray]] = []
        self._given_up: SimpleQueue[Mapping[int, str]] = SimpleQueue()
        self._lease_ends: SimpleQueue[LeaseEnd] = SimpleQueue()
        self._restarts: SimpleQueue[Restart] = SimpleQueue()

    def run(self, should_stop: Callable[[], bool]) -> Collected | None:
        """Take from the stream until all simulations have ended.

        Args:
            should_stop: ends the collection early once it returns True.

        Returns:
            The set; None if should_stop() ended the collection, or no simulation was delivered.

        Raises:
            PenstockError: a chunk of another design arrived, which would be lost.
        """
        while self.deliveries.num_ended < self._num_simulations:
            if should_stop():
                return None
            while not self._given_up.empty():
                self.deliveries.fail(self._given_up.get())
            item = self._stream.next(STREAM_TIMEOUT_S)
            if isinstance(item, LeaseEnd):
                self._lease_ends.put(item)
            elif item is not None and item.design != "validation":  # the driver leases no other design before
                raise PenstockError(
                    f"a sample of the design {item.design!r} arrived before the validation set was whole: submit the "
                    "leases of the validation set first, and on the same lane"
                )
            elif item is not None:
                self._take(item)
        return self._collected()

    def give_up(self, failed: Mapping[int, str]) -> None:
        """Record simulations as failed that no worker will finish.

        Any thread may call it.

        Args:
            failed: reason by simulation.
        """
        self._given_up.put(failed)

    def drain_news(self) -> News:
        """Return the leases that have ended since the last call, and restarts of programs."""
        return News(
            lease_ends=tuple(self._lease_ends.get_nowait() for _ in range(self._lease_ends.qsize())),
            restarts=tuple(self._restarts.get_nowait() for _ in range(self._restarts.qsize())),
        )

    def _take(self, chunk: Chunk) -> None:
        for restart in chunk.restarts:
            self._restarts.put(restart)
        new = self.deliveries.accept(chunk)
        if len(new):
            self._rows.append((new.arrays, new.simulations, new.steps))

    def _collected(self) -> Collected | None:
        """The samples of delivered simulations: one that failed may have sent some before."""
        if not self._rows:  # no simulation sent a sample before it failed
            return None
        all_arrays, all_simulations, all_steps = zip(*self._rows, strict=True)
        self._rows = []
        simulations, steps = np.concatenate(all_simulations), np.concatenate(all_steps)
        order = np.lexsort((steps, simulations))
        order = order[self.deliveries.delivered.contains(simulations[order])]
        if not len(order):
            return None
        joint = {name: joined([each[name] for each in all_arrays]) for name in self._layout.blocks}
        arrays = {name: padded(rows[order]) for name, rows in joint.items()}
        return Collected(arrays, simulations[order], steps[order], self.deliveries.ended)
