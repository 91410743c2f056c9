"""The training buffers of Meyer et al. (ICML 2023, arXiv 2306.16133): what removes the bias of a stream.

Axes:  N rows, C channels, *grid the axes of the fields' grid.

One preallocated array per group of the Layout holds a sample a slot. A short lock moves slots between states; bytes
are copied outside it, so neither side waits for the other's copying:

    free -> writing -> unseen -> reading -> seen (Reservoir) or free
                         seen -> reading -> seen
                         seen -> writing           a new arrival replaces a seen sample (Reservoir)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from penstock.sample import Layout

FREE, WRITING, UNSEEN, SEEN, READING = range(5)

POLL_S = 0.05  # how soon wait_for_slot sees its should_stop()


@dataclass(frozen=True)
class Batch:
    """Samples drawn together; the buffer holds no reference to them."""

    arrays: dict[str, Tensor]
    """[N, C, *grid] and [N, S], as in `Layout.shapes`."""
    simulations: np.ndarray
    """int64 [N]"""
    steps: np.ndarray
    """int64 [N]"""

    def __len__(self) -> int:
        return len(self.simulations)


class Buffer:
    """A bounded population of samples, put by one thread and drawn by another; its numbers may be read by any.

    capacity: slots. watermark: population at which the first batch may be drawn. seed: of the random draws.
    device: where the arrays lie; a batch is gathered there. On a GPU both threads queue their copies on its default
    stream, in the order in which the states allow them, so a slot's reads and writes can't overtake each other.

    A subclass says which slots an arrival may take, when and which samples are drawn, and what becomes of them.
    """

    def __init__(self, layout: Layout, *, capacity: int, watermark: int, seed: int, device: torch.device | str = "cpu"):
        if not 1 <= watermark <= capacity:
            raise ValueError(f"the watermark must be between 1 and the capacity {capacity}, not {watermark}")
        self.capacity = capacity
        self.watermark = watermark
        self.num_put = 0
        """Samples that ever arrived."""
        self.num_drawn = 0
        """Samples that were ever drawn, with repetition."""
        self.put_is_waiting = False
        self.draw_is_waiting = False
        self._arrays = {name: torch.zeros(capacity, *shape, device=device) for name, shape in layout.shapes.items()}
        self._simulations = np.zeros(capacity, np.int64)
        self._steps = np.zeros(capacity, np.int64)
        self._num_seen = np.zeros(capacity, np.int32)  # draws of the sample that is in
        self._arrivals = np.zeros(capacity, np.int64)  # its place in the stream, so its age and a FIFO's order
        self._states = np.full(capacity, FREE, np.uint8)
        self._random = np.random.default_rng(seed)
        self._reached_watermark = False
        self._stream_ended = False
        self._closed = False
        self._changed = threading.Condition()

    # What the kinds differ in. All are called under the lock.

    def _num_slots(self) -> int:
        """Slots that arrivals may take now."""
        return int(np.count_nonzero(self._states == FREE))

    def _slots_for(self, count: int) -> np.ndarray:
        """At most `count` of them."""
        return np.flatnonzero(self._states == FREE)[:count]

    def _may_draw(self, batch_size: int) -> bool:
        """Whether a batch may be drawn while the stream goes on."""
        raise NotImplementedError

    def _choose(self, batch_size: int) -> np.ndarray:
        """Distinct slots of the next batch: `batch_size`, or all there are if fewer."""
        raise NotImplementedError

    def _state_after_draw(self) -> int:
        return FREE

    # Numbers

    def __len__(self) -> int:
        """Population: samples that are in and whole."""
        return int(np.count_nonzero(self._states >= UNSEEN))

    @property
    def num_unseen(self) -> int:
        """Samples that were never drawn."""
        return int(np.count_nonzero(self._states == UNSEEN))

    def simulations_in(self) -> np.ndarray:
        """int64: the distinct simulations of the samples that are in."""
        return np.unique(self._simulations[self._states >= UNSEEN])

    @property
    def num_bytes(self) -> int:
        """Bytes of the preallocated arrays."""
        return sum(array.nbytes for array in self._arrays.values())

    @property
    def reached_watermark(self) -> bool:
        return self._reached_watermark

    @property
    def stream_ended(self) -> bool:
        return self._stream_ended

    @property
    def exhausted(self) -> bool:
        """The stream has ended and every sample was drained, or the buffer is closed: no batch will come."""
        return self._closed or (self._stream_ended and not (self._states != FREE).any())

    # Arrivals

    def put_now(self, arrays: Mapping[str, np.ndarray], simulations: np.ndarray, steps: np.ndarray) -> int:
        """Copies as many of the first rows as have slots now, and returns how many."""
        with self._changed:
            slots = self._slots_for(len(simulations)) if not self._closed else np.empty(0, np.int64)
            count = len(slots)
            self._states[slots] = WRITING
        if not count:
            return 0
        index = torch.from_numpy(slots)
        for name, array in self._arrays.items():
            # torch.tensor copies: rows that come from a shared object store are read-only
            array.index_copy_(0, index.to(array.device), torch.tensor(arrays[name][:count], device=array.device))
        with self._changed:
            self._simulations[slots] = simulations[:count]
            self._steps[slots] = steps[:count]
            self._num_seen[slots] = 0
            self._arrivals[slots] = np.arange(self.num_put, self.num_put + count)
            self._states[slots] = UNSEEN
            self.num_put += count
            self._reached_watermark |= len(self) >= self.watermark
            self._changed.notify_all()
        return count

    def wait_for_slot(self, should_stop: Callable[[], bool] | None = None) -> bool:
        """Blocks until an arrival may take a slot; False when should_stop() or close() came first."""
        with self._changed:
            self.put_is_waiting = True
            try:
                while not self._closed and not (should_stop is not None and should_stop()):
                    if self._num_slots():
                        return True
                    self._changed.wait(POLL_S)
                return False
            finally:
                self.put_is_waiting = False

    # Draws

    def draw(self, batch_size: int, timeout_s: float) -> Batch | None:
        """The next batch, of `batch_size` samples while the stream goes on.

        None after timeout_s, or at once when `exhausted`.
        """
        with self._changed:
            self.draw_is_waiting = not self._is_batch_ready(batch_size)
            self._changed.wait_for(lambda: self._is_batch_ready(batch_size) or self.exhausted, timeout_s)
            self.draw_is_waiting = False
            if self._closed or not self._is_batch_ready(batch_size):
                return None
            slots = self._choose(batch_size)
            self._states[slots] = READING
        batch = self._gather(slots)
        with self._changed:
            self._num_seen[slots] += 1
            self._states[slots] = FREE if self._stream_ended else self._state_after_draw()
            self.num_drawn += len(slots)
            self._changed.notify_all()
        return batch

    def _is_batch_ready(self, batch_size: int) -> bool:
        if self._stream_ended:
            return self._num_drawable() > 0
        return self._reached_watermark and self._may_draw(batch_size)

    def _num_drawable(self) -> int:
        return int(np.count_nonzero((self._states == UNSEEN) | (self._states == SEEN)))

    def _gather(self, slots: np.ndarray) -> Batch:
        index = torch.from_numpy(slots)
        arrays = {name: array.index_select(0, index.to(array.device)) for name, array in self._arrays.items()}
        return Batch(arrays, self._simulations[slots], self._steps[slots])

    def wait_for_watermark(self, timeout_s: float) -> bool:
        """Whether the watermark was reached, or the stream ended before it; waits for at most timeout_s."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._reached_watermark or self._stream_ended or self._closed, timeout_s
            )

    def population(self, limit: int = 1000) -> dict[str, Tensor]:
        """Copies of at most `limit` samples that are in, by array: what the normalisation is fixed from.

        They are spread over the slots, so over the stream. Drawing thread only.
        """
        with self._changed:
            slots = np.flatnonzero((self._states == UNSEEN) | (self._states == SEEN))
            slots = slots[np.linspace(0, len(slots) - 1, min(limit, len(slots))).astype(np.int64)]
            states = self._states[slots]
            self._states[slots] = READING
        arrays = self._gather(slots).arrays
        with self._changed:
            self._states[slots] = states
            self._changed.notify_all()
        return arrays

    # The end

    def end_of_stream(self) -> None:
        """No arrival will come: draws remove, and what remains is drained. The last batch may be smaller."""
        with self._changed:
            self._stream_ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Wakes everyone; later puts and draws give nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # Checkpoints

    def state(self) -> dict:
        """Contents, counters and random state: tensors, and values that JSON keeps.

        Ingestion must be held and no batch be drawn until the state is written: a full buffer's arrays are not copied.
        """
        slots = np.flatnonzero(self._states != FREE)
        index = torch.from_numpy(slots)
        is_full = len(slots) == self.capacity
        return {
            **{f"arrays.{name}": array if is_full else array[index] for name, array in self._arrays.items()},
            "slots": index,
            "simulations": torch.from_numpy(self._simulations[slots]),
            "steps": torch.from_numpy(self._steps[slots]),
            "num_seen": torch.from_numpy(self._num_seen[slots]),
            "arrivals": torch.from_numpy(self._arrivals[slots]),
            "states": torch.from_numpy(self._states[slots]),
            "capacity": self.capacity,
            "num_put": self.num_put,
            "num_drawn": self.num_drawn,
            "reached_watermark": self._reached_watermark,
            "random": self._random.bit_generator.state,
        }

    def load_state(self, state: Mapping) -> None:
        """Raises ValueError when the state is of a buffer of another capacity."""
        if state["capacity"] != self.capacity:
            raise ValueError(f"the saved buffer has a capacity of {state['capacity']}, this one of {self.capacity}")
        with self._changed:
            index = state["slots"]
            slots = index.numpy()
            for name, array in self._arrays.items():
                array[index.to(array.device)] = state[f"arrays.{name}"].to(array.device)
            self._states[:] = FREE
            self._simulations[slots] = state["simulations"].numpy()
            self._steps[slots] = state["steps"].numpy()
            self._num_seen[slots] = state["num_seen"].numpy()
            self._arrivals[slots] = state["arrivals"].numpy()
            self._states[slots] = state["states"].numpy()
            self.num_put = state["num_put"]
            self.num_drawn = state["num_drawn"]
            self._reached_watermark = state["reached_watermark"]
            self._random.bit_generator.state = state["random"]
            self._changed.notify_all()


