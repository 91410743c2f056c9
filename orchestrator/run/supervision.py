"""Rules about processes: silent for too long, too large, dying too often.

They read no clock and know nothing of Ray.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.orchestrator.resources.memory import least_memory

# A silence is reported after this time, or after WORD_FACTOR times the longest one that ended, whichever is longer.
WORD_AFTER_S = 10.0
WORD_FACTOR = 5.0
# A silent worker is replaced after this time, or after TIMEOUT_FACTOR times the longest silence that ended.
TIMEOUT_S = 60.0
TIMEOUT_FACTOR = 20.0
# A place is given up after this many deaths of its workers, not counting one per SIMULATIONS_PER_DEATH simulations.
FREE_DEATHS = 5
SIMULATIONS_PER_DEATH = 20
# The run ends when its learner has died this often within this number of steps.
LEARNER_DEATHS = 3
STEPS_OF_DEATHS = 1000
KILLED_WITHIN_S = 10.0  # Ray reports a death some seconds after it
MEMORY_SHARE = 0.8  # of the machine, for all workers together


class Silences:
    """How long each worker has been silent, and what is too long.

    Args:
        timeout_s: seconds that are too long; None for TIMEOUT_FACTOR times the longest silence that ended, and at least
            TIMEOUT_S. Until a simulation has ended, nothing is too long then.
    """

    def __init__(self, timeout_s: float | None = None):
        self._given_s = timeout_s
        self._longest_s: float | None = None
        self._now: dict[str, float] = {}
        self._places: dict[str, tuple[str | None, float]] = {}  # the worker's simulation, and since when it is in it

    @property
    def timeout_s(self) -> float:
        """Seconds of silence after which a worker is replaced."""
        if self._given_s is not None:
            return self._given_s
        return math.inf if self._longest_s is None else max(TIMEOUT_S, TIMEOUT_FACTOR * self._longest_s)

    @property
    def word_after_s(self) -> float:
        """Seconds of silence after which it is reported."""
        if self._longest_s is None:
            return min(TIMEOUT_S, self.timeout_s / 2)
        return min(max(WORD_AFTER_S, WORD_FACTOR * self._longest_s), self.timeout_s / 2)

    def progress(self) -> None:
        """Note that some simulation has ended."""
        self._longest_s = self._longest_s or 0.0

    def look(self, worker: str, stream_s: float, place: str | None, now: float) -> float:
        """How long a worker has been silent.

        Args:
            worker: name of the worker.
            stream_s: seconds since it gave something, without the time in which that waited to be taken.
            place: text that names its simulation, since beginning a new one ends a silence too; None if not known.
            now: monotonic time.

        Returns:
            Seconds.
        """
        before, since = self._places.get(worker, (None, now))
        if place is not None and place != before:
            since = now
        self._places[worker] = place, since
        seconds = stream_s if place is None else min(stream_s, now - since)
        if seconds < self._now.get(worker, 0.0):
            self._longest_s = max(self._longest_s or 0.0, self._now[worker])
        self._now[worker] = seconds
        return seconds

    def forget(self, worker: str) -> None:
        """Drop a worker that was replaced."""
        self._now.pop(worker, None)
        self._places.pop(worker, None)


class Idle:
    """Whether a run has spent all its minutes waiting, with nothing solved.

    Once the run trains, the learner enforces the limit.

    Args:
        minutes: the run's limit; None for none.
        num_ended: simulations that had ended before this process of the run began.
    """

    def __init__(self, minutes: float | None, num_ended: int = 0):
        self._limit_s = math.inf if minutes is None else 60.0 * minutes
        self._num_before = num_ended
        self._done: Any = None
        self._since: float | None = None
        self.has_progress = False
        """Whether a simulation has ended since this process of the run began.

        A resumed run may train long before, on the samples that it has.
        """

    def is_over(self, num_ended: int, done: Any, now: float) -> bool:
        """Whether the run has been idle for its limit.

        Args:
            num_ended: simulations that have ended.
            done: any other measure of progress; the run is not idle while it or `num_ended` changes.
            now: monotonic time.

        Returns:
            Whether it has.
        """
        self.has_progress = num_ended > self._num_before
        if self._since is None or (num_ended, done) != self._done:
            self._done, self._since = (num_ended, done), now
        return now - self._since >= self._limit_s


@dataclass(eq=False)
class Place:
    """One of the places of a run's workers, which successive workers fill."""

    number: int = 0
    """Its number; in a run that must repeat, its lane."""
    is_open: bool = True
    """Whether workers are to fill it; else the one that is in it ends with its leases."""
    due: float | None = 0.0
    """When the next worker is to be started; None while one fills it."""
    excess: float = 0.0
    """Deaths, minus one per SIMULATIONS_PER_DEATH simulations that ended since."""
    num_in_a_row: int = 0
    """Deaths since a simulation ended here."""
    simulations: int = 0
    """Simulations that have ended here."""
    restarts: int = 0
    """Workers that were replaced here."""

    def ended(self, num_simulations: int) -> None:
        """Count simulations that ended."""
        self.simulations += num_simulations
        self.excess = max(0.0, self.excess - num_simulations / SIMULATIONS_PER_DEATH)
        if num_simulations:
            self.num_in_a_row = 0

    def died(self, *, is_repeat: bool = False) -> None:
        """Count a death.

        Args:
            is_repeat: whether a worker has died in the same simulation before, which will be given up for that.
        """
        self.excess += not is_repeat
        self.num_in_a_row += 1

    @property
    def is_hopeless(self) -> bool:
        """Whether the place is to be given up."""
        return max(self.excess, self.num_in_a_row) >= FREE_DEATHS

    @property
    def pause_s(self) -> float:
        """Seconds before the next worker is started: 0, then 2, 4, 8."""
        count = max(self.excess, self.num_in_a_row)
        return 0.0 if count <= 1 else 2.0 ** math.ceil(count - 1)


