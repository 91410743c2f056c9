"""What became of every simulation."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from penstock.learner.id_set import IdSet
from penstock.sample import Lease

RECENT = 200  # simulations over which solver.max_failed_fraction is taken
FIRST = 8  # when the first so many all fail, the problem itself is wrong


class Ledger:
    """Hands out simulation ids and knows where each one is: leased, delivered or failed.

    Ids are given out in order, those of lost leases first. A rebuilt ledger (after a resume) knows the delivered and
    failed ids of the checkpoint and gives out every other one below the highest before new ones.

    limit: ids are 0 ... limit - 1; None for no end.
    """

    def __init__(
        self,
        design: str,
        limit: int | None = None,
        delivered: Iterable[tuple[int, int]] = (),
        failed: dict[int, str] | None = None,
    ):
        self.design = design
        self.limit = limit
        self.delivered = IdSet.from_intervals(delivered)
        self.failed: dict[int, str] = dict(failed or {})
        self.num_lost = 0
        self._leased: dict[int, set[int]] = {}
        self._next = 1 + max([-1, *self.failed, *(end - 1 for _, end in self.delivered.to_intervals())])
        self._returned = deque(i for i in range(self._next) if i not in self.delivered and i not in self.failed)
        self._recent: deque[bool] = deque(maxlen=RECENT)

    def lease(self, number: int, size: int) -> Lease | None:
        """The next `size` ids, fewer before the limit; None when all have been given out."""
        ids = [self._returned.popleft() for _ in range(min(size, len(self._returned)))]
        fresh = size - len(ids) if self.limit is None else max(0, min(size - len(ids), self.limit - self._next))
        ids += range(self._next, self._next + fresh)
        self._next += fresh
        if not ids:
            return None
        self._leased[number] = set(ids)
        return Lease(number=number, simulations=tuple(ids), design=self.design)

    def settle(self, delivered: Iterable[tuple[int, int]], failed: dict[int, str]) -> None:
        """Take over the learner's account: intervals of the ids delivered so far, and all ids that failed."""
        now = IdSet.from_intervals(delivered)
        self._recent.extend([True] * (len(failed) - len(self.failed)))
        self._recent.extend([False] * min(RECENT, len(now) - len(self.delivered)))
        self.delivered, self.failed = now, dict(failed)

    def end_lease(self, number: int) -> list[int]:
        """Close a lease; its ids that were neither delivered nor failed are given out again, and returned."""
        ids = self._open_ids(number)
        del self._leased[number]
        self._returned.extend(ids)
        self.num_lost += len(ids)
        return ids

    def _open_ids(self, number: int) -> list[int]:
        return sorted(i for i in self._leased[number] if i not in self.delivered and i not in self.failed)

    def is_complete(self) -> bool:
        """Every id below the limit was delivered or failed."""
        return self.limit is not None and len(self.delivered) + len(self.failed) >= self.limit

    def fault(self, max_failed_fraction: float) -> str | None:
        """Why the run must stop for its failures, with the first cause; None while it may go on."""
        if not self.failed:
            return None
        first = min(self.failed)
        cause = f"simulation {first}: {self.failed[first]}"
        total = len(self.delivered) + len(self.failed)
        if len(self.delivered) == 0 and (len(self.failed) >= FIRST or total == self.limit):
            return f"all of the first {len(self.failed)} simulations failed; {cause}"
        if len(self._recent) == RECENT and sum(self._recent) > max_failed_fraction * RECENT:
            return f"{sum(self._recent)} of the last {RECENT} simulations failed; {cause}"
        return None

    def to_json(self) -> dict[str, Any]:
        return {
            "delivered": self.delivered.to_intervals(),
            "failed": {str(i): reason for i, reason in sorted(self.failed.items())},
            "leased": {str(number): self._open_ids(number) for number in self._leased},
            "returned": list(self._returned),
        }