class Fifo(Buffer):
    """Every sample once, in the order of the stream: fast, and biased as the stream is."""

    def _may_draw(self, batch_size: int) -> bool:
        return self._num_drawable() >= batch_size

    def _choose(self, batch_size: int) -> np.ndarray:
        unseen = np.flatnonzero(self._states == UNSEEN)
        return unseen[np.argsort(self._arrivals[unseen])[:batch_size]]


class Firo(Buffer):
    """Every sample once, in random order, while the population is not below the watermark."""

    def _may_draw(self, batch_size: int) -> bool:
        return self._num_drawable() >= max(batch_size, self.watermark)

    def _choose(self, batch_size: int) -> np.ndarray:
        return _random_choice(self._random, np.flatnonzero(self._states == UNSEEN), batch_size)


class Reservoir(Buffer):
    """Random samples with repetition, as fast as training can take them.

    An arrival takes a free slot, else replaces a random seen sample, else waits: nothing unseen is ever evicted.
    """

    def _num_slots(self) -> int:
        return int(np.count_nonzero((self._states == FREE) | (self._states == SEEN)))

    def _slots_for(self, count: int) -> np.ndarray:
        free = super()._slots_for(count)
        if len(free) == count:
            return free
        seen = np.flatnonzero(self._states == SEEN)
        return np.concatenate([free, _random_choice(self._random, seen, count - len(free))])

    def _may_draw(self, batch_size: int) -> bool:
        return self._num_drawable() >= batch_size

    def _choose(self, batch_size: int) -> np.ndarray:
        drawable = np.flatnonzero((self._states == UNSEEN) | (self._states == SEEN))
        return _random_choice(self._random, drawable, batch_size)

    def _state_after_draw(self) -> int:
        return SEEN


def _random_choice(random: np.random.Generator, slots: np.ndarray, count: int) -> np.ndarray:
    """At most `count` distinct slots, uniformly."""
    return random.choice(slots, min(count, len(slots)), replace=False) if len(slots) else slots


BUFFERS: dict[str, type[Buffer]] = {"fifo": Fifo, "firo": Firo, "reservoir": Reservoir}
