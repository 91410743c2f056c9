"""Steps in time for q' = r(q): Runge-Kutta methods and Strang's splitting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Rate = Callable[[np.ndarray], np.ndarray]
"""r, from a state to the rate at which it changes."""
Flow = Callable[[np.ndarray, float], np.ndarray]
"""Takes a state and a length of time, and returns the state at the end of it."""


def heun(rate: Rate, state: np.ndarray, step: float) -> np.ndarray:
    """One step of order 2.

    It is a mean of the state and of two Euler steps, so it keeps every bound that Euler steps keep (Shu and Osher,
    1988): strong stability preserving.
    """
    first = state + step * rate(state)
    return (state + first + step * rate(first)) / 2


def midpoint(rate: Rate, state: np.ndarray, step: float) -> np.ndarray:
    """One step of order 2, for rates that need no bound to be kept."""
    return state + step * rate(state + step / 2 * rate(state))


def rk4(rate: Rate, state: np.ndarray, step: float) -> np.ndarray:
    """One step of the classical method of order 4."""
    a = rate(state)
    b = rate(state + step / 2 * a)
    c = rate(state + step / 2 * b)
    d = rate(state + step * c)
    return state + step / 6 * (a + 2 * (b + c) + d)


def strang(state: np.ndarray, *, outer: Flow, inner: Flow, step: float, num_steps: int = 1) -> np.ndarray:
    """Steps of order 2 that take the two parts of an equation apart (Strang, 1968).

    For q' = r_1(q) + r_2(q) every step is half a step of `outer`, one of `inner`, and half a step of `outer`; halves
    that meet are one.

    Args:
        state: q.
        outer: the flow of r_1.
        inner: the flow of r_2.
        step: length of a step.
        num_steps: number of steps, at least 1.
    """
    state = outer(state, step / 2)
    for _ in range(num_steps - 1):
        state = outer(inner(state, step), step)
    return outer(inner(state, step), step / 2)
