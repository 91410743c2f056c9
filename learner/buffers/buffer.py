"""A bounded population of samples: slots, states, waits, draws, checkpoints.

Axes:  N rows, C channels, T steps, F parameters, *grid the axes of the fields' grid.

One preallocated array per group of the Layout holds a *unit* a slot: a sample, or the T samples of a simulation where
trajectories or pairs are drawn (units.py). Which units are drawn and replaced is the matter of a policy (policies.py).
A short lock moves slots between states; bytes are copied outside it, so neither side waits for the other's copying:

    free -> writing -> unseen -> reading -> seen (Reservoir) or free
                         seen -> reading -> seen
                         seen -> writing           a new arrival replaces a seen unit (Reservoir)
            writing -> free                        its simulation failed half way

The book-keeping of a put or a draw grows with the slots it concerns, not with the capacity.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from penstock.layout import Layout
from penstock.learner.buffers.policies import Policy
from penstock.learner.buffers.slots import SlotQueue, SlotSet
from penstock.learner.buffers.storage import Storage, to_device
from penstock.learner.buffers.table import Contents, SlotTable
from penstock.learner.buffers.units import Samples, Unit
from penstock.learner.buffers.watermark import Watermark
from penstock.learner.checkpoints.rows import Rows

POLL_S = 0.05  # how soon wait_for_slot sees its should_stop()
OF_THE_POLICY = "policy."  # before the names of what a policy saves


@dataclass(frozen=True)
class Batch:
    """Rows drawn together, of distinct slots; the buffer holds no reference to them."""

    arrays: dict[str, Tensor]
    """[N, C, *grid] and [N, S], as in the shapes of the buffer's `layout`."""
    slots: np.ndarray
    """int64 [N]: where the rows' units lay when they were drawn."""
    simulations: np.ndarray
    """int64 [N]"""
    steps: np.ndarray
    """int64 [N]: the step of the row's inputs."""
    weights: Tensor | None
    """float32 [N], by which the rows' losses count, with mean 1; None where all count alike."""
    num_samples: int
    """Samples that it trains on: N, or N T for trajectories."""

    def __len__(self) -> int:
        return len(self.simulations)

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on that device."""
        arrays = {name: array.to(device) for name, array in self.arrays.items()}
        return replace(self, arrays=arrays, weights=None if self.weights is None else self.weights.to(device))


class Buffer:
    """A bounded population of samples, put by one thread and drawn by another.

    Its numbers may be read by any.

    layout: of the samples that arrive. policy: which units are drawn and replaced; it serves this buffer alone.
    capacity: in samples; slots are as many as whole units fit. watermark: samples that must be in before the first
    batch may be drawn, see `Watermark`. seed: of the random draws. unit: what a unit and a row of a batch are. device:
    where the arrays lie; a batch is gathered there. pin_memory: page-locked host memory.

    Units under way take slots too, so where simulations are units there should be slots for batch_size of them and one
    more for each worker. Workers that die leave more under way than there are workers: watermark and batches are then
    lowered to what those leave room for.

    Raises ValueError for a capacity below one unit, for a watermark that is not between 1 and the capacity, and
    RuntimeError, from puts and draws, for a policy that doesn't keep to what it has to do.
    """

    def __init__(
        self,
        layout: Layout,
        policy: Policy,
        *,
        capacity: int,
        watermark: int,
        seed: int,
        device: torch.device | str = "cpu",
        pin_memory: bool = False,
        unit: Unit | None = None,
    ):
        if not 1 <= watermark <= capacity:
            raise ValueError(f"the watermark must be between 1 and the capacity {capacity}, not {watermark}")
        unit = unit or Samples()
        num_units = capacity // unit.num_steps
        if not num_units:
            raise ValueError(f"a capacity of {capacity} samples holds no simulation of {unit.num_steps} steps")
        self.capacity = capacity
        self.layout = unit.layout(layout)
        """Of the batches."""
        self.num_put = 0
        """Samples that ever arrived."""
        self.num_drawn = 0
        """Samples that were ever drawn, with repetition."""
        self.put_is_waiting = False
        self.draw_is_waiting = False

        self.storage = Storage(layout, num_units, unit, device, pin_memory)
        self.table = SlotTable(num_units, unit, seed)
        self.policy = policy
        policy.begin(self.table)
        self._watermark = Watermark(watermark, self.table)
        self._num_reading = 0
        self._is_copying_in = False
        self._stream_ended = False
        self._closed = False
        self._changed = threading.Condition()

    # Numbers

    def __len__(self) -> int:
        """Population: samples that are in, those of units under way included."""
        return self.table.num_whole * self.unit.num_steps + self.table.num_samples_under_way

    @property
    def unit(self) -> Unit:
        """What a unit and a row of a batch are."""
        return self.storage.unit

    @property
    def num_units(self) -> int:
        """Slots: the largest batch."""
        return len(self.table)

    @property
    def num_unseen(self) -> int:
        """Samples of the units that are still to be drawn, and of those under way."""
        return len(self.policy.unseen) * self.unit.num_steps + self.table.num_samples_under_way

    @property
    def num_rows_left(self) -> int:
        """Rows that would be drawn of the whole units that are in, if no more came."""
        return self.policy.num_rows_left

    def simulations_in(self) -> np.ndarray:
        """int64: the distinct simulations of the samples that are in and whole."""
        return np.unique(self.contents().simulations)

    def contents(self) -> Contents:
        """What is in and whole now: for diagnostics, from any thread.

        It copies 28 + 4 F bytes a slot under the lock.
        """
        with self._changed:
            num_seen, *copies = self.table.copy_of_contents()
            last = self.num_put - 1
        is_whole = num_seen >= 0
        simulations, steps, arrivals, quantiles = (array[is_whole] for array in copies)
        return Contents(simulations, steps, num_seen[is_whole], last - arrivals, quantiles)

    @property
    def reached_watermark(self) -> bool:
        return self._watermark.is_reached

    @property
    def stream_ended(self) -> bool:
        return self._stream_ended

    @property
    def exhausted(self) -> bool:
        """No batch will come: all was drained after the stream's end, or it is closed."""
        return self._closed or (self._stream_ended and not self.table.num_whole and not self._is_copying_in)

    # Arrivals

    def put_now(
        self,
        arrays: Mapping[str, np.ndarray],
        simulations: np.ndarray,
        steps: np.ndarray,
        quantiles: np.ndarray | None = None,
    ) -> int:
        """Copies as many of the first rows as have slots now, and returns how many.

        arrays: [N, C, *grid] and [N, S] in the shapes of the samples' layout. simulations, steps: int64 [N].
        quantiles: float32 [N, F], the quantiles of the draws; F is the same in every call.

        Where simulations are units, rows may come in any order and mixture, but each step of a simulation once.
        Raises ValueError for a step that a unit has no place for.
        """
        num_steps = self.unit.num_steps
        if num_steps > 1 and len(steps) and not 0 <= steps.min() <= steps.max() < num_steps:
            raise ValueError(f"steps {steps.min()} to {steps.max()} came, and a simulation has 0 to {num_steps - 1}")
        with self._changed:
            slots = np.empty(0, np.int64) if self._closed else self.table.slots_for(simulations, self._take)
            count = len(slots)
            self._is_copying_in = count > 0
        if not count:
            return 0
        simulations, steps = simulations[:count], steps[:count]
        self.storage.write(slots, steps, arrays)
        with self._changed:
            quantiles = None if quantiles is None else quantiles[:count]
            whole = self.table.write(slots, simulations, steps, quantiles, self.num_put)
            self.num_put += count
            self.policy.add(whole)
            self._watermark.look(simulations, is_full=not self._num_slots())
            self._is_copying_in = False
            self._changed.notify_all()
        return count

    def _num_slots(self) -> int:
        """Slots that arrivals may take now."""
        return len(self.table.free) + self.policy.num_replaceable

    def _take(self, count: int) -> np.ndarray:
        """At most `count` of them."""
        free = self.table.free.take_last(count)
        replaced = self._left_idle(self.policy.replace, count - len(free))
        return np.concatenate([free, replaced]) if len(free) else replaced

    def _left_idle(self, method: Callable[[int], np.ndarray], count: int, *, least: int = 0) -> np.ndarray:
        """What a method of the policy gives, which must then be idle no longer.

        Raises RuntimeError where these slots are more or fewer, or still idle.
        """
        before = self.policy.num_idle
        slots = method(count)
        num_left = before - self.policy.num_idle
        if not (least <= len(slots) <= count and len(slots) == num_left):
            raise RuntimeError(
                f"{method.__qualname__}({count}) returned {len(slots)} slots, and {num_left} are idle no longer: it "
                f"must return {least} to {count} of them and remove() just these"
            )
        return slots

    def forget(self, simulation: int) -> int:
        """Frees the slot of a simulation that failed before all its steps were in.

        Returns how many were. No put may be going on.
        """
        with self._changed:
            count = self.table.forget(simulation)
            self._changed.notify_all()
            return count

    def wait_for_slot(self, should_stop: Callable[[], bool] | None = None) -> bool:
        """Blocks until an arrival may take a slot.

        False when should_stop() or close() came first.
        """
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
        """The next batch.

        It has `batch_size` rows while the stream goes on and there is room for as many whole units.

        out: tensors [batch_size or more, C, *grid] by array to gather into, on the buffer's device; the batch's arrays
        are then their first rows. On a GPU the gather is queued on the current stream, not done.

        None after timeout_s, or at once when `exhausted`. Raises ValueError for a batch that the buffer can't hold.
        """
        if batch_size > self.num_units:
            units = "samples" if self.unit.num_steps == 1 else f"simulations of {self.unit.num_steps} steps"
            raise ValueError(f"the buffer's capacity of {self.num_units} {units} is below the batch size {batch_size}")
        with self._changed:
            if not self._wait_for_batch(batch_size, timeout_s):
                return None
            slots = self._left_idle(self.policy.choose, batch_size, least=1)
            weights = self._weights(slots)
            self._num_reading += len(slots)
            choices = self.table.choices(slots)
        batch = Batch(
            arrays=self.storage.gather(slots, choices, out),
            slots=slots,
            simulations=self.table.simulations[slots],
            steps=self.table.steps[slots] + choices,
            weights=None if weights is None else to_device(weights, self.storage.device),
            num_samples=len(slots) * self.unit.samples_per_row,
        )
        with self._changed:
            self.table.num_seen[slots] += 1
            self._num_reading -= len(slots)
            self.table.set_free(self.policy.give_back(slots, self._stream_ended))
            self.num_drawn += batch.num_samples
            self._changed.notify_all()
        return batch

    def _weights(self, slots: np.ndarray) -> np.ndarray | None:
        weights = self.policy.weights(slots)
        if weights is not None and np.shape(weights) != slots.shape:  # others would be broadcast against the losses
            shape = np.shape(weights)
            raise RuntimeError(f"{type(self.policy).__name__}.weights() gave the shape {shape} for {slots.shape} slots")
        return None if weights is None else np.array(weights, np.float32)

    def wait_for_batch(self, batch_size: int, timeout_s: float) -> bool:
        """Whether such a batch may be drawn.

        Waits for at most timeout_s, and not at all when `exhausted`.
        """
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
            return self.policy.num_idle > 0
        if not self._is_copying_in:  # else units count as under way that are about to be whole
            batch_size = max(1, min(batch_size, self.num_units - len(self.table.under_way)))
        return self.reached_watermark and self.policy.may_draw(batch_size, self._watermark.num_units)

    def observe(self, batch: Batch, losses: Tensor) -> None:
        """Tells the policy the losses [N] of a batch that was drawn here.

        It hears of the rows whose units are still in: an arrival may have taken a place since. Waits for the device.
        """
        values = losses.cpu().numpy()
        with self._changed:
            table, slots = self.table, batch.slots
            is_in = (table.num_seen[slots] >= 0) & (table.simulations[slots] == batch.simulations)
            if self.unit.num_steps == 1:
                is_in &= table.steps[slots] == batch.steps
            self.policy.observe(slots[is_in], values[is_in])

    def wait_for_watermark(self, timeout_s: float) -> bool:
        """Whether the watermark was reached, or the stream ended before it.

        Waits for at most timeout_s.
        """
        with self._changed:
            return self._changed.wait_for(
                lambda: self.reached_watermark or self._stream_ended or self._closed, timeout_s
            )

    # The end

    def end_of_stream(self) -> None:
        """No arrival will come: draws remove, and what remains is drained.

        The last batch may be smaller.
        """
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
        """Contents, counters and random state, for a checkpoint.

        They are tensors, `Rows` of the arrays, and values that JSON keeps.

        No put may happen until the rows are written. Draws may: they change states, of which this has copies.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._num_reading)
            table = self.table.state()
            index = table["slots"] if len(table["slots"]) < self.num_units else None
            return {
                **{f"arrays.{name}": Rows(array, index) for name, array in self.storage.arrays.items()},
                **table,
                **{name: torch.from_numpy(slots.slots.copy()) for name, slots in self._idle_sets().items()},
                "capacity": self.capacity,
                "draw": repr(self.unit),
                "num_put": self.num_put,
                "num_drawn": self.num_drawn,
                "reached_watermark": self.reached_watermark,
                "stream_ended": self._stream_ended,
                "random": self.table.random.bit_generator.state,
                **{f"{OF_THE_POLICY}{name}": deepcopy(value) for name, value in self.policy.state().items()},
            }

    def load_state(self, state: Mapping) -> None:
        """Copies a state in, its arrays from where they lie. The buffer must be new.

        Raises ValueError when the state is of a buffer of another capacity or draw.
        """
        if state["capacity"] != self.capacity:
            raise ValueError(f"the saved buffer has a capacity of {state['capacity']}, this one of {self.capacity}")
        if state["draw"] != repr(self.unit):
            raise ValueError(f"the saved buffer is drawn from by {state['draw']}, this one by {self.unit}")
        with self._changed:
            slots = state["slots"].numpy()
            for name in self.storage.arrays:
                self.storage.load(slots, name, state[f"arrays.{name}"].numpy())
            self.table.load_state(state)
            for name, idle in self._idle_sets().items():
                idle.clear()
                idle.add(state[name].numpy())
            self.num_put = state["num_put"]
            self.num_drawn = state["num_drawn"]
            self._watermark.restore(state["reached_watermark"], state.get("stream_ended", False))
            self.table.random.bit_generator.state = state["random"]
            own = {name: value for name, value in state.items() if name.startswith(OF_THE_POLICY)}
            self.policy.load_state({name.removeprefix(OF_THE_POLICY): value for name, value in own.items()})
            self._changed.notify_all()

    def _idle_sets(self) -> dict[str, SlotSet | SlotQueue]:
        """Their order is saved too: draws go by it."""
        return {"unseen": self.policy.unseen, "seen": self.policy.seen}
