"""Gaussian random fields on boxes and the torus, and functions of them.

Axes:  K modes along each axis, M modes in all, *grid the points along each axis; arrays are indexed [x, y, z].
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property, lru_cache
from itertools import product
from typing import ClassVar

import numpy as np
from scipy.fft import idctn, idstn, ifftn

from penstock.geometry import Grid
from penstock.solvers.parameters.distribution import Distribution, FunctionOfField
from penstock.solvers.parameters.normal_field import NormalField

# Default number of modes along each axis, by dimension.
NUM_MODES = {1: 128, 2: 128, 3: 64}


class SpectralField(NormalField):
    """A centred Gaussian field that is a sum of modes with independent coefficients.

    A draw is the Karhunen-Loève sum g(x) = Σ_k s_k ξ_k φ_k(x) with ξ_k ~ N(0, 1) i.i.d.

    The ξ_k are drawn by growing wave numbers, shell by shell, and their number does not depend on the resolution. So
    one generator gives one function at every resolution.
    """

    @property
    def variance(self) -> float:
        """The pointwise variance, averaged over the domain."""
        return float(np.sum(self._standard_deviations**2))

    @abstractmethod
    def evaluate(self, coefficients: np.ndarray) -> np.ndarray:
        """The sum of the modes with these coefficients, [*grid]."""

    @property
    @abstractmethod
    def _standard_deviations(self) -> np.ndarray:
        """The s_k, in the shape of `evaluate`'s coefficients."""

    @abstractmethod
    def _arranged(self, normals: np.ndarray) -> np.ndarray:
        """The ξ_k, from the order of their draw to the shape of `evaluate`'s coefficients."""

    def _of(self, normals: np.ndarray) -> np.ndarray:
        return self.evaluate(self._standard_deviations * self._arranged(normals))


class BoxField(SpectralField):
    """A Gaussian field on the unit interval, square or cube.

    Its subclasses say the boundary condition.
    """

    condition: ClassVar[str]
    """Name of the boundary condition."""
    lowest: ClassVar[int]
    """The lowest wave number along an axis."""
    num_dropped: ClassVar[int]
    """How many modes are left out, the lowest ones."""
    wave: ClassVar[np.ufunc]
    """The cosine or sine of the modes."""

    def __init__(
        self,
        resolution: int,
        *,
        dimension: int = 2,
        exponent: float = 2.0,
        inverse_length: float = 3.0,
        num_modes: int | None = None,
        centring: str = "cells",
    ):
        self.resolution = resolution
        self.dimension = dimension
        self.exponent = exponent
        self.inverse_length = inverse_length
        self.num_modes = num_modes or NUM_MODES[dimension]
        self.axis = Grid((resolution,), centring=centring)

    def evaluate(self, coefficients: np.ndarray) -> np.ndarray:
        """The field Σ_k c_k φ_k at the points of the grid.

        Args:
            coefficients: c_k, [K] * d.

        Returns:
            Values [*grid].
        """
        n = self.resolution
        if self.axis.centring == "cells" and n >= self.lowest + self.num_modes:
            # The orthonormal inverse DCT-II or DST-II is this sum up to a factor.
            padded = np.zeros((n,) * self.dimension)
            padded[(slice(self.num_modes),) * self.dimension] = coefficients
            return n ** (self.dimension / 2) * self._inverse_transform(padded)
        for _ in range(self.dimension):  # each turn brings the next axis to the front
            coefficients = np.tensordot(coefficients, self._waves, axes=(0, 1))
        return coefficients

    def directions(self, num: int) -> dict[str, np.ndarray]:
        """The derivatives s_k φ_k of the field with respect to the ξ_k of largest s_k.

        Args:
            num: how many, the option `derivatives` of a problem.

        Returns:
            Values [*grid] by the names of the modes, in falling order of s_k.

        Raises:
            ValueError: there are not as many modes.
        """
        if not 0 <= num <= self._num_normals:
            raise ValueError(f"derivatives = {num} must be between 0 and {self._num_normals}, the number of modes")
        deviations, directions = self._standard_deviations, {}
        for place in np.argsort(-deviations, axis=None, kind="stable")[:num]:
            mode = np.unravel_index(place, deviations.shape)
            coefficients = np.zeros_like(deviations)
            coefficients[mode] = deviations[mode]
            name = "_".join(["mode", *(str(self.lowest + k) for k in mode)])
            directions[name] = self.evaluate(coefficients)
        return directions

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return (
            f"Gaussian field, covariance (-Laplacian + {self.inverse_length**2:g})^-{self.exponent:g}, "
            f"{self.condition}, {self.num_modes} modes per axis"
        )

    @staticmethod
    @abstractmethod
    def _inverse_transform(coefficients: np.ndarray) -> np.ndarray:
        """The orthonormal inverse transform of type 2 that belongs to the modes."""

    @cached_property
    def _waves(self) -> np.ndarray:
        """The one-dimensional φ_k at the points, [X, K]."""
        (places,) = self.axis.axes()
        waves = np.sqrt(2) * type(self).wave(np.pi * np.outer(places, self._wave_numbers))
        waves[:, self._wave_numbers == 0] = 1.0
        return waves

    @property
    def _wave_numbers(self) -> np.ndarray:
        """The wave numbers k_i along an axis, int [K]."""
        return self.lowest + np.arange(self.num_modes)

    @cached_property
    def _standard_deviations(self) -> np.ndarray:
        squares = sum(axis**2 for axis in np.ix_(*[self._wave_numbers] * self.dimension))
        with np.errstate(divide="ignore"):  # of the mean mode, which is dropped, where τ = 0
            deviations = (np.pi**2 * squares + self.inverse_length**2) ** (-self.exponent / 2)
        deviations.flat[: self.num_dropped] = 0.0
        return deviations

    @property
    def _num_normals(self) -> int:
        return self.num_modes**self.dimension - self.num_dropped

    @property
    def _leading(self) -> list[str]:
        modes = list(product((self.lowest, self.lowest + 1), repeat=self.dimension))[self.num_dropped :]
        return ["_".join(["mode", *map(str, mode)]) for mode in modes]

    def _arranged(self, normals: np.ndarray) -> np.ndarray:
        arranged = np.zeros((self.num_modes,) * self.dimension)
        order = _shell_order(self.num_modes, self.dimension)
        arranged[tuple(axis[self.num_dropped :] for axis in order)] = normals
        return arranged


