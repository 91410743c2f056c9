"""Gaussian random fields on meshes, by a stochastic PDE.

Axes:  P points, d dimensions of space.
"""

from __future__ import annotations

from functools import cached_property
from math import gamma, pi

import numpy as np
from scipy.sparse import csc_array, diags_array
from scipy.sparse.linalg import SuperLU, splu

from penstock.geometry import Mesh
from penstock.solvers.parameters.normal_field import NormalField


class MaternField(NormalField):
    """A centred Matérn field on a mesh, with values at its points.

    It solves (κ² - Δ)^(α/2) g = s W with Neumann conditions, W white noise (Lindgren, Rue and Lindström 2011, "An
    explicit link between Gaussian fields and Gaussian Markov random fields: the stochastic partial differential
    equation approach", J. R. Stat. Soc. B 73). Far from the boundary its covariance at a distance r is

        σ² 2^(1-ν) / Γ(ν) (κr)^ν K_ν(κr),   ν = α - d/2,

    which is 0.14 σ² (d = 2, α = 2) at r = √(8ν) / κ. Within about that distance of a boundary the variance is larger:
    2 σ² at a straight one, 4 σ² in a right angle.

    P1 elements with lumped masses M and stiffness G: g = s (K⁻¹ M)^(α/2) M^(-1/2) ξ with K = κ² M + G and ξ ~ N(0, 1)
    i.i.d. per point. K is factorised once. The leading modes are the projections of the noise on constants and linear
    functions.

    Args:
        mesh: the mesh.
        inverse_length: κ, in 1/length. No edge of the mesh may be longer than 1 / κ; where the longest is half of that,
            the variance on a square is 6 % too large.
        exponent: α, 2 or 4: the covariance is about that of (-Δ + κ²)^-α, as of the fields on boxes.
        deviation: σ.
    """

    def __init__(self, mesh: Mesh, *, inverse_length: float, exponent: int = 2, deviation: float = 1.0):
        if not inverse_length > 0:
            raise ValueError(f"inverse_length = {inverse_length} must be above 0")
        if exponent not in (2, 4):
            raise ValueError(f"exponent = {exponent} must be 2 or 4: other exponents take no whole number of solves")
        if not deviation > 0:
            raise ValueError(f"deviation = {deviation} must be above 0")
        self.mesh = mesh
        self.inverse_length = inverse_length
        self.exponent = exponent
        self.deviation = deviation

    @property
    def variance(self) -> float:
        """The pointwise variance far from the boundary, σ²."""
        return self.deviation**2

    @property
    def smoothness(self) -> float:
        """ν."""
        return self.exponent - self.mesh.dimension / 2

    def features(self, value: np.ndarray) -> np.ndarray:
        """The field, weighted by masses and scaled so that two draws are about √2 apart."""
        weights = self.mesh.weights
        return value * np.sqrt(weights / weights.sum()) / self.deviation

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return (
            f"Matern field on a mesh, standard deviation {self.deviation:g}, smoothness {self.smoothness:g}, inverse "
            f"length {self.inverse_length:g}"
        )

    @property
    def _num_normals(self) -> int:
        return len(self._leading) + self.mesh.num_points

    @property
    def _leading(self) -> list[str]:
        return ["mean", *(f"slope_{axis}" for axis in "xyz"[: self.mesh.dimension])]

    def _of(self, normals: np.ndarray) -> np.ndarray:
        first, rest = normals[: len(self._leading)], normals[len(self._leading) :]
        basis = self._leading_noise
        noise = rest + basis @ (first - basis.T @ rest)  # white as well: basis is orthonormal
        masses = self.mesh.weights
        field = self._factors.solve(np.sqrt(masses) * noise)
        for _ in range(self.exponent // 2 - 1):
            field = self._factors.solve(masses * field)
        return self._scale * field

    @cached_property
    def _leading_noise(self) -> np.ndarray:
        """Constants and linear functions as noise, orthonormal, [P, 1 + d]."""
        arrays = self.mesh.arrays
        functions = np.column_stack([np.ones(self.mesh.num_points), arrays.points])
        basis, triangle = np.linalg.qr(np.sqrt(arrays.weights)[:, None] * functions)
        return basis * np.sign(np.diag(triangle))

    @cached_property
    def _factors(self) -> SuperLU:
        """The factors of K."""
        arrays = self.mesh.arrays
        corners = arrays.points[arrays.cells]
        longest = np.linalg.norm(corners[:, :, None] - corners[:, None], axis=3).max()
        if longest * self.inverse_length > 1:
            raise ValueError(
                f"inverse_length = {self.inverse_length} is too large for the mesh: its longest edge, {longest:.3g}, "
                "must be at most 1 / inverse_length"
            )
        rows, columns, values = arrays.stiffness()
        size = self.mesh.num_points
        matrix = csc_array((values, (rows, columns)), shape=(size, size))
        matrix = (matrix + diags_array(self.inverse_length**2 * arrays.weights)).tocsc()
        # Symmetric positive definite: no pivoting, and an ordering for A + Aᵀ.
        return splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})

    @property
    def _scale(self) -> float:
        """s, from the variance of the solution for s = 1 in all of space."""
        nu, d = self.smoothness, self.mesh.dimension
        variance = gamma(nu) / (gamma(self.exponent) * (4 * pi) ** (d / 2) * self.inverse_length ** (2 * nu))
        return self.deviation / np.sqrt(variance)
