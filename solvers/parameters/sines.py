"""Random double sine sums.

Axes:  K modes along each axis; arrays are indexed [x, y].
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

RANKED = 2  # modes along each axis whose quantiles are looked at


class SineField:
    """A double sine sum with uniform coefficients, zero on the boundary.

        g(x, y) = σ Σ_ij a_ij (i² + j²)^r sin(πix) sin(πjy),   a_ij uniform on [-1, 1], 1 <= i, j <= K.

    Its values are those at the vertices of n x n squares. One generator gives one function at every resolution.

    Args:
        resolution: n, squares along each side.
        num_modes: K.
        exponent: r.
        scale: σ.
    """

    def __init__(self, resolution: int, *, num_modes: int, exponent: float, scale: float = 1.0):
        self.resolution = resolution
        self.num_modes = num_modes
        self.exponent = exponent
        self.scale = scale

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """One field, float64 [n + 1, n + 1]."""
        return self.evaluate(2 * self._draw_uniforms(generator) - 1)

    def at_quantiles(self, quantiles: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The field whose modes i, j <= 2 have these quantiles; others are drawn."""
        uniforms = self._draw_uniforms(generator)
        uniforms[: self._num_ranked, : self._num_ranked] = np.reshape(quantiles, (self._num_ranked, self._num_ranked))
        return self.evaluate(2 * uniforms - 1)

    def evaluate(self, coefficients: np.ndarray) -> np.ndarray:
        """The sum for the coefficients a_ij, [K, K], at the vertices, [n + 1, n + 1]."""
        return self._sines @ (self._amplitudes * coefficients) @ self._sines.T

    def features(self, value: np.ndarray) -> np.ndarray:
        """The field, flattened and scaled so that two draws are about √2 apart."""
        return value.ravel() / np.sqrt(value.size * self.variance)

    @property
    def variance(self) -> float:
        """The variance, averaged over the square."""
        return float(np.sum(self._amplitudes**2)) / 12  # of a_ij 1/3, the mean square of two sines 1/4

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The names of `quantiles`: the modes with i and j up to 2."""
        numbers = range(1, self._num_ranked + 1)
        return tuple(f"{name}_mode_{i}_{j}" for i in numbers for j in numbers)

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantiles (a_ij + 1) / 2 of the modes with i and j up to 2."""
        return self._draw_uniforms(generator)[: self._num_ranked, : self._num_ranked].ravel()

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return (
            f"sum of {self.num_modes} x {self.num_modes} products of sines, coefficients uniform on [-1, 1] times "
            f"{self.scale:.4g} (i^2 + j^2)^{self.exponent:g}"
        )

    def _draw_uniforms(self, generator: np.random.Generator) -> np.ndarray:
        return generator.random((self.num_modes, self.num_modes))

    @property
    def _num_ranked(self) -> int:
        return min(RANKED, self.num_modes)

    @cached_property
    def _amplitudes(self) -> np.ndarray:
        squares = np.arange(1, self.num_modes + 1) ** 2.0
        return self.scale * np.add.outer(squares, squares) ** self.exponent

    @cached_property
    def _sines(self) -> np.ndarray:
        """The sines at the vertices, [n + 1, K]."""
        modes = np.arange(1, self.num_modes + 1)
        sines = np.sin(np.pi * np.outer(np.arange(self.resolution + 1) / self.resolution, modes))
        sines[[0, -1]] = 0.0
        return sines
