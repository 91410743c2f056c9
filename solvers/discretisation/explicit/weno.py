"""A shock-capturing scheme on the circle.

Axes:  n points on the circle.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from penstock.solvers.discretisation.explicit.spectral import QuadraticFlux

LINEAR_WEIGHTS = np.array([0.1, 0.6, 0.3])  # of the three reconstructions, for order 5 where the flux is smooth
SHARES = np.array([1 / 3, 1 / 3, 1 / 6])  # of the second differences in the three reconstructions
# Speed of the splitting over the largest speed. At 1 one part of the flux is flat to third order where |u| is largest,
# and the order of the scheme falls to 3.
MARGIN = 1.1
SMALLEST = 1e-40  # keeps indicators of smoothness off 0


class WenoFlux(QuadraticFlux):
    """The term -(c u² / 2)_x for solutions with shocks, as modes.

    Finite differences of order 5 where u is smooth. The flux is split after Lax and Friedrichs into the two parts
    (c u² / 2 ± a u) / 2, a = 1.1 max |c u|, and each is reconstructed between the points from its upwind side by WENO-Z
    (Borges et al. 2008, J. Comput. Phys. 227). The mean of u is conserved, and shocks are two or three points wide.
    """

    def __call__(self, modes: np.ndarray, time: float) -> np.ndarray:
        """The modes of -(c u² / 2)_x, from the modes of u."""
        values = self._torus.values(modes)
        flux, spread = self._factor / 2 * values**2, MARGIN * np.abs(self._factor * values).max() * values
        upwind = np.stack([flux + spread, flux - spread]).take(self._stencils) / 2
        between = _reconstructed(upwind).sum(axis=0)
        return self._torus.modes((np.roll(between, 1) - between) / self._torus.spacing)

    @cached_property
    def _stencils(self) -> np.ndarray:
        """The numbers of the five values upwind of each midpoint, int [5, 2, n].

        They count the values of both parts of the flux, one part after the other.
        """
        n = self._torus.shape[0]
        points, offsets = np.arange(n), np.arange(-2, 3)[:, None]
        return np.stack([(points + offsets) % n, n + (points + 1 - offsets) % n], axis=1)


def _reconstructed(upwind: np.ndarray) -> np.ndarray:
    """The values [*] between the third and the fourth of five in a row, [5, *].

    The three parabolas are given by first and second differences, so that each operation is on all of them at once.
    """
    slopes = upwind[1:] - upwind[:-1]
    bends = slopes[1:] - slopes[:-1]
    bends[2] *= -1  # as seen from the third value
    near = slopes[[1, 1, 2]]
    roughness = 13 / 12 * bends**2 + (near + bends / 2) ** 2
    weights = np.abs(roughness[0] - roughness[2]) / (roughness + SMALLEST)
    weights *= weights
    weights += 1
    weights *= LINEAR_WEIGHTS.reshape(3, *[1] * (upwind.ndim - 1))
    steps = near / 2 + SHARES.reshape(3, *[1] * (upwind.ndim - 1)) * bends
    return upwind[2] + (weights * steps).sum(axis=0) / weights.sum(axis=0)
