"""Norms of fields, by the geometry that they sit on.

A norm of order 0 counts all frequencies alike, a positive order counts the high ones more, a negative one the low ones.

Axes:  B batch, C channels, * the shape of a geometry: *grid of a grid, P points of others.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from penstock.geometry import Geometry, Grid, Mesh, Points
from penstock.learner.losses.transforms import Axis

LARGEST_WEIGHT = 1e30  # of a squared coefficient: float32 ends at 3e38, and fields are not all of size 1
MAX_DENSE_POINTS = 5000  # the eigenvectors of a mesh's matrices then take 100 MB, computing them 30 s on one core


class Norm(ABC):
    """A norm of fields that is a mean over the domain: ||1|| = 1, whatever its size.

    It is computed in float32 even under autocast, or in float64 if the fields are of that type.
    """

    weight = 1.0
    """||u|| of a wave u as long as the domain allows, scaled to ||u||_2 = 1."""

    def __init__(self):
        self._operators: dict[tuple, list[Tensor]] = {}

    def squared(self, fields: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the squared norms of fields.

        Args:
            fields: [B, C, *].
            weights: quadrature weights [B, 1, *], if they travel with the samples.

        Returns:
            [B, C].

        Raises:
            ValueError: the fields have other points than the norm's geometry.
        """
        fields = fields.to(torch.promote_types(fields.dtype, torch.float32))
        if weights is not None:
            return _weighted_mean_square(fields, weights.to(fields.dtype))
        operators = self._operators_for(fields.shape[2:], fields.device, fields.dtype)
        with torch.autocast(fields.device.type, enabled=False):
            return self._squared(fields, *operators)

    def _operators_for(self, grid: torch.Size, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        key = (grid, device, dtype)
        if key not in self._operators:
            self._operators[key] = [operator.to(device, dtype) for operator in self._build(grid)]
        return self._operators[key]

    @abstractmethod
    def _build(self, grid: torch.Size) -> list[Tensor]:
        """Return the tensors that `_squared` needs for fields of shape `grid`, in float64.

        They are kept on every device where they are used.
        """

    @abstractmethod
    def _squared(self, fields: Tensor, *operators: Tensor) -> Tensor: ...


class L2Norm(Norm):
    """The root mean square over the points, by quadrature weights if there are any.

    ||u||² is the mean of u², or with the geometry's weights w, Σ_p w_p u_p² / Σ_p w_p.

    Args:
        geometry: geometry of the fields; None for scalars, whose norm is their absolute value.
    """

    def __init__(self, geometry: Geometry | None = None):
        super().__init__()
        self.geometry = geometry

    def _build(self, grid: torch.Size) -> list[Tensor]:
        weights = None if self.geometry is None else self.geometry.weights
        return [] if weights is None else [_weights_on(grid, torch.from_numpy(weights))]

    def _squared(self, fields: Tensor, *weights: Tensor) -> Tensor:
        if weights:
            return fields.square().flatten(2) @ weights[0]
        return _sum_of_squares(fields) / math.prod(fields.shape[2:])


class GridNorm(Norm):
    """The Sobolev norm of order s on a regular grid of any number of axes.

        ||u||_s² = Σ_k (1 + |k|²)^s û(k)²,   û(k) the mean over the points of u times the basis function of k.

    The domain's edges have the lengths L. The basis is orthonormal. It consists of products of √2 cos(k_a x_a), with
    k_a = 0, π/L, ..., (n - 1) π/L, which continue u evenly beyond its boundary, or along a periodic axis of √2 cos and
    √2 sin of multiples of 2π/L. The mean of values at vertices is that of the trapezoidal rule. For s = 1 the squared
    norm is the mean of u² + |∇u|².

    On the cosine basis a field may have any values on the boundary. From s = 3/2 on, the norm of a field whose normal
    derivative does not vanish there is infinite, so what is computed grows with the resolution.

    The transform along an axis of at most LARGEST_MATRIX points is one product with an [n, n] matrix, instead of an
    FFT: for 64 x 64 points it takes 128 multiplications per point, and needs neither complex numbers nor the reflected
    field.

    Args:
        grid: geometry of the fields, without a mask. Fields may have another resolution.
        order: order s, any real number.
    """

    def __init__(self, grid: Grid, order: float):
        super().__init__()
        self.order = order
        self.axes = [
            Axis(length, at_vertices=grid.centring == "vertices", is_periodic=is_periodic)
            for length, is_periodic in zip(grid.extent, grid.periodic, strict=True)
        ]
        self.weight = (1 + min(axis.longest_wave for axis in self.axes) ** 2) ** (order / 2)

    def _build(self, grid: torch.Size) -> list[Tensor]:
        operators = [axis.analysis(num_points) for axis, num_points in zip(self.axes, grid, strict=True)]
        squares = torch.zeros(grid, dtype=torch.float64)
        for number, (axis, num_points) in enumerate(zip(self.axes, grid, strict=True)):
            k = axis.wave_numbers(num_points)
            squares += k.square().reshape([-1 if other == number else 1 for other in range(len(grid))])
        multiplier = (1 + squares) ** (self.order / 2)
        if multiplier.square().max() > LARGEST_WEIGHT:
            shape = " x ".join(map(str, grid))
            raise ValueError(f"order {self.order:g} on {shape} points goes beyond float32: take a lower order")
        return [multiplier, *operators]

    def _squared(self, fields: Tensor, multiplier: Tensor, *operators: Tensor) -> Tensor:
        coefficients = fields
        for axis, operator in zip(self.axes, operators, strict=True):
            # each step takes the first grid axis and puts it last, so in the end all are in place
            coefficients = axis.coefficients(coefficients.movedim(2, -1), operator)
        return _sum_of_squares(multiplier * coefficients)


class MeshNorm(Norm):
    """The Sobolev norm of order s on a mesh.

        ||u||_s² = uᵀ M (M⁻¹ (M + K))^s u / Σ_p w_p;   for s = 1, the mean of u² + |∇u|².

    M = diag(w) is the lumped mass matrix and K the stiffness matrix: w_p is the integral of the basis function φ_p,
    K_pq that of ∇φ_p·∇φ_q. Lengths are in the mesh's unit.

    With linear elements it is accurate to second order in the mesh's width h, but from s = 3/2 on only if the mesh is
    smooth: with points shifted at random by up to h/5, order 2 is off by 0.7 % on 65 x 65 points as well as on
    129 x 129.

    Orders 0, 1, 2, ... take sparse products. Others take the eigenvectors of K v = λ M v, which are computed once,
    densely, and only for a mesh of at most MAX_DENSE_POINTS points.

    Args:
        mesh: geometry of the fields.
        order: order s.

    Raises:
        ValueError: the mesh is too large for the order.
    """

    def __init__(self, mesh: Mesh, order: float):
        super().__init__()
        self.order = order
        self.mesh = mesh
        longest = math.pi / np.ptp(mesh.box, axis=0).max()  # as on a grid: the wave that fits the longest edge once
        self.weight = float((1 + longest**2) ** (order / 2))
        self._product = torch.compiler.disable(torch.matmul)  # torch.compile's default backend knows no sparse tensors
        self._by_products = order >= 0 and float(order).is_integer()
        if not self._by_products and mesh.num_points > MAX_DENSE_POINTS:
            raise ValueError(
                f"order {order:g} on a mesh needs all eigenvectors, which is too much for {mesh.num_points} points: "
                f"take an order of 0, 1, 2, ..., or a mesh of at most {MAX_DENSE_POINTS} points"
            )

    def _build(self, grid: torch.Size) -> list[Tensor]:
        arrays = self.mesh.arrays
        total = arrays.weights.sum()
        weights = _weights_on(grid, torch.from_numpy(arrays.weights))
        rows, columns, values = map(torch.from_numpy, arrays.stiffness())
        shape = (self.mesh.num_points,) * 2
        places = torch.stack([rows, columns])
        stiffness = torch.sparse_coo_tensor(places, values / total, shape, check_invariants=False).coalesce()
        if self._by_products:
            return [weights, stiffness]
        roots = weights.sqrt()
        eigenvalues, vectors = torch.linalg.eigh(stiffness.to_dense() / roots[:, None] / roots)
        # rounding makes the constants' eigenvalue slightly negative
        return [(1 + eigenvalues.clamp_min(0)) ** (self.order / 2), vectors.T * roots]

    def _squared(self, fields: Tensor, *operators: Tensor) -> Tensor:
        if not self._by_products:
            multiplier, transform = operators
            return (multiplier * (fields @ transform.T)).square().sum(dim=2)
        weights, stiffness = operators
        values = fields.flatten(0, 1).T  # [P, B C]
        for _ in range(int(self.order) // 2):  # uᵀ M A^(2m + r) u = (A^m u)ᵀ M A^r (A^m u), as M A is symmetric
            values = values + self._product(stiffness, values) / weights[:, None]
        squares = weights @ values.square()
        if self.order % 2:
            squares = squares + (values * self._product(stiffness, values)).sum(dim=0)
        return squares.reshape(fields.shape[:2])


def norm_of(geometry: Geometry | None, order: float) -> Norm:
    """Return the norm of an order on a geometry.

    Args:
        geometry: geometry of the fields; None for scalars, whose norm is the same for all orders.
        order: order of the norm.

    Returns:
        The norm.

    Raises:
        ValueError: the geometry has no norm of this order.
    """
    if not math.isfinite(order):
        raise ValueError(f"order must be finite, not {order}")
    if order == 0 or geometry is None:
        return L2Norm(geometry)
    if not has_gradients(geometry):
        what = "points that vary have" if isinstance(geometry, Points) else "a masked grid has"
        raise ValueError(f"order {order:g} needs gradients, and {what} none: take relative_l2 or mse")
    return NORMS[type(geometry)](geometry, order)


def has_gradients(geometry: Geometry | None) -> bool:
    """Whether there are norms of orders other than 0 on a geometry; not for scalars."""
    return type(geometry) in NORMS and not geometry.travelling


NORMS: dict[type[Geometry], Callable[[Geometry, float], Norm]] = {Grid: GridNorm, Mesh: MeshNorm}
"""Norms of orders other than 0, by kind of geometry."""


def mark_constants() -> None:
    """Declare to torch.compile that the tensors norms are computed with are constants.

    Call it before a loss is compiled, which would otherwise be compiled again once they are known. It is not done at
    import, because it imports torch._dynamo, which takes longer than importing all of this package.
    """
    torch.compiler.assume_constant_result(Norm._operators_for)


def _sum_of_squares(fields: Tensor) -> Tensor:
    """Sum of squares over the axes after [B, C].

    It is the square of torch's norm, whose gradient takes one pass, where that of a sum of squares takes five.
    """
    return torch.linalg.vector_norm(fields.reshape(*fields.shape[:2], -1), dim=2).square()


def _weighted_mean_square(fields: Tensor, weights: Tensor) -> Tensor:
    """Mean square [B, C] of fields [B, C, *] by weights [B, 1, *].

    Values of weight 0 may be anything, even NaN.
    """
    weights = weights.flatten(2)
    squares = torch.where(weights > 0, fields.flatten(2), 0.0).square()
    return (squares * weights).sum(dim=2) / weights.sum(dim=2)


def _weights_on(grid: torch.Size, weights: Tensor) -> Tensor:
    """Flatten weights and scale their sum to 1; they must fit the fields' points."""
    if grid != weights.shape:
        raise ValueError(
            f"the geometry has weights of shape {tuple(weights.shape)}, but the fields have {tuple(grid)}: give fields "
            "on that geometry"
        )
    return weights.flatten() / weights.sum()
