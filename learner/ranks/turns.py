"""The turns of a training loop: what all ranks do next, by where they stand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields, replace

import numpy as np

from penstock.learner.buffers.batch import Batch
from penstock.learner.feed.feed import DRAW_TIMEOUT_S, BatchSource
from penstock.learner.ranks.group import ALONE, Group
from penstock.learner.settings import StopAfter
from penstock.learner.stream.ingest import Ingest
from penstock.learner.stream.timesheet import Timesheet
from penstock.status import TrainingTimes

GO_ON_AFTER_S = 5.0  # without a rank that has no batch

MERGES = {
    "stops": np.any,
    "breaks": np.any,
    "reached": np.any,
    "saves": np.all,
    "waits": np.any,
    "lacks_s": np.min,
    "is_full": np.any,
    "has_batch": np.any,
    "minutes": np.max,
    "samples": np.sum,
    "ended": np.sum,
    "left": np.mean,  # a step takes a batch of each rank
}
"""How the views of ranks become one."""


@dataclass(frozen=True, kw_only=True)
class View:
    """Where a rank stands at a turn, or all ranks together."""

    stops: bool = False
    """Whether it was asked to stop."""
    breaks: bool = False
    """Whether an error has closed the buffer."""
    reached: bool = False
    """Whether the validation error is low enough."""
    saves: bool = False
    """Whether it is time for a checkpoint; of all ranks, whether all can."""
    waits: bool
    """Whether it has no batch now and may have one later."""
    lacks_s: float = math.inf
    """For how long it has waited for a batch; infinite for a rank that does not wait."""
    is_full: bool = False
    """Whether its samples wait until it trains, for room in its buffer or by the rate limiter."""
    has_batch: bool
    """Whether it has a batch; before training, whether it has samples to draw."""
    minutes: float
    """Wall time of training."""
    samples: float
    """Unique samples that a batch has had."""
    ended: float
    """Delivered or failed simulations."""
    left: float
    """Batches that are still to be trained on if no more samples arrive; of all ranks, steps."""

    @classmethod
    def of_all(cls, views: np.ndarray) -> View:
        """Return the view of all ranks, of their views [R, K]."""
        return cls(**{field.name: MERGES[field.name](views[:, k]).item() for k, field in enumerate(fields(cls))})

    @property
    def may_step(self) -> bool:
        """Whether to step, on the batches of the ranks that have one.

        All should have one. But where a rank's share of the simulations is over and the rest are another's, which has
        no room for more samples before it trains, they would wait for each other for ever.
        """
        return self.has_batch and (not self.waits or (self.is_full and self.lacks_s >= GO_ON_AFTER_S))

    def done(self, num_steps: int) -> dict[str, float]:
        """Return how much of each limit is done.

        Args:
            num_steps: number of steps done.

        Returns:
            Minutes, steps, samples and simulations, by name.
        """
        # Ended simulations count by the share of their steps that is done: else batches would be left to a rate of 0.
        share = num_steps / max(1, num_steps + self.left)
        return {
            "minutes": self.minutes,
            "steps": num_steps,
            "samples": self.samples,
            "simulations": self.ended * share,
        }


class Turns:
    """Takes batches from a rank's feed, and has all ranks do the same at every turn.

    At each turn every rank says where it stands, once, and all decide by the same numbers: whether to step, to save, to
    end. A batch that was taken stays in hand until every rank has one, or never will: a step takes those of all ranks.

    Args:
        feed: source of this rank's batches.
        ingest: what fills its buffer.
        limits: when training ends.
        group: the ranks.
    """

    def __init__(self, feed: BatchSource, ingest: Ingest, limits: StopAfter, group: Group = ALONE):
        self.seconds = 0.0
        """Wall time of training."""
        self.times = Timesheet(*(field.name for field in fields(TrainingTimes)))
        """What the time of this rank's loop goes to, by the names in `TrainingTimes`."""
        self._feed = feed
        self._ingest = ingest
        self._limits = limits
        self._group = group
        self._batch: Batch | None = None  # in hand
        self._is_held = False  # whether any rank has one in hand
        self._lacks_since: float | None = None  # it has had no batch
        self._num_samples = 0  # done before the batch in hand was drawn
        self._views = np.empty((0, len(MERGES)))  # of the last turn

    def before_training(self, should_stop: Callable[[], bool], saves: bool) -> View:
        """Wait for the watermark, for a moment.

        Args:
            should_stop: ends the wait.
            saves: whether this rank would save now.

        Returns:
            The view of all ranks. None waits once all have reached the watermark, or their streams have ended.
        """
        until = time.monotonic() + DRAW_TIMEOUT_S
        is_there = self._feed.wait_for_population(lambda: should_stop() or time.monotonic() >= until)
        view = self._view(waits=not is_there, has_batch=not self._ingest.buffer.exhausted)
        return self._agreed(replace(view, stops=should_stop(), saves=saves))

    def next(
        self,
        num_steps: int,
        should_stop: Callable[[], bool],
        *,
        reached: bool = False,
        saves: bool = False,
        draws: bool = True,
    ) -> View:
        """Take the next batch, unless one is in hand or this rank knows a cause to end.

        Args:
            num_steps: number of steps done.
            should_stop: asked once before, and while waiting for a batch.
            reached: whether the validation error is low enough.
            saves: whether this rank would save now.
            draws: whether more batches are drawn. If not, only those ahead are taken; but in a deterministic order also
                one to go with a batch that another rank has in hand, because a step without it would not repeat.

        Returns:
            The view of all ranks.
        """
        own = replace(self._view(), stops=should_stop(), reached=reached, saves=saves)
        if self._batch is None:
            takes = self.cause_to_end(own, num_steps) is None if draws else self._may_get_one(draws)
            self._num_samples = own.samples
            self._batch = self._feed.next(should_stop if draws else lambda: False) if takes else None
        has_batch = self._batch is not None
        # The other counts after the draw: in a deterministic run they are independent of time only at that point.
        after = self._view(waits=not has_batch and self._may_get_one(draws), has_batch=has_batch)
        before = time.monotonic()
        self._lacks_since = (self._lacks_since or before) if after.waits else None
        own = replace(
            after,
            stops=own.stops,
            reached=reached,
            saves=saves,
            lacks_s=before - self._lacks_since if after.waits else math.inf,
            is_full=has_batch and self._ingest.waits_for_training,
            samples=self._num_samples,
        )
        agreed = self._agreed(own)
        if has_batch and self._group.size > 1:
            self._feed.wait_seconds += time.monotonic() - before  # for the batches of other ranks
        return agreed

    def take(self) -> Batch | None:
        """Return the batch in hand, to step on; None if this rank has none."""
        batch, self._batch, self._is_held = self._batch, None, False
        return batch

    def cause_to_end(self, view: View, num_steps: int) -> str | None:
        """Return the cause to end training.

        Args:
            view: where all ranks stand.
            num_steps: number of steps done.

        Returns:
            "stopped", "minutes", "steps", "samples", "error", "stream ended" or None.
        """
        if view.stops:
            return "stopped"
        for name, fraction in self._limits.fractions(**view.done(num_steps)).items():
            if fraction >= 1 and name != "simulations":
                return name
        if view.reached:
            return "error"
        return "stream ended" if view.breaks or not (view.waits or view.has_batch) else None

    def now(self) -> View:
        """Return where all ranks stand: this one now, the others at the last turn.

        Any thread may ask.
        """
        own, views = self._view(), self._views.copy()
        if not len(views):
            return own
        views[self._group.rank] = astuple(own)
        return View.of_all(views)

    def _may_get_one(self, draws: bool = True) -> bool:
        draws = draws or (self._feed.takes_from_stream and self._is_held)
        # in this order: once the buffer is exhausted, the batches ahead can only become fewer
        return (draws and not self._ingest.buffer.exhausted) or bool(self._feed.num_ahead)

    def _view(self, *, waits: bool | None = None, has_batch: bool = False) -> View:
        feed, ingest, buffer = self._feed, self._ingest, self._ingest.buffer
        return View(
            breaks=buffer.is_closed,
            waits=self._may_get_one() if waits is None else waits,
            has_batch=has_batch,
            minutes=self.seconds / 60,
            samples=max(0, ingest.counts.unique - ingest.counts.forgotten - buffer.num_unseen),
            ended=ingest.deliveries.num_ended,
            left=(self._batch is not None) + feed.num_ahead + buffer.num_rows_left / feed.batch_size,
        )

    def _agreed(self, view: View) -> View:
        """The view of all ranks, each of which gives its own.

        Their streams end with the last simulation of all.
        """
        self._views = self._group.gather(astuple(view))
        agreed = View.of_all(self._views)
        self._is_held = agreed.has_batch
        limit = self._limits.simulations
        if self._group.size > 1 and limit is not None and agreed.ended >= limit:
            self._ingest.buffer.end_of_stream()  # alone, the ingest sees it
        return agreed
