"""Newton's method, with linear systems solved by the `solve` of a problem."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from penstock.solvers.problem import LinearSystem, Solve, SolveError

# The method stops once ||F(u)|| is below this fraction of ||F|| at the start.
RTOL = 1e-8
# It also stops below this fraction of ||u||, where F is rounding, as at a start that is already the solution.
ROUNDING = 1e-14


def newton(
    residual: Callable[[np.ndarray], np.ndarray],
    linearise: Callable[[np.ndarray], LinearSystem],
    start: np.ndarray,
    solve: Solve,
    *,
    name: str,
    max_steps: int = 50,
) -> np.ndarray:
    """Solve F(u) = 0 by full Newton steps u = u + δ with J(u) δ = -F(u).

    There is no line search, so `start` must be close enough, for instance the solution for a smaller load. Solves to
    a relative error ε make it converge by a factor of about ε per step; exact solves make it converge quadratically.

    Args:
        residual: F(u), an array like u.
        linearise: the system J(u) δ = -F(u), its unknowns being those of u in C order.
        start: the first u.
        solve: solves one `LinearSystem`.
        name: name of the equation, for the error.
        max_steps: the most steps; 50 are enough for solves with an error of 0.5.

    Returns:
        u, in the shape of `start`.

    Raises:
        SolveError: F(u) is not small after `max_steps` or not finite, or `solve` raises it.
    """
    u, norms = start, []
    while True:
        F = residual(u)
        norms.append(float(np.linalg.norm(F)))
        if math.isfinite(norms[-1]) and norms[-1] <= max(RTOL * norms[0], ROUNDING * np.linalg.norm(u)):
            return u
        if len(norms) > max_steps or not math.isfinite(norms[-1]):
            raise SolveError(
                f"Newton's method, {name}: step {len(norms) - 1} leaves a residual of {norms[-1]:.2g}, the start had "
                f"{norms[0]:.2g}: start closer to the solution, for instance by more and smaller levels"
            )
        u = u + solve(linearise(u)).x.array_r.reshape(u.shape)
