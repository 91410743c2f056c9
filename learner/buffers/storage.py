"""The bytes of a buffer's slots: one preallocated array per block of the Layout, on the host or on a GPU.

Where points vary, samples come without padding, are padded in their slots to the largest sample there may be, and in a
batch to its own largest, or little more: TRIM.

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

BLOCK_BYTES = 1 << 26  # staged at a time on the way to a device
TRIM = 128  # batches have a multiple of so many points, so that few shapes occur


class Storage:
    """Places for `num_units` units, written by one thread and gathered from by another: never the same places at once.

    layout: of the samples. unit: what a unit is, and what a batch's arrays are made of. pin_memory: page-locked host
    memory.

    On a GPU writes are queued on a stream of the storage's own, gathers on the current one. An event in common makes
    each wait, on the device alone, for what was queued before it: so a place is not written before its gather is done,
    though the buffer says so as soon as it is queued.
    """

    def __init__(self, layout: Layout, num_units: int, unit: Unit, device: torch.device | str, pin_memory: bool):
        self.unit = unit
        self.device = torch.device(device)
        self.is_pinned = pin_memory
        self.arrays = {
            name: _allocate((num_units, unit.num_kept(block), *block.shape), block.dtype, self.device, pin_memory)
            for name, block in layout.blocks.items()
        }
        """[U, steps that are kept, C, *] and [U, steps that are kept, S]."""
        self._layout = layout
        self._batch_layout = unit.layout(layout)
        self._dtypes = {name: dtype_of(block) for name, block in self._batch_layout.blocks.items()}
        self._counts = {
            counted_by(block): np.zeros(num_units, np.int32) for block in layout.blocks.values() if block.is_ragged
        }
        """Points, and edges, of each unit."""
        self._drawn_from = {name: unit.merged(array) for name, array in self.arrays.items()}
        self._rows = {name: array.flatten(0, 1) for name, array in self.arrays.items()}  # one a step that is kept
        if self.device.type == "cpu":  # torch warns of rows from a shared object store, which are read-only
            self._rows = {name: rows.numpy() for name, rows in self._rows.items()}
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self._last_queued = torch.cuda.Event() if self._stream is not None else None
        if self._last_queued is not None:
            self._last_queued.record(torch.cuda.current_stream(self.device))  # the arrays are being zeroed
        self._queueing = threading.Lock()

    @property
    def place(self) -> str:
        """Where its samples lie, for people."""
        if self.device.type == "cuda":
            return "the GPU's memory"
        return "pinned host memory" if self.is_pinned else "host memory"

    @property
    def num_bytes(self) -> int:
        """Of the preallocated arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def write(self, units: np.ndarray, steps: np.ndarray, arrays: Mapping[str, np.ndarray]) -> None:
        """Copies samples in. units, steps: int64 [N], where each of the first N rows of the arrays belongs."""
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
        """The arrays of a batch: of each unit the row that `choices` says, both int64 [N].

        out: as of `Buffer.draw`. On a GPU the gather is queued on the current stream, not done.
        """
        drawn_from, shapes = self._drawn_from, self._batch_layout.shapes
        if self._counts:
            drawn_from, shapes = self._trimmed(units)
        arrays = {}
        for name, shape in shapes.items():
            if out is None:
                arrays[name] = torch.empty(len(units), *shape, dtype=self._dtypes[name], device=self.device)
            else:  # the first values of its memory, so that they lie without a gap
                arrays[name] = out[name].view(-1)[: len(units) * prod(shape)].view(len(units), *shape)
        rows = to_device(self.unit.rows(units, choices), self.device)
        with self._after_what_was_queued():
            self.unit.gather(drawn_from, self._layout, rows, arrays)
        return arrays

    def _trimmed(self, units: np.ndarray) -> tuple[dict[str, Tensor], dict[str, tuple[int, ...]]]:
        """What batches of these units are drawn from, and their arrays' shapes, with no more points than they need."""
        lengths = {name: -(-int(counts[units].max()) // TRIM) * TRIM for name, counts in self._counts.items()}

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
        """Copies whole units in, of the array `name`."""
        array = self.arrays[name]
        self._copy_in(array.numpy() if self._stream is None else array, units, values)
        if name in self._counts:  # weights are 0 behind the last point, and so is the second end of an edge
            self._counts[name][units] = np.count_nonzero(values[:, 0, -1], axis=-1)

    def _copy_in_padded(self, name: str, rows: np.ndarray, values: Ragged) -> None:
        """The rows of an array that is padded with 0."""
        array = self._rows[name]
        if self._stream is not None:
            self._copy_in(array, rows, values.padded(array.shape[-1]))
            return
        for number, row in enumerate(rows):
            count = values.counts[number]
            array[row, :, :count] = values.row(number)
            array[row, :, count:] = 0

    def _copy_in(self, array: np.ndarray | Tensor, rows: np.ndarray, values: np.ndarray) -> None:
        """array[rows] = values"""
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
        """What is queued inside, on the current stream, waits on the device for all that was queued so before."""
        if self._last_queued is None:
            yield
            return
        with self._queueing:
            stream = torch.cuda.current_stream(self.device)  # of another GPU than the arrays' it would be refused
            self._last_queued.wait(stream)
            yield
            self._last_queued.record(stream)


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """For a GPU a copy on the current stream that nobody waits for: torch keeps the staging until it is made."""
    if device.type == "cpu":
        return torch.from_numpy(values)
    staging = torch.empty(values.shape, dtype=getattr(torch, values.dtype.name), pin_memory=True)
    staging.numpy()[:] = values
    return staging.to(device, non_blocking=True)


def counted_by(block: Block) -> str:
    """The array whose rows are as long as a ragged block's: that of the edges, or of the points' weights."""
    edges = block.on.named("edges")
    return edges if block.name == edges else block.on.named("weights")


def _allocate(shape: tuple[int, ...], dtype: np.dtype, device: torch.device, pin_memory: bool) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(shape, dtype=getattr(torch, dtype.name), device=device)
    # NumPy asks the kernel for huge pages and torch does not: it writes scattered rows of 16 KB 1.3 times as fast.
    array = np.empty(shape, dtype)
    tensor = torch.from_numpy(array).zero_()
    if pin_memory:  # in place: what torch allocates pinned takes the next power of two of bytes
        cudart = torch.cuda.cudart()
        torch.cuda.check_error(cudart.cudaHostRegister(array.ctypes.data, array.nbytes, 0))
        weakref.finalize(array, cudart.cudaHostUnregister, array.ctypes.data)
    return tensor
