"""Transforms along a grid's axis, to coefficients of cosines or cosines and sines.

All are scaled so that the sum of squared coefficients is the mean square over the axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST_MATRIX = 1024  # points of an axis; beyond, an FFT takes less time and memory than a matrix, of 4 MB here


@dataclass(frozen=True)
class Axis:
    """One axis of a grid, with n points on a domain of length L."""

    length: float
    """Length L of the domain."""
    at_vertices: bool = False
    """Whether values sit at both ends and between them, instead of at the centres of n cells."""
    is_periodic: bool = False
    """Whether the axis is periodic."""

    @property
    def longest_wave(self) -> float:
        """The smallest wave number above 0."""
        return (2 if self.is_periodic else 1) * math.pi / self.length

    def wave_numbers(self, num_points: int) -> Tensor:
        """Return the wave numbers of the coefficients.

        Args:
            num_points: number n of points.

        Returns:
            float64 [n].
        """
        m = torch.arange(num_points, dtype=torch.float64)
        if self.is_periodic and num_points > LARGEST_MATRIX:
            m = 2 * torch.minimum(m, num_points - m)
        elif self.is_periodic:
            m = 2 * torch.cat([m[: num_points // 2 + 1], m[1 : (num_points + 1) // 2]])
        return math.pi * m / self.length

    def analysis(self, num_points: int) -> Tensor:
        """Return the operator that `coefficients` needs.

        Args:
            num_points: number n of points.

        Returns:
            A matrix [n, n], or factors [2, n] on the result of an FFT, in float64.
        """
        if self.is_periodic:
            return (fourier_basis if num_points <= LARGEST_MATRIX else hartley_factors)(num_points)
        if self.at_vertices:
            return vertex_cosine_basis(num_points)
        return (cosine_basis if num_points <= LARGEST_MATRIX else cosine_factors)(num_points)

    def coefficients(self, values: Tensor, operator: Tensor) -> Tensor:
        """Transform values along their last axis.

        Args:
            values: [..., n].
            operator: what `analysis` returned for n points.

        Returns:
            The coefficients, [..., n].
        """
        num_points = values.shape[-1]
        if len(operator) == num_points:
            return values @ operator.T
        if self.is_periodic:
            spectrum = torch.fft.fft(values)
        else:
            spectrum = torch.fft.rfft(torch.cat([values, values.flip(-1)], dim=-1))[..., :num_points]
        return operator[0] * spectrum.real + operator[1] * spectrum.imag


def cosine_basis(num_points: int) -> Tensor:
    """Return the transform to cosines for values at cell centres (DCT-II).

    Args:
        num_points: number n of cells.

    Returns:
        Matrix with a row for each cosine of wave number π m, float64 [n, n].
    """
    m = torch.arange(num_points, dtype=torch.float64)
    return _normalised(torch.cos(math.pi * m[:, None] * (m + 0.5) / num_points))


def vertex_cosine_basis(num_points: int) -> Tensor:
    """Return the transform to cosines for values at vertices (DCT-I).

    The cosines are orthogonal in the sum of the trapezoidal rule, which halves both ends.

    Args:
        num_points: number n of vertices.

    Returns:
        Matrix with a row for each cosine of wave number π m, float64 [n, n].
    """
    m = torch.arange(num_points, dtype=torch.float64)
    weights = torch.full_like(m, 1 / (num_points - 1))
    weights[[0, -1]] /= 2
    cosines = torch.cos(math.pi * m[:, None] * m / (num_points - 1))
    return cosines * weights / (cosines.square() @ weights).sqrt()[:, None]


def fourier_basis(num_points: int) -> Tensor:
    """Return the transform to cosines and sines for values on a periodic axis.

    Args:
        num_points: number n of points.

    Returns:
        Matrix with rows for the cosines, then for the sines, of multiples of 2π, float64 [n, n].
    """
    points = torch.arange(num_points, dtype=torch.float64) / num_points
    cosines = torch.arange(num_points // 2 + 1, dtype=torch.float64)
    sines = torch.arange(1, (num_points + 1) // 2, dtype=torch.float64)
    functions = torch.cat(
        [torch.cos(2 * math.pi * cosines[:, None] * points), torch.sin(2 * math.pi * sines[:, None] * points)]
    )
    return _normalised(functions)


def cosine_factors(num_points: int) -> Tensor:
    """Return the factors that lead from an FFT to the coefficients of `cosine_basis`.

    The FFT F is that of the values followed by their reflection. Re(exp(-i π m / 2n) F_m) / 2 is the sum over the
    values times the m-th cosine (Makhoul, IEEE Transactions on Acoustics, Speech, and Signal Processing 28(1), 1980).

    Args:
        num_points: number n of cells.

    Returns:
        Factors on real and imaginary part of each of the first n numbers of the FFT, float64 [2, n].
    """
    m = torch.arange(num_points, dtype=torch.float64)
    angles = math.pi * m / (2 * num_points)
    scale = torch.full_like(m, math.sqrt(2) / (2 * num_points))
    scale[0] = 1 / (2 * num_points)
    return scale * torch.stack([angles.cos(), angles.sin()])


def hartley_factors(num_points: int) -> Tensor:
    """Return the factors that lead from an FFT to coefficients of cos + sin (Hartley).

    Coefficient m belongs to the wave number 2π min(m, n - m). Each pair of one wave number is a rotation of the cosine
    and sine of `fourier_basis`, so norms are the same.

    Args:
        num_points: number n of points.

    Returns:
        Factors on real and imaginary part of each number of the FFT, float64 [2, n].
    """
    factors = torch.tensor([[1.0], [-1.0]], dtype=torch.float64) / num_points
    return factors.expand(2, num_points).clone()


def _normalised(functions: Tensor) -> Tensor:
    """Scale orthogonal rows [n, n] so that squared coefficients sum to a mean square."""
    num_points = functions.shape[1]
    return functions / torch.linalg.vector_norm(functions, dim=1, keepdim=True) / math.sqrt(num_points)
