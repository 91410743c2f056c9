"""Finite volumes for conservation laws on regular grids.

Axes:  C components of the state, *grid the cells along each axis, *faces the same with n + 1 faces along the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil

import numpy as np

from penstock.solvers.discretisation.explicit.time_steps import Flow, heun

NumericalFlux = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""From the states below and above every face, [C, *faces], and the axis that the faces are normal to, to the flux."""


class FiniteVolumes:
    """A conservation law on equal cells, of order 2 where its solution is smooth.

    ∂q/∂t + Σ_i ∂f_i(q)/∂x_i = 0. In every cell q is linear along each axis (van Leer, 1979), with slopes limited so
    that no new extremes arise at faces. A Riemann solver gives the flux between the two states that meet there. Steps
    are Heun's.

    Args:
        spacing: h, length of a cell along each axis.
        flux: the Riemann solver.
        beyond: what the state is beyond the boundary: "wrap", periodic, or "clip", as in the outermost cell.
    """

    def __init__(self, spacing: float, flux: NumericalFlux, *, beyond: str):
        self.spacing = spacing
        self._flux = flux
        self._beyond = beyond

    def step(self, state: np.ndarray, step: float) -> np.ndarray:
        """The state [C, *grid] one step later."""
        return heun(self.rate, state, step)

    def rate(self, state: np.ndarray) -> np.ndarray:
        """∂q/∂t [C, *grid]: what flows into a cell through its faces, over h."""
        total = np.zeros_like(state)
        for axis in range(state.ndim - 1):
            along = state.swapaxes(axis + 1, -1)
            padded = np.take(along, np.arange(-2, along.shape[-1] + 2), axis=-1, mode=self._beyond)
            flux = self._flux(*face_states(padded), axis)
            total -= np.diff(flux).swapaxes(axis + 1, -1)
        total /= self.spacing
        return total


def face_states(padded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The states on both sides of every face along the last axis.

    Args:
        padded: n cells and two beyond each end, [..., n + 4].

    Returns:
        The states below and above the faces, [..., n + 1] each.
    """
    differences = np.diff(padded)
    changes = limited(differences[..., :-1], differences[..., 1:])
    inner = padded[..., 1:-1]
    return (inner + changes)[..., :-1], (inner - changes)[..., 1:]


def limited(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What q gains from the centre of a cell to its upper face.

    Half of van Leer's monotonised central slope: of the mean of the differences to the cells before and after, but of
    no more than twice the smaller one, and 0 at an extreme.
    """
    bound = np.minimum(np.abs(before), np.abs(after))
    bound *= before * after > 0
    gains = before + after
    gains /= 4
    np.minimum(gains, bound, out=gains)
    return np.maximum(gains, np.negative(bound, out=bound), out=gains)


def hll(
    states: tuple[np.ndarray, np.ndarray],
    fluxes: tuple[np.ndarray, np.ndarray],
    slowest: np.ndarray,
    fastest: np.ndarray,
) -> np.ndarray:
    """The flux of Harten, Lax and van Leer (1983).

    They put one state between the slowest and the fastest wave.

    Args:
        states: q below and above the faces, [C, *faces] each.
        fluxes: f(q) of both.
        slowest: bound on the velocities of the waves from below, [*faces].
        fastest: bound from above.
    """
    slowest, fastest = np.minimum(slowest, 0), np.maximum(fastest, 0)
    flux = states[1] - states[0]
    flux *= slowest
    flux += fluxes[0] - fluxes[1]
    flux *= fastest / (fastest - slowest)
    flux += fluxes[1]
    return flux


def march(
    state: np.ndarray,
    flow: Flow,
    *,
    interval: float,
    num_frames: int,
    largest_step: Callable[[np.ndarray], float],
) -> Iterator[np.ndarray]:
    """The frames of a trajectory, by steps whose bound is asked for again before each.

    Args:
        state: the state at first, [C, *grid].
        flow: takes the state over one step.
        interval: time between frames.
        num_frames: number of frames, the first included.
        largest_step: bound on the length of a step, from the state.

    Yields:
        The state [C, *grid] at 0, interval, 2 interval, ...

    Raises:
        ArithmeticError: the state is not finite, or its waves are infinitely fast.
    """
    yield state
    for number in range(1, num_frames):
        left = interval
        while left > 0:
            bound = largest_step(state)
            if not bound > 0:
                raise ArithmeticError(f"the state is not finite at t = {interval * number - left:g}")
            num_steps = max(1, ceil(left / bound * (1 - 1e-12)))
            state = flow(state, left / num_steps)
            left = left - left / num_steps if num_steps > 1 else 0.0
        yield state
