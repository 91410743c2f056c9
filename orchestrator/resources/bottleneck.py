"""Which side limits a run, from what its processes report.

It reads no clock. Axes:  K blocks of time.

Shares of time say which side waits, over a window of K blocks (k):

    w = Σ waiting / Σ training                 the learner's, for batches
    x = Σ waits / Σ (waits + solving)          the workers', for the stream (blocked) and for leases (unleased)
    c = Σ (full + held) / Σ intake             the intake's, for room in the buffer or the rate limiter

Workers that the learner holds up wait for room in the stream or, where leases are short, for the next lease, which they
get once one was taken. A side waits if its share is above WAITS. If the workers do, and c is at least x / 2, it is
because the learner takes nothing; else the stream is slow, or leases are, although the learner has room.

    learner waits   workers wait    because of         limits
    yes             no                                 solvers
    no              yes             the buffer         learner
    no              yes             the rate limiter   rate limiter
    yes             yes             the buffer         buffer
    yes             yes             the rate limiter   rate limiter
                    yes             the stream         transport
    no              no                                 none

A share p = Σ a / Σ b is a ratio estimator, with the standard error √(K / (K - 1) Σ (a_k - p b_k)²) / Σ b (Cochran,
Sampling Techniques, 1977, section 2.11). The probability that the true share is above a bound follows from Student's t
with one degree of freedom less than there are blocks with b_k > 0. A certainty is 1 less the probabilities that one of
the comparisons behind it is wrong, and at most a half where the halves of the window name different sides. Waits that
come in bursts much longer than a block make it too high.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr

from penstock.orchestrator.resources.advice import CERTAIN, NAMES, WAITS, Aims, Ladder, Standing, percent
from penstock.record import Bottleneck

WINDOWS = (10, 20, 40, 80)  # intervals, of which the shortest that is certain counts
FEWEST_INTERVALS = 5
MOST_BLOCKS = 10  # of a window: longer ones depend less on each other
OF_A_RUN = 64  # blocks of a whole run; then neighbours are joined
FEWEST = 5  # simulations and steps in a window
FEWEST_BLOCKS = 3  # in which a side said anything
LEAST_ERROR = 0.01  # of a share, however equal the blocks are


@dataclass(frozen=True)
class Finding:
    """What limits in a window."""

    side: str
    certainty: float
    ladder: Ladder

    @property
    def is_certain(self) -> bool:
        """Whether it may be said without a reserve."""
        return self.certainty >= CERTAIN

    @property
    def bottleneck(self) -> Bottleneck:
        """The finding for people."""
        reserve = "" if self.is_certain else f"not certain ({percent(self.certainty)}): "
        return self.ladder.bottleneck(self.side, self.certainty, reserve)


class BottleneckWatch:
    """Follows a run's standings, and says which side limits it.

    Intervals of which validation, checkpoints or compiling take more than half are left out.

    Args:
        aims: what the configuration says of reuse.
    """

    def __init__(self, aims: Aims):
        self._aims = aims
        self._last: Standing | None = None
        self._recent: deque[Standing] = deque(maxlen=WINDOWS[-1])  # with one number of workers
        self._of_run: list[Standing] = []
        self._seconds: Counter[str] = Counter()  # for which a side was certain
        self._limited: dict[str, Standing] = {}  # the windows in which it was, summed

    def pause(self) -> None:
        """Count nothing until the next standing."""
        self._last = None

    def look(self, standing: Standing) -> Bottleneck | None:
        """What limits the run now.

        Args:
            standing: the sums up to now.

        Returns:
            By the shortest window that is certain; by the longest if none is, and by the whole run if little happens in
            that. None if there is too little to say anything.
        """
        last, self._last = self._last, standing
        interval = None if last is None else standing - last
        is_counted = interval is not None and self._add(interval)
        finding = self._finding()
        if is_counted and finding is not None and finding.is_certain:
            side, total = finding.side, finding.ladder.total
            self._seconds[side] += interval.seconds
            self._limited[side] = total if side not in self._limited else self._limited[side] + total
        return finding and finding.bottleneck

    def overall(self) -> Bottleneck | None:
        """What limited the run for most of the time; None if there is too little to say.

        Its certainty is the share of the time in which that was certain, of that in which anything was.
        """
        if not self._seconds:
            finding = self._of_whole_run()
            return finding and finding.bottleneck
        ((side, seconds),) = self._seconds.most_common(1)
        certainty = seconds / self._seconds.total()
        return Ladder(self._limited[side], self._aims).bottleneck(side, certainty, f"{percent(certainty)} of the time ")

    def _add(self, interval: Standing) -> bool:
        """Count an interval, unless it says nothing of the sides."""
        if min(getattr(interval, name) for name in NAMES) < -1e-9:  # another learner goes on from a checkpoint
            self._recent.clear()
            return False
        if interval.seconds <= 0 or interval.training <= 0 or interval.aside > interval.seconds / 2:
            return False
        if self._recent and not math.isclose(_workers(interval), _workers(self._recent[-1]), rel_tol=1e-6):
            self._recent.clear()
        self._recent.append(interval)
        self._of_run.append(interval)
        if len(self._of_run) > OF_A_RUN:
            self._of_run = _joined(self._of_run, 2)
        return True

    def _finding(self) -> Finding | None:
        finding, recent = None, list(self._recent)
        for window in WINDOWS:
            finding = self._judged(recent[-window:]) or finding
            if len(recent) <= window or (finding is not None and finding.is_certain):
                break
        return finding or self._of_whole_run()

    def _of_whole_run(self) -> Finding | None:
        return self._judged(self._of_run)

    def _judged(self, intervals: Sequence[Standing]) -> Finding | None:
        if len(intervals) < FEWEST_INTERVALS:
            return None
        return judged(_joined(intervals, math.ceil(len(intervals) / MOST_BLOCKS)), self._aims)


class Share(NamedTuple):
    """A share of time, with its standard error."""

    value: float
    error: float
    freedom: int

    def above(self, bound: float) -> float:
        """The probability that the true share is above a bound."""
        return float(stdtr(self.freedom, (self.value - bound) / self.error))


def share(parts: Sequence[float], wholes: Sequence[float]) -> Share | None:
    """The share of some time in other time.

    Args:
        parts: the time in each block, [K].
        wholes: the time of which it is a part, [K].

    Returns:
        The share; None if too few blocks have any.
    """
    parts, wholes = np.array(parts), np.array(wholes)
    num = np.count_nonzero(wholes)
    if num < FEWEST_BLOCKS:
        return None
    value = parts.sum() / wholes.sum()
    error = math.sqrt(num / (num - 1) * ((parts - value * wholes) ** 2).sum()) / wholes.sum()
    return Share(float(value), max(error, LEAST_ERROR), num - 1)


def judged(blocks: Sequence[Standing], aims: Aims) -> Finding | None:
    """What limits, by differences over blocks of time.

    Args:
        blocks: the differences, [K].
        aims: what the configuration says of reuse.

    Returns:
        The finding; None if there is too little to say anything.
    """
    if (found := _side(blocks)) is None:
        return None
    side, learner_waits, certainty = found
    half = len(blocks) // 2
    for part in (blocks[:half], blocks[-half:]):
        if (of_part := _side(part, fewest=1)) is not None and of_part[:2] != (side, learner_waits):
            certainty = min(certainty, 0.5)  # one half says this, the other that: something has changed
    return Finding(side, certainty, Ladder(sum(blocks[1:], blocks[0]), aims))


def _side(blocks: Sequence[Standing], fewest: int = FEWEST) -> tuple[str, bool, float] | None:
    """The side that limits, whether the learner waits, and how certain that is.

    Where the stream is slow the second says nothing. None by fewer simulations and steps than the fewest.
    """
    if not blocks:
        return None
    total = sum(blocks[1:], blocks[0])
    waits = share([block.waiting for block in blocks], [block.training for block in blocks])
    idle = share([block.idle for block in blocks], [block.idle + block.solving for block in blocks])
    closed = share(
        [block.full + block.held for block in blocks],
        [block.starved + block.taking + block.full + block.held for block in blocks],
    )
    if min(total.simulations, total.steps) < fewest:
        return None
    if min(total.unique, total.trained, total.solving, total.worker_seconds) <= 0:  # all workers may be starting
        return None
    if waits is None or idle is None or closed is None:
        return None
    closes = Share(  # c - x / 2
        closed.value - idle.value / 2,
        math.hypot(closed.error, idle.error / 2),
        min(closed.freedom, idle.freedom),
    )
    asked = [waits.above(WAITS), idle.above(WAITS), closes.above(0.0)]
    learner_waits, workers_wait, is_closed = (probability > 0.5 for probability in asked)
    if not workers_wait:
        side = "solvers" if learner_waits else "none"
        asked = asked[:2]
    elif not is_closed:
        side, learner_waits = "transport", False
        asked = asked[1:]
    elif total.held >= total.full:
        side = "rate limiter"
    else:
        side = "buffer" if learner_waits else "learner"
    return side, learner_waits, max(0.0, 1.0 - sum(min(probability, 1.0 - probability) for probability in asked))


def _workers(interval: Standing) -> float:
    return interval.worker_seconds / interval.seconds


def _joined(intervals: Sequence[Standing], size: int) -> list[Standing]:
    """Blocks of `size` neighbours each, the first of which may have fewer."""
    ends = range(len(intervals), 0, -size)
    blocks = [intervals[max(0, end - size) : end] for end in reversed(ends)]
    return [sum(block[1:], block[0]) for block in blocks]
