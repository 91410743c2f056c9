"""Batches of a deterministic run: ingest and draws take turns in one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch

from penstock.errors import PenstockError
from penstock.learner.buffers.buffer import Batch
from penstock.learner.stream.ingest import STREAM_TIMEOUT_S, Arrival, Ingest
from penstock.learner.stream.stream import Stream
from penstock.messages import Chunk, LeaseEnd


class OrderedStream(Stream, Protocol):
    """A stream in an order without time, whose chunks are acknowledged."""

    @property
    def has_ended(self) -> bool:
        """Whether every chunk that will ever come has been acknowledged."""

    def acknowledge(self) -> None:
        """Record that the last training chunk was taken."""

    def state(self) -> dict[str, Any]:
        """Return where the stream stands, as JSON.

        To be saved with an ingest that has taken exactly what was acknowledged.
        """

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state()`."""


class Lockstep:
    """A `BatchSource` without time, which takes from the stream between draws.

    Before each draw it takes from the stream until it is training's turn. Training has its turn when a batch may be
    drawn and the limiter allows it, T < r (D + 1), or when the chunk in hand has rows for which the buffer has no slot.
    Both depend on counts alone, which a checkpoint keeps; so the sequence of puts and draws is a function of the
    stream's, and a resumed run continues it. Of the chunk in hand a checkpoint needs only which rows are in: because it
    was not acknowledged it comes again, and the ingest drops those rows.

    Args:
        ingest: the ingest of an `OrderedStream`, with a rate limiter. It is not started, because its items are taken
            here.
        device: the training device.
        batch_size: rows per batch.
    """

    takes_from_stream = True

    def __init__(self, ingest: Ingest, device: torch.device | str, batch_size: int):
        self.buffer = ingest.buffer
        self.ingest = ingest
        self.stream: OrderedStream = ingest.stream
        self.device = torch.device(device)
        self.batch_size = batch_size
        self.rate_limiter = ingest.rate_limiter
        self.wait_seconds = 0.0
        """Time spent waiting for the stream, from the watermark on."""
        self._in_hand: Arrival | None = None

    def wait_for_population(self, should_stop: Callable[[], bool]) -> bool:
        """Take from the stream until the buffer reaches its watermark or the stream ends.

        Args:
            should_stop: asked before each item.

        Returns:
            False if should_stop() came first.

        Raises:
            PenstockError: the buffer is full before its watermark is reached.
        """
        self.ingest.times.begin("held")  # whatever is no wait and no intake: it is training's turn
        self._note_the_end()
        while not (self.buffer.reached_watermark or self.buffer.stream_ended):
            if should_stop():
                return False
            self._take()
            if self._in_hand is not None and not self.buffer.reached_watermark:
                raise self._stuck()
        return True

    def start(self, num_batches: int | None = None) -> None:
        """Do nothing: no batch is drawn ahead of `next`."""

    def next(self, should_stop: Callable[[], bool]) -> Batch | None:
        """Take from the stream until it is training's turn, then draw a batch.

        Args:
            should_stop: asked before each item.

        Returns:
            The batch, its arrays on the device; None if the stream had nothing for a moment, or if none will come.

        Raises:
            PenstockError: the buffer is full of simulations of which none is whole.
        """
        waits_for_slots = False  # even with a chunk in hand from before: after a resume there would be none
        while not should_stop():
            if waits_for_slots or self.rate_limiter.may_train() or self.buffer.stream_ended:
                batch = self.buffer.draw(self.batch_size, 0.0)
                if batch is not None:
                    self.rate_limiter.add_batch()
                    return batch.to(self.device)
                if self.buffer.exhausted:
                    return None
                if waits_for_slots:
                    raise self._stuck()
            if not self._take():
                return None
            waits_for_slots = self._in_hand is not None
        return None

    def hold(self) -> None:
        """Do nothing: no batch is drawn ahead."""

    def release(self, num_batches: int | None = None) -> None:
        """Do nothing: `hold` changed nothing."""

    num_ahead = 0

    def close(self) -> None:
        """Do nothing: there is no thread to end."""

    def state(self) -> dict[str, Any]:
        """Return where the stream stands, as JSON."""
        return self.stream.state()

    def load_state(self, state: dict[str, Any] | None) -> None:
        """Continue from a `state()`."""
        self.stream.load_state(state)

    def _take(self) -> bool:
        """Put the rows that have slots, of the chunk in hand or else of the next item.

        False if no item came.
        """
        if self._in_hand is None:
            item = self._next_item()
            if item is None:
                return False
            self._in_hand = self.ingest.begin(item)
        with self.ingest.times.during("taking"):
            is_in = self._in_hand is not None and self.ingest.put_now(self._in_hand)
        if is_in:
            self._in_hand = None
            self.stream.acknowledge()
            self._note_the_end()
        return True

    def _next_item(self) -> Chunk | LeaseEnd | None:
        before = time.monotonic()
        with self.ingest.times.during("starved"):
            item = self.stream.next(STREAM_TIMEOUT_S)
        if self.buffer.reached_watermark:
            self.wait_seconds += time.monotonic() - before
        return item

    def _note_the_end(self) -> None:
        if self.stream.has_ended:
            self.buffer.end_of_stream()

    def _stuck(self) -> PenstockError:
        return PenstockError(
            f"the buffer's {self.buffer.num_units} slots are all taken and no batch can be drawn: raise buffer.capacity"
        )
