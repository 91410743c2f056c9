"""Losses by name, from prediction and target [B, C, *grid], or [B, C, P] on a mesh, to one value per sample, [B].

Prediction and target come in multiples of the target channels' standard deviation, not centred; constant channels are 0
in both. For one output channel a relative error is therefore the one in physical units; for several, none dominates by
its unit alone.

A relative error has no sense where the target is 0, and its gradient would outweigh all others: one all-zero target in
a batch of 16 had 1e12 times another's. So the norm that errors are divided by is at least SMALLEST_SHARE of `typical`,
the root mean square of the targets' L2 norms, times what the norm makes of the domain's longest wave. The gradient of a
relative error is given `typical` times as large, which AdamW takes no notice of, but for its epsilon: an offset of 1e5
standard deviations would bring gradients below that.

Every loss is a Sobolev norm of the error. Errors of order 0 count all frequencies alike, a positive order counts the
high ones more (Czarnecki et al., NeurIPS 2017, arXiv 1706.04859; for neural operators Li et al., NeurIPS 2022, arXiv
2106.06898), a negative one the low ones (Yu, Yang and Townsend, ICLR 2023, arXiv 2205.14300).

Axes:  B batch, C channels, *grid the axes of the fields' grid, P the points of a mesh.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

SMALLEST_NORM = 1e-12  # of an error: a perfect prediction has the gradient 0, where the root's own is infinite
SMALLEST_SHARE = 0.1  # of a typical target's norm: what is smaller has its error measured by this, a zero target too
LARGEST_WEIGHT = 1e30  # of a squared coefficient: float32 ends at 3e38, and fields are not all of size 1
LARGEST_MATRIX = 1024  # points of a grid axis from which on an FFT takes less time and memory than a matrix: 4 MB
MAX_DENSE_POINTS = 5000  # the eigenvectors of a mesh's matrices then take 100 MB, computing them 30 s on one core


class Norm(ABC):
    """A norm of fields, squared and as a mean over the domain: ||1||² = 1, whatever the domain's size.

    Computed in float32 even under autocast, or in float64 where the fields are.
    """

    weight = 1.0
    """||u|| of the domain's longest wave, of those with ||u||_2 = 1."""

    def __init__(self):
        self._operators: dict[tuple, list[Tensor]] = {}

    def squared(self, fields: Tensor) -> Tensor:
        """Fields [B, C, *grid] to squared norms [B, C]. Raises ValueError where the points are not the norm's."""
        fields = fields.to(torch.promote_types(fields.dtype, torch.float32))
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
        """What `_squared` needs for fields on `grid`, in float64; kept on every device where it is used."""

    @abstractmethod
    def _squared(self, fields: Tensor, *operators: Tensor) -> Tensor: ...


class L2Norm(Norm):
    """||u||² = the mean of u² over the points, or with weights w [P] > 0: Σ_p w_p u_p² / Σ_p w_p.

    Raises ValueError when the weights are not that.
    """

    def __init__(self, weights: Tensor | None = None):
        super().__init__()
        self.weights = None if weights is None else _checked_weights(weights)

    def _build(self, grid: torch.Size) -> list[Tensor]:
        return [] if self.weights is None else [_weights_on(grid, self.weights)]

    def _squared(self, fields: Tensor, *weights: Tensor) -> Tensor:
        if weights:
            return fields.square().flatten(2) @ weights[0]
        return _sum_of_squares(fields) / fields[0, 0].numel()


