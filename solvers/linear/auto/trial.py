"""Candidates that solve the same systems in turns, until the fastest is known."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median_low

from penstock.solvers.linear.auto.calibration import Calibrated
from penstock.solvers.linear.auto.candidates import Candidate
from penstock.solvers.linear.iterative.cg import INDEFINITE
from penstock.solvers.linear.reasons import broken_down, numerical_failures
from penstock.solvers.linear.strategy import Attempt, Strategy, Tolerance
from penstock.solvers.problem import LinearSystem, Outcome

# A candidate drops out beyond 2 times the best, when it is first judged.
KEPT_FIRST = 2.0
# From the next system on, it drops out beyond 1.5 times the best.
KEPT = 1.5
# A timed trial is cut at 3 times the best so far.
CUT = 3.0
# A first trial is cut at 5 times: it includes set-up that later solves reuse.
FIRST_CUT = 5.0
# No trial begins for a candidate that was never seen to take less than 1.5 times the best so far.
HOPELESS = 1.5
# No trial begins after the time of 30 solves by the best candidate; with the last trials that is 2 % of 2000 systems.
BUDGET = 30.0
# After 3 systems that no candidate solved, the first candidate is taken untimed.
FRUITLESS_ROUNDS = 3


class Contender:
    """A candidate at work, with the times of its solves."""

    def __init__(self, candidate: Candidate, tolerance: Tolerance):
        self.label = candidate.label
        self.strategy: Strategy = candidate.make()
        self.calibration: Calibrated | None = None
        if tolerance.accuracy is not None and not self.strategy.meets_accuracy:
            self.strategy = self.calibration = Calibrated(self.strategy)
        self.seconds: list[float] = []
        """Times of the solves that count; those of the warm-up do not."""
        self.last_seconds = 0.0
        self.least = candidate.least
        self._iteration = candidate.iteration
        self._num_cold = candidate.warm_up
        self._num_timed = candidate.num_timed
        self._upkeep = candidate.upkeep
        self._iteration_seconds = 0.0
        self._stay = 1
        self._sum, self._num_summed = 0.0, 0
        self._before = ([], 0, 0.0, 0)  # what `take_back` goes back to

    def enter(self, stay: int) -> None:
        """Begin a trial in which a matrix stays for `stay` systems."""
        self._stay = stay
        self._sum, self._num_summed = 0.0, 0

    @property
    def is_warm(self) -> bool:
        return self._num_cold == 0

    def begin_warm(self) -> None:
        """Skip the warm-up, because it has solved systems before."""
        self._num_cold = 0
        self.seconds.clear()

    @property
    def is_judged(self) -> bool:
        return len(self.seconds) > self._num_timed - 3

    @property
    def is_done(self) -> bool:
        return len(self.seconds) >= self._num_timed

    @property
    def cost(self) -> float:
        """The seconds of a solve in the long run; infinite until one was timed.

        Of two times the lower one counts, because disturbances only add.
        """
        return self._upkeep * median_low(self.seconds) if self.seconds else math.inf

    def is_behind(self, best: float) -> bool:
        """Whether it costs too much against the best one.

        The limit depends on the number of systems that it was timed on.
        """
        kept = KEPT_FIRST if len(self.seconds) == self._num_timed - 2 else KEPT
        return self.is_judged and self.cost > kept * best

    def solve_untimed(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        """One attempt that takes as long as it takes, and counts for nothing."""
        return guarded(self.strategy.solve, system, tolerance)

    def solve(
        self, system: LinearSystem, tolerance: Tolerance, limit: float, product_seconds: float, weight: int
    ) -> Attempt:
        """One attempt, which fails if it takes more than `limit` seconds.

        Iterative methods are cut there; the set-up of others may take longer. One that was timed before is judged by
        its times: a single slow solve is no proof.

        Args:
            system: the system.
            tolerance: when the strategy may stop.
            limit: in seconds.
            product_seconds: the seconds of a product with A.
            weight: the number of systems with this matrix that it stands for.
        """
        self._before = (self.seconds.copy(), self._num_cold, self._sum, self._num_summed)
        cut = tolerance
        if limit < math.inf:
            possible = math.ceil(limit / max(self._iteration * product_seconds, self._iteration_seconds))
            cut = replace(tolerance, max_iterations=possible)
        start = time.thread_time()
        attempt = guarded(self.strategy.solve if self.calibration is None else self.calibration.attempt, system, cut)
        seconds = self.last_seconds = over_ranks(time.thread_time() - start, system)

        attempt = attempt.checked(system)
        if attempt.outcome is not Outcome.CONVERGED:
            return attempt
        if not attempt.meets(tolerance):
            return replace(attempt, outcome=Outcome.STAGNATION)
        if self.is_warm and not self.seconds and seconds > limit:  # as if it had been cut there
            return replace(attempt, outcome=Outcome.ITERATION_LIMIT, reason="too slow to be tried further")
        iterating = over_ranks(max(seconds - attempt.setup_seconds, 0.0), system)
        self._iteration_seconds = iterating / max(attempt.iterations, 1)
        self._sum += weight * seconds
        self._num_summed += weight
        if self._num_summed >= self._stay:  # more where a turn before was lost
            if self.is_warm:
                self.seconds.append(self._sum / self._num_summed)
            else:
                self._num_cold -= 1
            self._sum, self._num_summed = 0.0, 0
        return attempt

    def take_back(self) -> None:
        """Forget the time of the last solve."""
        self.seconds, self._num_cold, self._sum, self._num_summed = self._before


class Trial:
    """A trial: candidates solve the same systems in turns, until the fastest is known.

    It ends when one is left or all have been timed. A candidate that fails or is far too slow drops out at once, one
    that falls behind a little later; it is back where those before it turn out slower, or fail. First solves are not
    timed, because set-up and learning are paid once. Under an accuracy, all solve to the same error. Times are
    processor times, so other programs on the machine have no influence.

    Where a matrix stays for several systems, its first one shows what a new matrix costs, one in their middle what
    the others cost: a time is the mean of one and `stay` - 1 of these. The first contender solves the systems between.

    Args:
        contenders: the likeliest first, so that a good bound on the others is known early.
        stay: the number of systems that a matrix stays for.
    """

    def __init__(self, contenders: Sequence[Contender], *, stay: int = 1):
        self.is_over = False
        self.turns = {1: 1} if stay == 1 else {1: 1, max(2, stay // 2): stay - 1}
        """Which systems of a matrix are timed, and how many each stands for."""
        self.stay = stay
        for contender in contenders:
            contender.enter(stay)
        self.slow: set[str] = set()
        """Labels of contenders without a time that were cut, or not tried because they would have been."""
        self._left = list(contenders)
        self._behind: list[Contender] = []
        self.is_indefinite = False
        """Whether CG met a direction that shows A not to be positive definite."""
        self._labels = [contender.label for contender in contenders]
        self._spent = self._product_seconds = 0.0
        self._num_rounds = self._num_fruitless = 0

    @property
    def winner(self) -> Contender:
        return min(self._left, key=lambda contender: contender.cost)

    @property
    def seconds(self) -> dict[str, float | None]:
        """The seconds of a solve by label; None for a contender without a time.

        That is one that failed or is in `slow`.
        """
        timed = {contender.label: contender.cost for contender in self._left + self._behind if contender.seconds}
        return dict.fromkeys(self._labels) | timed

    def reset(self) -> None:
        for contender in self._left + self._behind:
            contender.strategy.reset()

    def solve(self, system: LinearSystem, tolerance: Tolerance, number: int = 1) -> Attempt:
        """Hold one round: every contender that is left solves the system.

        Args:
            system: the system.
            tolerance: when the strategies may stop.
            number: the system's number among those with its matrix, from 1 on. A round is held where it is in `turns`;
                the first round at a new matrix.

        Returns:
            The best solution.
        """
        if number not in self.turns or (number > 1 and self._num_rounds == 0):
            return self._left[0].solve_untimed(system, tolerance)
        weight = self.turns[number]
        if self._num_rounds == 0:
            self._product_seconds = _seconds_of_product(system)
        attempts: dict[Contender, Attempt] = {}
        solved: dict[Contender, Attempt] = {}
        turn = self._num_rounds % len(self._left)
        for contender in self._left[turn:] + self._left[:turn]:
            if contender.is_done or (self._num_rounds == 0 and self._is_too_dear(contender, solved)):
                continue
            attempts[contender] = self._attempt(contender, system, tolerance, solved, weight)
        best_attempt = (
            _best_of(solved, system, tolerance) if solved else self._solved_uncut(attempts, solved, system, tolerance)
        )
        if best_attempt is not None and not best_attempt.meets(tolerance):
            attempts |= dict.fromkeys(solved, best_attempt)
            for contender in solved:
                contender.take_back()
            solved.clear()
        self._num_rounds += 1
        if not solved:
            self._num_fruitless += 1
            self.is_over = self._num_fruitless == FRUITLESS_ROUNDS
            said = "; ".join(
                f"{tried.label}: {attempt.reason or attempt.outcome}" for tried, attempt in attempts.items()
            )
            return replace(next(iter(attempts.values())), reason=f"tried {said}")
        able = [contender for contender in self._left if contender in solved or contender.is_done]
        for contender in self._left:
            is_cut = contender not in attempts or attempts[contender].outcome is Outcome.ITERATION_LIMIT
            if contender not in able and is_cut:
                self.slow.add(contender.label)
        able += self._behind
        best = min(contender.cost for contender in able)
        self._behind = [contender for contender in able if contender.is_behind(best)]
        self._left = [contender for contender in able if contender not in self._behind]
        are_done = all(contender.is_done for contender in self._left)
        are_judged = all(contender.is_judged for contender in self._left)
        self.is_over = are_done or (are_judged and (len(self._left) == 1 or self._spent > BUDGET * best))
        return best_attempt

    def _best(self, solved: Iterable[Contender]) -> float:
        """The least seconds of a solve so far."""
        return min(self.winner.cost, min((contender.last_seconds for contender in solved), default=math.inf))

    def _is_too_dear(self, contender: Contender, solved: Iterable[Contender]) -> bool:
        """Whether it need not be tried at all."""
        best = self._best(solved)
        return self._spent > BUDGET * best or contender.least * self._product_seconds > HOPELESS * best

    def _solved_uncut(
        self,
        attempts: dict[Contender, Attempt],
        solved: dict[Contender, Attempt],
        system: LinearSystem,
        tolerance: Tolerance,
    ) -> Attempt | None:
        """The solution by the best contender that was cut or not asked.

        It is noted in `solved`; None if there is none. That the trial was too short for a system is no failure of a
        strategy.
        """
        for contender in sorted(self._left + self._behind, key=lambda contender: contender.cost):
            if contender not in attempts or attempts[contender].outcome is Outcome.ITERATION_LIMIT:
                attempt = contender.solve_untimed(system, tolerance).checked(system)
                if attempt.outcome is Outcome.CONVERGED and attempt.meets(tolerance):
                    solved[contender] = attempt
                    return attempt
                attempts[contender] = attempt
        return None

    def _attempt(
        self,
        contender: Contender,
        system: LinearSystem,
        tolerance: Tolerance,
        solved: dict[Contender, Attempt],
        weight: int,
    ) -> Attempt:
        """One attempt, noted in `solved` if it converged."""
        limit = CUT * self.winner.cost * self.stay / weight if contender.is_warm else FIRST_CUT * self._best(solved)
        attempt = contender.solve(system, tolerance, limit, self._product_seconds, weight)
        self._spent += contender.last_seconds
        self.is_indefinite |= attempt.reason == INDEFINITE
        if attempt.outcome is Outcome.CONVERGED:
            solved[contender] = attempt
        return attempt


def _best_of(solved: Mapping[Contender, Attempt], system: LinearSystem, tolerance: Tolerance) -> Attempt:
    """The best of a round's solutions.

    Under an accuracy, the calibrated strategies learn their ratios from it. It misses the tolerance where none of
    theirs could be confirmed.
    """
    attempt = next(iter(solved.values()))
    learners = [contender for contender in solved if contender.calibration is not None]
    if not learners:
        return attempt
    exact = [attempt for contender, attempt in solved.items() if contender not in learners]
    if exact:
        reference = exact[0]
    else:
        nearest = min(learners, key=lambda learner: solved[learner].iterations)
        reference_of = nearest.calibration.reference
        reference = guarded(lambda given, asked: reference_of(given, solved[nearest], asked), system, tolerance)
        reference = reference.checked(system)
    for learner in learners:
        learner.calibration.learn(system, solved[learner], reference, tolerance)
    return reference


def guarded(solve: Callable[[LinearSystem, Tolerance], Attempt], system: LinearSystem, tolerance: Tolerance) -> Attempt:
    """The attempt of a solve, which counts as a breakdown if it raises."""
    try:
        return solve(system, tolerance)
    except (*numerical_failures(), ValueError) as error:  # the strategy does not suit such systems or this PETSc
        return broken_down(system, error)


def _seconds_of_product(system: LinearSystem) -> float:
    target = system.b.duplicate()
    seconds = []
    for _ in range(3):
        start = time.thread_time()
        system.A.mult(system.b, target)
        seconds.append(time.thread_time() - start)
    return over_ranks(min(seconds), system)


def over_ranks(seconds: float, system: LinearSystem) -> float:
    """The largest of all ranks' times, so that all ranks decide alike."""
    if system.A.comm.size == 1:
        return seconds
    from mpi4py import MPI

    return system.A.comm.tompi4py().allreduce(seconds, MPI.MAX)
