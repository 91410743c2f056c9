"""When a worker is silent for too long and when its place is given up: rules, without Ray and without a clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.orchestrator.run.memory import least_memory

WORD_AFTER_S = 10.0  # of silence, or after WORD_FACTOR times the longest one that ended, is a word said
WORD_FACTOR = 5.0
TIMEOUT_S = 60.0  # of silence, or after TIMEOUT_FACTOR times the longest one that ended, is a worker replaced
TIMEOUT_FACTOR = 20.0
FREE_DEATHS = 5  # of the workers of one place, after which it is given up ...
SIMULATIONS_PER_DEATH = 20  # ... but for one more per so many simulations that ended there
KILLED_WITHIN_S = 10.0  # Ray tells a death some seconds after it
MEMORY_SHARE = 0.8  # of the machine, for all workers together


class Silences:
    """How long each worker has been silent, and what is too long.

    timeout_s: what is too long; None for TIMEOUT_FACTOR times the longest silence that ended, and TIMEOUT_S at least.
    Before anything is known of how long a simulation takes nothing is too long then.
    """

    def __init__(self, timeout_s: float | None = None):
        self._given_s = timeout_s
        self._longest_s: float | None = None
        self._now: dict[str, float] = {}
        self._places: dict[str, tuple[str | None, float]] = {}  # where a worker was seen, and since when

    @property
    def timeout_s(self) -> float:
        if self._given_s is not None:
            return self._given_s
        return math.inf if self._longest_s is None else max(TIMEOUT_S, TIMEOUT_FACTOR * self._longest_s)

    @property
    def word_after_s(self) -> float:
        if self._longest_s is None:
            return min(TIMEOUT_S, self.timeout_s / 2)
        return min(max(WORD_AFTER_S, WORD_FACTOR * self._longest_s), self.timeout_s / 2)

    def progress(self) -> None:
        """Some simulation has ended."""
        self._longest_s = self._longest_s or 0.0

    def look(self, worker: str, stream_s: float, place: str | None, now: float) -> float:
        """For how many seconds a worker has been silent.

        stream_s: since it gave something, the time in which it waited for that to be taken left out.
        place: names the simulation that it is in: a new one ends a silence too. None where that is not known.
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
        """It was replaced."""
        self._now.pop(worker, None)
        self._places.pop(worker, None)


class Idle:
    """Whether a run has waited for its first training step for all the minutes that it has, with nothing solved.

    Once it trains, the learner looks after the limit.

    num_ended: simulations that had ended before the run's present life.
    """

    def __init__(self, minutes: float | None, num_ended: int = 0):
        self._limit_s = math.inf if minutes is None else 60.0 * minutes
        self._num_before = num_ended
        self._done: Any = None
        self._since: float | None = None
        self.has_progress = False
        """Whether a simulation has ended in the present life; a resumed run may train long before on what it has."""

    def is_over(self, num_ended: int, done: Any, now: float) -> bool:
        """num_ended, done: simulations, and what else came and was trained; as long as they change it is not idle."""
        self.has_progress = num_ended > self._num_before
        if self._since is None or (num_ended, done) != self._done:
            self._done, self._since = (num_ended, done), now
        return now - self._since >= self._limit_s


@dataclass(eq=False)
class Place:
    """One of the places of a run's workers, whoever is in it."""

    excess: float = 0.0
    """Deaths, less those that the simulations that ended there since make up for."""
    num_in_a_row: int = 0
    """Deaths without any simulation that ended."""

    def ended(self, num_simulations: int) -> None:
        self.excess = max(0.0, self.excess - num_simulations / SIMULATIONS_PER_DEATH)
        if num_simulations:
            self.num_in_a_row = 0

    def died(self, *, is_repeat: bool = False) -> None:
        """is_repeat: in a simulation that a worker has died in before, which will be given up for that."""
        self.excess += not is_repeat
        self.num_in_a_row += 1

    @property
    def is_hopeless(self) -> bool:
        return max(self.excess, self.num_in_a_row) >= FREE_DEATHS

    @property
    def pause_s(self) -> float:
        """Before the next worker is started: 0 after the first death, then 2 s, 4 s, 8 s."""
        count = max(self.excess, self.num_in_a_row)
        return 0.0 if count <= 1 else 2.0 ** math.ceil(count - 1)


def memory_bound(memory_mb: int | None, num_workers: int) -> int:
    """Bytes that a worker may have; memory_mb None for its share of what bounds this process."""
    if memory_mb is not None:
        return memory_mb * 1_000_000
    return int(MEMORY_SHARE * least_memory().total / num_workers)


class MemoryKills:
    """Whether the kernel has just killed a process of this machine for want of memory."""

    def __init__(self):
        self._count = self._read()
        self._at = -math.inf

    def look(self, now: float) -> None:
        before, self._count = self._count, self._read()
        if self._count > before:
            self._at = now

    def is_recent(self, now: float) -> bool:
        self.look(now)
        return now - self._at <= KILLED_WITHIN_S

    def _read(self) -> int:
        try:
            lines = Path("/proc/vmstat").read_text().split("\n")
        except OSError:
            return 0
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