class GridNorm(Norm):
    """The Sobolev norm of order s on a regular grid of 1 to 3 axes, or more:

        ||u||_s² = Σ_k (1 + |k|²)^s û(k)²,   û(k) the mean over the points of u times the basis function of k.

    The points are the centres of n cells along each axis of the domain, whose edges have the lengths L of `extent`, or
    1 where there is none. The basis is orthonormal: products of √2 cos(k_a x_a), k_a = 0, π/L, .. (n - 1) π/L, which
    continue u evenly beyond its boundary, or, where `periodic`, of √2 cos and √2 sin of multiples of 2π/L. For s = 1
    this is the mean of u² + |∇u|².

    On the cosine basis a field may have any values on the boundary. From s = 3/2 on the norm of one whose normal
    derivative does not vanish there is infinite, so that it grows with the resolution.

    The transform of an axis of at most LARGEST_MATRIX points is one product with an [n, n] matrix, in place of an FFT:
    of 64 x 64 points it has 128 multiplications a point, and it needs neither complex numbers nor the reflected field.
    """

    def __init__(self, order: float, *, periodic: bool = False, extent: Sequence[float] | None = None):
        super().__init__()
        self.order = order
        self.periodic = periodic
        self.extent = extent
        longest = (2 if periodic else 1) * math.pi / max(extent or (1.0,))
        self.weight = (1 + longest**2) ** (order / 2)

    def _build(self, grid: torch.Size) -> list[Tensor]:
        basis, factors = (fourier_basis, hartley_factors) if self.periodic else (cosine_basis, cosine_factors)
        analyses = [(basis if num_points <= LARGEST_MATRIX else factors)(num_points) for num_points in grid]
        operators, wave_numbers = zip(*analyses, strict=True)
        squares = torch.zeros(grid, dtype=torch.float64)
        for axis, (k, length) in enumerate(zip(wave_numbers, self.extent or (1.0,) * len(grid), strict=True)):
            squares += (k / length).square().reshape([-1 if other == axis else 1 for other in range(len(grid))])
        multiplier = (1 + squares) ** (self.order / 2)
        if multiplier.square().max() > LARGEST_WEIGHT:
            shape = " x ".join(map(str, grid))
            raise ValueError(f"order {self.order:g} on {shape} points goes beyond float32: take a lower one")
        return [multiplier, *operators]

    def _squared(self, fields: Tensor, multiplier: Tensor, *operators: Tensor) -> Tensor:
        coefficients = fields
        for operator in operators:  # each takes the first grid axis and puts it last, so in the end all are in place
            coefficients = self._analysed(coefficients.movedim(2, -1), operator)
        return _sum_of_squares(multiplier * coefficients)

    def _analysed(self, values: Tensor, operator: Tensor) -> Tensor:
        """Coefficients along the last axis, by a matrix [n, n] or by the factors [2, n] of an FFT."""
        num_points = values.shape[-1]
        if len(operator) == num_points:
            return values @ operator.T
        if self.periodic:
            spectrum = torch.fft.fft(values)
        else:
            spectrum = torch.fft.rfft(torch.cat([values, values.flip(-1)], dim=-1))[..., :num_points]
        return operator[0] * spectrum.real + operator[1] * spectrum.imag


class MeshNorm(Norm):
    """The Sobolev norm of order s on a mesh, from its lumped mass matrix M = diag(w) and stiffness matrix K:

        ||u||_s² = uᵀ M (M⁻¹ (M + K))^s u / Σ_p w_p;   for s = 1, the mean of u² + |∇u|².

    weights: w [P] > 0, the integrals of the basis functions φ. stiffness: K [P, P], symmetric, the integrals of
    ∇φ_p·∇φ_q, a sparse or dense tensor. Lengths are in the mesh's unit.

    With linear elements it is of second order in the mesh's width h, but from s = 3/2 on only where the mesh is smooth:
    with points shifted at random by up to h/5, order 2 is off by 0.7 % on 65 x 65 points and on 129 x 129.

    Orders 0, 1, 2, .. take sparse products. Others take the eigenvectors of K v = λ M v, which are computed once,
    densely, and only for a mesh of at most MAX_DENSE_POINTS points.

    Raises ValueError where a matrix is not that, or the mesh is too large for the order.
    """

    def __init__(self, order: float, weights: Tensor, stiffness: Tensor):
        super().__init__()
        self.order = order
        self.weights = _checked_weights(weights)
        num_points = len(self.weights)
        if tuple(stiffness.shape) != (num_points, num_points):
            raise ValueError(f"stiffness must be [{num_points}, {num_points}], not {list(stiffness.shape)}")
        self.stiffness = stiffness.detach().double().to_sparse_coo().coalesce()
        self._product = torch.compiler.disable(torch.matmul)  # torch.compile's default backend knows no sparse tensors
        self._by_products = order >= 0 and float(order).is_integer()
        if not self._by_products and num_points > MAX_DENSE_POINTS:
            raise ValueError(
                f"order {order} on a mesh needs all eigenvectors, which is too much for {num_points} points: take an "
                f"order of 0, 1, 2, .., or a mesh of at most {MAX_DENSE_POINTS} points"
            )

    def _build(self, grid: torch.Size) -> list[Tensor]:
        weights = _weights_on(grid, self.weights)
        stiffness = self.stiffness / self.weights.sum()
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


