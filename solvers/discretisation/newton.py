"""Newton's method, whose linear systems are solved by what a problem is given."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from penstock.solvers.problem import LinearSystem, Solve, SolveError

RTOL = 1e-8  # ||F(u)|| against ||F|| at the start
ROUNDING = 1e-14  # or against ||u||: below it F is rounding, as at a start that is already the solution


def newton(
    residual: Callable[[np.ndarray], np.ndarray],
    linearise: Callable[[np.ndarray], LinearSystem],
    start: np.ndarray,
    solve: Solve,
    *,
    name: str,
    max_steps: int = 50,
) -> np.ndarray:
    """u with F(u) = 0 in the shape of `start`, by full steps u = u + δ with J(u) δ = -F(u).

    There is no line search, so `start` must be close enough, for instance the solution for a smaller load. Solves to
    a relative error ε make it converge by a factor of about ε per step, where exact ones make it converge
    quadratically.

    residual: F(u), an array like u. linearise: the system J(u) δ = -F(u), its unknowns being those of u in C order.
    name: of the equation, for the error. max_steps: enough for solves with an error of 0.5.
    Raises SolveError where F(u) is not small after `max_steps` or not finite, besides what `solve` raises.
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
