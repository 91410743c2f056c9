"""The arrays behind a buffer's slots, on the host or on a GPU.

There is one preallocated array per block of the Layout. If points vary in number, samples come without padding. They
are padded in their slots to the largest sample that the problem allows, and in a batch to the largest sample in it,
rounded up to a multiple of TRIM points.

Axes:  U units, N rows, C channels, * the shape of a geometry, P points.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod

import numpy as np
import torch
from torch import Tensor

from penstock.arrays.ragged import Ragged
from penstock.layout import Block, Layout
from penstock.learner.buffers.units import Unit, dtype_of

BLOCK_BYTES = 1 << 26  # most bytes that are staged at a time on the way to a device
TRIM = 128  # batches have a multiple of 128 points, so that few shapes occur


class Storage:
    """The places of a buffer's units, written by one thread and read by another.

    The two threads never use the same place at the same time. On a GPU, writes are queued on a separate stream and
    gathers on the current one. A shared event makes each wait, on the device alone, for what was queued before it. So a
    place is not overwritten before its gather is done, although the buffer gives it free once the gather is queued.

    Args:
        layout: layout of the samples.
        num_units: number of places.
        unit: what a unit is, and how units become rows of a batch.
        device: where the arrays lie.
        pin_memory: whether they are in page-locked host memory.
    """

    def __init__(self, layout: Layout, num_units: int, unit: Unit, device: torch.device | str, pin_memory: bool):
        self.unit = unit
        self.device = torch.device(device)
        self.is_pinned = pin_memory
        self.arrays = {
            name: _allocate((num_units, unit.num_kept(block), *block.shape), block.dtype, self.device, pin_memory)
            for name, block in layout.blocks.items()
        }
        """The stored arrays by name, [U, kept steps, C, *] and [U, kept steps, S]."""
        self._layout = layout
        self._batch_layout = unit.layout(layout)
        self._dtypes = {name: dtype_of(block) for name, block in self._batch_layout.blocks.items()}
        self._counts = {
            counted_by(block): np.zeros(num_units, np.int32) for block in layout.blocks.values() if block.is_ragged
        }
        """Number of points, or of edges, of each unit."""
        self._drawn_from = {name: unit.merged(array) for name, array in self.arrays.items()}
        self._rows = {name: array.flatten(0, 1) for name, array in self.arrays.items()}  # one row per kept step
        if self.device.type == "cpu":  # torch warns of read-only values, such as those from a shared object store
            self._rows = {name: rows.numpy() for name, rows in self._rows.items()}
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self._last_queued = torch.cuda.Event() if self._stream is not None else None
        if self._last_queued is not None:
            self._last_queued.record(torch.cuda.current_stream(self.device))  # the arrays are being zeroed
        self._queueing = threading.Lock()

    @property
    def place(self) -> str:
        """Where the samples lie, in words."""
        if self.device.type == "cuda":
            return "the GPU's memory"
        return "pinned host memory" if self.is_pinned else "host memory"

    @property
    def num_bytes(self) -> int:
        """Bytes of the preallocated arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def write(self, units: np.ndarray, steps: np.ndarray, arrays: Mapping[str, np.ndarray]) -> None:
        """Copy samples to their places.

        Args:
            units: place of each of the first N rows of the arrays, int64 [N].
            steps: step of each of these rows, int64 [N].
            arrays: at least N samples, [N, C, *] and [N, S] by name; ragged where points vary.
        """
        for name, block in self._layout.blocks.items():
            values, num_kept = arrays[name][: len(units)], self.unit.num_kept(block)
            rows = units if self.unit.num_steps == 1 else units * num_kept + steps
            if num_kept < self.unit.num_steps:
                rows, values = rows[steps < num_kept], values[steps < num_kept]
            if not block.is_ragged:
                self._copy_in(self._rows[name], rows, values)
                continue
            self._copy_in_padded(name, rows, values)
            if name in self._counts:
                self._counts[name][rows // num_kept] = values.counts

    def gather(self, units: np.ndarray, choices: np.ndarray, out: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Gather the arrays of a batch, one row of each unit.

        On a GPU the gather is only queued, on the current stream.

        Args:
            units: places of the units, int64 [N].
            choices: number of the row within each unit, int64 [N].
            out: tensors to gather into, as for `Buffer.draw`; None for new ones.

        Returns:
            The batch's arrays by name, [N, C, *] and [N, S]; with N times `num_unrolled` rows if several of a
            unit are drawn together.
        """
        num_rows = len(units) * self.unit.num_unrolled
        drawn_from, shapes = self._drawn_from, self._batch_layout.shapes
        if self._counts:
            drawn_from, shapes = self._trimmed(units)
        arrays = {}
        for name, shape in shapes.items():
            if out is None:
                arrays[name] = torch.empty(num_rows, *shape, dtype=self._dtypes[name], device=self.device)
            else:  # the first values of its memory, so that the rows lie without gaps
                arrays[name] = out[name].view(-1)[: num_rows * prod(shape)].view(num_rows, *shape)
        rows = to_device(self.unit.drawn_rows(units, choices), self.device)
        with self._after_what_was_queued():
            self.unit.gather(drawn_from, self._layout, rows, arrays)
        return arrays

    def _trimmed(self, units: np.ndarray) -> tuple[dict[str, Tensor], dict[str, tuple[int, ...]]]:
        """Stored arrays and shapes of a batch, cut to the points its units need."""
        # at least TRIM: a batch may have no edges
        lengths = {name: -(-max(1, int(counts[units].max())) // TRIM) * TRIM for name, counts in self._counts.items()}

        def cut(block: Block) -> int | None:
            return min(block.shape[-1], lengths[counted_by(block)]) if block.is_ragged else None

        blocks = self._layout.blocks
        drawn_from = {name: array[..., : cut(blocks[name])] for name, array in self._drawn_from.items()}
        shapes = {
            name: (*block.shape[:-1], cut(block) or block.shape[-1])
            for name, block in self._batch_layout.blocks.items()
        }
        return drawn_from, shapes

    def load(self, units: np.ndarray, name: str, values: np.ndarray) -> None:
        """Copy whole units into one of the arrays.

        Args:
            units: places of the units, int64 [N].
            name: name of the array.
            values: their values, [N, kept steps, C, *].
        """
        array = self.arrays[name]
        self._copy_in(array.numpy() if self._stream is None else array, units, values)
        if name in self._counts:  # weights are 0 after the last point, and so is an edge's second end
            self._counts[name][units] = np.count_nonzero(values[:, 0, -1], axis=-1)

    def _copy_in_padded(self, name: str, rows: np.ndarray, values: Ragged) -> None:
        """Copy ragged values into rows of an array, and pad them with 0."""
        array = self._rows[name]
        if self._stream is not None:
            self._copy_in(array, rows, values.padded(array.shape[-1]))
            return
        for number, row in enumerate(rows):
            count = values.counts[number]
            array[row, :, :count] = values.row(number)
            array[row, :, count:] = 0

    def _copy_in(self, array: np.ndarray | Tensor, rows: np.ndarray, values: np.ndarray) -> None:
        """Do `array[rows] = values`, on a GPU in blocks and without waiting."""
        if self._stream is None:
            array[rows] = values
            return
        num_rows = max(1, BLOCK_BYTES // max(1, values[:1].nbytes))
        with torch.cuda.stream(self._stream):
            for start in range(0, len(rows), num_rows):
                block = slice(start, start + num_rows)
                index, source = to_device(rows[block], self.device), to_device(values[block], self.device)
                with self._after_what_was_queued():
                    array.index_copy_(0, index, source)

    @contextmanager
    def _after_what_was_queued(self) -> Iterator[None]:
        """Have what is queued inside wait for what was queued by earlier such blocks.

        It is queued on the current stream, and the wait is on the device.
        """
        if self._last_queued is None:
            yield
            return
        with self._queueing:
            stream = torch.cuda.current_stream(self.device)  # the event refuses a stream of another GPU
            self._last_queued.wait(stream)
            yield
            self._last_queued.record(stream)


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """Bring an array to a device, without waiting for the copy to a GPU.

    The copy is queued on the current stream. torch keeps the pinned memory it is made from until it is done.

    Args:
        values: the array.
        device: the device.

    Returns:
        The tensor; on a CPU it shares the array's memory.
    """
    if device.type == "cpu":
        return torch.from_numpy(values)
    staging = torch.empty(values.shape, dtype=getattr(torch, values.dtype.name), pin_memory=True)
    staging.numpy()[:] = values
    return staging.to(device, non_blocking=True)


def counted_by(block: Block) -> str:
    """Return the name of the array that says how long a ragged block's rows are.

    Args:
        block: a block whose points vary in number.

    Returns:
        The name of the geometry's edges if the block holds these, else that of its points' weights.
    """
    edges = block.on.named("edges")
    return edges if block.name == edges else block.on.named("weights")


def _allocate(shape: tuple[int, ...], dtype: np.dtype, device: torch.device, pin_memory: bool) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(shape, dtype=getattr(torch, dtype.name), device=device)
    # NumPy asks the kernel for huge pages, unlike torch: scattered rows of 16 KB are written 1.3 times as fast.
    array = np.empty(shape, dtype)
    tensor = torch.from_numpy(array).zero_()
    if pin_memory:  # in place, because torch's pinned allocations take the next power of two of bytes
        cudart = torch.cuda.cudart()
        torch.cuda.check_error(cudart.cudaHostRegister(array.ctypes.data, array.nbytes, 0))
        weakref.finalize(array, cudart.cudaHostUnregister, array.ctypes.data)
    return tensor