def sobolev_norm(
    order: float,
    *,
    periodic: bool = False,
    extent: Sequence[float] | None = None,
    weights: Tensor | None = None,
    stiffness: Tensor | None = None,
) -> Norm:
    """The norm of `order` on a grid, or with weights [P] on a mesh. Raises ValueError when something is missing."""
    if not math.isfinite(order):
        raise ValueError(f"order must be finite, not {order}")
    if order == 0:
        return L2Norm(weights)
    if weights is None and stiffness is None:
        return GridNorm(order, periodic=periodic, extent=extent)
    if weights is None or stiffness is None:
        raise ValueError(f"order {order} on a mesh needs both its weights and its stiffness matrix")
    return MeshNorm(order, weights, stiffness)


class Sobolev:
    """||prediction - target||_s / ||target||_s, or where not `relative` the mean over the channels of the error's
    ||·||_s², by `sobolev_norm`.

    order: s, any real number. Good values: 1 where gradients matter, such as fluxes, 0 else; -1 to learn the coarse
    shape first. periodic, extent: of the grid. weights, stiffness: of the mesh; on a grid there are none.

    Raises ValueError as the norms do.
    """

    def __init__(
        self,
        *,
        order: float,
        relative: bool = True,
        periodic: bool = False,
        extent: Sequence[float] | None = None,
        weights: Tensor | None = None,
        stiffness: Tensor | None = None,
    ):
        self.relative = relative
        self.norm = sobolev_norm(order, periodic=periodic, extent=extent, weights=weights, stiffness=stiffness)

    def __call__(self, prediction: Tensor, target: Tensor, typical: Tensor | float = 1.0) -> Tensor:
        error = self.norm.squared(prediction - target).mean(dim=1)
        if not self.relative:
            return error
        quotient = ratio(error, self.norm.squared(target).mean(dim=1), typical * self.norm.weight)
        return quotient.detach() + typical * (quotient - quotient.detach())


class H1(Sobolev):
    """The Sobolev loss of order 1: the relative error of values and gradients together."""

    def __init__(
        self,
        *,
        relative: bool = True,
        periodic: bool = False,
        extent: Sequence[float] | None = None,
        weights: Tensor | None = None,
        stiffness: Tensor | None = None,
    ):
        super().__init__(
            order=1, relative=relative, periodic=periodic, extent=extent, weights=weights, stiffness=stiffness
        )


class RelativeL2(Sobolev):
    """||prediction - target||_2 / ||target||_2 over all axes but the batch; on a mesh by its quadrature weights."""

    def __init__(self, *, weights: Tensor | None = None):
        super().__init__(order=0, relative=True, weights=weights)


class MSE(Sobolev):
    """Mean of the squared error over all axes but the batch; on a mesh by its quadrature weights."""

    def __init__(self, *, weights: Tensor | None = None):
        super().__init__(order=0, relative=False, weights=weights)


LOSSES: dict[str, type] = {"relative_l2": RelativeL2, "mse": MSE, "h1": H1, "sobolev": Sobolev}


def mark_constants() -> None:
    """To be called before a loss is compiled, or it would be compiled again once its norms' operators are known.

    Not done at import, because it imports torch._dynamo, which takes longer than all of this package.
    """
    torch.compiler.assume_constant_result(Norm._operators_for)


