"""The retry ladder: strategies to try for a system after one has failed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.forms import tells_entries
from penstock.solvers.linear.reasons import is_symmetric
from penstock.solvers.linear.strategy import Strategy
from penstock.solvers.problem import LinearSystem

# A rung is left out after this many failures in a row.
FAILURES = 3
# Numbers of systems that a rung is left out for: at first, and at most, after repeated doubling.
FIRST_PAUSE, LONGEST_PAUSE = 4, 1024


class Ladder:
    """The rungs of one family, tried in order until one solves the system.

    They are the strategy, the strategy again with nothing recycled, and a direct solve by LU. A rung that has failed
    three systems in a row is left out for the next four, so the one that worked comes first. It is then tried again,
    and left out for twice as many each time that it still fails. So a strategy that never works is tried for 10 of 1000
    systems, and one that fails now and then is not given up.
    """

    def __init__(self, strategy: Strategy):
        self.strategy = strategy
        self.is_told = False
        """Whether the log has a reason why a system had to climb; one is enough."""
        self._num_systems = 0
        self._is_general = False  # whether a system that was said to be SPD was not symmetric
        self._lu = Direct(solver="mumps")
        self._as_it_is, self._with_nothing_recycled = _Trust(), _Trust()

    def believed(self, system: LinearSystem) -> LinearSystem:
        """The system, no longer as SPD once one of the family was found nonsymmetric.

        Symmetry is tested in the systems 1, 2, 4, 8, ..., because PETSc's ICC of a nonsymmetric matrix may never end.
        """
        self._num_systems += 1
        if system.is_spd and not self._is_general and self._num_systems & (self._num_systems - 1) == 0:
            self._is_general = not is_symmetric(system)
        return replace(system, is_spd=False) if self._is_general else system

    def rungs(self, system: LinearSystem) -> Iterator[tuple[Strategy, LinearSystem]]:
        """The strategies to try, in order, with the system as each is given it.

        Each is asked for only when the one before it has failed.
        """
        strategy = self.strategy
        if not self._with_nothing_recycled.is_due() and tells_entries(system.A):
            yield self._lu, replace(system, is_spd=False)
            self._with_nothing_recycled = _Trust()
        if not self._as_it_is.is_due():
            strategy.reset()
        yield strategy, system
        has_recycled = strategy.recycles
        strategy.reset()  # recycled data that led to a failure must not enter the next attempt or system
        if has_recycled:
            self._as_it_is.note_failure()
            yield strategy, system
            strategy.reset()
        self._with_nothing_recycled.note_failure()
        if tells_entries(system.A):
            self._lu.reset()
            yield self._lu, replace(system, is_spd=False)  # LU, in case A is not SPD after all


class _Trust:
    """A count of a rung's failures, which decides whether it is worth trying."""

    def __init__(self):
        self._num_failures = 0  # in a row
        self._num_before = 0  # failures in a row before the present system
        self._pause = 0

    def is_due(self) -> bool:
        """Whether to try the rung for the next system.

        It counts as having solved that system unless `note_failure` is called.
        """
        if self._pause > 0:
            self._pause -= 1
            return False
        self._num_before, self._num_failures = self._num_failures, 0
        return True

    def note_failure(self) -> None:
        self._num_failures = self._num_before + 1
        if self._num_failures >= FAILURES:
            self._pause = min(FIRST_PAUSE * 2 ** (self._num_failures - FAILURES), LONGEST_PAUSE)
