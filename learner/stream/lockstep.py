"""Batches in an order that repeats: ingest and draws by turns, in one thread."""

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
    """A stream whose order does not depend on time, and whose chunks are acknowledged."""

    @property
    def has_ended(self) -> bool:
        """Every chunk was acknowledged that will ever come."""

    def acknowledge(self) -> None:
        """The training chunk that came last was taken."""

    def state(self) -> dict[str, Any]:
        """Where it stands, as JSON; saved with an ingest that has taken just what was acknowledged."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from `state()`."""


class Lockstep:
    """A `BatchSource` without time: before each draw it takes from the stream until it is training's turn.

    Training has its turn when a batch may be drawn and the limiter allows it, T < r (D + 1), or when the chunk in hand
    has rows for which the buffer has no slot. Both are counts, which a checkpoint keeps; so the sequence of puts and
    draws is a function of the stream's alone, and a resumed run goes on in it. Of the chunk in hand a checkpoint needs
    only which rows are in: not acknowledged, it comes again, and the ingest drops those.

    ingest: of an OrderedStream, and with a rate limiter; it is not started, for its items are taken here.
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
        """Time in which the stream gave nothing, from the watermark on."""
        self._in_hand: Arrival | None = None

    def wait_for_population(self, should_stop: Callable[[], bool]) -> bool:
        """Takes from the stream until the buffer reaches its watermark or the stream ends; False when should_stop()."""
        self._note_the_end()
        while not (self.buffer.reached_watermark or self.buffer.stream_ended):
            if should_stop():
                return False
            self._take()
            if self._in_hand is not None and not self.buffer.reached_watermark:
                raise self._stuck()
        return True

    def start(self, num_batches: int | None = None) -> None:
        """Nothing is drawn ahead of `next`."""

    def next(self, should_stop: Callable[[], bool]) -> Batch | None:
        """The next batch, its arrays on the device; None when the stream gave nothing for a moment or has ended.

        Raises PenstockError when the buffer is full of simulations of which none is whole.
        """
        waits_for_slots = False  # whatever is in hand from before: after a resume it would not be
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
        """Nothing is drawn ahead."""

    def release(self) -> None:
        """Nothing was held."""

    num_ahead = 0

    def close(self) -> None:
        """There is no thread to end."""

    def state(self) -> dict[str, Any]:
        return self.stream.state()

    def load_state(self, state: dict[str, Any] | None) -> None:
        self.stream.load_state(state)

    def _take(self) -> bool:
        """Put what there are slots for of the chunk in hand, or else of the next item; False when none came."""
        if self._in_hand is None:
            item = self._next_item()
            if item is None:
                return False
            self._in_hand = self.ingest.begin(item)
        if self._in_hand is not None and self.ingest.put_now(self._in_hand):
            self._in_hand = None
            self.stream.acknowledge()
            self._note_the_end()
        return True

    def _next_item(self) -> Chunk | LeaseEnd | None:
        before = time.monotonic()
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