class GaussianField(BoxField):
    """A centred Gaussian field with covariance (-Δ + τ²)^-α and Neumann conditions.

    Its values are those at the centres of n^d cells of the unit interval, square or cube. The eigenfunctions of the
    Laplacian with Neumann conditions are cosines, so a draw is the Karhunen-Loève sum

        g(x) = Σ_k (π²|k|² + τ²)^(-α/2) ξ_k φ_k(x),   φ_k(x) = Π_i c_k cos(π k_i x_i),   ξ_k ~ N(0, 1) i.i.d.,

    over 0 <= k_i < K except k = 0: the mean mode is dropped. φ_k has unit L2 norm. With d = 2, α = 2 and τ = 3 this is
    the prior of the Darcy set of Li et al. (2021, "Fourier neural operator", arXiv 2010.08895, A.3.2); its modes with
    k_i = 0 or 1, those of `quantiles`, carry 72 % of the variance.

    The ξ_k are drawn shell by shell (max k_i = 1, 2, ...), and K does not depend on n. So one generator gives one
    function at every resolution, evaluated exactly at that resolution's points.

    Args:
        resolution: n, cells along each axis, or vertices.
        dimension: d, 1 to 3. With d = 1 it is a random function on an interval, such as data along an edge.
        exponent: α, above d / 2 for a field with finite variance.
        inverse_length: τ, in 1/length.
        num_modes: K, modes along each axis; 128 (64 in 3D) where absent. The modes left out at 128 carry 4e-5 of the
            variance for d = 2, α = 2, τ = 3.
        centring: where values sit: "cells", or "vertices" at i / (n - 1).
    """

    condition = "Neumann, no mean mode"
    lowest = 0
    num_dropped = 1
    wave = np.cos

    @staticmethod
    def _inverse_transform(coefficients: np.ndarray) -> np.ndarray:
        return idctn(coefficients, type=2, norm="ortho")


class DirichletField(BoxField):
    """A centred Gaussian field with covariance (-Δ + τ²)^-α that is 0 on the boundary.

    It is the `GaussianField` of the Laplacian with Dirichlet conditions: φ_k(x) = Π_i √2 sin(π k_i x_i), over
    1 <= k_i <= K. With d = 1, α = 1 and τ = 0 it is the Brownian bridge; with a larger α a smooth function on an
    interval that is 0 at both ends, such as data along an edge.

    Args:
        resolution: n, cells along each axis, or vertices.
        dimension: d, 1 to 3.
        exponent: α, above d / 2 for a field with finite variance.
        inverse_length: τ, in 1/length.
        num_modes: K, modes along each axis; 128 (64 in 3D) where absent.
        centring: where values sit: "cells", or "vertices" at i / (n - 1), those on the boundary included.
    """

    condition = "Dirichlet"
    lowest = 1
    num_dropped = 0
    wave = np.sin

    @staticmethod
    def _inverse_transform(coefficients: np.ndarray) -> np.ndarray:
        return idstn(coefficients, type=2, norm="ortho")


