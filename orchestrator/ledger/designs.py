"""Which simulations are solved next, by their ids, and what that choice may go by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.status import Ended


class Design(ABC):
    """Chooses the simulations of a run, or of its validation set, by their ids.

    Simulation i has the parameters that are drawn from (seed, name, i), whoever solves it and however often, so who
    chooses an id chooses parameters. What was lost with a worker is given out again by the ledger, unasked.

    Args:
        name: what parameters are drawn by beside seed and id; it rides with leases and chunks.
    """

    def __init__(self, name: str):
        self.name = name

    @abstractmethod
    def next(self, count: int) -> Sequence[int]:
        """The ids to solve next, each of them once in the life of a run.

        Args:
            count: how many are wanted.

        Returns:
            At most as many; fewer where there are no more, or none for now: then it is asked again a second later.
        """

    def observe(self, ended: Ended, errors: Mapping[str, Any] | None) -> None:  # noqa: B027  most go by nothing
        """All that is known now; called once per second.

        It receives everything and not only what is new, because a resumed run goes back to its checkpoint.

        Args:
            ended: how simulations of this design ended so far, delivered or failed.
            errors: the last validation errors, `Errors.as_dict()`; None before there are any.
        """

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What `next` depends on, as JSON."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`.

        It may be a few seconds old: ids that have been given out since may come again.

        Args:
            state: what the design of an earlier life had returned.
        """


class InOrder(Design):
    """All simulations, in the order of their ids: 0, 1, 2, ..."""

    def __init__(self, name: str):
        super().__init__(name)
        self._num_given = 0

    def next(self, count: int) -> range:
        first, self._num_given = self._num_given, self._num_given + count
        return range(first, self._num_given)

    def state(self) -> dict[str, Any]:
        return {"num_given": self._num_given}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._num_given = state["num_given"]
