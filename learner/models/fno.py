"""The Fourier neural operator (Li et al., ICLR 2021), for fast eager steps.

The source is arXiv 2010.08895.

Axes:  B batch, C channels, S scalars, *grid = X, Y, Z the axes of the fields' grid, M kept modes.

Inside, activations lie as [*grid, B, C]. Every dense operation is then a matrix product on contiguous data without a
permutation: the transform along the first axis is one GEMM [2M, X] @ [X, Y B C], the pointwise linear map one GEMM
[X Y B, C] @ [C, C], and the spectrum comes out with the modes first, as the batched product with the weights needs it.

The transform is a truncated DFT by real matrix products, not an FFT. For 12 of 64 modes that is less work, and it has
no complex numbers, so checkpoints are plain and every backend exports it. At 64x64, width 24 and batch size 16, a step
on two cores of an AMD EPYC takes 50 ms; the same network with torch.fft takes 71 ms (the best of 20 steps each).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penstock.geometry import Grid
from penstock.layout import Layout

MODES = 12  # along an axis, by default


class FNO(nn.Module):
    """The Fourier neural operator on a grid of 1 to 3 axes.

    It lifts the inputs to `width` channels, applies `layers` times a spectral convolution plus a pointwise linear map,
    with GELU in between, and projects to the outputs. The centres of n cells along each axis, in units of the domain's
    edge, are further input channels, and so is the mask of a domain that does not fill its grid. Nothing else in the
    model depends on lengths. Once built, a model takes any resolution with at least 2 * modes points along each axis.

    Args:
        layout: layout of batches.
        width: number of channels inside, at least 1. Good values: 24 to 64.
        modes: number of Fourier modes kept along each axis, which are the wave numbers 0 to modes - 1 of either sign:
            one number for all axes or one for each, at most half the points of its axis. None takes 12, or half the
            points of an axis with fewer than 24. Good values: 12 to 16.
        layers: number of spectral layers, at least 1. Good value: 4.

    Raises:
        ValueError: the layout or its grid does not allow these options.
    """

    accepts = (Grid,)

    def __init__(self, layout: Layout, *, width: int = 24, modes: int | Sequence[int] | None = None, layers: int = 4):
        super().__init__()
        for name, value in (("width", width), ("layers", layers)):
            if value < 1:
                raise ValueError(f"fno: {name} must be at least 1, not {value}")
        if len(layout.geometries) > 1:
            places = " and ".join(repr(each.name or each.shape) for each in layout.geometries)
            raise ValueError(f"fno: needs all fields on one grid, and these sit on {places}: take the model mlp")
        if "fields" not in layout.shapes:
            raise ValueError("fno: needs an input field on the grid, and this problem has none: take the model mlp")
        if [block.on for block in layout.output_blocks] != [*layout.geometries]:
            raise ValueError("fno: needs all fields on one grid, and no scalars among the outputs: take the model mlp")
        (outputs,) = layout.output_blocks
        num_fields, *grid = layout.shapes["fields"]
        if len(grid) > 3:
            raise ValueError(f"fno: works on grids of 1 to 3 axes, not {len(grid)}: take the model mlp")
        (num_scalars,) = layout.shapes.get("scalars", (0,))
        self.modes = _checked_modes(modes, grid)
        self.lift = nn.Linear(num_fields + num_scalars + len(grid) + len(layout.geometry_blocks), width)
        self.spectral = nn.ModuleList(SpectralConvolution(width, self.modes) for _ in range(layers))
        self.pointwise = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.project = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, outputs.shape[0]))

    def forward(self, fields: Tensor, scalars: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """Predict the outputs on the grid.

        Args:
            fields: input fields [B, C, *grid].
            scalars: input scalars [B, S], if there are any.
            weights: quadrature weights [B, *grid] of a masked grid; 0 is outside the domain.

        Returns:
            The outputs, [B, C, *grid].

        Raises:
            ValueError: an axis has fewer than 2 * modes points.
        """
        grid = fields.shape[2:]
        for axis, (num_points, modes) in enumerate(zip(grid, self.modes, strict=True)):
            if num_points < 2 * modes:
                raise ValueError(
                    f"fno: {modes} modes need at least {2 * modes} points along axis {axis}, not {num_points}"
                )
        bases = [fourier_bases(*sizes, fields) for sizes in zip(grid, self.modes, strict=True)]
        x_GBC = self.lift(torch.cat(self._inputs(fields, scalars, weights), dim=-1))
        for layer, (spectral, pointwise) in enumerate(zip(self.spectral, self.pointwise, strict=True)):
            x_GBC = pointwise(x_GBC).add_(spectral(x_GBC, bases))  # in place, because fresh memory takes 3 % of a step
            if layer < len(self.spectral) - 1:
                x_GBC = F.gelu(x_GBC)
        return self.project(x_GBC).movedim((-2, -1), (0, 1)).contiguous()

    def _inputs(self, fields: Tensor, scalars: Tensor | None, weights: Tensor | None) -> list[Tensor]:
        """Input channels, each [*grid, B, C]: fields, scalars, mask and cell centres."""
        grid, batch_size = fields.shape[2:], fields.shape[0]
        inputs = [fields.movedim((0, 1), (-2, -1))]
        if scalars is not None:
            inputs.append(scalars.expand(*grid, *scalars.shape))
        if weights is not None:
            inputs.append((weights > 0).to(fields.dtype).movedim(0, -1)[..., None])
        for axis, num_points in enumerate(grid):
            # linspace would freeze num_points under torch.export
            centres = (torch.arange(num_points, dtype=fields.dtype, device=fields.device) + 0.5) / num_points
            centres = centres.reshape([-1 if other == axis else 1 for other in range(len(grid))] + [1, 1])
            inputs.append(centres.expand(*grid, batch_size, 1))
        return inputs


class SpectralConvolution(nn.Module):
    """A convolution on the torus, with a complex matrix for every kept wave vector.

        v̂(k) = R(k) û(k)   for |k_a| < M_a along every axis a, else 0;   û the unnormalised DFT of u.

    R(k) is a C x C matrix. u is real, so only k_last >= 0 is stored: 2^(d-1) sign patterns σ of the other axes, times
    M = Π M_a magnitudes. If k_a = 0, two patterns mean the same wave vector; R(k) is then the mean of their matrices.
    The parameter `weight` is [2^(d-1) M, C in, 2 C out], with real parts beside imaginary parts.

    Args:
        width: number C of channels.
        modes: number M_a of modes for each axis.
    """

    def __init__(self, width: int, modes: Sequence[int]):
        super().__init__()
        self.modes = tuple(modes)
        num_axes = len(self.modes)
        num_signs = 2 ** (num_axes - 1)
        # A factor sqrt(width) below what keeps the energy of the modes, so that pointwise maps carry the first steps.
        weight = torch.empty(num_signs * prod(self.modes), width, 2 * width)
        if not weight.is_meta:  # if it is, only the size counts, and drawing there makes torch import for 2 s
            torch.randn(weight.shape, out=weight).div_(math.sqrt(2)).div_(width)
        self.weight = nn.Parameter(weight)
        self.register_buffer("signs", sign_matrix(num_axes), persistent=False)

    def forward(self, x_GBC: Tensor, bases: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Convolve activations.

        Args:
            x_GBC: activations [*grid, B, C].
            bases: `fourier_bases` of every axis.

        Returns:
            [*grid, B, C].
        """
        if torch.is_autocast_enabled(x_GBC.device.type):
            # In bfloat16's 8 bits, sums over a whole axis of a field would lose its small coefficients.
            with torch.autocast(x_GBC.device.type, enabled=False):
                return self(x_GBC.float(), bases).to(x_GBC.dtype)
        *grid, batch_size, width = x_GBC.shape
        modes, d = self.modes, len(self.modes)
        num_modes, num_signs = prod(modes), 2 ** (d - 1)
        before = [2**axis * prod(modes[:axis]) for axis in range(d)]  # coefficients along the axes before

        coefficients = x_GBC
        for axis, num_points in enumerate(grid):
            coefficients = _along_axis(bases[axis][0], coefficients.reshape(before[axis], num_points, -1))

        # From products of cosines and sines to complex coefficients: [2^d, M, B C], then modes first.
        cos_sin_first = [2 * a for a in range(d)] + [2 * a + 1 for a in range(d)] + [2 * d]
        products = coefficients.reshape([size for m in modes for size in (2, m)] + [-1]).permute(cos_sin_first)
        spectrum = (self.signs @ products.reshape(2**d, -1)).reshape(num_signs, 2, num_modes, batch_size, width)
        spectrum = spectrum.transpose(1, 2).reshape(num_signs * num_modes, 2 * batch_size, width)

        # One batched product gives all four of (real, imaginary) x (real, imaginary).
        parts = torch.bmm(spectrum, self.weight).reshape(num_signs, num_modes, 2, batch_size, 2, width)
        (rr, ri), (ir, ii) = (part.unbind(3) for part in parts.unbind(2))  # one gradient each; indexing would have four
        spectrum = torch.stack([rr - ii, ri + ir], dim=1).reshape(2**d, -1)
        products = (self.signs.T / num_signs @ spectrum).reshape([2] * d + [*modes, batch_size * width])
        interleaved = [axis for pair in zip(range(d), range(d, 2 * d), strict=True) for axis in pair] + [2 * d]
        values = products.permute(interleaved)

        for axis in reversed(range(d)):
            values = _along_axis(bases[axis][1], values.reshape(before[axis], 2 * modes[axis], -1))
        return values.reshape(*grid, batch_size, width)


