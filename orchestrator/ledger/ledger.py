"""Where every simulation is: leased, delivered or failed."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from math import ceil, inf
from typing import Any

import numpy as np

from penstock.errors import shortened
from penstock.id_set import IdSet
from penstock.learner.stream.blocks import Blocks
from penstock.messages import Lease
from penstock.orchestrator.ledger.designs import Design
from penstock.status import Ended

RECENT = 200  # simulations over which solver.max_failed_fraction is taken
DEATHS = 3  # of workers, after which a simulation is given up
FIRST = 8  # if the first 8 simulations all fail, the problem itself is at fault


class Ledger:
    """Gives out simulation ids, and knows which are leased, delivered or failed.

    Ids of lost leases are given out first, then new ones, which the design chooses. A rebuilt ledger (after a resume)
    knows the delivered and failed ids of the checkpoint (`ended`), and gives out again what else had been given out.
    Whatever a design says, an id that is leased or has ended is not given out.

    design: the same as before the resume, but new. limit: simulations in all; None for no end. saved: `to_json()` of
    the life before, as it was written last; a folder of an earlier version may lack it, or the design's state.
    """

    def __init__(
        self,
        design: Design,
        limit: int | None = None,
        ended: Ended = Ended(),  # noqa: B008 (frozen)
        saved: Mapping[str, Any] | None = None,
    ):
        self.design = design
        self.limit = limit
        self.delivered = IdSet.from_intervals(ended.delivered)
        self.failed: dict[int, str] = dict(ended.failed)
        self.num_lost = 0
        self._leased: dict[int, set[int]] = {}
        self._deaths: Counter[int] = Counter()
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._given = IdSet.from_intervals(ended.delivered)  # leased, returned or ended
        self._given.update(np.array(list(self.failed), np.int64))
        before = _given_out(saved or {})
        self._returned: deque[int] = deque(before[~self._given.contains(before)].tolist())
        self._given.update(before)
        if saved and "design" in saved:
            design.load_state(saved["design"])

    def lease(self, number: int, size: int) -> Lease | None:
        """Lease the next ids.

        Ids over which a worker died come in smaller and smaller lots, until the one at fault is alone.

        Args:
            number: number of the lease.
            size: largest number of ids.

        Returns:
            The lease, with fewer ids before the limit; None when all have been given out.
        """
        if self._returned:
            deaths = self._deaths[self._returned[0]]
            ids = []
            lot = min(self.num_left, 1 if deaths >= DEATHS - 1 else max(1, size // 8**deaths))
            while self._returned and len(ids) < lot:
                if self._deaths[self._returned[0]] != deaths:
                    break
                ids.append(self._returned.popleft())
        else:
            ids = self._new(min(size, self.num_left))
        if not ids:
            return None
        self._leased[number] = set(ids)
        return Lease(number=number, simulations=tuple(ids), design=self.design.name)

    def _new(self, count: int) -> list[int]:
        """At most `count` ids that the design chooses and that were never given out."""
        new: list[int] = []
        while len(new) < count and len(chosen := self.design.next(count - len(new))):
            for simulation in chosen:
                if simulation not in self._given:
                    self._given.add(simulation)
                    new.append(simulation)
        return new

    def lease_block(self, number: int, blocks: Blocks, lane: int) -> Lease | None:
        """Lease the first block of a lane that was not given out, whole.

        The design is not asked: what it goes by comes at its own time, and here nothing may depend on time.

        Args:
            number: number of the lease.
            blocks: the blocks of the run.
            lane: the lane.

        Returns:
            The lease; None if the limit leaves no block for the lane.
        """
        num_begun = ceil(self._given.end / blocks.size)
        self._return_up_to(num_begun * blocks.size)
        begun = {blocks.block_of(simulation) for simulation in self._returned}
        block = min([blocks.first_of(lane, num_begun), *(block for block in begun if blocks.is_of(block, lane))])
        ids = blocks.ids(block)
        if not ids:
            return None
        self._return_up_to(ids.stop)
        self._returned = deque(i for i in self._returned if i not in ids)
        self._leased[number] = set(ids)
        return Lease(number=number, simulations=tuple(ids), design=self.design.name, lane=lane)

    def _return_up_to(self, end: int) -> None:
        """Put new ids below `end` where those of lost leases wait to be given out."""
        missing = list(self._given.missing(end if self.limit is None else min(end, self.limit)))
        self._returned.extend(missing)
        self._given.update(np.array(missing, np.int64))

    def settle(self, ended: Ended, errors: Mapping[str, Any] | None = None) -> None:
        """Take over the learner's account of all that ended so far, and tell the design.

        errors: the last validation errors, for the design.
        """
        now = IdSet.from_intervals(ended.delivered)
        self._recent.extend([True] * (len(ended.failed) - len(self.failed)))
        self._recent.extend([False] * min(RECENT, len(now) - len(self.delivered)))
        self.delivered, self.failed = now, dict(ended.failed)
        self.design.observe(ended, errors)

    @property
    def num_left(self) -> float:
        """Ids that may still be given out; infinite without a limit.

        A resumed run may have lowered that.
        """
        return inf if self.limit is None else max(0, self.limit - len(self._given) + len(self._returned))

    def end_lease(
        self, number: int, *, blamed: Iterable[int] = (), reason: str = "its worker died", tries: int = DEATHS
    ) -> dict[int, str]:
        """Close a lease; its open ids are given out again.

        Args:
            number: number of the lease.
            blamed: ids over which the worker may have died.
            reason: why an id is given up.
            tries: how often an id may be blamed before it is given up.

        Returns:
            The reason by id of those that are given up. The learner, which keeps the account, must record them.
        """
        ids = self.open_ids(number)
        del self._leased[number]
        blamed = set(blamed).intersection(ids)
        self._deaths.update(blamed)
        given_up = {i: f"{reason}, {self._deaths[i]} times" for i in blamed if self._deaths[i] >= tries}
        self._returned.extend(i for i in ids if i not in given_up)
        return given_up

    @property
    def ended(self) -> Ended:
        """How simulations have ended so far."""
        return Ended(self.delivered.to_intervals(), dict(self.failed))

    @property
    def num_ended(self) -> int:
        """Simulations that were delivered or have failed."""
        return len(self.delivered) + len(self.failed)

    def num_deaths(self, simulation: int) -> int:
        """How often a worker died over it."""
        return self._deaths[simulation]

    def num_ended_of(self, number: int) -> int:
        """Simulations of an open lease that were delivered or have failed."""
        return len(self._leased[number]) - len(self.open_ids(number))

    def open_ids(self, number: int) -> list[int]:
        """Simulations of an open lease that were neither delivered nor failed."""
        return sorted(i for i in self._leased[number] if i not in self.delivered and i not in self.failed)

    def is_complete(self) -> bool:
        """Whether every id below the limit was delivered or failed."""
        return self.limit is not None and self.num_ended >= self.limit

    def fault(self, max_failed_fraction: float) -> str | None:
        """Why the run must stop because of failed simulations.

        Args:
            max_failed_fraction: largest fraction of the last RECENT simulations that may fail.

        Returns:
            The reason with the first cause; None while the run may go on.
        """
        if not self.failed:
            return None
        first = min(self.failed)
        cause = f"simulation {first}: {shortened(self.failed[first])}"
        if len(self.delivered) == 0 and (len(self.failed) >= FIRST or self.num_ended == self.limit):
            return f"all of the first {len(self.failed)} simulations failed; {cause}"
        if len(self._recent) == RECENT and sum(self._recent) > max_failed_fraction * RECENT:
            return (
                f"{sum(self._recent)} of the last {RECENT} simulations failed, more than solver.max_failed_fraction = "
                f"{max_failed_fraction}; {cause}"
            )
        return None

    def to_json(self) -> dict[str, Any]:
        """The content of ledger.json."""
        return {
            "delivered": self.delivered.to_intervals(),
            "failed": {str(i): reason for i, reason in sorted(self.failed.items())},
            "leased": {str(number): self.open_ids(number) for number in self._leased},
            "returned": list(self._returned),
            "design": self.design.state(),
        }


def _given_out(saved: Mapping[str, Any]) -> np.ndarray:
    """int64: all ids that were leased, returned or ended by then, in order."""
    ids = IdSet.from_intervals(saved.get("delivered", ()))
    open_ids = [i for lease in saved.get("leased", {}).values() for i in lease]
    others = [*map(int, saved.get("failed", ())), *open_ids, *saved.get("returned", ())]
    ids.update(np.array(others, np.int64))
    return np.concatenate([np.arange(*interval) for interval in ids.to_intervals()] or [np.empty(0, np.int64)])
