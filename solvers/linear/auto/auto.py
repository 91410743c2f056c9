"""`strategy: auto`, which takes the fastest strategy for a family of systems.

The family's structure says which strategies make sense, their times which one to take.
"""

from __future__ import annotations

import logging
import math
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
# A matrix that stays for this many systems is as good as constant: a factorisation costs up to 100 back-solves.
LONG = 100

WRONGLY_SPD = "is_spd=True looks wrong, as CG met a vector p with pᵀ A p <= 0: leave it out"


class Auto(Strategy):
    """The strategy that is fastest for the family, found on its first systems.

    The first system is solved by the first of `candidates`. Where the second one has the same matrix, `Constant` is
    taken. Otherwise all candidates solve the next systems (`Trial`), and from then on the fastest one does. It is
    watched: the candidates are tried again if its iterations grow by half, it fails, or a matrix goes after fewer than
    100 systems, and then in turns that count a new matrix once for all of its systems. The result is in `decision`,
    which is None before.
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
        self._stay = math.inf  # systems that a matrix stays for, as the decision has it
        self._num_uses = 0  # systems with the present matrix, where it matters
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
            self._stay = 1 if decision.seconds else math.inf

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
        if self._trial is not None and self._trial.stay > 1:
            self._compare(system, tolerance)
        if self._trial is None:
            strategy = self._current.strategy
            num_matrices = strategy.num_matrices
            attempt = guarded(strategy.solve, system, tolerance)
            self._watch.note(attempt.iterations)
            self._num_uses += 1
            if 0 < num_matrices < strategy.num_matrices:
                self._note_change(system, tolerance)
        else:
            number = self._num_uses if self._trial.stay > 1 else 1
            attempt = self._trial.solve(system, tolerance, number)
            if number in self._trial.turns:
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
        self._num_uses += len(systems)
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
                self._num_uses = 1
            elif self._may_try:
                self._begin_trial(system, tolerance)
            return
        if self._watch.is_alarmed and self._may_try_again(system):
            self._begin_trial(system, tolerance)

    def _may_try_again(self, system: LinearSystem) -> bool:
        spent = over_ranks(self._trial_seconds / self._seconds, system) if self._seconds else 0.0
        return self._may_try and spent <= RETRY_FRACTION

    def _note_change(self, system: LinearSystem, tolerance: Tolerance) -> None:
        """Note that `Constant` has just met another matrix.

        A trial begins if the last one went too soon.
        """
        stayed, self._num_uses = self._num_uses - 1, 1
        if stayed < min(LONG, self._stay / 2) and self._may_try_again(system):
            self._begin_trial(system, tolerance, stayed)

    def _compare(self, system: LinearSystem, tolerance: Tolerance) -> None:
        """Count the systems with this matrix during a trial.

        The trial ends where a matrix stays for good, and begins again where one goes before its turns.
        """
        if self._matrix.equals(system.A):
            self._num_uses += 1
            if self._num_uses >= LONG:
                is_constant = self._current.label == CONSTANT.label
                self._decide(self._current if is_constant else Contender(CONSTANT, tolerance), system.family, {})
            return
        self._matrix.overwrite(system.A)
        stayed, self._num_uses = self._num_uses, 1
        if stayed < max(self._trial.turns):
            self._begin_trial(system, tolerance, stayed)

    def _begin_trial(self, system: LinearSystem, tolerance: Tolerance, stay: int = 1) -> None:
        self._current.begin_warm()
        known = [*candidates(system), CONSTANT] if stay > 1 else candidates(system)
        rivals = [Contender(candidate, tolerance) for candidate in known if candidate.label != self._current.label]
        self._trial = Trial([self._current, *rivals], stay=stay)
        self._matrix = MatrixCopy(system.A) if stay > 1 else None

    def _decide(
        self, winner: Contender, family: str, seconds: Mapping[str, float | None], slow: Collection[str] = ()
    ) -> None:
        number = 0 if self.decision is None else self.decision.number + 1
        self._stay = self._trial.stay if seconds else math.inf
        reason = describe(winner.label, seconds, slow, stay=self._stay)
        if self._trial is not None and self._trial.is_indefinite:
            reason += f"; {WRONGLY_SPD}"
        self.decision = Decision(family=family, number=number, strategy=winner.label, seconds=seconds, reason=reason)
        self._current, self._watch, self._trial, self._matrix = winner, Watch(), None, None
        logger.info("family %r: %s", family, reason)


def describe(choice: str, seconds: Mapping[str, float | None], slow: Collection[str] = (), *, stay: float = 1) -> str:
    """One line of prose: the choice, its rivals, and the ratios of their times.

    Labels are quoted, because they may contain commas.

    Args:
        choice: label of the choice.
        seconds: seconds of a solve by label; None for one without a time.
        slow: those of the latter that were too slow; the others failed.
        stay: the number of systems that a matrix stays for.

    Returns:
        The line.
    """
    best = seconds.get(choice)
    if best is None:
        untimed = "no candidate solved the first systems" if seconds else "systems share one matrix so far"
        return f"{choice!r}, untimed: {untimed}"
    others = sorted((value, label) for label, value in seconds.items() if value is not None and label != choice)
    line = f"{choice!r}, {1e3 * best:.3g} ms per solve"
    if stay > 1:
        line += f" with {stay} systems per matrix"
    if others:
        line += ", over " + ", ".join(f"{label!r} {1e3 * value:.3g} ({value / best:.1f}x)" for value, label in others)
    without = [label for label, value in seconds.items() if value is None]
    if failed := [repr(label) for label in without if label not in slow]:
        line += f"; failed: {', '.join(failed)}"
    if cut := [repr(label) for label in without if label in slow]:
        line += f"; too slow to time: {', '.join(cut)}"
    return line
