"""The order in which samples are solved, taken and drawn.

They go as they come, or in an order that repeats to the bit. No other module distinguishes the two. What needs torch is
imported where it is used, because solver processes may have no torch.
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
"""How to give up the guarantee, for messages: as a line of a configuration, and as an override of it."""


class Leases(Protocol):
    """What hands out simulations: the driver's ledger."""

    limit: int | None
    """Number of simulations in all; None for no end."""
    num_left: float
    """Simulations that may still be handed out; infinite without a limit."""

    def lease(self, number: int, size: int) -> Lease | None:
        """Lease the next ids, at most `size` of them; None if there are none."""

    def lease_block(self, number: int, blocks: Blocks, lane: int) -> Lease | None:
        """Lease the next block of a lane, whole; None if there is none."""


class Order(Protocol):
    """Everything that depends on whether a run has to repeat."""

    must_repeat: bool
    """Whether a run that was killed and resumed equals the uninterrupted one bit for bit."""

    def require_possible(self, obstacles: Iterable[str]) -> None:
        """Check that the configuration allows this order.

        Args:
            obstacles: clauses that name what goes by a clock, or by anything else that does not repeat.

        Raises:
            PenstockError: an obstacle rules the order out.
        """

    def require_continues(self, before: Order) -> None:
        """Check that a run can be resumed in this order.

        Args:
            before: order of the run so far.

        Raises:
            PenstockError: it can't.
        """

    def set_up_torch(self) -> None:
        """Set up torch, in the learner's process, before it computes anything."""

    def lease(self, ledger: Leases, number: int, lane: int, *, window: int, num_ready: int) -> Lease | None:
        """Lease simulations for a worker.

        Args:
            ledger: what hands them out.
            number: number of the lease.
            lane: the worker's place.
            window: largest number of simulations in a lease.
            num_ready: number of workers that are ready.

        Returns:
            The lease; None if nothing is left to lease.
        """

    def blamed(self, simulations: Sequence[int]) -> Sequence[int]:
        """Select the simulations that may be given up because a worker died over them.

        Args:
            simulations: those over which it may have died.

        Returns:
            All of them or none.
        """

    def source(self, stream: Stream) -> Stream:
        """Return the stream as the ingest takes from it."""

    def batches(self, ingest: Ingest, device: torch.device, batch_size: int) -> BatchSource:
        """Return what brings batches to the step.

        Args:
            ingest: what fills the buffer, from `source`.
            device: the training device.
            batch_size: rows per batch.

        Returns:
            The source of batches.
        """


@dataclass(frozen=True)
class FreeRunning:
    """The order of a usual run: each part goes on as soon as it can."""

    must_repeat = False

    def require_possible(self, obstacles: Iterable[str]) -> None:
        """Accept every configuration."""

    def require_continues(self, before: Order) -> None:
        """Accept every run."""

    def set_up_torch(self) -> None:
        """Leave torch its fastest kernels."""

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
    """The order of a deterministic run, in which nothing depends on time.

    Workers solve blocks on lanes, chunks are taken of the lanes in turn, and puts and draws go by counts.
    """

    num_lanes: int
    """Number of solver workers."""
    window: int
    """Simulations per block."""
    limit: int | None = None
    """Number of training simulations; None for no end."""
    must_repeat = True

    def require_possible(self, obstacles: Iterable[str]) -> None:
        if given := list(obstacles):
            raise PenstockError(f"deterministic: true refuses {'; and '.join(given)}")

    def require_continues(self, before: Order) -> None:
        if not before.must_repeat:
            raise PenstockError(
                "deterministic can't be turned on on resume: the run so far was not deterministic; start a new run"
            )

    def set_up_torch(self) -> None:
        import torch

        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # torch asks for it
        torch.use_deterministic_algorithms(True)

    def blocks(self, limit: int | None) -> Blocks:
        """Return the blocks of a design.

        Args:
            limit: number of its simulations; None for no end.

        Returns:
            The blocks.
        """
        return Blocks(size=self.window, num_lanes=self.num_lanes, limit=limit)

    def lease(self, ledger: Leases, number: int, lane: int, *, window: int, num_ready: int) -> Lease | None:
        return ledger.lease_block(number, self.blocks(ledger.limit), lane)  # which workers are ready must not matter

    def blamed(self, simulations: Sequence[int]) -> Sequence[int]:
        return ()  # blocks are solved whole

    def source(self, stream: Stream) -> Stream:
        return Lanes(stream, self.blocks(self.limit))

    def batches(self, ingest: Ingest, device: torch.device, batch_size: int) -> BatchSource:
        from penstock.learner.stream.lockstep import Lockstep

        return Lockstep(ingest, device, batch_size)
