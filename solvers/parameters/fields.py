"""Gaussian random fields on the unit square.

Axes:  K modes along each axis, X and Y the cells along each axis; arrays are indexed [x, y].
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.fft import idctn
from scipy.special import ndtr

RANKED_MODES = ((0, 1), (1, 0), (1, 1))  # of the first shell: the first that are drawn


class GaussianField:
    """A centred Gaussian field with covariance (-Δ + τ²)^-α under Neumann conditions, at the centres of n x n cells.

    The Neumann Laplacian's eigenfunctions are cosines, so a draw is the Karhunen-Loève sum

        g(x) = Σ_k (π²|k|² + τ²)^(-α/2) ξ_k φ_k(x),   φ_k(x) = c_k cos(π k₁ x₁) cos(π k₂ x₂),   ξ_k ~ N(0, 1) i.i.d.,

    over 0 <= k₁, k₂ < K but k = 0: the mean mode is dropped. φ_k has unit L2 norm. With α = 2 and τ = 3 this is the
    prior of the Darcy set of Li et al. (2021, "Fourier neural operator", arXiv 2010.08895, A.3.2).

    The ξ_k are drawn shell by shell (max(k₁, k₂) = 1, 2, ...), and K does not depend on n. So one generator gives one
    function at every resolution, evaluated exactly at that resolution's cell centres.

    resolution: n. exponent: α > 1 for a field with finite variance in 2D. inverse_length: τ, in 1/length.
    num_modes: K along each axis; the modes left out at the default carry 4e-5 of the variance for α = 2, τ = 3.
    """

    def __init__(self, resolution: int, *, exponent: float = 2.0, inverse_length: float = 3.0, num_modes: int = 128):
        self.resolution = resolution
        self.exponent = exponent
        self.inverse_length = inverse_length
        self.num_modes = num_modes

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """float64 [X, Y]."""
        normals = np.zeros((self.num_modes, self.num_modes))
        normals[_shell_order(self.num_modes)] = self._draw_normals(generator)
        return self.evaluate(self._standard_deviations * normals)

    def _draw_normals(self, generator: np.random.Generator) -> np.ndarray:
        """The ξ_k by growing shell."""
        return generator.standard_normal(self.num_modes**2 - 1)

    def features(self, value: np.ndarray) -> np.ndarray:
        """The field itself, scaled so that the distance of two draws is about √2."""
        return value.ravel() / np.sqrt(value.size * np.sum(self._standard_deviations**2))

    def rank_names(self, name: str) -> tuple[str, ...]:
        return tuple(f"{name}_mode_{k1}_{k2}" for k1, k2 in RANKED_MODES)

    def ranks(self, generator: np.random.Generator) -> np.ndarray:
        """Φ(ξ_k) of the modes k = (0, 1), (1, 0), (1, 1), with Φ the normal distribution's cumulative function.

        They carry 72 % of the variance for α = 2, τ = 3, so they make most of the distance that leases are sorted by.
        """
        return ndtr(self._draw_normals(generator)[: len(RANKED_MODES)])

    def evaluate(self, coefficients: np.ndarray) -> np.ndarray:
        """[X, Y] the sum of `coefficients` [K, K] times the φ_k at the cell centres."""
        n = self.resolution
        if n >= self.num_modes:  # the orthonormal inverse DCT-II is this sum up to the factor 1/n
            padded = np.zeros((n, n))
            padded[: self.num_modes, : self.num_modes] = coefficients
            return n * idctn(padded, type=2, norm="ortho")
        cosines = _cosines(n, self.num_modes)
        return cosines @ coefficients @ cosines.T

    def describe(self) -> str:
        return (
            f"Gaussian field, covariance (-Laplacian + {self.inverse_length**2:g})^-{self.exponent:g}, Neumann, "
            f"no mean mode, {self.num_modes} modes an axis"
        )

    @property
    def _standard_deviations(self) -> np.ndarray:
        k = np.arange(self.num_modes)
        eigenvalues = np.pi**2 * (k[:, None] ** 2 + k[None, :] ** 2) + self.inverse_length**2
        deviations = eigenvalues ** (-self.exponent / 2)
        deviations[0, 0] = 0.0  # the mean mode
        return deviations


class BinaryField:
    """A field of two values by the sign of a Gaussian field: `above` where it is >= 0, else `below`.

    Its features are the signs, ±1/√(number of cells) at every cell, so that the distance of
    two draws is twice the square root of the area where they differ.
    """

    def __init__(self, field: GaussianField, *, above: float, below: float):
        self.field = field
        self.above = above
        self.below = below

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """float64 [X, Y]."""
        return np.where(self.field.draw(generator) >= 0, self.above, self.below)

    def features(self, value: np.ndarray) -> np.ndarray:
        signs = np.where(value == self.above, 1.0, -1.0).ravel()
        return signs / np.sqrt(signs.size)

    def rank_names(self, name: str) -> tuple[str, ...]:
        return self.field.rank_names(name)

    def ranks(self, generator: np.random.Generator) -> np.ndarray:
        """Those of the Gaussian field."""
        return self.field.ranks(generator)

    def describe(self) -> str:
        return f"{self.above:g} where positive, {self.below:g} where negative: the sign of a {self.field.describe()}"


@lru_cache(maxsize=8)
def _shell_order(num_modes: int) -> tuple[np.ndarray, np.ndarray]:
    """Index arrays (k₁, k₂) of all modes but the mean, by growing max(k₁, k₂)."""
    k1, k2 = np.divmod(np.arange(1, num_modes**2), num_modes)
    order = np.lexsort((k2, k1, np.maximum(k1, k2)))
    return k1[order], k2[order]


@lru_cache(maxsize=8)
def _cosines(resolution: int, num_modes: int) -> np.ndarray:
    """[X, K] the one-dimensional φ_k at the cell centres."""
    centres = (np.arange(resolution) + 0.5) / resolution
    cosines = np.sqrt(2) * np.cos(np.pi * np.outer(centres, np.arange(num_modes)))
    cosines[:, 0] = 1.0
    return cosines
