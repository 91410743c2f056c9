"""Several ways to do the same, timed in turns."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from penstock.errors import PenstockError

FEWEST = 3  # rounds
HEADER = ("ours/peer", "in single rounds")
EXPLANATION = """
"ours/peer" is the quotient of the two rates beside it; "in single rounds" has the quartiles of the quotients that
single rounds gave, and the number of rounds.
"""


@dataclass(frozen=True)
class Turns:
    """CPU seconds of ours, the first arm, and of its peers, [rounds, arms]."""

    times: np.ndarray

    @property
    def medians(self) -> np.ndarray:
        """The median over rounds of each arm's CPU seconds, [arms]."""
        return np.median(self.times, axis=0)

    def cells(self, peer: int) -> list[str]:
        """What a row says under `HEADER`: how many times as fast ours is.

        Args:
            peer: the peer's arm.
        """
        ours, peers = self.medians[[0, peer]]
        low, high = np.quantile(self.times[:, peer] / self.times[:, 0], [0.25, 0.75])
        return [f"{peers / ours:.2f}x", f"{low:.2f}-{high:.2f}, {len(self.times)}"]


def in_turns(arms: Sequence[Callable[[Any], Any]], draws: Iterable[Any], *, seconds: float) -> Turns:
    """Time all arms on one draw after the other; each begins in its turn.

    Times are CPU seconds of this process, which other processes on its core disturb least.

    Args:
        arms: each takes a draw; ours first.
        draws: enough of them.
        seconds: after which no further round begins, except to make three.
    """
    rounds: list[list[float]] = []
    began = time.process_time()
    for draw in draws:
        if len(rounds) >= FEWEST and time.process_time() - began > seconds:
            break
        times = [0.0] * len(arms)
        for turn in range(len(arms)):
            number = (len(rounds) + turn) % len(arms)
            start = time.process_time()
            arms[number](draw)
            times[number] = time.process_time() - start
        rounds.append(times)
    return Turns(np.array(rounds))


class OfProblem(Protocol):
    """What is about one problem."""

    problem: str


def chosen[Contest: OfProblem](contests: Sequence[Contest], names: Sequence[str]) -> Iterator[Contest]:
    """Contests by the names of their problems; each is announced on standard error.

    Args:
        contests: all there are.
        names: of problems; every contest where there are none.

    Raises:
        PenstockError: no contest is about one of these problems.
    """
    known = [contest.problem for contest in contests]
    if unknown := [name for name in names if name not in known]:
        raise PenstockError(f"no peer of {unknown[0]!r} is known: {', '.join(known)} have one")
    for contest in contests:
        if not names or contest.problem in names:
            print(contest.problem, file=sys.stderr, flush=True)
            yield contest
