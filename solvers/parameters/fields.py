"""Gaussian random fields on the unit interval, square or cube, and their kin.

Axes:  K modes along each axis, *grid the cells along each axis; arrays are indexed [x, y, z].
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from itertools import product

import numpy as np
from scipy.fft import idctn, ifftn
from scipy.special import ndtr

from penstock.solvers.parameters.space import Distribution

# Default number of modes along each axis, by dimension.
NUM_MODES = {1: 128, 2: 128, 3: 64}


class GaussianField:
    """A centred Gaussian field with covariance (-Δ + τ²)^-α.

    Its values are those at the centres of n^d cells; the Laplacian has Neumann conditions. Its eigenfunctions are
    cosines, so a draw is the Karhunen-Loève sum

        g(x) = Σ_k (π²|k|² + τ²)^(-α/2) ξ_k φ_k(x),   φ_k(x) = Π_i c_k cos(π k_i x_i),   ξ_k ~ N(0, 1) i.i.d.,

    over 0 <= k_i < K except k = 0: the mean mode is dropped. φ_k has unit L2 norm. With d = 2, α = 2 and τ = 3 this is
    the prior of the Darcy set of Li et al. (2021, "Fourier neural operator", arXiv 2010.08895, A.3.2).

    The ξ_k are drawn shell by shell (max k_i = 1, 2, ...), and K does not depend on n. So one generator gives one
    function at every resolution, evaluated exactly at that resolution's cell centres.

    Args:
        resolution: n, cells along each axis.
        dimension: d, 1 to 3.
        exponent: α, above d / 2 for a field with finite variance.
        inverse_length: τ, in 1/length.
        num_modes: K, modes along each axis; 128 (64 in 3D) where absent. The modes left out at 128 carry 4e-5 of the
            variance for d = 2, α = 2, τ = 3.
    """

    def __init__(
        self,
        resolution: int,
        *,
        dimension: int = 2,
        exponent: float = 2.0,
        inverse_length: float = 3.0,
        num_modes: int | None = None,
    ):
        self.resolution = resolution
        self.dimension = dimension
        self.exponent = exponent
        self.inverse_length = inverse_length
        self.num_modes = num_modes or NUM_MODES[dimension]

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """One field, float64 [*grid]."""
        normals = np.zeros((self.num_modes,) * self.dimension)
        normals[_shell_order(self.num_modes, self.dimension)] = self._draw_normals(generator)
        return self.evaluate(self._standard_deviations * normals)

    def _draw_normals(self, generator: np.random.Generator) -> np.ndarray:
        """The coefficients ξ_k, in the order of growing shells."""
        return generator.standard_normal(self.num_modes**self.dimension - 1)

    def features(self, value: np.ndarray) -> np.ndarray:
        """The field, flattened and scaled so that two draws are about √2 apart."""
        return value.ravel() / np.sqrt(value.size * self.variance)

    @property
    def variance(self) -> float:
        """The pointwise variance, averaged over the domain."""
        return float(np.sum(self._standard_deviations**2))

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The names of `quantiles`: one per mode of the first shell."""
        return tuple("_".join([name, "mode", *map(str, mode)]) for mode in self._ranked_modes)

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantiles Φ(ξ_k) of the modes of the first shell, k_i = 0 or 1.

        Φ is the normal distribution's cumulative function. These modes carry 72 % of the variance for d = 2, α = 2,
        τ = 3, so they make most of the distance that leases are sorted by.
        """
        return ndtr(self._draw_normals(generator)[: len(self._ranked_modes)])

    @property
    def _ranked_modes(self) -> list[tuple[int, ...]]:
        """The modes of the first shell, which are drawn first."""
        return list(product((0, 1), repeat=self.dimension))[1:]

    def evaluate(self, coefficients: np.ndarray) -> np.ndarray:
        """The field Σ_k c_k φ_k at the cell centres.

        Args:
            coefficients: c_k, [K] * d.

        Returns:
            Values [*grid].
        """
        n = self.resolution
        if n >= self.num_modes:  # the orthonormal inverse DCT-II is this sum up to a factor
            padded = np.zeros((n,) * self.dimension)
            padded[(slice(self.num_modes),) * self.dimension] = coefficients
            return n ** (self.dimension / 2) * idctn(padded, type=2, norm="ortho")
        cosines = _cosines(n, self.num_modes)
        for _ in range(self.dimension):  # each turn brings the next axis to the front
            coefficients = np.tensordot(coefficients, cosines, axes=(0, 1))
        return coefficients

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return (
            f"Gaussian field, covariance (-Laplacian + {self.inverse_length**2:g})^-{self.exponent:g}, Neumann, "
            f"no mean mode, {self.num_modes} modes per axis"
        )

    @property
    def _standard_deviations(self) -> np.ndarray:
        squares = sum(axis**2 for axis in np.ix_(*[np.arange(self.num_modes)] * self.dimension))
        deviations = (np.pi**2 * squares + self.inverse_length**2) ** (-self.exponent / 2)
        deviations[(0,) * self.dimension] = 0.0  # the mean mode
        return deviations


class PeriodicField:
    """A centred Gaussian field on the torus with covariance σ² (-Δ + τ²)^-α, and mean 0 over the torus.

    A draw is the Fourier sum

        g(x) = Σ_k √2 s_k (ξ_k cos(2π k·x / L) + η_k sin(2π k·x / L)),   s_k = σ (4π²|k|²/L² + τ²)^(-α/2) L^(-d/2),

    over one of k and -k each, 0 < max |k_i| <= K, with ξ_k and η_k ~ N(0, 1) i.i.d.

    ξ_k and η_k are drawn shell by shell (max |k_i| = 1, 2, ...), and K does not depend on n. So one generator gives one
    function at every resolution; of it a grid of n points carries the modes with max |k_i| < n / 2.

    Args:
        resolution: n, points along each axis, at i L / n.
        dimension: d, 1 or 2.
        extent: L, the period along each axis.
        scale: σ² of the covariance.
        exponent: α, above d / 2 for a field with finite variance.
        inverse_length: τ, in 1/length.
        num_modes: K.
    """

    def __init__(
        self,
        resolution: int,
        *,
        dimension: int = 1,
        extent: float = 1.0,
        scale: float = 1.0,
        exponent: float = 2.0,
        inverse_length: float = 3.0,
        num_modes: int = 64,
    ):
        self.resolution = resolution
        self.dimension = dimension
        self.extent = extent
        self.scale = scale
        self.exponent = exponent
        self.inverse_length = inverse_length
        self.num_modes = num_modes

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """One field, float64 [*grid]."""
        modes, deviations = self._modes
        normals = self._draw_normals(generator)
        n = self.resolution
        carried = np.max(np.abs(modes), axis=1) < n / 2
        spectrum = np.zeros((n,) * self.dimension, complex)
        spectrum[tuple(modes[carried].T)] = (deviations[:, None] * normals)[carried] @ np.array([1, -1j]) / np.sqrt(2)
        # The modes of -k are the conjugates: twice the real part has both.
        return 2 * ifftn(spectrum, norm="forward").real

    def _draw_normals(self, generator: np.random.Generator) -> np.ndarray:
        """ξ_k and η_k, [M, 2], in the order of growing shells."""
        return generator.standard_normal((len(self._modes[0]), 2))

    def features(self, value: np.ndarray) -> np.ndarray:
        """The field, flattened and scaled so that two draws are about √2 apart."""
        return value.ravel() / np.sqrt(value.size * self.variance)

    @property
    def variance(self) -> float:
        """The variance, the same at every point."""
        return float(2 * np.sum(self._modes[1] ** 2))

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The names of `quantiles`: a cosine and a sine for each mode of the first shell."""
        shell = self._modes[0][: self._first_shell].tolist()
        return tuple("_".join([name, kind, *map(str, mode)]) for mode in shell for kind in ("cos", "sin"))

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantiles of ξ_k and η_k of the first shell, max |k_i| = 1."""
        return ndtr(self._draw_normals(generator)[: self._first_shell]).ravel()

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return (
            f"periodic Gaussian field, covariance {self.scale:.4g} (-Laplacian + {self.inverse_length**2:g})"
            f"^-{self.exponent:g}, no mean mode, wave numbers up to {self.num_modes}"
        )

    @property
    def _first_shell(self) -> int:
        return (3**self.dimension - 1) // 2

    @cached_property
    def _modes(self) -> tuple[np.ndarray, np.ndarray]:
        """The wave numbers k, int [M, d], in the order of growing shells, and their s_k, [M]."""
        ks = np.array(list(product(range(-self.num_modes, self.num_modes + 1), repeat=self.dimension)))
        ks = ks[len(ks) // 2 + 1 :]  # the half behind 0: one of k and -k each
        ks = ks[np.lexsort((*ks.T[::-1], np.abs(ks).max(axis=1)))]
        squares = (ks**2).sum(axis=1) * (2 * np.pi / self.extent) ** 2
        deviations = np.sqrt(self.scale / self.extent**self.dimension)
        return ks, deviations * (squares + self.inverse_length**2) ** (-self.exponent / 2)


class BinaryField:
    """A field of two values, chosen by the sign of another field.

    Its features are the signs, ±1/√(number of cells) at every cell, so that the distance of
    two draws is twice the square root of the area where they differ.

    Args:
        field: the other field, such as a `GaussianField`.
        above: value where the other field is >= 0.
        below: value elsewhere.
    """

    def __init__(self, field: Distribution, *, above: float, below: float):
        self.field = field
        self.above = above
        self.below = below

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """One field, float64 [*grid]."""
        return np.where(self.field.draw(generator) >= 0, self.above, self.below)

    def features(self, value: np.ndarray) -> np.ndarray:
        """The signs, flattened and scaled."""
        signs = np.where(value == self.above, 1.0, -1.0).ravel()
        return signs / np.sqrt(signs.size)

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The names of `quantiles`, which are those of the other field."""
        return self.field.quantile_names(name)

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantiles of the other field."""
        return self.field.quantiles(generator)

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return f"{self.above:g} where positive, {self.below:g} where negative: the sign of a {self.field.describe()}"


class LogNormalField:
    """The exponential of a Gaussian field that is scaled to a variance of 1.

    Its features are those of the Gaussian field.

    Args:
        field: the Gaussian field.
    """

    def __init__(self, field: GaussianField):
        self.field = field

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """One field, float64 [*grid]."""
        return np.exp(self.field.draw(generator) / np.sqrt(self.field.variance))

    def features(self, value: np.ndarray) -> np.ndarray:
        """The logarithm of the field, flattened and scaled."""
        return np.log(value).ravel() / np.sqrt(value.size)

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The names of `quantiles`, which are those of the Gaussian field."""
        return self.field.quantile_names(name)

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantiles of the Gaussian field."""
        return self.field.quantiles(generator)

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return f"exponential of a field of variance 1: {self.field.describe()}"


@lru_cache(maxsize=8)
def _shell_order(num_modes: int, dimension: int) -> tuple[np.ndarray, ...]:
    """Index arrays (k₁, k₂, ...) of all modes except the mean, by growing max k_i."""
    modes = np.unravel_index(np.arange(1, num_modes**dimension), (num_modes,) * dimension)
    order = np.lexsort((*modes[::-1], np.max(modes, axis=0)))
    return tuple(mode[order] for mode in modes)


@lru_cache(maxsize=8)
def _cosines(resolution: int, num_modes: int) -> np.ndarray:
    """The one-dimensional φ_k at the cell centres, [X, K]."""
    centres = (np.arange(resolution) + 0.5) / resolution
    cosines = np.sqrt(2) * np.cos(np.pi * np.outer(centres, np.arange(num_modes)))
    cosines[:, 0] = 1.0
    return cosines
