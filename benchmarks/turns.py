"""Two ways to do the same, timed in turns."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from penstock.errors import PenstockError

FEWEST = 3  # rounds


@dataclass(frozen=True)
class Turns:
    """CPU seconds of ours and of a peer, one number per round."""

    ours: np.ndarray
    peer: np.ndarray

    @property
    def ratio(self) -> float:
        """How many times as fast ours is: the median over rounds."""
        return float(np.median(self.peer / self.ours))


def in_turns(ours: Callable[[Any], Any], peer: Callable[[Any], Any], draws: Iterable[Any], *, seconds: float) -> Turns:
    """Time both on one draw after the other; each begins every second round.

    Times are CPU seconds of this process, which other processes on its core disturb least.

    Args:
        ours: takes a draw.
        peer: likewise.
        draws: enough of them.
        seconds: after which no further round begins, except to make three.
    """
    rounds: list[list[float]] = []
    began = time.process_time()
    for draw in draws:
        if len(rounds) >= FEWEST and time.process_time() - began > seconds:
            break
        arms = [(0, ours), (1, peer)]
        times = [0.0, 0.0]
        for number, run in arms if len(rounds) % 2 else reversed(arms):
            start = time.process_time()
            run(draw)
            times[number] = time.process_time() - start
        rounds.append(times)
    return Turns(*np.array(rounds).T)


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