class PeriodicField(SpectralField):
    """A centred Gaussian field on the torus with covariance σ² (-Δ + τ²)^-α.

    Its mean over the torus is 0. A draw is the Fourier sum

        g(x) = Σ_k √2 s_k (ξ_k cos(2π k·x / L) + η_k sin(2π k·x / L)),   s_k = σ (4π²|k|²/L² + τ²)^(-α/2) L^(-d/2),

    over one of k and -k each, 0 < max |k_i| <= K, with ξ_k and η_k ~ N(0, 1) i.i.d.

    ξ_k and η_k are drawn shell by shell (max |k_i| = 1, 2, ...), and K does not depend on n. So one generator gives one
    function at every resolution; of it a grid of n points carries the modes with max |k_i| < n / 2. The modes of
    `quantiles` are those of the first shell.

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

    def evaluate(self, coefficients: np.ndarray) -> np.ndarray:
        """The field Σ_k √2 (a_k cos(2π k·x / L) + b_k sin(2π k·x / L)) at the points.

        Args:
            coefficients: a_k and b_k, [M, 2].

        Returns:
            Values [*grid].
        """
        n = self.resolution
        carried = np.max(np.abs(self._modes), axis=1) < n / 2
        spectrum = np.zeros((n,) * self.dimension, complex)
        spectrum[tuple(self._modes[carried].T)] = coefficients[carried] @ np.array([1, -1j]) / np.sqrt(2)
        # The modes of -k are the conjugates: twice the real part has both.
        return 2 * ifftn(spectrum, norm="forward").real

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return (
            f"periodic Gaussian field, covariance {self.scale:.4g} (-Laplacian + {self.inverse_length**2:g})"
            f"^-{self.exponent:g}, no mean mode, wave numbers up to {self.num_modes}"
        )

    @cached_property
    def _modes(self) -> np.ndarray:
        """The wave numbers k, int [M, d], in the order of growing shells."""
        ks = np.array(list(product(range(-self.num_modes, self.num_modes + 1), repeat=self.dimension)))
        ks = ks[len(ks) // 2 + 1 :]  # the half behind 0: one of k and -k each
        return ks[np.lexsort((*ks.T[::-1], np.abs(ks).max(axis=1)))]

    @cached_property
    def _standard_deviations(self) -> np.ndarray:
        squares = (self._modes**2).sum(axis=1) * (2 * np.pi / self.extent) ** 2
        deviations = np.sqrt(self.scale / self.extent**self.dimension)
        return np.repeat(deviations * (squares + self.inverse_length**2) ** (-self.exponent / 2), 2).reshape(-1, 2)

    @property
    def _num_normals(self) -> int:
        return 2 * len(self._modes)

    @property
    def _leading(self) -> list[str]:
        shell = self._modes[: (3**self.dimension - 1) // 2].tolist()
        return ["_".join([kind, *map(str, mode)]) for mode in shell for kind in ("cos", "sin")]

    def _arranged(self, normals: np.ndarray) -> np.ndarray:
        return normals.reshape(-1, 2)


class BinaryField(FunctionOfField):
    """A field of two values, chosen by the sign of another field.

    Its features are the signs, ±1/√(number of cells) at every cell, so that the distance of
    two draws is twice the square root of the area where they differ.

    Args:
        field: the other field, such as a `GaussianField`.
        above: value where the other field is >= 0.
        below: value elsewhere.
    """

    def __init__(self, field: Distribution, *, above: float, below: float):
        super().__init__(field)
        self.above = above
        self.below = below

    def of(self, values: np.ndarray) -> np.ndarray:
        """The two values, by the signs."""
        return np.where(values >= 0, self.above, self.below)

    def features(self, value: np.ndarray) -> np.ndarray:
        """The signs, flattened and scaled."""
        signs = np.where(value == self.above, 1.0, -1.0).ravel()
        return signs / np.sqrt(signs.size)

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return f"{self.above:g} where positive, {self.below:g} where negative: the sign of a {self.field.describe()}"


class LogNormalField(FunctionOfField):
    """The exponential of a Gaussian field that is scaled to a variance of 1.

    Its features are those of the Gaussian field.

    Args:
        field: the Gaussian field.
    """

    def of(self, values: np.ndarray) -> np.ndarray:
        """The exponential of the scaled values."""
        return np.exp(values / np.sqrt(self.field.variance))

    def derivative(self, value: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """The derivative where the field has this value.

        Args:
            value: a draw, [*grid].
            direction: of the Gaussian field, [*grid].
        """
        return value * direction / np.sqrt(self.field.variance)

    def features(self, value: np.ndarray) -> np.ndarray:
        """The logarithm of the field, flattened and scaled."""
        return np.log(value).ravel() / np.sqrt(value.size)

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return f"exponential of a field of variance 1: {self.field.describe()}"


@lru_cache(maxsize=8)
def _shell_order(num_modes: int, dimension: int) -> tuple[np.ndarray, ...]:
    """Index arrays (i₁, i₂, ...) of all modes, by growing max i."""
    modes = np.unravel_index(np.arange(num_modes**dimension), (num_modes,) * dimension)
    order = np.lexsort((*modes[::-1], np.max(modes, axis=0)))
    return tuple(mode[order] for mode in modes)
