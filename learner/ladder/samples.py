"""Free samples: chunks and full buffers that cost nothing to make."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penstock.arrays.ragged import Ragged, Rows
from penstock.layout import Block, Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import Reservoir
from penstock.learner.buffers.storage import counted_by
from penstock.learner.rehearsal.free_samples import free_samples
from penstock.messages import CHUNK_BYTES, Chunk

POOL_BYTES = 1 << 26  # of samples: more than a processor's cache, so each is read from memory, as from a stream
LEARNING_RATE = 1e-4  # low: the targets are noise


def full_reservoir(layout: Layout, num_slots: int, **placement: Any) -> Buffer:
    """Return a reservoir whose slots are all taken.

    It holds no more distinct samples than `chunks` yields.

    Args:
        layout: layout of the samples.
        num_slots: number of slots.
        placement: `device` and `pin_memory` of the buffer.

    Returns:
        The buffer.
    """
    buffer = Buffer(layout, Reservoir(), capacity=num_slots, watermark=num_slots, seed=0, **placement)
    stream = chunks(layout)
    while len(buffer) < num_slots:
        chunk = next(stream)
        buffer.put_now(chunk.arrays, chunk.simulations, chunk.steps)
    return buffer


def chunks(layout: Layout) -> Iterator[Chunk]:
    """Yield chunks of random samples without end, one sample per simulation.

    The samples repeat after POOL_BYTES, the simulations never.

    Args:
        layout: layout of the samples.

    Yields:
        Chunks whose arrays are read-only, like those that come from another process.
    """
    num_rows = max(1, CHUNK_BYTES // layout.sample_bytes)
    num_chunks = max(2, POOL_BYTES // (num_rows * layout.sample_bytes))
    samples = free_samples(layout, num_chunks * num_rows, torch.device("cpu"))
    arrays = {name: _as_sent(block, samples) for name, block in layout.blocks.items()}
    for rows in arrays.values():
        (rows.values if isinstance(rows, Ragged) else rows).flags.writeable = False
    starts = range(0, num_chunks * num_rows, num_rows)
    pool = [{name: rows[start : start + num_rows] for name, rows in arrays.items()} for start in starts]
    for number in itertools.count():
        simulations = np.arange(number * num_rows, (number + 1) * num_rows)
        yield Chunk(
            arrays=pool[number % len(pool)],
            simulations=simulations,
            steps=np.zeros(num_rows, np.int64),
            finished=tuple(simulations.tolist()),
        )


def _as_sent(block: Block, samples: Mapping[str, Tensor]) -> Rows:
    """A block's array as a worker sends it: without padding where points vary."""
    array = samples[block.name].numpy()
    if not block.is_ragged:
        return array
    counts = np.count_nonzero(samples[counted_by(block)].numpy()[:, -1], axis=-1)
    return Ragged.of([row[:, :count] for row, count in zip(array, counts, strict=True)])
