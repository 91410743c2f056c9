"""What a buffer does with its slots: FIFO, FIRO, the reservoir, or a policy of yours.

The three are the training buffers of Meyer et al. (ICML 2023, arXiv 2306.16133).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from penstock.learner.buffers.slots import SlotQueue, SlotSet
from penstock.learner.buffers.table import SlotTable


class Policy(ABC):
    """Which units are drawn and when, which give way to arrivals, and which stay.

    A unit is what a slot of the buffer holds: a sample, or a whole simulation (units.py). While it is whole and nobody
    reads or writes it its slot is *idle*, in one of the policy's two sets:

        unseen    it still has to be drawn, and no arrival may replace it
        seen      it was drawn and may be drawn again, and an arrival may replace it

    A policy of your own says in `choose` which units are drawn. What it does not define is as here: arrivals take free
    slots alone, and a unit leaves once each of its rows was drawn. Begin with `Reservoir` where units are to be drawn
    again and again. Options are arguments of the constructor, and stand in the configuration beside the name.

    The buffer calls all methods under its lock, one at a time; slots are int64 [N] and distinct. What a policy may look
    at is `table`: ages, draws, parameters of each slot's unit. Once the stream has ended, each unit that is drawn must
    leave in the end, or the run has no end. A run repeats to the bit if random numbers come from `random` alone, and
    what is kept from call to call is in `state`.
    """

    table: SlotTable
    unseen: SlotSet | SlotQueue
    seen: SlotSet

    def begin(self, table: SlotTable) -> None:
        """Called once, before everything else.

        Args:
            table: of the buffer's slots. It is the buffer's to write.
        """
        self.table = table
        self.unseen, self.seen = SlotSet(len(table)), SlotSet(len(table))

    @property
    def random(self) -> np.random.Generator:
        return self.table.random

    @property
    def num_idle(self) -> int:
        return len(self.unseen) + len(self.seen)

    @property
    def idle(self) -> np.ndarray:
        """int64: the slots of all units that can be drawn now.

        Their order depends on the past alone.
        """
        return np.concatenate([self.unseen.slots, self.seen.slots])

    def remove(self, slots: np.ndarray) -> None:
        """Make these idle no longer, for `choose` and `replace`.

        It takes a time that grows with the idle ones.
        """
        self.unseen.remove(slots)
        self.seen.remove(slots)

    # Arrivals

    @property
    def num_replaceable(self) -> int:
        """Units that arrivals may replace, where no slot is free; others wait."""
        return 0

    def replace(self, count: int) -> np.ndarray:
        """Choose units that give way to arrivals.

        Args:
            count: how many are wanted; 0 where free slots are enough.

        Returns:
            Slots of at most as many replaceable units, idle no longer.
        """
        return np.empty(0, np.int64)

    def add(self, slots: np.ndarray) -> None:
        """Units are now whole, and idle.

        Args:
            slots: theirs, in the order of their last samples.
        """
        self.unseen.add(slots)

    # Draws

    def may_draw(self, batch_size: int, watermark: int) -> bool:
        """Whether a batch may be drawn while the stream goes on.

        It is asked once the watermark was reached.

        Args:
            batch_size: of the batch, in units.
            watermark: in units.
        """
        return self.num_idle >= batch_size

    @abstractmethod
    def choose(self, batch_size: int) -> np.ndarray:
        """Choose the units of the next batch.

        Args:
            batch_size: how many are wanted.

        Returns:
            Slots of as many, or of all that are idle if fewer; idle no longer.
        """

    def weights(self, slots: np.ndarray) -> np.ndarray | None:
        """Weights of the rows of a batch.

        Args:
            slots: what `choose` has just returned.

        Returns:
            [N], by which the rows' losses count, with mean 1; None where all count alike.
        """
        return None

    def give_back(self, slots: np.ndarray, stream_ended: bool) -> np.ndarray:
        """Decide what becomes of units that were drawn once more. Those that stay are idle again.

        Args:
            slots: theirs.
            stream_ended: no arrival will come any more.

        Returns:
            The slots of those that leave.
        """
        leaves = self.table.num_seen[slots] >= self.table.unit.num_choices
        self.unseen.put_back(slots[~leaves])
        return slots[leaves]

    @property
    def num_rows_left(self) -> int:
        """Rows that would be drawn of the whole units that are in, if no more came."""
        if self.table.unit.num_choices == 1:
            return self.table.num_whole
        num_seen = self.table.num_seen[self.table.num_seen >= 0]
        return int((self.table.unit.num_choices - num_seen).sum())

    # What training found

    def observe(self, slots: np.ndarray, losses: np.ndarray) -> None:  # noqa: B027  most learn nothing from them
        """Hear what training found of rows of the last batch.

        A policy that does not define it is told nothing. Where one does, each step on a GPU is waited for.

        Args:
            slots: of those rows whose units are still in.
            losses: float32 [N], without the weights.
        """

    @property
    def observes(self) -> bool:
        return type(self).observe is not Policy.observe

    # Checkpoints

    def state(self) -> dict[str, Any]:
        """What it knows besides its two sets, which the buffer saves.

        Returns:
            Tensors, and values that JSON keeps, by name.
        """
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027  nothing is kept
        """Goes on from `state()`."""


class Fifo(Policy):
    """Every row once, in the order of the stream: fast, and biased as the stream is."""

    def begin(self, table: SlotTable) -> None:
        super().begin(table)
        self.unseen = SlotQueue()

    def choose(self, batch_size: int) -> np.ndarray:
        return self.unseen.take_first(batch_size)


class Firo(Policy):
    """Every row once, at random, while the population is not below the watermark."""

    def may_draw(self, batch_size: int, watermark: int) -> bool:
        return self.num_idle >= max(batch_size, watermark)

    def choose(self, batch_size: int) -> np.ndarray:
        return self.unseen.take_random(batch_size, self.random)


class Reservoir(Policy):
    """Random units with repetition, as fast as training can take them.

    An arrival takes a free slot, else replaces a random seen unit, else waits: nothing unseen is ever replaced. Once
    the stream has ended, a draw removes the unit.
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
