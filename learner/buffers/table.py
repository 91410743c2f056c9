"""What a buffer knows about its slots: the unit in each, its age and its draws.

Axes:  N units or rows, F parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from penstock.arrays.conversion import DTYPE
from penstock.learner.buffers.slots import SlotSet
from penstock.learner.buffers.units import Unit


@dataclass(frozen=True)
class Contents:
    """The whole units in a buffer, without their arrays, in no particular order."""

    simulations: np.ndarray
    """int64 [N]: simulation of each unit."""
    steps: np.ndarray
    """int64 [N]: step of each sample; 0 for a whole simulation."""
    num_seen: np.ndarray
    """int32 [N]: how often each unit was drawn."""
    ages: np.ndarray
    """int64 [N]: number of samples that have arrived since each unit's last one."""
    quantiles: np.ndarray
    """float32 [N, F]: the quantiles of the parameters, uniform on [0, 1] under the target distribution."""


class SlotTable:
    """The account of a buffer's slots: arrays with one entry per slot.

    The buffer writes it under its lock; a policy reads it. The book-keeping grows with the number of slots concerned,
    not with the number of all slots.

    Args:
        num_slots: number of slots.
        unit: what a slot holds.
        seed: seed of `random`.
    """

    def __init__(self, num_slots: int, unit: Unit, seed: int):
        self.unit = unit
        self.random = np.random.default_rng(seed)
        """Source of all random numbers of the buffer. Its state is saved, so draws can be repeated."""
        self.simulations = np.zeros(num_slots, np.int64)
        """Simulation of the unit in each slot."""
        self.steps = np.zeros(num_slots, np.int64)
        """Step of the sample in each slot; 0 for a whole simulation."""
        self.num_seen = np.full(num_slots, -1, np.int32)
        """How often the whole unit in each slot was drawn; -1 if there is none."""
        self.arrivals = np.zeros(num_slots, np.int64)
        """Place in the stream of the last sample of each slot's unit."""
        self.quantiles = np.zeros((num_slots, 0), DTYPE)
        """Quantiles of the parameters, float32 [slots, F]; the first arrival sets F."""
        self.free = SlotSet(num_slots)
        """Slots without a unit."""
        self.free.add(np.arange(num_slots))
        self.under_way: dict[int, int] = {}
        """Slot of each simulation that is in with some of its steps."""
        self.num_samples_under_way = 0
        """Number of samples of these simulations that are in."""
        self._num_writing = 0
        self._num_filled = np.zeros(num_slots, np.int32)  # samples that are in, of a unit under way
        self._first_choices = np.zeros(num_slots, np.int64)

    def __len__(self) -> int:
        return len(self.simulations)

    @property
    def num_whole(self) -> int:
        """Number of whole units."""
        return len(self) - len(self.free) - self._num_writing

    def slots_for(self, simulations: np.ndarray, take: Callable[[int], np.ndarray]) -> np.ndarray:
        """Choose the slots of arriving rows, which are to be written at once.

        Args:
            simulations: simulations of the rows, int64 [N].
            take: returns at most the given number of slots, for new units.

        Returns:
            Slots of the first rows, int64, up to the first row for whose unit no slot was left.
        """
        if self.unit.num_steps == 1:
            return self._begin(take(len(simulations)))
        numbers, first_rows, inverse = np.unique(simulations, return_index=True, return_inverse=True)
        is_new = np.array([number not in self.under_way for number in numbers.tolist()], bool)
        new = np.flatnonzero(is_new)[np.argsort(first_rows[is_new])]
        taken = self._begin(take(len(new)))
        count = len(simulations) if len(taken) == len(new) else first_rows[new[len(taken)]]
        self._num_filled[taken] = 0
        self.under_way.update(zip(numbers[new[: len(taken)]].tolist(), taken.tolist(), strict=True))
        return np.array([self.under_way.get(number, -1) for number in numbers.tolist()], np.int64)[inverse[:count]]

    def _begin(self, slots: np.ndarray) -> np.ndarray:
        self.num_seen[slots] = -1
        self._num_writing += len(slots)
        return slots

    def write(
        self, slots: np.ndarray, simulations: np.ndarray, steps: np.ndarray, quantiles: np.ndarray | None, first: int
    ) -> np.ndarray:
        """Account for rows that have been copied in.

        Args:
            slots: slots of the rows, int64 [N].
            simulations: simulations of the rows, int64 [N].
            steps: steps of the rows, int64 [N].
            quantiles: quantiles of their draws, float32 [N, F]; None if there are none.
            first: place of the first row in the stream.

        Returns:
            The slots whose units are now whole, in the order of their last rows.
        """
        self.simulations[slots] = simulations
        self.steps[slots] = steps if self.unit.num_steps == 1 else 0
        self.arrivals[slots] = np.arange(first, first + len(slots))  # the last one's, where a slot has several rows
        if quantiles is not None:
            if quantiles.shape[1] != self.quantiles.shape[1]:
                self.quantiles = np.zeros((len(self), quantiles.shape[1]), DTYPE)
            self.quantiles[slots] = quantiles
        whole = slots if self.unit.num_steps == 1 else self._fill(slots)
        self._num_writing -= len(whole)
        self.num_seen[whole] = 0
        if self.unit.num_choices > 1:
            self._first_choices[whole] = self.random.integers(self.unit.num_choices, size=len(whole))
        return whole

    def _fill(self, slots: np.ndarray) -> np.ndarray:
        """Count a row into each of the slots, and return those that are now whole."""
        np.add.at(self._num_filled, slots, 1)
        self.num_samples_under_way += len(slots)
        whole = np.unique(slots)
        whole = whole[self._num_filled[whole] == self.unit.num_steps]
        for simulation in self.simulations[whole].tolist():
            del self.under_way[simulation]
        self.num_samples_under_way -= len(whole) * self.unit.num_steps
        return whole[np.argsort(self.arrivals[whole])]

    def forget(self, simulation: int) -> int:
        """Free the slot of a simulation under way.

        Args:
            simulation: its id; one that is not under way is ignored.

        Returns:
            The number of its samples that were in.
        """
        slot = self.under_way.pop(simulation, None)
        if slot is None:
            return 0
        count = int(self._num_filled[slot])
        self._num_writing -= 1
        self.num_samples_under_way -= count
        self.set_free(np.array([slot]))
        return count

    def set_free(self, slots: np.ndarray) -> None:
        """Free slots whose units leave."""
        self.num_seen[slots] = -1
        self.free.add(slots)

    def choices(self, slots: np.ndarray) -> np.ndarray:
        """Return which of its rows each unit gives next.

        Args:
            slots: slots of the units, int64 [N].

        Returns:
            Numbers from 0 to num_choices - 1, int64 [N].
        """
        if self.unit.num_choices == 1:
            return np.zeros(len(slots), np.int64)
        return (self._first_choices[slots] + self.num_seen[slots]) % self.unit.num_choices

    def whole_by_arrival(self) -> np.ndarray:
        """Return the slots of the whole units, the earliest first, int64."""
        whole = np.flatnonzero(self.num_seen >= 0)
        return whole[np.argsort(self.arrivals[whole], kind="stable")]

    def copy_of_contents(self) -> tuple[np.ndarray, ...]:
        """Return copies of the arrays that `Contents` needs, num_seen first.

        They take 28 + 4 F bytes per slot.
        """
        return tuple(
            array.copy() for array in (self.num_seen, self.simulations, self.steps, self.arrivals, self.quantiles)
        )

    # Checkpoints

    def taken(self) -> np.ndarray:
        """Return the slots that are not free, int64."""
        is_taken = np.ones(len(self), bool)
        is_taken[self.free.slots] = False
        return np.flatnonzero(is_taken)

    def state(self) -> dict[str, torch.Tensor]:
        """Return what a checkpoint keeps, as tensors by name.

        That is the account of the slots that are not free, and the free slots in their order.
        """
        slots = self.taken()
        return {
            "slots": torch.from_numpy(slots),
            **{name: torch.from_numpy(values[slots]) for name, values in self._arrays().items()},
            "free": torch.from_numpy(self.free.slots.copy()),
        }

    def load_state(self, state: Mapping) -> None:
        """Continue from a saved state; the table must be new.

        Args:
            state: what `state` returned.
        """
        slots = state["slots"].numpy()
        self.quantiles = np.zeros((len(self), state["parameters"].shape[1]), DTYPE)
        for name, values in self._arrays().items():
            values[slots] = state[name].numpy()
        self.free.clear()
        self.free.add(state["free"].numpy())
        under_way = slots[self.num_seen[slots] < 0]
        self.under_way = dict(zip(self.simulations[under_way].tolist(), under_way.tolist(), strict=True))
        self._num_writing = len(under_way)
        self.num_samples_under_way = int(self._num_filled[under_way].sum())

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            "simulations": self.simulations,
            "steps": self.steps,
            "num_seen": self.num_seen,
            "arrivals": self.arrivals,
            "num_filled": self._num_filled,
            "first_choices": self._first_choices,
            "parameters": self.quantiles,  # their name in checkpoints since the first version
        }
