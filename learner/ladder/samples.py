"""Samples that cost nothing to make."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import Reservoir
from penstock.sample import Chunk, Layout

CHUNK_BYTES = 1 << 20  # what a solver worker sends at a time, or one sample where that is larger
POOL_BYTES = 1 << 26  # of samples: more than a processor's cache, so each is read from memory, as from a stream
LEARNING_RATE = 1e-4  # low: the targets are noise


def full_reservoir(layout: Layout, num_slots: int, **placement: Any) -> Buffer:
    """All slots taken, by as few distinct samples as `chunks` has. placement: device and pin_memory."""
    buffer = Buffer(layout, Reservoir(), capacity=num_slots, watermark=num_slots, seed=0, **placement)
    stream = chunks(layout)
    while len(buffer) < num_slots:
        chunk = next(stream)
        buffer.put_now(chunk.arrays, chunk.simulations, chunk.steps)
    return buffer


def chunks(layout: Layout) -> Iterator[Chunk]:
    """Chunks of random samples without end, one sample a simulation, read-only as those that come from another process.

    The samples repeat after POOL_BYTES, the simulations never.
    """
    num_rows = max(1, CHUNK_BYTES // layout.sample_bytes)
    random = np.random.default_rng(0)
    pool = []
    for _ in range(max(2, POOL_BYTES // (num_rows * layout.sample_bytes))):
        arrays = {name: random.standard_normal((num_rows, *shape), np.float32) for name, shape in layout.shapes.items()}
        for array in arrays.values():
            array.flags.writeable = False
        pool.append(arrays)
    for number in itertools.count():
        simulations = np.arange(number * num_rows, (number + 1) * num_rows)
        yield Chunk(
            arrays=pool[number % len(pool)],
            simulations=simulations,
            steps=np.zeros(num_rows, np.int64),
            finished=tuple(simulations.tolist()),
        )
