"""The `solve` that problems are given: a strategy, the check of every solution, and the way back from failure."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from copy import copy

import numpy as np

from penstock.solvers.krylov.direct import Direct
from penstock.solvers.krylov.strategy import Attempt, Strategy, Tolerance, residual_of
from penstock.solvers.problem import LinearSystem, Outcome, Solution


class LinearSolver:
    """Solves systems of any number of families; lives as long as its worker.

    Every solution's true residual is formed here by a product of its own, and only ||b - A x|| <= rtol ||b|| counts
    as converged, whatever the strategy said. A system that did not converge climbs the ladder:
    the strategy, the strategy again with nothing recycled, a direct solve. The last result is returned as it is.

    strategy: a fresh one of `STRATEGIES`; it serves as the pattern for one strategy a family.
    rtol: largest relative residual, between 0 and 1.
    """

    def __init__(self, strategy: Strategy, *, rtol: float):
        if not 0 < rtol < 1:
            raise ValueError(f"rtol = {rtol} must lie between 0 and 1")
        self.rtol = rtol
        self.num_retried = 0
        """Systems that had to be solved again."""
        self._pattern = strategy
        self.reset()

    def reset(self) -> None:
        """Forget all earlier systems. `num_retried` counts on."""
        self._strategies: dict[str, Strategy] = {}
        self._fallbacks: dict[str, Direct] = {}

    def __call__(self, system: LinearSystem) -> Solution:
        """The solution with its outcome. `iterations` are those of the attempt that gave x, `seconds` those of all."""
        start = time.perf_counter()
        if system.nullspace is not None:
            system.A.setNullSpace(system.nullspace)
        if system.near_nullspace is not None:
            system.A.setNearNullSpace(system.near_nullspace)
        norm_b = system.b.norm()
        if norm_b == 0 or not math.isfinite(norm_b):
            return self._trivial(system, norm_b, start)
        for climbed, strategy in enumerate(self._ladder(system.family)):
            self.num_retried += climbed == 1
            attempt = _attempt(strategy, system, Tolerance(self.rtol))
            relative_residual = residual_of(system, attempt.x).norm() / norm_b
            outcome = self._judge(attempt.outcome, relative_residual)
            if outcome is Outcome.CONVERGED:
                break
        return Solution(
            x=attempt.x,
            outcome=outcome,
            relative_residual=relative_residual,
            iterations=attempt.iterations,
            seconds=time.perf_counter() - start,
            strategy=strategy.name,
        )

    def _ladder(self, family: str) -> Iterator[Strategy]:
        """What to try, in order; each is asked for only when the one before it has failed."""
        strategy = self._strategies.setdefault(family, copy(self._pattern))
        yield strategy
        recycled = strategy.recycles
        strategy.reset()  # what led to a failure must not lead the next attempt, nor the next system
        if recycled:
            yield strategy
            strategy.reset()
        if not isinstance(strategy, Direct):
            fallback = self._fallbacks.setdefault(family, Direct())
            yield fallback
            fallback.reset()

    def _judge(self, outcome: Outcome, relative_residual: float) -> Outcome:
        if not math.isfinite(relative_residual):
            return Outcome.NOT_FINITE
        if relative_residual <= self.rtol:
            return Outcome.CONVERGED
        return Outcome.STAGNATION if outcome is Outcome.CONVERGED else outcome

    def _trivial(self, system: LinearSystem, norm_b: float, start: float) -> Solution:
        """x = 0: the solution for b = 0, and all that can be said when b is not finite."""
        x = system.b.duplicate()
        x.zeroEntries()
        return Solution(
            x=x,
            outcome=Outcome.CONVERGED if norm_b == 0 else Outcome.NOT_FINITE,
            relative_residual=0.0 if norm_b == 0 else math.nan,
            iterations=0,
            seconds=time.perf_counter() - start,
            strategy=self._pattern.name,
        )


def _attempt(strategy: Strategy, system: LinearSystem, tolerance: Tolerance) -> Attempt:
    from petsc4py import PETSc

    try:
        return strategy.solve(system, tolerance)
    # A zero pivot, a preconditioner that can't be set up, a dense step that fails: a property of this system.
    except (PETSc.Error, np.linalg.LinAlgError):
        x = system.b.duplicate()
        x.zeroEntries()
        return Attempt(x=x, outcome=Outcome.BREAKDOWN)