def _sum_of_squares(fields: Tensor) -> Tensor:
    """Over the axes behind [B, C]. By the norm, whose gradient is one pass and not five as that of the squares."""
    return torch.linalg.vector_norm(fields.flatten(2), dim=2).square()


def ratio(error: Tensor, target: Tensor, typical: Tensor | float) -> Tensor:
    """The quotient of two norms, from their squares; the lower one is at least SMALLEST_SHARE of `typical`."""
    return (error.clamp_min(SMALLEST_NORM**2) / target.clamp_min((SMALLEST_SHARE * typical) ** 2)).sqrt()


def cosine_basis(num_points: int) -> tuple[Tensor, Tensor]:
    """[n, n] the analysis by the cosines at n cell centres, and [n] their wave numbers π m, in float64 (DCT-II)."""
    m = torch.arange(num_points, dtype=torch.float64)
    cosines = torch.cos(math.pi * m[:, None] * (m + 0.5) / num_points)
    return _normalised(cosines), math.pi * m


def fourier_basis(num_points: int) -> tuple[Tensor, Tensor]:
    """[n, n] the analysis by cosines and sines of the periodic grid, and [n] their wave numbers 2π m, in float64."""
    points = torch.arange(num_points, dtype=torch.float64) / num_points
    cosines = torch.arange(num_points // 2 + 1, dtype=torch.float64)
    sines = torch.arange(1, (num_points + 1) // 2, dtype=torch.float64)
    functions = torch.cat(
        [torch.cos(2 * math.pi * cosines[:, None] * points), torch.sin(2 * math.pi * sines[:, None] * points)]
    )
    return _normalised(functions), 2 * math.pi * torch.cat([cosines, sines])


def cosine_factors(num_points: int) -> tuple[Tensor, Tensor]:
    """[2, n] what makes `cosine_basis`' coefficients of the FFT of the reflected values, and [n] the wave numbers.

    Re(exp(-i π m / 2n) F_m) / 2 is the sum over the values times the m-th cosine (Makhoul, IEEE Transactions on
    Acoustics, Speech, and Signal Processing 28(1), 1980).
    """
    m = torch.arange(num_points, dtype=torch.float64)
    angles = math.pi * m / (2 * num_points)
    scale = torch.full_like(m, math.sqrt(2) / (2 * num_points))
    scale[0] = 1 / (2 * num_points)
    return scale * torch.stack([angles.cos(), angles.sin()]), math.pi * m


def hartley_factors(num_points: int) -> tuple[Tensor, Tensor]:
    """[2, n] what makes coefficients by cos + sin (Hartley) of the FFT's, and [n] their wave numbers 2π min(m, n - m).

    They rotate each pair of `fourier_basis`' cosine and sine, of one wave number, so the norms are the same.
    """
    m = torch.arange(num_points)
    factors = torch.tensor([[1.0], [-1.0]], dtype=torch.float64) / num_points
    return factors.expand(2, num_points).clone(), 2 * math.pi * torch.minimum(m, num_points - m).double()


def _normalised(functions: Tensor) -> Tensor:
    """Orthogonal rows [n, n], scaled so that the sum of squared coefficients is the mean square over the points."""
    num_points = functions.shape[1]
    return functions / torch.linalg.vector_norm(functions, dim=1, keepdim=True) / math.sqrt(num_points)


def _checked_weights(weights: Tensor) -> Tensor:
    if not isinstance(weights, Tensor) or weights.dim() != 1 or not bool((weights > 0).all()):
        raise ValueError("weights must be a tensor [P] of numbers above 0: one quadrature weight a point of the mesh")
    return weights.detach().double()


def _weights_on(grid: torch.Size, weights: Tensor) -> Tensor:
    """The weights, of sum 1, for fields whose points they must fit."""
    if grid != weights.shape:
        raise ValueError(f"the weights are of {len(weights)} points, the fields' shape is {tuple(grid)}")
    return weights / weights.sum()
