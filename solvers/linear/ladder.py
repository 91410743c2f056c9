"""The way back from failure: what is tried for a system after a strategy has failed, and what is learned from that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.forms import tells_entries
from penstock.solvers.linear.reasons import is_symmetric
from penstock.solvers.linear.strategy import Strategy
from penstock.solvers.problem import LinearSystem

FAILURES = 3  # in a row, after which a way to solve is left out
FIRST_PAUSE, LONGEST_PAUSE = 4, 1024  # systems that it is left out for: at first, and after doubling again and again


class Ladder:
    """Of one family: the strategy, the strategy again with nothing recycled, a direct solve by LU.

    A rung that has failed three systems in a row is left out for the next four: what worked after it comes first. It is
    then tried again, and left out for twice as many each time that it still fails. So a strategy that never works is
    tried for 10 of 1000 systems, and one that fails now and then is not given up.
    """

    def __init__(self, strategy: Strategy):
        self.strategy = strategy
        self.is_told = False
        """Why a system had to climb has been said."""
        self._num_systems = 0
        self._is_general = False  # though its systems are said to be SPD
        self._lu = Direct(solver="mumps")
        self._as_it_is, self._with_nothing_recycled = _Trust(), _Trust()

    def believed(self, system: LinearSystem) -> LinearSystem:
        """The system, and no longer SPD for this family once one that was said to be so is not symmetric.

        Looked at in the systems 1, 2, 4, 8, ...: PETSc's ICC of a nonsymmetric matrix may never end.
        """
        self._num_systems += 1
        if system.is_spd and not self._is_general and self._num_systems & (self._num_systems - 1) == 0:
            self._is_general = not is_symmetric(system)
        return replace(system, is_spd=False) if self._is_general else system

    def rungs(self, system: LinearSystem) -> Iterator[tuple[Strategy, LinearSystem]]:
        """What to try, in order; each is asked for only when the one before it has failed."""
        strategy = self.strategy
        if not self._with_nothing_recycled.is_due() and tells_entries(system.A):
            yield self._lu, replace(system, is_spd=False)
            self._with_nothing_recycled = _Trust()
        if not self._as_it_is.is_due():
            strategy.reset()
        yield strategy, system
        has_recycled = strategy.recycles
        strategy.reset()  # what led to a failure must not lead the next attempt, nor the next system
        if has_recycled:
            self._as_it_is.note_failure()
            yield strategy, system
            strategy.reset()
        self._with_nothing_recycled.note_failure()
        if tells_entries(system.A):
            self._lu.reset()
            yield self._lu, replace(system, is_spd=False)  # for it may be that A is not SPD


class _Trust:
    """In a way to solve: whether it is worth trying."""

    def __init__(self):
        self._num_failures = 0  # in a row
        self._num_before = 0  # the system that is being solved
        self._pause = 0

    def is_due(self) -> bool:
        """For the next system, which it is taken to solve unless `note_failure` is called."""
        if self._pause > 0:
            self._pause -= 1
            return False
        self._num_before, self._num_failures = self._num_failures, 0
        return True

    def note_failure(self) -> None:
        self._num_failures = self._num_before + 1
        if self._num_failures >= FAILURES:
            self._pause = min(FIRST_PAUSE * 2 ** (self._num_failures - FAILURES), LONGEST_PAUSE)
