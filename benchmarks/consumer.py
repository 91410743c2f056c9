"""The end of the stream that takes what canned workers send."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count

import numpy as np

from penstock.layout import Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import Reservoir
from penstock.learner.stream.ingest import Ingest
from penstock.messages import Chunk, Lease, LeaseEnd
from penstock.transport.receiver import Receiver

WINDOW = 64
LEASES_AHEAD = 4
BUFFER_BYTES = 1 << 28


class Latest(Reservoir):
    """A reservoir in which each sample may be replaced at once, as if training were faster than any stream."""

    def add(self, slots: np.ndarray) -> None:
        self.seen.add(slots)


class Consumer:
    """Takes the chunks of workers into a buffer, and leases to them without a driver.

    Args:
        layout: layout of the samples.
        receiver: the stream.
        names: the workers.
    """

    def __init__(self, layout: Layout, receiver: Receiver, names: Sequence[str]):
        num_slots = max(4, BUFFER_BYTES // layout.sample_bytes)
        self._ingest = Ingest(None, Buffer(layout, Latest(), capacity=num_slots, watermark=1, seed=0), layout)
        self._receiver = receiver
        self._numbers = count()
        self._names: dict[int, str] = {}  # by the numbers of open leases
        self.endpoint = receiver.endpoint
        """Where the workers connect."""
        for _ in range(LEASES_AHEAD):
            for name in names:
                self._lease(name)

    def _lease(self, name: str) -> None:
        number = next(self._numbers)
        self._names[number] = name
        ids = range(WINDOW * number, WINDOW * (number + 1))
        self._receiver.submit(Lease(number=number, simulations=tuple(ids)), name)

    def take(self) -> Chunk | None:
        """Take the next item.

        Returns:
            The chunk, which is in the buffer; None for the end of a lease, whose worker has another one then.

        Raises:
            RuntimeError: nothing comes, or the buffer is full.
        """
        item = self._receiver.next(60.0)
        if item is None:
            raise RuntimeError("nothing came for 60 s: see what the producers print")
        if isinstance(item, LeaseEnd):
            self._lease(self._names.pop(item.lease_number))
            return None
        if not self._ingest.take(item):
            raise RuntimeError("the buffer takes no more")
        return item

    def sender_of(self, chunk: Chunk) -> str:
        """The worker of the chunk that was taken last."""
        # A chunk that is full before its last simulation has ended leaves the news of that end to one without samples.
        return self._names[int(next(iter([*chunk.simulations[:1], *chunk.finished]))) // WINDOW]


@contextmanager
def consumer(layout: Layout, names: Sequence[str], *, shares_memory: bool) -> Iterator[Consumer]:
    """A consumer, whose stream ends with the block.

    Args:
        layout: layout of the samples.
        names: the workers.
        shares_memory: whether they count as processes of this machine, or the samples go over TCP, encrypted.
    """
    with tempfile.TemporaryDirectory() as folder:
        if shares_memory:
            receiver = Receiver(f"ipc://{folder}/samples")
        else:
            receiver = Receiver("tcp://127.0.0.1", host=("elsewhere", ""))
        try:
            yield Consumer(layout, receiver, names)
        finally:
            receiver.close()
