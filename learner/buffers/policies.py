"""What a buffer does with its slots: FIFO, FIRO, reservoir, or a custom policy.

The three are the training buffers of Meyer et al. (ICML 2023, arXiv 2306.16133).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from penstock.learner.buffers.slots import SlotQueue, SlotSet
from penstock.learner.buffers.table import SlotTable


class Policy(ABC):
    """Which units are drawn and when, which give way to arrivals, and which stay.

    A unit is what a slot of the buffer holds: a sample, or a whole simulation (units.py). While a unit is whole and
    nobody reads or writes it, its slot is *idle* and in one of the policy's two sets:

        unseen    the unit still has to be drawn, and no arrival may replace it
        seen      the unit was drawn and may be drawn again, and an arrival may replace it

    A custom policy says in `choose` which units are drawn. Whatever it does not define is as in this class: arrivals
    take free slots alone, and a unit leaves once each of its rows was drawn. Start from `Reservoir` if units are to be
    drawn repeatedly. Options are arguments of the constructor, and are given in the configuration beside the name.

    The buffer calls all methods under its lock, one at a time; slots are int64 [N] and distinct. A policy may look at
    `table`: the age, draws and parameters of each slot's unit. Once the stream has ended, every unit that is drawn must
    leave sooner or later, or the run never ends. A run repeats to the bit if random numbers come from `random` alone
    and everything that is kept between calls is in `state`.
    """

    table: SlotTable
    unseen: SlotSet | SlotQueue
    seen: SlotSet

    def begin(self, table: SlotTable) -> None:
        """Take over the table of the buffer's slots; called once, before anything else.

        Args:
            table: the table, which only the buffer may write.
        """
        self.table = table
        self.unseen, self.seen = SlotSet(len(table)), SlotSet(len(table))

    @property
    def random(self) -> np.random.Generator:
        """The buffer's random generator, whose state is saved with the buffer."""
        return self.table.random

    @property
    def num_idle(self) -> int:
        """Number of units that can be drawn now."""
        return len(self.unseen) + len(self.seen)

    @property
    def idle(self) -> np.ndarray:
        """Slots of all units that can be drawn now, int64.

        Their order depends on past calls alone.
        """
        return np.concatenate([self.unseen.slots, self.seen.slots])

    def remove(self, slots: np.ndarray) -> None:
        """Take slots out of the idle sets, for use in `choose` and `replace`.

        The time it takes grows with the number of idle slots.

        Args:
            slots: the slots; those that are not idle are ignored.
        """
        self.unseen.remove(slots)
        self.seen.remove(slots)

    # Arrivals

    @property
    def num_replaceable(self) -> int:
        """Number of units that arrivals may replace if no slot is free; others wait."""
        return 0

    def replace(self, count: int) -> np.ndarray:
        """Choose units that give way to arrivals.

        Args:
            count: number of units wanted; 0 if free slots are enough.

        Returns:
            Slots of at most `count` replaceable units, which are idle no longer.
        """
        return np.empty(0, np.int64)

    def add(self, slots: np.ndarray) -> None:
        """Add units that are now whole to the idle ones.

        Args:
            slots: the units' slots, in the order of their last samples.
        """
        self.unseen.add(slots)

    # Draws

    def may_draw(self, batch_size: int, watermark: int) -> bool:
        """Whether a batch may be drawn while the stream goes on.

        The buffer asks only once the watermark was reached.

        Args:
            batch_size: number of units in the batch.
            watermark: the watermark, in units.

        Returns:
            True if it may.
        """
        return self.num_idle >= batch_size

    @abstractmethod
    def choose(self, batch_size: int) -> np.ndarray:
        """Choose the units of the next batch.

        Args:
            batch_size: number of units wanted.

        Returns:
            Slots of that many units, or of all idle ones if there are fewer. They are idle no longer.
        """

    def weights(self, slots: np.ndarray) -> np.ndarray | None:
        """Return the weights of the rows of a batch.

        Args:
            slots: the slots that `choose` has just returned.

        Returns:
            [N], factors on the rows' losses, with mean 1; None if all rows count alike.
        """
        return None

    def give_back(self, slots: np.ndarray, stream_ended: bool) -> np.ndarray:
        """Decide which of the units that were just drawn leave the buffer.

        The method makes those that stay idle again.

        Args:
            slots: the units' slots. Their draws in `table` include the present one.
            stream_ended: whether no more samples will arrive.

        Returns:
            The slots of the units that leave.
        """
        leaves = self.table.num_seen[slots] >= self.table.unit.num_choices
        self.unseen.put_back(slots[~leaves])
        return slots[leaves]

    @property
    def num_rows_left(self) -> int:
        """Rows still to be drawn from the whole units if no more samples arrived."""
        if self.table.unit.num_choices == 1:
            return self.table.num_whole
        num_seen = self.table.num_seen[self.table.num_seen >= 0]
        return int((self.table.unit.num_choices - num_seen).sum())

    # Losses

    def observe(self, slots: np.ndarray, losses: np.ndarray) -> None:  # noqa: B027  most policies ignore losses
        """Receive the losses of the last batch's rows, after its training step.

        It is called only if a policy defines it. Every step on a GPU is then waited for.

        Args:
            slots: slots of the rows whose units are still in the buffer.
            losses: float32 [N], without the weights.
        """

    @property
    def observes(self) -> bool:
        """Whether the policy defines `observe`."""
        return type(self).observe is not Policy.observe

    # Checkpoints

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps besides the two sets, which the buffer saves.

        Returns:
            Tensors and JSON values by name.
        """
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027  nothing is kept
        """Continue from a saved state.

        Args:
            state: what `state` returned.
        """


def taken_idle(policy: Policy, method: Callable[[int], np.ndarray], count: int, *, least: int = 0) -> np.ndarray:
    """Call a method of a policy that takes idle slots, and check that it took them.

    Args:
        policy: the policy.
        method: its `choose` or `replace`.
        count: what the method is called with.
        least: least number of slots.

    Returns:
        What the method returns.

    Raises:
        RuntimeError: the method breaks the rules.
    """
    before = policy.num_idle
    slots = method(count)
    num_left = before - policy.num_idle
    if not (least <= len(slots) <= count and len(slots) == num_left):
        raise RuntimeError(
            f"{method.__qualname__}({count}) returned {len(slots)} slots, and {num_left} are idle no longer: it "
            f"must return {least} to {count} idle slots and remove() exactly those"
        )
    return slots


class Fifo(Policy):
    """Each row once, in the order of the stream: fast, but as biased as the stream."""

    def begin(self, table: SlotTable) -> None:
        super().begin(table)
        self.unseen = SlotQueue()

    def choose(self, batch_size: int) -> np.ndarray:
        return self.unseen.take_first(batch_size)


class Firo(Policy):
    """Each row once, at random, while the population is not below the watermark."""

    def may_draw(self, batch_size: int, watermark: int) -> bool:
        return self.num_idle >= max(batch_size, watermark)

    def choose(self, batch_size: int) -> np.ndarray:
        return self.unseen.take_random(batch_size, self.random)


class Reservoir(Policy):
    """Random units with repetition, as fast as training can take them.

    An arrival takes a free slot, or else replaces a random seen unit, or else waits: nothing unseen is ever replaced.
    Once the stream has ended, a unit that is drawn leaves the buffer.
    """

    @property
    def num_replaceable(self) -> int:
        return len(self.seen)

    def replace(self, count: int) -> np.ndarray:
        return self.seen.take_random(count, self.random)

    def choose(self, batch_size: int) -> np.ndarray:
        count = min(batch_size, self.num_idle)
        num_unseen = int(self.random.hypergeometric(len(self.unseen), len(self.seen), count))
        unseen = self.unseen.take_random(num_unseen, self.random)
        seen = self.seen.take_random(count - num_unseen, self.random)
        return np.concatenate([unseen, seen])

    def give_back(self, slots: np.ndarray, stream_ended: bool) -> np.ndarray:
        if stream_ended:
            return slots
        self.seen.add(slots)
        return slots[:0]

    @property
    def num_rows_left(self) -> int:
        return self.table.num_whole


POLICIES: dict[str, type[Policy]] = {"fifo": Fifo, "firo": Firo, "reservoir": Reservoir}
