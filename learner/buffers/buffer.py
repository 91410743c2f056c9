"""The training buffers of Meyer et al. (ICML 2023, arXiv 2306.16133): what removes the bias of a stream.

Axes:  N rows, C channels, T steps, F parameters, *grid the axes of the fields' grid.

One preallocated array per group of the Layout holds a *unit* a slot: a sample, or the T samples of a simulation where
trajectories or pairs are drawn (units.py). A short lock moves slots between states; bytes are copied outside it, so
neither side waits for the other's copying:

    free -> writing -> unseen -> reading -> seen (Reservoir) or free
                         seen -> reading -> seen
                         seen -> writing           a new arrival replaces a seen unit (Reservoir)
            writing -> free                        its simulation failed half way

The book-keeping of a put or a draw grows with the slots it concerns, not with the capacity.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from penstock.conversion import DTYPE
from penstock.layout import Layout
from penstock.learner.buffers.slots import SlotQueue, SlotSet
from penstock.learner.buffers.storage import Storage
from penstock.learner.buffers.units import Draw, Samples
from penstock.learner.checkpoints.rows import Rows

MIN_SIMULATIONS = 10  # what statistics are taken of: of one simulation a scalar has no spread
POLL_S = 0.05  # how soon wait_for_slot sees its should_stop()


@dataclass(frozen=True)
class Batch:
    """Rows drawn together, of distinct slots; the buffer holds no reference to them."""

    arrays: dict[str, Tensor]
    """[N, C, *grid] and [N, S], as in the shapes of the buffer's `layout`."""
    simulations: np.ndarray
    """int64 [N]"""
    steps: np.ndarray
    """int64 [N]: the step of the row's inputs."""
    num_samples: int
    """Samples that it trains on: N, or N T for trajectories."""

    def __len__(self) -> int:
        return len(self.simulations)


@dataclass(frozen=True)
class Contents:
    """What the units are that are in and whole, without their arrays; in no order."""

    simulations: np.ndarray
    """int64 [N]"""
    steps: np.ndarray
    """int64 [N]; 0 for a whole simulation."""
    num_seen: np.ndarray
    """int32 [N]: how often it was drawn."""
    ages: np.ndarray
    """int64 [N]: samples that arrived since."""
    parameters: np.ndarray
    """float32 [N, F]: the ranks of the parameters, uniform on [0, 1] under the target distribution."""


