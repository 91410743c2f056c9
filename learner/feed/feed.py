"""Batches on the training device, drawn ahead of the steps that train on them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from penstock.layout import Layout
from penstock.learner.buffers.buffer import Batch, Buffer
from penstock.learner.buffers.storage import to_device
from penstock.learner.buffers.units import dtype_of
from penstock.learner.stream.rate_limiter import RateLimiter

DRAW_TIMEOUT_S = 0.2  # how often a waiting caller rechecks whether to give up
NUM_QUEUED = 2  # steps that a GPU may have before it: one at work, and one more, so that it need not wait for the host


class BatchSource(Protocol):
    """Where a trainer's batches come from.

    It is a `Feed`, or in a deterministic run a `Lockstep`.
    """

    buffer: Buffer
    """The buffer that batches are drawn from."""
    device: torch.device
    """The training device."""
    batch_size: int
    """Rows per batch."""
    wait_seconds: float
    """Time in which `next` had no batch to return."""
    takes_from_stream: bool
    """Whether it takes from the stream itself, through the ingest, which then has no thread."""
    num_ahead: int
    """Batches that were drawn and not taken yet, including one that is being drawn."""

    def wait_for_population(self, should_stop: Callable[[], bool]) -> bool:
        """Wait until the buffer reaches its watermark or the stream ends.

        Args:
            should_stop: ends the wait.

        Returns:
            False if should_stop() came first.
        """

    def start(self, num_batches: int | None = None) -> None:
        """Begin to draw.

        Args:
            num_batches: most batches to draw from here on; samples that the run has no step for stay in the buffer.
        """

    def next(self, should_stop: Callable[[], bool]) -> Batch | None:
        """Take the next batch.

        Args:
            should_stop: ends a wait.

        Returns:
            The batch with its arrays on the device; None if there was none for a moment, or if none will come.
        """

    def hold(self) -> None:
        """Stop drawing, after a batch in hand; those drawn ahead can still be taken."""

    def release(self, num_batches: int | None = None) -> None:
        """End a `hold`.

        Args:
            num_batches: see `start`.
        """

    def close(self) -> None:
        """Stop drawing for good."""

    def state(self) -> dict[str, Any] | None:
        """Return what a checkpoint keeps of it, as JSON."""

    def load_state(self, state: dict[str, Any] | None) -> None:
        """Continue from a `state()`."""


class Feed:
    """Draws a buffer's batches and brings them to the training device.

    If the buffer's arrays lie on that device, a draw is one gather there, and `next` makes it itself. From host memory
    to a GPU a thread draws ahead, gathers into pinned staging and copies on a separate CUDA stream, so that a step
    waits only while the buffer has no batch.

    For the buffer and the rate limiter a batch counts as drawn when it is drawn, not when it is taken. So before the
    buffer is saved, `hold` the feed and take until none is ahead. Only one thread may take.

    Args:
        buffer: the buffer.
        device: the training device.
        batch_size: rows per batch.
        rate_limiter: holds training back; None never does.
        depth: batches that a thread draws ahead; 0 draws in `next`, without a thread. None is 0 if the arrays are on
            the device, else 2: while one batch is on its way, the other is ready.

    Raises:
        ValueError: the buffer has fewer slots than a batch has rows.
    """

    takes_from_stream = False

    def __init__(
        self,
        buffer: Buffer,
        device: torch.device | str,
        batch_size: int,
        rate_limiter: RateLimiter | None = None,
        depth: int | None = None,
    ):
        if not 1 <= batch_size <= buffer.num_units:
            raise ValueError(
                f"batch_size must be between 1 and the buffer's number of slots {buffer.num_units}, not {batch_size}"
            )
        self.buffer = buffer
        self.device = torch.device(device)
        self.batch_size = batch_size
        self.rate_limiter = rate_limiter
        crosses = buffer.storage.device.type != self.device.type
        self.depth = depth if depth is not None else 2 if crosses else 0
        self.wait_seconds = 0.0
        """Time in which `next` had no batch to return."""
        self._upload = _Upload(buffer, self.device, batch_size, self.depth) if crosses and self.depth else None
        self._pace = _Pace(self.device) if self.device.type == "cuda" else None
        self._ahead: deque[Batch] = deque()
        self._num_left: float = float("inf")  # batches that the thread may still draw
        self._is_drawing = False
        self._order: Literal["draw", "hold", "close"] = "draw"  # the owner's order to the thread
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()

    def wait_for_population(self, should_stop: Callable[[], bool]) -> bool:
        """Wait until the buffer reaches its watermark or the stream ends.

        Args:
            should_stop: ends the wait.

        Returns:
            False if should_stop() came first.
        """
        while not self.buffer.wait_for_watermark(DRAW_TIMEOUT_S):
            if should_stop():
                return False
        return True

    def start(self, num_batches: int | None = None) -> None:
        """Begin to draw ahead.

        Args:
            num_batches: most batches to draw ahead from here on; samples that the run has no step for stay in the
                buffer. None sets no bound.
        """
        if num_batches is not None:
            self._num_left = num_batches
        if self.depth:
            self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
            self._thread.start()

    def next(self, should_stop: Callable[[], bool]) -> Batch | None:
        """Take the next batch.

        On a GPU this waits until at most NUM_QUEUED earlier steps are unfinished.

        Args:
            should_stop: ends a wait for the rate limiter.

        Returns:
            The batch, its arrays on the device and ready on the current stream. None if there was none within
            DRAW_TIMEOUT_S, because the rate limiter held training back or the buffer had none: the caller has limits
            and checkpoints to look after.

        Raises:
            Exception: what ended the drawing thread.
        """
        before = time.monotonic()
        is_there = self._wait_for_one_ahead() if self.depth else self._wait_for_batch(should_stop)
        self.wait_seconds += time.monotonic() - before
        if not is_there:
            return None
        batch = self._take() if self.depth else self._draw()
        if batch is not None and self._upload is not None:
            self._upload.finish(batch)
        if batch is not None and self._pace is not None:
            self._pace.wait()
        return batch

    def hold(self) -> None:
        """Stop drawing, after a batch in hand; those drawn ahead can still be taken."""
        with self._changed:
            self._order = "hold"
            self._changed.notify_all()

    def release(self, num_batches: int | None = None) -> None:
        """End a `hold`.

        Args:
            num_batches: see `start`; steps may have been done since that took no batch from here.
        """
        with self._changed:
            self._order = "draw"
            if num_batches is not None:
                self._num_left = num_batches
            self._changed.notify_all()

    @property
    def num_ahead(self) -> int:
        """Batches that were drawn and not taken yet, including one that is being drawn."""
        with self._changed:
            return len(self._ahead) + self._is_drawing

    def close(self) -> None:
        """End the thread; batches drawn ahead are lost."""
        with self._changed:
            self._order = "close"
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def state(self) -> None:
        """Return nothing: the states of the buffer and the limiter have it all."""

    def load_state(self, state: Any) -> None:
        """Do nothing; a run that was deterministic before has left its lanes here."""

    def _wait_for_batch(self, gives_up: Callable[[], bool]) -> bool:
        """Whether the rate limiter allows a batch and the buffer has one."""
        buffer, limiter = self.buffer, self.rate_limiter

        def is_free() -> bool:
            return buffer.put_is_waiting or buffer.stream_ended or buffer.exhausted

        if limiter is not None:
            end = time.monotonic() + DRAW_TIMEOUT_S
            limiter.wait_to_train(lambda: is_free() or gives_up() or time.monotonic() >= end)
            if gives_up() or not (limiter.may_train() or is_free()):
                return False
        return buffer.wait_for_batch(self.batch_size, DRAW_TIMEOUT_S)

    def _draw(self) -> Batch | None:
        """Draw the batch that was waited for.

        None if an arrival has since taken the place of a sample that it needs.
        """
        upload = self._upload
        batch = self.buffer.draw(self.batch_size, 0.0, out=None if upload is None else upload.staging())
        if batch is None:
            return None
        if self.rate_limiter is not None:
            self.rate_limiter.add_batch()
        if upload is not None:
            return upload.begin(batch)
        return batch.to(self.device)

    # The thread, and the caller that takes from it

    def _wait_for_one_ahead(self) -> bool:
        with self._changed:
            self._changed.wait_for(
                lambda: self._ahead or self._error is not None or (self._order == "hold" and not self._is_drawing),
                DRAW_TIMEOUT_S,
            )
            if self._error is not None:
                raise self._error
            return bool(self._ahead)

    def _take(self) -> Batch:
        with self._changed:
            self._changed.notify_all()
            return self._ahead.popleft()

    def _run(self) -> None:
        try:
            while self._wait_for_room():
                is_ready = self._wait_for_batch(lambda: self._order != "draw")
                batch = self._draw() if is_ready else None
                with self._changed:
                    if batch is not None:
                        self._ahead.append(batch)
                        self._num_left -= 1
                    self._is_drawing = False
                    self._changed.notify_all()
                if batch is None and self.buffer.exhausted:
                    return
        except BaseException as error:  # kept for `next`: the trainer must not wait for batches that won't come
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _wait_for_room(self) -> bool:
        """Wait until a batch may be drawn; False if the feed was closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._order == "close"
                    or (self._order == "draw" and len(self._ahead) < self.depth and self._num_left > 0)
                )
            )
            self._is_drawing = self._order != "close"
            return self._is_drawing


