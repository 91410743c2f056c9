"""`strategy: auto`, which takes the fastest strategy for a family of systems.

The family's structure says which strategies make sense, their times which one to take.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence

from penstock.messages import Decision
from penstock.solvers.linear.auto.calibration import can_factor
from penstock.solvers.linear.auto.candidates import CONSTANT, candidates
from penstock.solvers.linear.auto.trial import Contender, Trial, guarded, over_ranks
from penstock.solvers.linear.auto.watch import Watch
from penstock.solvers.linear.direct.matrix_copy import MatrixCopy
from penstock.solvers.linear.forms import tells_entries
from penstock.solvers.linear.strategy import Attempt, Strategy, Tolerance
from penstock.solvers.problem import LinearSystem

logger = logging.getLogger(__name__)

# A new trial is held only while trials have cost no more than this fraction of all solving time.
RETRY_FRACTION = 0.05


class Auto(Strategy):
    """The strategy that is fastest for the family, found on its first systems.

    The first system is solved by the first of `candidates`. Where the second one has the same matrix, `Constant` is
    taken. Otherwise all candidates solve the next systems (`Trial`), and from then on the fastest one does. It is
    watched: the candidates are tried again if its iterations grow by half, it fails, or a constant matrix does not stay
    constant. The result is in `decision`, which is None before.
    """

    meets_accuracy = True
    asks_clock = "auto, which times the candidates: name one, for instance direct"

    def __init__(self):
        self.decision: Decision | None = None
        self._may_try = True
        self._matrix: MatrixCopy | None = None
        self._current: Contender | None = None
        self._watch: Watch | None = None
        self._trial: Trial | None = None
        self._seconds = self._trial_seconds = 0.0

    @property
    def name(self) -> str:
        """The name of the strategy chosen; "auto" while there is none."""
        return "auto" if self.decision is None or self._trial is not None else self.decision.strategy

    @property
    def recycles(self) -> bool:
        return self._trial is None and self._current is not None and self._current.strategy.recycles

    @property
    def gains_from_order(self) -> bool:
        return self._current is not None and self._current.strategy.gains_from_order

    def adopt(self, decision: Decision | None, *, may_try: bool) -> None:
        """Follow a decision that was made elsewhere, if it is newer than the current one."""
        self._may_try = may_try
        if decision is not None and (self.decision is None or decision.number > self.decision.number):
            self.decision, self._current, self._trial, self._matrix = decision, None, None, None

    def reset(self) -> None:
        """Forget all earlier systems, but not the times.

        `LinearSolver` resets a strategy that has failed, so a reset counts as a failure.
        """
        if self._trial is not None:
            self._trial.reset()
        elif self._current is not None:
            self._current.strategy.reset()
            self._watch.note_trouble()

    def solve(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        start = time.perf_counter()
        if self._current is None:
            self._follow(system, tolerance)
        if self._trial is None:
            self._look(system, tolerance)
        if self._trial is None:
            strategy = self._current.strategy
            num_matrices = strategy.num_matrices
            attempt = guarded(strategy.solve, system, tolerance)
            self._watch.note(attempt.iterations)
            if 0 < num_matrices < strategy.num_matrices:
                self._watch.note_trouble()
        else:
            attempt = self._trial.solve(system, tolerance)
            self._trial_seconds += time.perf_counter() - start
            if self._trial.is_over:
                self._decide(self._trial.winner, system.family, self._trial.seconds, self._trial.slow)
        self._seconds += time.perf_counter() - start
        return attempt

    def kept(self, system: LinearSystem, tolerance: Tolerance) -> LinearSystem | None:
        if self.decision is None or self._current is None or self._trial is not None or self._watch.is_alarmed:
            return None
        return self._current.strategy.kept(system, tolerance)

    def solve_block(self, systems: Sequence[LinearSystem], tolerance: Tolerance) -> list[Attempt | None]:
        return self._current.strategy.solve_block(systems, tolerance)

    def _follow(self, system: LinearSystem, tolerance: Tolerance) -> None:
        """Take the strategy that was decided on, or the likeliest candidate."""
        known = {candidate.label: candidate for candidate in (*candidates(system), CONSTANT)}
        if self.decision is not None and self.decision.strategy not in known:  # a label of another version
            self.decision = None
        label = next(iter(known)) if self.decision is None else self.decision.strategy
        self._current, self._watch = Contender(known[label], tolerance), Watch()

    def _look(self, system: LinearSystem, tolerance: Tolerance) -> None:
        """Compare the matrix with the one before if that matters; begin a trial if due."""
        if self.decision is None:
            if not tells_entries(system.A):  # no comparison is possible
                if self._may_try:
                    self._begin_trial(system, tolerance)
            elif self._matrix is None:
                self._matrix = MatrixCopy(system.A)
            elif self._matrix.equals(system.A) and can_factor(system):
                self._decide(Contender(CONSTANT, tolerance), system.family, {})
            elif self._may_try:
                self._begin_trial(system, tolerance)
            return
        if self._may_try and self._watch.is_alarmed:
            spent = over_ranks(self._trial_seconds / self._seconds, system) if self._seconds else 0.0
            if spent <= RETRY_FRACTION:
                self._begin_trial(system, tolerance)

    def _begin_trial(self, system: LinearSystem, tolerance: Tolerance) -> None:
        self._current.begin_warm()
        rivals = [candidate for candidate in candidates(system) if candidate.label != self._current.label]
        self._trial = Trial([self._current, *(Contender(candidate, tolerance) for candidate in rivals)])
        self._matrix = None

    def _decide(
        self, winner: Contender, family: str, seconds: Mapping[str, float | None], slow: Collection[str] = ()
    ) -> None:
        number = 0 if self.decision is None else self.decision.number + 1
        reason = describe(winner.label, seconds, slow)
        self.decision = Decision(family=family, number=number, strategy=winner.label, seconds=seconds, reason=reason)
        self._current, self._watch, self._trial, self._matrix = winner, Watch(), None, None
        logger.info("family %r: %s", family, reason)


def describe(choice: str, seconds: Mapping[str, float | None], slow: Collection[str] = ()) -> str:
    """One line of prose: the choice, its rivals, and the ratios of their times.

    Labels are quoted, because they may contain commas.

    Args:
        choice: label of the choice.
        seconds: seconds of a solve by label; None for one without a time.
        slow: those of the latter that were too slow; the others failed.

    Returns:
        The line.
    """
    best = seconds.get(choice)
    if best is None:
        untimed = "no candidate solved the first systems" if seconds else "the matrix stays the same"
        return f"{choice!r}, untimed: {untimed}"
    others = sorted((value, label) for label, value in seconds.items() if value is not None and label != choice)
    line = f"{choice!r}, {1e3 * best:.3g} ms per solve"
    if others:
        line += ", over " + ", ".join(f"{label!r} {1e3 * value:.3g} ({value / best:.1f}x)" for value, label in others)
    without = [label for label, value in seconds.items() if value is None]
    if failed := [repr(label) for label in without if label not in slow]:
        line += f"; failed: {', '.join(failed)}"
    if cut := [repr(label) for label in without if label in slow]:
        line += f"; too slow to time: {', '.join(cut)}"
    return line