def _checked_modes(modes: int | Sequence[int] | None, grid: Sequence[int]) -> tuple[int, ...]:
    """Number of modes along each axis of the grid, checked."""
    if modes is None:
        modes = [min(MODES, num_points // 2) for num_points in grid]
    given = list(modes) if isinstance(modes, Sequence) else [modes] * len(grid)
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in given):
        raise ValueError(f"fno: modes must be a whole number, or one for each axis of the grid, not {modes!r}")
    shape = "x".join(map(str, grid))
    if len(given) != len(grid):
        raise ValueError(f"fno: modes {given} are for {len(given)} axes, and the grid {shape} has {len(grid)}")
    for axis, (number, num_points) in enumerate(zip(given, grid, strict=True)):
        if num_points < 2:
            raise ValueError(f"fno: axis {axis} of the grid {shape} has one point: leave it out of the fields' shapes")
        if not 1 <= number <= num_points // 2:
            raise ValueError(
                f"fno: {number} modes along axis {axis} of the grid {shape}: choose from 1 to half its points, "
                f"{num_points // 2}"
            )
    return tuple(given)


def fourier_bases(num_points: int, modes: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the truncated DFT along an axis of real values, and its inverse.

    Args:
        num_points: number n of points.
        modes: number M of modes.
        like: tensor with the data type and device of the result.

    Returns:
        The analysis [2 M, n], whose rows are cos(2π k j / n) for k = 0 ... M - 1, then the sines; and the synthesis
        [n, 2 M], such that synthesis @ analysis keeps the wave numbers below M and removes the others.
    """
    wave_numbers = torch.arange(modes, dtype=like.dtype, device=like.device)
    points = torch.arange(num_points, dtype=like.dtype, device=like.device)
    # k j modulo n is exact; from k j itself float32 would lose digits of the phase
    phases = (2 * math.pi / num_points) * torch.remainder(wave_numbers[:, None] * points, num_points)
    analysis = torch.cat([phases.cos(), phases.sin()])
    weights = torch.where(wave_numbers == 0, 1.0, 2.0) / num_points
    return analysis, (analysis * torch.cat([weights, weights])[:, None]).T.contiguous()


def _along_axis(matrix: Tensor, values: Tensor) -> Tensor:
    """Multiply matrix [m, n] by every [n, ...] of values [p, n, ...]."""
    return torch.bmm(matrix.expand(values.shape[0], -1, -1), values)


def sign_matrix(num_axes: int) -> Tensor:
    """Return the matrix from coefficients of products of cos and sin to complex ones.

    The complex coefficients are those of e^(-i Σ σ_a k_a x_a). As e^(-i Σ σ_a θ_a) = Π (cos θ_a - i σ_a sin θ_a), the
    product with sines on the axes T has the factor Π_T (-i σ_a). The matrix is orthogonal up to the factor 2^(d-1):
    there are two real products per sign pattern, and 2^(d-1) patterns.

    Args:
        num_axes: number d of axes.

    Returns:
        [2^d, 2^d]. Rows go by sign pattern σ, where the last axis has +1 only, then by real and imaginary part; columns
        by cos or sin along every axis.
    """
    rows = []
    for signs in itertools.product((1, -1), repeat=num_axes - 1):
        row = []
        for sines in itertools.product((False, True), repeat=num_axes):
            factor = complex(1)
            for sign, is_sine in zip((*signs, 1), sines, strict=True):
                factor *= -1j * sign if is_sine else 1
            row.append(factor)
        rows.append(row)
    matrix = torch.tensor(rows, device="cpu")  # has values even if the model is on the meta device
    return torch.stack([matrix.real, matrix.imag], dim=1).reshape(2**num_axes, 2**num_axes).contiguous()