class Buffer:
    """A bounded population of samples, put by one thread and drawn by another; its numbers may be read by any.

    layout: of the samples that arrive. capacity: in samples; slots are as many as whole units fit. watermark: samples
    that must be in before the first batch may be drawn, of MIN_SIMULATIONS simulations or as many as there are slots
    for. seed: of the random draws. draw: what a unit and a row of a
    batch are. device: where the arrays lie; a batch is gathered there. pin_memory: page-locked host memory.

    Units under way take slots too, so where simulations are units there should be slots for batch_size of them and one
    more for each worker. Workers that die leave more under way than there are workers: watermark and batches are then
    lowered to what those leave room for.

    A subclass says which slots an arrival may take, when and which units are drawn, and what becomes of them.

    Raises ValueError for a capacity below one unit, and for a watermark that is not between 1 and the capacity.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        capacity: int,
        watermark: int,
        seed: int,
        device: torch.device | str = "cpu",
        pin_memory: bool = False,
        draw: Draw | None = None,
    ):
        if not 1 <= watermark <= capacity:
            raise ValueError(f"the watermark must be between 1 and the capacity {capacity}, not {watermark}")
        self.draws = draw or Samples()
        num_steps = self.draws.num_steps
        if capacity < num_steps:
            raise ValueError(f"a capacity of {capacity} samples holds no simulation of {num_steps} steps")
        self.capacity = capacity
        self.watermark = watermark
        self.layout = self.draws.layout(layout)
        """Of the batches."""
        self.num_units = capacity // num_steps
        """Slots: the largest batch."""
        self.num_put = 0
        """Samples that ever arrived."""
        self.num_drawn = 0
        """Samples that were ever drawn, with repetition."""
        self.put_is_waiting = False
        self.draw_is_waiting = False

        self.storage = Storage(layout, self.num_units, self.draws, device, pin_memory)
        self._simulations = np.zeros(self.num_units, np.int64)
        self._steps = np.zeros(self.num_units, np.int64)
        self._num_seen = np.full(self.num_units, -1, np.int32)  # draws of the unit that is in and whole, -1 for none
        self._arrivals = np.zeros(self.num_units, np.int64)  # its last sample's place in the stream: age, FIFO's order
        self._num_filled = np.zeros(self.num_units, np.int32)  # samples of a unit under way that are in
        self._first_choices = np.zeros(self.num_units, np.int64)
        self._parameters = np.zeros((self.num_units, 0), DTYPE)  # widened by the first arrival
        self._under_way: dict[int, int] = {}  # slot of each simulation of which some steps are in
        self._free, self._seen = SlotSet(self.num_units), SlotSet(self.num_units)
        self._unseen = self._new_unseen()
        self._free.add(np.arange(self.num_units))
        self._num_writing = 0
        self._num_reading = 0
        self._num_samples_under_way = 0
        self._is_copying_in = False
        self._random = np.random.default_rng(seed)
        self._reached_watermark = False
        self._was_drained = False  # before a resume: where the stream goes on, it fills to its watermark once more
        self._first_simulations: set[int] = set()  # of the samples before the watermark
        self._stream_ended = False
        self._closed = False
        self._changed = threading.Condition()

    # What the kinds differ in. All are called under the lock.

    def _new_unseen(self) -> SlotSet | SlotQueue:
        """An empty one."""
        return SlotSet(self.num_units)

    def _num_slots(self) -> int:
        """Slots that arrivals may take now."""
        return len(self._free)

    def _take(self, count: int) -> np.ndarray:
        """At most `count` of them, no longer in their set."""
        return self._free.take_last(count)

    def _may_draw(self, batch_size: int) -> bool:
        """Whether a batch may be drawn while the stream goes on."""
        return self._num_drawable() >= batch_size

    def _choose(self, batch_size: int) -> np.ndarray:
        """Distinct slots of the next batch, no longer in their set: `batch_size`, or all there are if fewer."""
        raise NotImplementedError

    def _give_back(self, slots: np.ndarray) -> None:
        """What becomes of units that were drawn once more."""
        is_drained = self._num_seen[slots] >= self.draws.num_choices
        self._set_free(slots[is_drained])
        self._unseen.put_back(slots[~is_drained])

    # Numbers

    def __len__(self) -> int:
        """Population: samples that are in, those of units under way included."""
        return self._num_whole() * self.draws.num_steps + self._num_samples_under_way

    @property
    def num_unseen(self) -> int:
        """Samples of the units that are still to be drawn, and of those under way."""
        return len(self._unseen) * self.draws.num_steps + self._num_samples_under_way

    @property
    def num_rows_left(self) -> int:
        """Rows that would be drawn of the whole units that are in, if no more came."""
        if self.draws.num_choices == 1:
            return self._num_whole()
        num_seen = self._num_seen[self._num_seen >= 0]
        return int((self.draws.num_choices - num_seen).sum())

    def simulations_in(self) -> np.ndarray:
        """int64: the distinct simulations of the samples that are in and whole."""
        return np.unique(self.contents().simulations)

    def contents(self) -> Contents:
        """What is in and whole now: for diagnostics, from any thread. Copies 28 + 4 F bytes a slot under the lock."""
        with self._changed:
            num_seen = self._num_seen.copy()
            copies = [array.copy() for array in (self._simulations, self._steps, self._arrivals, self._parameters)]
            last = self.num_put - 1
        is_whole = num_seen >= 0
        simulations, steps, arrivals, parameters = (array[is_whole] for array in copies)
        return Contents(simulations, steps, num_seen[is_whole], last - arrivals, parameters)

    @property
    def reached_watermark(self) -> bool:
        return self._reached_watermark

    @property
    def stream_ended(self) -> bool:
        return self._stream_ended

    @property
    def exhausted(self) -> bool:
        """The stream has ended and every whole unit was drained, or the buffer is closed: no batch will come."""
        return self._closed or (self._stream_ended and not self._num_whole() and not self._is_copying_in)

    def _num_whole(self) -> int:
        return self.num_units - len(self._free) - self._num_writing

    def _num_drawable(self) -> int:
        return len(self._unseen) + len(self._seen)

    def _units_at_watermark(self) -> int:
        """Whole units at the watermark, or as many as those under way leave room for: one at least."""
        return max(1, min(self.watermark // self.draws.num_steps, self.num_units - len(self._under_way)))

    def _is_at_watermark(self, simulations: np.ndarray) -> bool:
        """Whether it is reached with these arrivals. A full buffer is at it: no more would come."""
        self._first_simulations.update(simulations.tolist())
        num_simulations = len(self._first_simulations) if self.draws.num_steps == 1 else self._num_whole()
        is_enough = num_simulations >= MIN_SIMULATIONS or not self._num_slots()
        return is_enough and self._num_whole() >= self._units_at_watermark()

    # Arrivals

    def put_now(
        self,
        arrays: Mapping[str, np.ndarray],
        simulations: np.ndarray,
        steps: np.ndarray,
        parameters: np.ndarray | None = None,
    ) -> int:
        """Copies as many of the first rows as have slots now, and returns how many.

        arrays: [N, C, *grid] and [N, S] in the shapes of the samples' layout. simulations, steps: int64 [N].
        parameters: float32 [N, F], the ranks of the draws; F is the same in every call.

        Where simulations are units, rows may come in any order and mixture, but each step of a simulation once.
        Raises ValueError for a step that a unit has no place for.
        """
        num_steps = self.draws.num_steps
        if num_steps > 1 and len(steps) and not 0 <= steps.min() <= steps.max() < num_steps:
            raise ValueError(f"steps {steps.min()} to {steps.max()} came, and a simulation has 0 to {num_steps - 1}")
        with self._changed:
            slots = np.empty(0, np.int64) if self._closed else self._slots_for(simulations)
            count = len(slots)
            self._is_copying_in = count > 0
        if not count:
            return 0
        simulations, steps = simulations[:count], steps[:count]
        self.storage.write(slots, steps, arrays)
        with self._changed:
            self._simulations[slots] = simulations
            self._steps[slots] = steps if num_steps == 1 else 0
            self._arrivals[slots] = np.arange(self.num_put, self.num_put + count)  # of a slot's rows the last one's
            if parameters is not None:
                if parameters.shape[1] != self._parameters.shape[1]:
                    self._parameters = np.zeros((self.num_units, parameters.shape[1]), DTYPE)
                self._parameters[slots] = parameters[:count]
            self.num_put += count
            whole = slots if num_steps == 1 else self._fill(slots)
            self._num_writing -= len(whole)
            self._num_seen[whole] = 0
            if self.draws.num_choices > 1:
                self._first_choices[whole] = self._random.integers(self.draws.num_choices, size=len(whole))
            self._unseen.add(whole)
            was_reached = self._reached_watermark and not self._was_drained
            self._reached_watermark = was_reached or self._is_at_watermark(simulations)
            self._was_drained = False
            self._is_copying_in = False
            self._changed.notify_all()
        return count

    def _slots_for(self, simulations: np.ndarray) -> np.ndarray:
        """The slots of as many of the first rows as have one."""
        if self.draws.num_steps == 1:
            return self._take_for_writing(len(simulations))
        numbers, first_rows, inverse = np.unique(simulations, return_index=True, return_inverse=True)
        is_new = np.array([number not in self._under_way for number in numbers.tolist()], bool)
        new = np.flatnonzero(is_new)[np.argsort(first_rows[is_new])]
        taken = self._take_for_writing(len(new))
        count = len(simulations) if len(taken) == len(new) else first_rows[new[len(taken)]]
        self._num_filled[taken] = 0
        self._under_way.update(zip(numbers[new[: len(taken)]].tolist(), taken.tolist(), strict=True))
        return np.array([self._under_way.get(number, -1) for number in numbers.tolist()], np.int64)[inverse[:count]]

    def _take_for_writing(self, count: int) -> np.ndarray:
        slots = self._take(count)
        self._num_seen[slots] = -1
        self._num_writing += len(slots)
        return slots

    def _fill(self, slots: np.ndarray) -> np.ndarray:
        """Counts a row into each of the slots; returns those that are now whole, in the order of their last rows."""
        np.add.at(self._num_filled, slots, 1)
        self._num_samples_under_way += len(slots)
        whole = np.unique(slots)
        whole = whole[self._num_filled[whole] == self.draws.num_steps]
        for simulation in self._simulations[whole].tolist():
            del self._under_way[simulation]
        self._num_samples_under_way -= len(whole) * self.draws.num_steps
        return whole[np.argsort(self._arrivals[whole])]

    def forget(self, simulation: int) -> int:
        """Frees the slot of a simulation that failed before all its steps were in; returns how many were.

        No put may be going on.
        """
        with self._changed:
            slot = self._under_way.pop(simulation, None)
            if slot is None:
                return 0
            count = int(self._num_filled[slot])
            self._num_writing -= 1
            self._num_samples_under_way -= count
            self._set_free(np.array([slot]))
            self._changed.notify_all()
            return count

    def _set_free(self, slots: np.ndarray) -> None:
        self._num_seen[slots] = -1
        self._free.add(slots)

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

    def draw(self, batch_size: int, timeout_s: float, out: Mapping[str, Tensor] | None = None) -> Batch | None:
        """The next batch, of `batch_size` rows while the stream goes on and there is room for as many whole units.

        out: tensors [batch_size or more, C, *grid] by array to gather into, on the buffer's device; the batch's arrays
        are then their first rows. On a GPU the gather is queued on the current stream, not done.

        None after timeout_s, or at once when `exhausted`. Raises ValueError for a batch that the buffer can't hold.
        """
        if batch_size > self.num_units:
            units = "samples" if self.draws.num_steps == 1 else f"simulations of {self.draws.num_steps} steps"
            raise ValueError(f"the buffer's capacity of {self.num_units} {units} is below the batch size {batch_size}")
        with self._changed:
            if not self._wait_for_batch(batch_size, timeout_s):
                return None
            slots = self._choose(batch_size)
            self._num_reading += len(slots)
            choices = self._choices(slots)
        batch = Batch(
            arrays=self.storage.gather(slots, choices, out),
            simulations=self._simulations[slots],
            steps=self._steps[slots] + choices,
            num_samples=len(slots) * self.draws.samples_per_row,
        )
        with self._changed:
            self._num_seen[slots] += 1
            self._num_reading -= len(slots)
            self._give_back(slots)
            self.num_drawn += batch.num_samples
            self._changed.notify_all()
        return batch

    def wait_for_batch(self, batch_size: int, timeout_s: float) -> bool:
        """Whether such a batch may be drawn; waits for at most timeout_s, and not at all when `exhausted`."""
        with self._changed:
            return self._wait_for_batch(batch_size, timeout_s)

    def _wait_for_batch(self, batch_size: int, timeout_s: float) -> bool:
        if not self._is_batch_ready(batch_size):
            self.draw_is_waiting = True
            self._changed.wait_for(lambda: self._is_batch_ready(batch_size) or self.exhausted, timeout_s)
            self.draw_is_waiting = False
        return not self._closed and self._is_batch_ready(batch_size)

    def _is_batch_ready(self, batch_size: int) -> bool:
        if self._stream_ended:
            return self._num_drawable() > 0
        if not self._is_copying_in:  # else units count as under way that are about to be whole
            batch_size = max(1, min(batch_size, self.num_units - len(self._under_way)))
        return self._reached_watermark and self._may_draw(batch_size)

    def _choices(self, slots: np.ndarray) -> np.ndarray:
        """Which of its rows each of them gives next."""
        if self.draws.num_choices == 1:
            return np.zeros(len(slots), np.int64)
        return (self._first_choices[slots] + self._num_seen[slots]) % self.draws.num_choices

    def wait_for_watermark(self, timeout_s: float) -> bool:
        """Whether the watermark was reached, or the stream ended before it; waits for at most timeout_s."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._reached_watermark or self._stream_ended or self._closed, timeout_s
            )

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
        """Contents, counters and random state: tensors, `Rows` of the arrays, and values that JSON keeps.

        No put may happen until the rows are written. Draws may: they change states, of which this has copies.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._num_reading)
            is_taken = np.ones(self.num_units, bool)
            is_taken[self._free.slots] = False
            slots = np.flatnonzero(is_taken)
            index = torch.from_numpy(slots) if len(slots) < self.num_units else None
            return {
                **{f"arrays.{name}": Rows(array, index) for name, array in self.storage.arrays.items()},
                "slots": torch.from_numpy(slots),
                **{name: torch.from_numpy(values[slots]) for name, values in self._slot_values().items()},
                **{name: torch.from_numpy(slot_set.slots.copy()) for name, slot_set in self._slot_sets().items()},
                "capacity": self.capacity,
                "draw": repr(self.draws),
                "num_put": self.num_put,
                "num_drawn": self.num_drawn,
                "reached_watermark": self._reached_watermark,
                "stream_ended": self._stream_ended,
                "random": self._random.bit_generator.state,
            }

    def load_state(self, state: Mapping) -> None:
        """Copies a state in, its arrays from where they lie. The buffer must be new.

        Raises ValueError when the state is of a buffer of another capacity or draw.
        """
        if state["capacity"] != self.capacity:
            raise ValueError(f"the saved buffer has a capacity of {state['capacity']}, this one of {self.capacity}")
        if state["draw"] != repr(self.draws):
            raise ValueError(f"the saved buffer is drawn from by {state['draw']}, this one by {self.draws}")
        with self._changed:
            slots = state["slots"].numpy()
            for name in self.storage.arrays:
                self.storage.load(slots, name, state[f"arrays.{name}"].numpy())
            self._parameters = np.zeros((self.num_units, state["parameters"].shape[1]), DTYPE)
            for name, values in self._slot_values().items():
                values[slots] = state[name].numpy()
            for name, slot_set in self._slot_sets().items():
                slot_set.clear()
                slot_set.add(state[name].numpy())
            under_way = slots[self._num_seen[slots] < 0]
            self._under_way = dict(zip(self._simulations[under_way].tolist(), under_way.tolist(), strict=True))
            self._num_writing = len(under_way)
            self._num_samples_under_way = int(self._num_filled[under_way].sum())
            self.num_put = state["num_put"]
            self.num_drawn = state["num_drawn"]
            self._reached_watermark = state["reached_watermark"]
            self._was_drained = state.get("stream_ended", False)
            self._first_simulations = set(self._simulations[slots].tolist())
            self._random.bit_generator.state = state["random"]
            self._changed.notify_all()

    def _slot_values(self) -> dict[str, np.ndarray]:
        return {
            "simulations": self._simulations,
            "steps": self._steps,
            "num_seen": self._num_seen,
            "arrivals": self._arrivals,
            "num_filled": self._num_filled,
            "first_choices": self._first_choices,
            "parameters": self._parameters,
        }

    def _slot_sets(self) -> dict[str, SlotSet | SlotQueue]:
        """Their order is saved too: draws go by it."""
        return {"free": self._free, "unseen": self._unseen, "seen": self._seen}


class Fifo(Buffer):
    """Every row once, units in the order of the stream: fast, and biased as the stream is."""

    def _new_unseen(self) -> SlotQueue:
        return SlotQueue()

    def _choose(self, batch_size: int) -> np.ndarray:
        return self._unseen.take_first(batch_size)


class Firo(Buffer):
    """Every row once, in random order, while the population is not below the watermark."""

    def _may_draw(self, batch_size: int) -> bool:
        return self._num_drawable() >= max(batch_size, self._units_at_watermark())

    def _choose(self, batch_size: int) -> np.ndarray:
        return self._unseen.take_random(batch_size, self._random)


class Reservoir(Buffer):
    """Random units with repetition, as fast as training can take them.

    An arrival takes a free slot, else replaces a random seen unit, else waits: nothing unseen is ever evicted.
    """

    def _num_slots(self) -> int:
        return len(self._free) + len(self._seen)

    def _take(self, count: int) -> np.ndarray:
        free = super()._take(count)
        replaced = self._seen.take_random(count - len(free), self._random)
        return np.concatenate([free, replaced]) if len(free) else replaced

    @property
    def num_rows_left(self) -> int:
        return self._num_whole()  # once the stream has ended, a draw removes the unit

    def _choose(self, batch_size: int) -> np.ndarray:
        count = min(batch_size, self._num_drawable())
        num_unseen = int(self._random.hypergeometric(len(self._unseen), len(self._seen), count))
        unseen = self._unseen.take_random(num_unseen, self._random)
        seen = self._seen.take_random(count - num_unseen, self._random)
        return np.concatenate([unseen, seen])

    def _give_back(self, slots: np.ndarray) -> None:
        if self._stream_ended:
            self._set_free(slots)
        else:
            self._seen.add(slots)


BUFFERS: dict[str, type[Buffer]] = {"fifo": Fifo, "firo": Firo, "reservoir": Reservoir}