class _Upload:
    """Copies batches from pinned staging to a GPU, on a separate stream.

    So copies run beside the training's kernels. The thread that draws calls `staging` and `begin`, the one that trains
    calls `finish`, in the same order of batches.
    """

    def __init__(self, buffer: Buffer, device: torch.device, batch_size: int, num_sets: int):
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._staging = deque(
            (_pinned(buffer.layout, batch_size * buffer.unit.num_unrolled), _event()) for _ in range(num_sets)
        )
        self._copied: deque[torch.cuda.Event] = deque()  # of the batches on their way

    def staging(self) -> dict[str, Tensor]:
        """Return pinned arrays for the next batch, once their last copy is done."""
        arrays, copied = self._staging[0]
        copied.synchronize()
        return arrays

    def begin(self, batch: Batch) -> Batch:
        """Queue the batch's copies, and return it on the GPU."""
        with torch.cuda.stream(self._stream):
            arrays = {name: array.to(self._device, non_blocking=True) for name, array in batch.arrays.items()}
            weights = None if batch.weights is None else to_device(batch.weights.numpy(), self._device)
            copied = _event()
            copied.record()
        self._staging.append((self._staging.popleft()[0], copied))
        self._copied.append(copied)
        return replace(batch, arrays=arrays, weights=weights)

    def finish(self, batch: Batch) -> None:
        """Have kernels that are queued from now on wait for the batch's copies."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(self._copied.popleft())
        for tensor in (*batch.arrays.values(), batch.weights):
            if tensor is not None:
                tensor.record_stream(current)  # else a later copy could get its memory while a kernel reads it


class _Pace:
    """Keeps the host within NUM_QUEUED steps of the GPU.

    A faster host would have hundreds of batches in memory, and the staging of all puts between them.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._taken: deque[torch.cuda.Event] = deque()  # reached when the steps before a batch are done

    def wait(self) -> None:
        """Wait for the GPU; to be called when a batch is taken, before its step."""
        taken = _event()
        taken.record(torch.cuda.current_stream(self._device))
        self._taken.append(taken)
        if len(self._taken) > NUM_QUEUED:
            self._taken.popleft().synchronize()


def _pinned(layout: Layout, num_rows: int) -> dict[str, Tensor]:
    """Arrays for a batch with the most points that there may be."""
    return {
        name: torch.empty(num_rows, *block.shape, dtype=dtype_of(block), pin_memory=True)
        for name, block in layout.blocks.items()
    }


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(blocking=True)  # a waiting thread sleeps: a spinning one would take a core