def in_turns(places: Sequence[Place], num: int, num_ranks: int) -> list[Place]:
    """Order places so that the first ones serve all learner ranks alike.

    A place belongs to the rank that is its number modulo their number.

    Args:
        places: the places, those to be kept first; at least one.
        num: number of places that there have to be.
        num_ranks: number of learner ranks.

    Returns:
        The first place of each rank, then their second ones, and so on. New ones make up the number.
    """
    places, first = list(places), 1 + max(place.number for place in places)
    while len(places) < num:
        counts = Counter(place.number % num_ranks for place in places)
        places.append(Place(min(range(first, first + num_ranks), key=lambda number: counts[number % num_ranks])))
        first = places[-1].number + 1
    counts, turns = Counter(), {}
    for place in places:
        turns[place] = counts[place.number % num_ranks]
        counts[place.number % num_ranks] += 1
    return sorted(places, key=lambda place: turns[place])


class Restarts:
    """Whether another learner goes on where one has died."""

    def __init__(self):
        self._steps: deque[int] = deque(maxlen=LEARNER_DEATHS)  # of the newest checkpoint at each death; -1 for none

    def refused(self, newest: int | None) -> str | None:
        """Count a death.

        What killed one learner at once, or again and again, would kill the next: memory that does not suffice, a fault
        in a compiled step or in the driver of a GPU.

        Args:
            newest: step of the newest checkpoint; None if there is none.

        Returns:
            Why no other learner should go on, to follow what died; None if one should.
        """
        step = -1 if newest is None else newest
        is_stuck = bool(self._steps) and step == self._steps[-1]
        self._steps.append(step)
        if is_stuck:
            return "again before it had written another checkpoint"
        if len(self._steps) == LEARNER_DEATHS and step - self._steps[0] < STEPS_OF_DEATHS:
            return f"{LEARNER_DEATHS} times within {STEPS_OF_DEATHS} steps"
        return None


def memory_bound(memory_mb: int | None, num_workers: int) -> int:
    """Bytes of private memory that a worker may have.

    Args:
        memory_mb: bound in MB; None for a share of the memory that bounds this process.
        num_workers: workers that share it.

    Returns:
        The bound.
    """
    if memory_mb is not None:
        return memory_mb * 1_000_000
    return int(MEMORY_SHARE * least_memory().total / num_workers)


class MemoryKills:
    """Whether the kernel has just killed a process of this machine for its memory."""

    def __init__(self):
        self._count = self._read()
        self._at = -math.inf

    def look(self, now: float) -> None:
        """Read the kernel's count of kills."""
        before, self._count = self._count, self._read()
        if self._count > before:
            self._at = now

    def is_recent(self, now: float) -> bool:
        """Whether there was a kill within the last KILLED_WITHIN_S seconds."""
        self.look(now)
        return now - self._at <= KILLED_WITHIN_S

    def _read(self) -> int:
        try:
            lines = Path("/proc/vmstat").read_text().split("\n")
        except OSError:
            return 0
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
