"""Transforms along one axis of a grid: values to coefficients of cosines, or of cosines and sines.

All are scaled so that the sum of squared coefficients is the mean square over the axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST_MATRIX = 1024  # points of a grid axis from which on an FFT takes less time and memory than a matrix: 4 MB


@dataclass(frozen=True)
class Axis:
    """One axis of a grid, n points of a domain of length L."""

    length: float
    at_vertices: bool = False
    """Values sit at both ends and between them, and not at the centres of n cells."""
    is_periodic: bool = False

    @property
    def longest_wave(self) -> float:
        """The least wave number above 0."""
        return (2 if self.is_periodic else 1) * math.pi / self.length

    def wave_numbers(self, num_points: int) -> Tensor:
        """[n] of the coefficients, in float64."""
        m = torch.arange(num_points, dtype=torch.float64)
        if self.is_periodic and num_points > LARGEST_MATRIX:
            m = 2 * torch.minimum(m, num_points - m)
        elif self.is_periodic:
            m = 2 * torch.cat([m[: num_points // 2 + 1], m[1 : (num_points + 1) // 2]])
        return math.pi * m / self.length

    def analysis(self, num_points: int) -> Tensor:
        """What `coefficients` needs, in float64: a matrix [n, n], or factors [2, n] of an FFT."""
        if self.is_periodic:
            return (fourier_basis if num_points <= LARGEST_MATRIX else hartley_factors)(num_points)
        if self.at_vertices:
            return vertex_cosine_basis(num_points)
        return (cosine_basis if num_points <= LARGEST_MATRIX else cosine_factors)(num_points)

    def coefficients(self, values: Tensor, operator: Tensor) -> Tensor:
        """Coefficients along the last axis."""
        num_points = values.shape[-1]
        if len(operator) == num_points:
            return values @ operator.T
        if self.is_periodic:
            spectrum = torch.fft.fft(values)
        else:
            spectrum = torch.fft.rfft(torch.cat([values, values.flip(-1)], dim=-1))[..., :num_points]
        return operator[0] * spectrum.real + operator[1] * spectrum.imag


def cosine_basis(num_points: int) -> Tensor:
    """[n, n] the analysis by the cosines of wave numbers π m at n cell centres, in float64 (DCT-II)."""
    m = torch.arange(num_points, dtype=torch.float64)
    return _normalised(torch.cos(math.pi * m[:, None] * (m + 0.5) / num_points))


def vertex_cosine_basis(num_points: int) -> Tensor:
    """[n, n] the analysis by the cosines of wave numbers π m at n vertices, in float64 (DCT-I).

    They are orthogonal in the sum by the trapezoidal rule, which halves both ends.
    """
    m = torch.arange(num_points, dtype=torch.float64)
    weights = torch.full_like(m, 1 / (num_points - 1))
    weights[[0, -1]] /= 2
    cosines = torch.cos(math.pi * m[:, None] * m / (num_points - 1))
    return cosines * weights / (cosines.square() @ weights).sqrt()[:, None]


def fourier_basis(num_points: int) -> Tensor:
    """[n, n] the analysis by cosines and sines of multiples of 2π on a periodic axis, in float64."""
    points = torch.arange(num_points, dtype=torch.float64) / num_points
    cosines = torch.arange(num_points // 2 + 1, dtype=torch.float64)
    sines = torch.arange(1, (num_points + 1) // 2, dtype=torch.float64)
    functions = torch.cat(
        [torch.cos(2 * math.pi * cosines[:, None] * points), torch.sin(2 * math.pi * sines[:, None] * points)]
    )
    return _normalised(functions)


def cosine_factors(num_points: int) -> Tensor:
    """[2, n] what makes `cosine_basis`' coefficients of the FFT of the reflected values.

    Re(exp(-i π m / 2n) F_m) / 2 is the sum over the values times the m-th cosine (Makhoul, IEEE Transactions on
    Acoustics, Speech, and Signal Processing 28(1), 1980).
    """
    m = torch.arange(num_points, dtype=torch.float64)
    angles = math.pi * m / (2 * num_points)
    scale = torch.full_like(m, math.sqrt(2) / (2 * num_points))
    scale[0] = 1 / (2 * num_points)
    return scale * torch.stack([angles.cos(), angles.sin()])


def hartley_factors(num_points: int) -> Tensor:
    """[2, n] what makes coefficients by cos + sin (Hartley) of the FFT's, of wave numbers 2π min(m, n - m).

    They rotate each pair of `fourier_basis`' cosine and sine, of one wave number, so the norms are the same.
    """
    factors = torch.tensor([[1.0], [-1.0]], dtype=torch.float64) / num_points
    return factors.expand(2, num_points).clone()


def _normalised(functions: Tensor) -> Tensor:
    """Orthogonal rows [n, n], scaled so that the sum of squared coefficients is the mean square over the points."""
    num_points = functions.shape[1]
    return functions / torch.linalg.vector_norm(functions, dim=1, keepdim=True) / math.sqrt(num_points)
