"""Random sums of Gaussian humps.

Axes:  H humps, d dimensions of space, *grid the cells along each axis.
"""

from __future__ import annotations

from functools import cached_property, reduce

import numpy as np
from scipy.special import erf

AXES = ("x", "y", "z")


class Humps:
    """A sum of Gaussian humps less its mean.

        g(x) = Σ_h exp(-|x - c_h|² / s_h) - m,   c_h uniform on the unit square or cube, s_h uniform on [0, s_max].

    m is the mean over all draws and all x. The values are those at the centres of n^d cells.

    Args:
        resolution: n, cells along each axis.
        dimension: d, 1 to 3.
        num_humps: H.
        largest_square: s_max; √s is the radius at which a hump has fallen to 1/e.
    """

    def __init__(self, resolution: int, *, dimension: int = 2, num_humps: int = 5, largest_square: float = 0.5):
        self.resolution = resolution
        self.dimension = dimension
        self.num_humps = num_humps
        self.largest_square = largest_square

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """One field, float64 [*grid]."""
        return self._of(self._draw_uniforms(generator))

    def at_quantiles(self, quantiles: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The field whose humps have these quantiles; nothing else is drawn."""
        return self._of(np.reshape(quantiles, (self.num_humps, self.dimension + 1)))

    def _of(self, uniforms: np.ndarray) -> np.ndarray:
        """The field of these centres and complements of widths, [H, d + 1]."""
        centres = (np.arange(self.resolution) + 0.5) / self.resolution
        squares = self.largest_square * (1 - uniforms[:, -1])  # not 0, because 1 is never drawn
        along = np.exp(-((centres - uniforms[:, :-1, None]) ** 2) / squares[:, None, None])  # [H, d, n]
        return sum(reduce(np.multiply.outer, hump) for hump in along) - self.mean

    @cached_property
    def mean(self) -> float:
        """m, the mean of the sum over all draws and all x.

        The mean of exp(-(x - c)² / s) over x and c is √(πs) erf(1/√s) - s (1 - exp(-1/s)) along each axis.
        """

        from scipy.integrate import quad  # takes 0.4 s to import, and most problems do without

        def of_hump(s: float) -> float:
            along = np.sqrt(np.pi * s) * erf(1 / np.sqrt(s)) - s * (1 - np.exp(-1 / s))
            return along**self.dimension

        return self.num_humps * quad(of_hump, 0, self.largest_square)[0] / self.largest_square

    def features(self, value: np.ndarray) -> np.ndarray:
        """The field, flattened and scaled by the square root of its size."""
        return value.ravel() / np.sqrt(value.size)

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The names of `quantiles`: the centre and the width of each hump."""
        parts = (*AXES[: self.dimension], "width")
        return tuple(f"{name}_hump_{hump}_{part}" for hump in range(self.num_humps) for part in parts)

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantiles of the centres and of s, which falls as its quantile rises."""
        return self._draw_uniforms(generator).ravel()

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return (
            f"sum of {self.num_humps} Gaussian humps less its mean: exp(-r^2/s), centres uniform, "
            f"s uniform on [0, {self.largest_square:g}]"
        )

    def _draw_uniforms(self, generator: np.random.Generator) -> np.ndarray:
        """The centres and the complement of the width of each hump, [H, d + 1]."""
        return generator.random((self.num_humps, self.dimension + 1))
