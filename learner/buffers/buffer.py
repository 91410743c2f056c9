"""A bounded population of samples: arrivals, draws, waits and checkpoints.

Axes:  N rows, C channels, T steps, F parameters, *grid the axes of the fields' grid.

One preallocated array per block of the Layout holds one *unit* per slot: a sample, or the T samples of a simulation if
trajectories or pairs are drawn (units.py). A policy decides which units are drawn and replaced (policies.py). A short
lock moves slots between states; bytes are copied outside it, so neither side waits for the other's copying:

    free -> writing -> unseen -> reading -> seen (Reservoir) or free
                         seen -> reading -> seen
                         seen -> writing           a new arrival replaces a seen unit (Reservoir)
            writing -> free                        its simulation failed half-way

The book-keeping of a put or a draw grows with the number of slots concerned, not with the capacity.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from penstock.layout import Layout
from penstock.learner.buffers.batch import Batch
from penstock.learner.buffers.policies import Policy, taken_idle
from penstock.learner.buffers.slots import SlotQueue, SlotSet
from penstock.learner.buffers.storage import Storage, to_device
from penstock.learner.buffers.table import Contents, SlotTable
from penstock.learner.buffers.units import Samples, Unit
from penstock.learner.buffers.watermark import Watermark
from penstock.learner.checkpoints.rows import Rows

POLL_S = 0.05  # how often wait_for_slot asks should_stop()
OF_THE_POLICY = "policy."  # prefix to the names of what a policy saves


class Buffer:
    """A bounded population of samples, filled by one thread and drawn from by another.

    Any thread may read its numbers. Units under way take slots too, so if units are simulations there should be slots
    for batch_size of them and one more per worker. Workers that die leave more units under way than there are workers:
    watermark and batches are then lowered to what those leave room for.

    Args:
        layout: layout of the samples that arrive.
        policy: decides which units are drawn and replaced; it serves this buffer alone.
        capacity: capacity in samples; there are as many slots as whole units fit.
        watermark: number of samples that must be in before the first batch may be drawn, see `Watermark`.
        seed: seed of the random draws.
        device: where the arrays lie; a batch is gathered there.
        pin_memory: whether host memory is page-locked.
        unit: what a unit and a row of a batch are; None for single samples.

    Raises:
        ValueError: the capacity is below one unit, or the watermark is not between 1 and the capacity.
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
        """Layout of the batches."""
        self.num_put = 0
        """Number of samples that have ever arrived."""
        self.num_drawn = 0
        """Number of samples that were ever drawn, with repetition."""
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
        self.is_closed = False
        """Whether it was closed, as by an error of what fills it."""
        self._changed = threading.Condition()

    # Numbers

    def __len__(self) -> int:
        """Number of samples in the buffer, those of units under way included."""
        return self.table.num_whole * self.unit.num_steps + self.table.num_samples_under_way

    @property
    def unit(self) -> Unit:
        """What a unit and a row of a batch are."""
        return self.storage.unit

    @property
    def num_units(self) -> int:
        """Number of slots, which is the largest batch."""
        return len(self.table)

    @property
    def num_unseen(self) -> int:
        """Number of samples in units that are still to be drawn or under way."""
        return len(self.policy.unseen) * self.unit.num_steps + self.table.num_samples_under_way

    @property
    def num_rows_left(self) -> int:
        """Rows still to be drawn from the whole units if no more samples arrived."""
        return self.policy.num_rows_left

    def simulations_in(self) -> np.ndarray:
        """Return the distinct simulations of the whole units, int64."""
        return np.unique(self.contents().simulations)

    def contents(self) -> Contents:
        """Return the whole units without their arrays, for diagnostics from any thread.

        It copies 28 + 4 F bytes per slot under the lock.
        """
        with self._changed:
            num_seen, *copies = self.table.copy_of_contents()
            last = self.num_put - 1
        is_whole = num_seen >= 0
        simulations, steps, arrivals, quantiles = (array[is_whole] for array in copies)
        return Contents(simulations, steps, num_seen[is_whole], last - arrivals, quantiles)

    def earliest(self, most: int) -> dict[str, Tensor]:
        """Return the first samples up to the watermark, without drawing them.

        Args:
            most: largest number of rows; a whole unit gives one.

        Returns:
            A batch's arrays by name, in the order of arrival; of samples that are still in.
        """
        with self._changed:
            slots = self.table.whole_by_arrival()[: min(most, self._watermark.num_units)]
            return self.storage.gather(slots, np.arange(len(slots)) % self.unit.num_choices, None)

    @property
    def reached_watermark(self) -> bool:
        """Whether enough samples have arrived to start drawing."""
        return self._watermark.is_reached

    @property
    def stream_ended(self) -> bool:
        """Whether no more samples will arrive."""
        return self._stream_ended

    @property
    def exhausted(self) -> bool:
        """Whether no batch will come: it is closed, or drained after the stream's end."""
        return self.is_closed or (self._stream_ended and not self.table.num_whole and not self._is_copying_in)

    # Arrivals

    def put_now(
        self,
        arrays: Mapping[str, np.ndarray],
        simulations: np.ndarray,
        steps: np.ndarray,
        quantiles: np.ndarray | None = None,
    ) -> int:
        """Copy in as many of the first rows as there are slots for now.

        If units are simulations, rows may come in any order and mixture, but each step of a simulation only once.

        Args:
            arrays: [N, C, *grid] and [N, S] by name, in the shapes of the samples' layout.
            simulations: simulation of each row, int64 [N].
            steps: step of each row, int64 [N].
            quantiles: quantiles of the draws, float32 [N, F], with the same F in every call.

        Returns:
            The number of rows copied.

        Raises:
            ValueError: a unit has no place for a step.
            RuntimeError: the policy breaks the rules of its methods.
        """
        num_steps = self.unit.num_steps
        if num_steps > 1 and len(steps) and not 0 <= steps.min() <= steps.max() < num_steps:
            raise ValueError(f"steps {steps.min()} to {steps.max()} arrived, but a simulation has 0 to {num_steps - 1}")
        with self._changed:
            slots = np.empty(0, np.int64) if self.is_closed else self.table.slots_for(simulations, self._take)
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
        """Number of slots that arrivals may take now."""
        return len(self.table.free) + self.policy.num_replaceable

    def _take(self, count: int) -> np.ndarray:
        """Take at most `count` slots for arrivals."""
        free = self.table.free.take_last(count)
        replaced = taken_idle(self.policy, self.policy.replace, count - len(free))
        return np.concatenate([free, replaced]) if len(free) else replaced

    def forget(self, simulation: int) -> int:
        """Free the slot of a simulation that failed before all its steps were in.

        No put may be going on.

        Args:
            simulation: id of the simulation.

        Returns:
            The number of its samples that were in.
        """
        with self._changed:
            count = self.table.forget(simulation)
            self._changed.notify_all()
            return count

    def wait_for_slot(self, should_stop: Callable[[], bool] | None = None) -> bool:
        """Block until an arrival may take a slot.

        Args:
            should_stop: ends the wait once it returns True; it is called every POLL_S seconds.

        Returns:
            True if an arrival may take a slot, False if should_stop() or close() ended the wait.
        """
        with self._changed:
            self.put_is_waiting = True
            try:
                while not self.is_closed and not (should_stop is not None and should_stop()):
                    if self._num_slots():
                        return True
                    self._changed.wait(POLL_S)
                return False
            finally:
                self.put_is_waiting = False

    # Draws

    def draw(self, batch_size: int, timeout_s: float, out: Mapping[str, Tensor] | None = None) -> Batch | None:
        """Draw the next batch.

        It has `batch_size` rows while the stream goes on and there is room for that many whole units. On a GPU the
        gather is only queued, on the current stream.

        Args:
            batch_size: number of rows.
            timeout_s: longest wait for a batch, in seconds.
            out: tensors [batch_size or more, C, *grid] by name to gather into, on the buffer's device. The batch's
                arrays are then their first values. None for new tensors.

        Returns:
            The batch; None after timeout_s, or at once if `exhausted`.

        Raises:
            ValueError: the buffer can't hold such a batch.
            RuntimeError: the policy breaks the rules of its methods.
        """
        if batch_size > self.num_units:
            units = "samples" if self.unit.num_steps == 1 else f"simulations of {self.unit.num_steps} steps"
            raise ValueError(f"the buffer's capacity of {self.num_units} {units} is below the batch size {batch_size}")
        with self._changed:
            if not self._wait_for_batch(batch_size, timeout_s):
                return None
            slots = taken_idle(self.policy, self.policy.choose, batch_size, least=1)
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
        if weights is not None and np.shape(weights) != slots.shape:  # others would broadcast against the losses
            shape = np.shape(weights)
            raise RuntimeError(f"{type(self.policy).__name__}.weights() gave the shape {shape} for {slots.shape} slots")
        return None if weights is None else np.array(weights, np.float32)

    def wait_for_batch(self, batch_size: int, timeout_s: float) -> bool:
        """Wait until a batch may be drawn; return at once if `exhausted`.

        Args:
            batch_size: number of rows.
            timeout_s: longest wait, in seconds.

        Returns:
            Whether a batch may be drawn.
        """
        with self._changed:
            return self._wait_for_batch(batch_size, timeout_s)

    def _wait_for_batch(self, batch_size: int, timeout_s: float) -> bool:
        if not self._is_batch_ready(batch_size):
            self.draw_is_waiting = True
            self._changed.wait_for(lambda: self._is_batch_ready(batch_size) or self.exhausted, timeout_s)
            self.draw_is_waiting = False
        return not self.is_closed and self._is_batch_ready(batch_size)

    def _is_batch_ready(self, batch_size: int) -> bool:
        if self._stream_ended:
            return self.policy.num_idle > 0
        if not self._is_copying_in:  # else units that are about to be whole count as under way
            batch_size = max(1, min(batch_size, self.num_units - len(self.table.under_way)))
        return self.reached_watermark and self.policy.may_draw(batch_size, self._watermark.num_units)

    def observe(self, batch: Batch, losses: Tensor) -> None:
        """Pass the losses of a batch on to the policy.

        It waits for the device. Rows whose units are no longer in are left out: an arrival may have taken a slot since.

        Args:
            batch: a batch that was drawn from this buffer.
            losses: loss of each row, [N].
        """
        values = losses.cpu().numpy()
        with self._changed:
            table, slots = self.table, batch.slots
            is_in = (table.num_seen[slots] >= 0) & (table.simulations[slots] == batch.simulations)
            if self.unit.num_steps == 1:
                is_in &= table.steps[slots] == batch.steps
            self.policy.observe(slots[is_in], values[is_in])

    def wait_for_watermark(self, timeout_s: float) -> bool:
        """Wait until the watermark is reached or no more samples will arrive.

        Args:
            timeout_s: longest wait, in seconds.

        Returns:
            Whether the wait ended before timeout_s.
        """
        with self._changed:
            return self._changed.wait_for(
                lambda: self.reached_watermark or self._stream_ended or self.is_closed, timeout_s
            )

    # The end

    def end_of_stream(self) -> None:
        """Declare the stream ended: the rest is drained; the last batch may be smaller."""
        with self._changed:
            self._stream_ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Wake all waiting threads; later puts and draws give nothing."""
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()

    # Checkpoints

    def state(self) -> dict:
        """Return contents, counters and random state, for a checkpoint.

        No put may happen until the rows are written. Draws may: they change only states, which are copied.

        Returns:
            Tensors, `Rows` of the arrays, and JSON values, by name.
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
        """Continue from a saved state; the buffer must be new.

        Args:
            state: what `state` returned, with tensors in place of `Rows`; arrays are copied from where they lie.

        Raises:
            ValueError: the state is that of a buffer with another capacity or unit.
        """
        if state["capacity"] != self.capacity:
            raise ValueError(f"the saved buffer has a capacity of {state['capacity']}, this one has {self.capacity}")
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
        """The policy's two sets, whose order draws depend on."""
        return {"unseen": self.policy.unseen, "seen": self.policy.seen}
