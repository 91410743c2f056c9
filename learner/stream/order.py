"""In which order samples are solved, taken and drawn: as they come, or in one that repeats to the bit.

The only place that knows the two apart. What needs torch is imported where it is used: solver processes have none.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Protocol

from penstock.errors import PenstockError
from penstock.learner.stream.blocks import Blocks
from penstock.learner.stream.lanes import Lanes
from penstock.learner.stream.stream import Stream
from penstock.messages import Lease

if TYPE_CHECKING:
    import torch

    from penstock.learner.feed.feed import BatchSource
    from penstock.learner.stream.ingest import Ingest

WITHOUT, OVERRIDE = "deterministic: false", "deterministic=false"
"""What gives the guarantee up, for messages: a line of a configuration, and one laid over it."""


class Leases(Protocol):
    """Who hands out simulations: the driver's ledger."""

    limit: int | None
    num_left: float

    def lease(self, number: int, size: int) -> Lease | None: ...

    def lease_block(self, number: int, blocks: Blocks, lane: int) -> Lease | None: ...


class Order(Protocol):
    """What depends on whether a run has to repeat."""

    must_repeat: bool
    """A run that was killed and resumed equals the uninterrupted one bit for bit."""

    def require_possible(self, obstacles: Iterable[str]) -> None:
        """Raises PenstockError where something asks a clock, or goes by what else does not repeat."""

    def require_continues(self, before: Order) -> None:
        """Raises PenstockError where a run of the order `before` can't go on in this one."""

    def set_up_torch(self) -> None:
        """Called in the learner's process before torch computes anything."""

    def lease(self, ledger: Leases, number: int, lane: int, *, window: int, num_ready: int) -> Lease | None:
        """The next lease of the worker at place `lane`, where num_ready workers are ready; None where there is none."""

    def blamed(self, simulations: Sequence[int]) -> Sequence[int]:
        """Which of the simulations may be left out because a worker died over them."""

    def source(self, stream: Stream) -> Stream:
        """The stream as ingest takes from it."""

    def batches(self, ingest: Ingest, device: torch.device, batch_size: int) -> BatchSource:
        """What brings batches to the step."""


@dataclass(frozen=True)
class FreeRunning:
    """Each part goes on as soon as it can."""

    must_repeat = False

    def require_possible(self, obstacles: Iterable[str]) -> None:
        """Everything is."""

    def require_continues(self, before: Order) -> None:
        """Every run can go on so."""

    def set_up_torch(self) -> None:
        """Torch may take its fastest kernels."""

    def lease(self, ledger: Leases, number: int, lane: int, *, window: int, num_ready: int) -> Lease | None:
        return ledger.lease(number, ceil(min(window, ledger.num_left / num_ready)))

    def blamed(self, simulations: Sequence[int]) -> Sequence[int]:
        return simulations

    def source(self, stream: Stream) -> Stream:
        return stream

    def batches(self, ingest: Ingest, device: torch.device, batch_size: int) -> BatchSource:
        from penstock.learner.feed.feed import Feed

        return Feed(ingest.buffer, device, batch_size, ingest.rate_limiter)


@dataclass(frozen=True, kw_only=True)
class Deterministic:
    """Blocks on lanes, chunks of the lanes in turn, puts and draws by counts: nothing depends on time.

    num_lanes: solver workers. window: simulations of a block. limit: of the training simulations, None for no end.
    """

    num_lanes: int
    window: int
    limit: int | None = None
    must_repeat = True

    def require_possible(self, obstacles: Iterable[str]) -> None:
        if given := list(obstacles):
            raise PenstockError(f"deterministic: true refuses {'; and '.join(given)}")

    def require_continues(self, before: Order) -> None:
        if not before.must_repeat:
            raise PenstockError(
                "deterministic can't be turned on on resume: what was done so far was not; start a new run"
            )

    def set_up_torch(self) -> None:
        import torch

        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # torch asks for it
        torch.use_deterministic_algorithms(True)

    def blocks(self, limit: int | None) -> Blocks:
        """Of a design of `limit` simulations; None for no end."""
        return Blocks(size=self.window, num_lanes=self.num_lanes, limit=limit)

    def lease(self, ledger: Leases, number: int, lane: int, *, window: int, num_ready: int) -> Lease | None:
        return ledger.lease_block(number, self.blocks(ledger.limit), lane)  # whoever is ready has no say in it

    def blamed(self, simulations: Sequence[int]) -> Sequence[int]:
        return ()  # blocks are solved whole

    def source(self, stream: Stream) -> Stream:
        return Lanes(stream, self.blocks(self.limit))

    def batches(self, ingest: Ingest, device: torch.device, batch_size: int) -> BatchSource:
        from penstock.learner.stream.lockstep import Lockstep

        return Lockstep(ingest, device, batch_size)
