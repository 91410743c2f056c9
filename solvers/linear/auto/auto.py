"""`strategy: auto`: structure says which strategies make sense for a family of systems, their times which to take."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from penstock.sample import Decision
from penstock.solvers.linear.auto.calibration import Calibrated, calibrated, can_factor
from penstock.solvers.linear.direct.constant import Constant
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.direct.lagged import Lagged
from penstock.solvers.linear.direct.matrix_copy import MatrixCopy
from penstock.solvers.linear.forms import tells_entries
from penstock.solvers.linear.iterative.cg import CG
from penstock.solvers.linear.iterative.gcrodr import GCRODR
from penstock.solvers.linear.iterative.petsc import Krylov
from penstock.solvers.linear.reasons import broken_down, numerical_failures
from penstock.solvers.linear.strategy import Attempt, Strategy, Tolerance
from penstock.solvers.problem import LinearSystem, Outcome

logger = logging.getLogger(__name__)

KEPT_FIRST = 2.0  # times the best, beyond which a candidate drops out when it is first judged,
KEPT = 1.5  # and from the next system on
CUT = 3.0  # times the best so far: a timed trial is cut there,
FIRST_CUT = 5.0  # and a first one there, for it holds what later ones keep
HOPELESS = 1.5  # times the best so far: no trial begins for a candidate that was never seen to take less
BUDGET = 30.0  # solves of the best candidate after which no other trial begins: with the last ones 2 % of 2000 systems
RETRY_FRACTION = 0.05  # of all seconds that trials may have cost before others are held
FRUITLESS_ROUNDS = 3  # systems that no candidate solved, before the first candidate is taken untimed

WATCHED = 20  # systems whose median is compared with that of the first ones after the decision
DRIFT = 1.5  # times the iterations at the decision, and at least
DRIFT_ITERATIONS = 3  # more of them
TOLERATED = 3  # failures, or changes of a matrix taken to be constant, among the systems watched


@dataclass(frozen=True)
class Candidate:
    """A strategy that makes sense."""

    label: str
    make: Callable[[], Strategy]
    least: float = 0.0
    """Products with A that a solve was never seen to undercut in time, set-up that later solves keep left out."""
    iteration: float = 2.0
    """Products with A that an iteration takes at least."""
    warm_up: int = 1
    """Systems before its solves are worth timing: set-up that later solves keep, a space that must be learned."""
    num_timed: int = 3
    """Systems then that it is timed on; it may drop out from the third last of them on."""
    upkeep: float = 1.0
    """What a solve takes in the long run, by the median of those timed: what is made anew from time to time."""


CONSTANT = Candidate("constant", Constant)


def candidates(system: LinearSystem) -> list[Candidate]:
    """The strategies that make sense for the system, the likeliest first."""
    num_unknowns = system.A.getSize()[0]
    is_parallel = system.A.comm.size > 1
    if not tells_entries(system.A):
        return _of_products(system)
    direct, iterative = [], []
    if can_factor(system):
        least = math.sqrt(num_unknowns)  # nested dissection in 2D: 110 products at 1e4 unknowns, 255 at 6.5e4
        if not is_parallel and system.nullspace is None:  # PETSc's own factorisations take neither
            direct.append(Candidate("direct (petsc)", lambda: Direct(solver="petsc"), least))
        direct.append(Candidate("direct (mumps)", lambda: Direct(solver="mumps"), least))
    incomplete = "bjacobi" if is_parallel else "icc" if system.is_spd else "ilu"
    if not system.is_spd:
        # Each Arnoldi step of GCRO-DR(40, 20) also works through 30 vectors on average, four times.
        step = 2 + 80 * num_unknowns / max(system.A.getInfo()["nz_used"], 1)
        iterative = [
            Candidate("lagged", Lagged, 20, 5, warm_up=3, num_timed=5, upkeep=1.2),  # a factorisation in 10 to 20
            Candidate("gmres + gamg", lambda: Krylov(ksp="gmres", pc="gamg"), 100, 6),
            Candidate(f"gcrodr + {incomplete}", lambda: GCRODR(pc=incomplete), 40 * step, step, warm_up=3),
        ]
        return direct + iterative
    if system.grid is not None and not is_parallel:
        iterative.append(Candidate("cg + multigrid", lambda: CG(pc="multigrid"), 10))
    iterative.append(Candidate("cg + gamg", lambda: CG(pc="gamg"), 100))
    if system.grid is None or is_parallel:
        iterative += [
            Candidate(f"cg + {incomplete}", lambda: CG(pc=incomplete), 50),
            Candidate(f"cg + {incomplete}, recycling", lambda: CG(pc=incomplete, k=20), 100, warm_up=6),
        ]
    is_direct_likelier = num_unknowns < (1000 if system.grid is not None else 50_000)
    return direct + iterative if is_direct_likelier else iterative + direct


def _of_products(system: LinearSystem) -> list[Candidate]:
    """For a matrix that tells no entries; its diagonal it may tell, or else Jacobi drops out."""
    if system.is_spd:
        return [Candidate(f"cg + {pc}", partial(CG, pc=pc)) for pc in ("none", "jacobi")]
    gcrodr = [Candidate(f"gcrodr + {pc}", partial(GCRODR, pc=pc), warm_up=3) for pc in ("none", "jacobi")]
    return [*gcrodr, Candidate("gmres + none", partial(Krylov, ksp="gmres", pc="none"))]


class Auto:
    """The strategy that is fastest for the family, found on its first systems.

    The first system is solved by the first of `candidates`. Where the second one has the same matrix, `Constant` it is.
    Else all candidates solve the next systems (`Trial`), and from then on the fastest one does. It is watched: they are
    tried again where its iterations grow by half, it fails, or a constant matrix does not stay so.

    decision: what was found or adopted; None before.
    """

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
        """That of the choice; "auto" while there is none."""
        return "auto" if self.decision is None or self._trial is not None else self.decision.strategy

    @property
    def recycles(self) -> bool:
        return self._trial is None and self._current is not None and self._current.strategy.recycles

    @property
    def gains_from_order(self) -> bool:
        return self._current is not None and getattr(self._current.strategy, "gains_from_order", False)

    def adopt(self, decision: Decision | None, *, may_try: bool) -> None:
        """Follow a decision that was made elsewhere, if it is newer than the own one."""
        self._may_try = may_try
        if decision is not None and (self.decision is None or decision.number > self.decision.number):
            self.decision, self._current, self._trial, self._matrix = decision, None, None, None

    def reset(self) -> None:
        """Forget all earlier systems, but not what was timed. `LinearSolver` resets what has failed, so it counts."""
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
            num_matrices = getattr(strategy, "num_matrices", 0)
            attempt = _guarded(strategy.solve, system, tolerance)
            self._watch.note(attempt.iterations)
            if 0 < num_matrices < getattr(strategy, "num_matrices", 0):
                self._watch.note_trouble()
        else:
            attempt = self._trial.solve(system, tolerance)
            self._trial_seconds += time.perf_counter() - start
            if self._trial.is_over:
                self._decide(self._trial.winner, system.family, self._trial.seconds)
        self._seconds += time.perf_counter() - start
        return attempt

    def _follow(self, system: LinearSystem, tolerance: Tolerance) -> None:
        """Take what was decided, or the likeliest candidate."""
        known = {candidate.label: candidate for candidate in (*candidates(system), CONSTANT)}
        if self.decision is not None and self.decision.strategy not in known:  # another version's
            self.decision = None
        label = next(iter(known)) if self.decision is None else self.decision.strategy
        self._current, self._watch = Contender(known[label], tolerance), Watch()

    def _look(self, system: LinearSystem, tolerance: Tolerance) -> None:
        """Compare the matrix with the one before where that matters, and begin a trial where it is time for one."""
        if self.decision is None:
            if not tells_entries(system.A):  # whether it stays the same can't be seen
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
            spent = _over_ranks(self._trial_seconds / self._seconds, system) if self._seconds else 0.0
            if spent <= RETRY_FRACTION:
                self._begin_trial(system, tolerance)

    def _begin_trial(self, system: LinearSystem, tolerance: Tolerance) -> None:
        self._current.begin_warm()
        rivals = [candidate for candidate in candidates(system) if candidate.label != self._current.label]
        self._trial = Trial([self._current, *(Contender(candidate, tolerance) for candidate in rivals)])
        self._matrix = None

    def _decide(self, winner: Contender, family: str, seconds: Mapping[str, float | None]) -> None:
        number = 0 if self.decision is None else self.decision.number + 1
        reason = describe(winner.label, seconds)
        self.decision = Decision(family=family, number=number, strategy=winner.label, seconds=seconds, reason=reason)
        self._current, self._watch, self._trial, self._matrix = winner, Watch(), None, None
        logger.info("family %r: %s", family, reason)


class Contender:
    """A candidate at work, and what its solves took."""

    def __init__(self, candidate: Candidate, tolerance: Tolerance):
        self.label = candidate.label
        self.strategy = candidate.make()
        if tolerance.accuracy is not None:
            self.strategy = calibrated(self.strategy)
        self.seconds: list[float] = []
        """Of the solves that count, which those while it warms up do not."""
        self.last_seconds = 0.0
        self.least = candidate.least
        self._iteration = candidate.iteration
        self._num_cold = candidate.warm_up
        self._num_timed = candidate.num_timed
        self._upkeep = candidate.upkeep
        self._iteration_seconds = 0.0

    @property
    def is_warm(self) -> bool:
        return self._num_cold == 0

    def begin_warm(self) -> None:
        """It has solved systems before: the next one is timed."""
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
        """Seconds of a solve in the long run; infinite as long as none was timed."""
        return self._upkeep * median(self.seconds) if self.seconds else math.inf

    def is_behind(self, best: float) -> bool:
        """It costs too much against the best one, for the number of systems that it was timed on."""
        kept = KEPT_FIRST if len(self.seconds) == self._num_timed - 2 else KEPT
        return self.is_judged and self.cost > kept * best

    def solve(self, system: LinearSystem, tolerance: Tolerance, limit: float, product_seconds: float) -> Attempt:
        """One attempt, which fails if it takes more than `limit` seconds. Iterative methods are cut there; what others
        set up may take longer.
        """
        is_calibrated = isinstance(self.strategy, Calibrated)
        iterative = self.strategy.strategy if is_calibrated else self.strategy
        usual = getattr(iterative, "max_iterations", None)
        if usual is not None and limit < math.inf:
            possible = math.ceil(limit / max(self._iteration * product_seconds, self._iteration_seconds))
            iterative.max_iterations = min(usual, possible)
        start = time.thread_time()
        attempt = _guarded(self.strategy.attempt if is_calibrated else self.strategy.solve, system, tolerance)
        seconds = self.last_seconds = _over_ranks(time.thread_time() - start, system)
        if usual is not None:
            iterative.max_iterations = usual

        attempt = attempt.checked(system)
        has_met = attempt.outcome is Outcome.CONVERGED and attempt.meets(tolerance)
        if not has_met or (self.is_warm and seconds > limit):
            late = "too slow to be tried further" if has_met else ""
            return replace(attempt, outcome=Outcome.STAGNATION, reason=attempt.reason or late)
        self._iteration_seconds = seconds / max(attempt.iterations, 1)
        if self.is_warm:
            self.seconds.append(seconds)
        else:
            self._num_cold -= 1
        return attempt


class Trial:
    """Candidates that solve the same systems in turns, until one is left or all have been timed.

    One that fails or is far too slow drops out at once, one that falls behind a little later. First solves are not
    timed: set-up and learning are paid once. Under an accuracy, all solve to the same error. Times are those of the
    processor: what else runs on the machine has no say.

    contenders: the likeliest first, so that a good bound for the others is known early.
    """

    def __init__(self, contenders: Sequence[Contender]):
        self.is_over = False
        self._left = list(contenders)
        self._seconds: dict[str, float | None] = dict.fromkeys(contender.label for contender in contenders)
        self._spent = self._product_seconds = 0.0
        self._num_rounds = self._num_fruitless = 0

    @property
    def winner(self) -> Contender:
        return min(self._left, key=lambda contender: contender.cost)

    @property
    def seconds(self) -> dict[str, float | None]:
        """What a solve takes by label; None for a contender that failed or was never timed."""
        timed = {contender.label: contender.cost for contender in self._left if contender.seconds}
        return self._seconds | timed

    def reset(self) -> None:
        for contender in self._left:
            contender.strategy.reset()

    def solve(self, system: LinearSystem, tolerance: Tolerance) -> Attempt:
        """A round: every contender that is left solves the system. Returns the best solution."""
        if self._num_rounds == 0:
            self._product_seconds = _seconds_of_product(system)
        attempts: dict[Contender, Attempt] = {}
        solved: dict[Contender, Attempt] = {}
        turn = self._num_rounds % len(self._left)
        for contender in self._left[turn:] + self._left[:turn]:
            if contender.is_done or (self._num_rounds == 0 and self._is_too_dear(contender, solved)):
                continue
            attempts[contender] = self._attempt(contender, system, tolerance, solved)
        if not solved and self.winner.is_done:
            attempts[self.winner] = self._attempt(self.winner, system, tolerance, solved)
        self._num_rounds += 1
        if not solved:
            self._num_fruitless += 1
            self.is_over = self._num_fruitless == FRUITLESS_ROUNDS
            said = "; ".join(
                f"{tried.label}: {attempt.reason or attempt.outcome}" for tried, attempt in attempts.items()
            )
            return replace(next(iter(attempts.values())), reason=f"tried {said}")
        kept = [contender for contender in self._left if contender in solved or contender.is_done]
        best = min(contender.cost for contender in kept)
        kept = [contender for contender in kept if not contender.is_behind(best)]
        for contender in self._left:
            if contender not in kept:
                has_failed = contender not in solved and not contender.is_done
                self._seconds[contender.label] = None if has_failed or not contender.seconds else contender.cost
        self._left = kept
        are_done = all(contender.is_done for contender in kept)
        are_judged = all(contender.is_judged for contender in kept)
        self.is_over = are_done or (are_judged and (len(kept) == 1 or self._spent > BUDGET * best))
        return _best_of(solved, system, tolerance)

    def _best(self, solved: Iterable[Contender]) -> float:
        """The least seconds of a solve that are known by now."""
        return min(self.winner.cost, min((contender.last_seconds for contender in solved), default=math.inf))

    def _is_too_dear(self, contender: Contender, solved: Iterable[Contender]) -> bool:
        """It need not be tried at all."""
        best = self._best(solved)
        return self._spent > BUDGET * best or contender.least * self._product_seconds > HOPELESS * best

    def _attempt(
        self, contender: Contender, system: LinearSystem, tolerance: Tolerance, solved: dict[Contender, Attempt]
    ) -> Attempt:
        """One solve, noted in `solved` if it is one."""
        limit = CUT * self.winner.cost if contender.is_warm else FIRST_CUT * self._best(solved)
        attempt = contender.solve(system, tolerance, limit, self._product_seconds)
        self._spent += contender.last_seconds
        if attempt.outcome is Outcome.CONVERGED:
            solved[contender] = attempt
        return attempt


class Watch:
    """Tells when a decision is to be made anew: iterations that drift, or trouble."""

    def __init__(self):
        self._recent: deque[int | None] = deque(maxlen=WATCHED)
        self._usual: float | None = None

    def note(self, iterations: int) -> None:
        self._recent.append(iterations)

    def note_trouble(self) -> None:
        """A failure, or a matrix that was taken to be constant and changed."""
        self._recent.append(None)

    @property
    def is_alarmed(self) -> bool:
        if self._recent.count(None) >= TOLERATED:
            return True
        if len(self._recent) < WATCHED:
            return False
        iterations = median(entry for entry in self._recent if entry is not None)
        if self._usual is None:
            self._usual = iterations
        return iterations > max(DRIFT * self._usual, self._usual + DRIFT_ITERATIONS)


def describe(choice: str, seconds: Mapping[str, float | None]) -> str:
    """One line: what was chosen, over what, by how much."""
    best = seconds.get(choice)
    if best is None:
        untimed = "no candidate solved the first systems" if seconds else "the matrix stays the same"
        return f"{choice}, untimed: {untimed}"
    others = sorted((value, label) for label, value in seconds.items() if value is not None and label != choice)
    line = f"{choice}, {1e3 * best:.3g} ms a solve"
    if others:
        line += ", over " + ", ".join(f"{label} {1e3 * value:.3g} ({value / best:.1f}x)" for value, label in others)
    failed = [label for label, value in seconds.items() if value is None]
    return line + (f"; failed or too slow to time: {', '.join(failed)}" if failed else "")


def _best_of(solved: Mapping[Contender, Attempt], system: LinearSystem, tolerance: Tolerance) -> Attempt:
    """The best of a round's solutions. Under an accuracy, the round teaches the calibrated strategies their ratios."""
    attempt = next(iter(solved.values()))
    learners = [contender for contender in solved if isinstance(contender.strategy, Calibrated)]
    if not learners:
        return attempt
    exact = [attempt for contender, attempt in solved.items() if contender not in learners]
    if exact:
        reference = exact[0]
    else:
        nearest = min(learners, key=lambda learner: solved[learner].iterations)
        reference = nearest.strategy.reference(system, solved[nearest], tolerance)
    for learner in learners:
        learner.strategy.learn(system, solved[learner], reference, tolerance)
    return reference


def _guarded(
    solve: Callable[[LinearSystem, Tolerance], Attempt], system: LinearSystem, tolerance: Tolerance
) -> Attempt:
    try:
        return solve(system, tolerance)
    except (*numerical_failures(), ValueError) as error:  # not for such systems, or not in this PETSc
        return broken_down(system, error)


def _seconds_of_product(system: LinearSystem) -> float:
    target = system.b.duplicate()
    seconds = []
    for _ in range(3):
        start = time.thread_time()
        system.A.mult(system.b, target)
        seconds.append(time.thread_time() - start)
    return _over_ranks(min(seconds), system)


def _over_ranks(seconds: float, system: LinearSystem) -> float:
    """The largest of all ranks' times, so that they decide alike."""
    if system.A.comm.size == 1:
        return seconds
    from mpi4py import MPI

    return system.A.comm.tompi4py().allreduce(seconds, MPI.MAX)
