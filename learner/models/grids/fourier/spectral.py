"""Convolutions by a truncated Fourier transform, for fast eager steps.

Axes:  B batch, C channels, *grid = X, Y, Z the axes of the fields' grid, M kept modes.

Inside, activations lie as [*grid, B, C]. Every dense operation is then a matrix product on contiguous data without a
permutation: the transform along the first axis is one GEMM [2M, X] @ [X, Y B C], the pointwise linear map one GEMM
[X Y B, C] @ [C, C], and the spectrum comes out with the modes first, as the batched product with the weights needs it.

The transform is a truncated DFT by real matrix products, not an FFT. For 12 of 64 modes that is less work, and it has
no complex numbers, so checkpoints are plain and every backend exports it. At 64x64, width 24 and batch size 16, a step
of the FNO on two cores of an AMD EPYC takes 50 ms; the same network with torch.fft takes 71 ms (the best of 20 steps
each).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from penstock.learner.models.grids.fourier.spectral_weights import FACTORED, Dense

MODES = 12  # along an axis, by default
Bases = list[tuple[Tensor, Tensor]]


class SpectralConvolution(nn.Module):
    """A convolution on the torus, with a complex matrix for every kept wave vector.

        v̂(k) = R(k) û(k)   for |k_a| < M_a along every axis a, else 0;   û the Fourier coefficients of u.

    R(k) is a C x C' matrix. u is real, so only k_last >= 0 is stored: 2^(d-1) sign patterns σ of the other axes, times
    M = Π M_a magnitudes. If k_a = 0, two patterns mean the same wave vector; R(k) is then the mean of their matrices.
    The module `weight` gives them as [2^(d-1) M, C, 2 C'], with real parts beside imaginary parts.

    Args:
        width: number C of channels.
        modes: number M_a of modes for each axis.
        width_out: number C' of channels of the result; None for C.
        rank: number of parameters as a part of those of all R(k); None for all R(k).
        factors: how the R(k) are factored if there is a rank, a key of FACTORED.
    """

    def __init__(
        self,
        width: int,
        modes: Sequence[int],
        *,
        width_out: int | None = None,
        rank: float | None = None,
        factors: str = "tucker",
    ):
        super().__init__()
        self.modes = tuple(modes)
        num_axes = len(self.modes)
        shape = (2 ** (num_axes - 1), *self.modes, width, 2, width_out or width)
        # A factor sqrt(width) below what keeps the energy of the modes, so that pointwise maps carry the first steps.
        deviation = 1 / (math.sqrt(2) * width)
        self.weight = Dense(shape, deviation) if rank is None else FACTORED[factors](shape, deviation, rank)
        self.register_buffer("signs", sign_matrix(num_axes), persistent=False)

    def forward(self, x_GBC: Tensor, bases: Bases) -> Tensor:
        """Convolve activations.

        Args:
            x_GBC: activations [*grid, B, C].
            bases: analysis and synthesis along every axis, as `fourier_bases` gives them. Where the synthesis is that
                of another number of points, the result is on that grid.

        Returns:
            [*grid, B, C'].
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
            coefficients = along_axis(bases[axis][0], coefficients.reshape(before[axis], num_points, -1))

        # From products of cosines and sines to complex coefficients: [2^d, M, B C], then modes first.
        cos_sin_first = [2 * a for a in range(d)] + [2 * a + 1 for a in range(d)] + [2 * d]
        products = coefficients.reshape([size for m in modes for size in (2, m)] + [-1]).permute(cos_sin_first)
        spectrum = (self.signs @ products.reshape(2**d, -1)).reshape(num_signs, 2, num_modes, batch_size, width)
        spectrum = spectrum.transpose(1, 2).reshape(num_signs * num_modes, 2 * batch_size, width)

        # One batched product gives all four of (real, imaginary) x (real, imaginary).
        parts = torch.bmm(spectrum, self.weight()).reshape(num_signs, num_modes, 2, batch_size, 2, -1)
        (rr, ri), (ir, ii) = (part.unbind(3) for part in parts.unbind(2))  # one gradient each; indexing would have four
        spectrum = torch.stack([rr - ii, ri + ir], dim=1).reshape(2**d, -1)
        products = (self.signs.T / num_signs @ spectrum).reshape([2] * d + [*modes, -1])
        interleaved = [axis for pair in zip(range(d), range(d, 2 * d), strict=True) for axis in pair] + [2 * d]
        values = products.permute(interleaved)

        for axis in reversed(range(d)):
            values = along_axis(bases[axis][1], values.reshape(before[axis], 2 * modes[axis], -1))
        return values.reshape(*(synthesis.shape[0] for _, synthesis in bases), batch_size, -1)


def checked_modes(
    model: str,
    modes: int | Sequence[int] | None,
    grid: Sequence[int],
    *,
    default: int = MODES,
    points_per_mode: int = 2,
) -> tuple[int, ...]:
    """Return the number of modes along each axis of a grid.

    Args:
        model: name of the model, for messages.
        modes: one number for all axes or one for each; None for `default`, or as many as an axis allows.
        grid: points along each axis.
        default: number of modes along an axis.
        points_per_mode: points of an axis that a mode needs: 2 for a Fourier mode, 1 for a cosine.

    Raises:
        ValueError: an axis does not allow them.
    """
    if modes is None:
        modes = [min(default, num_points // points_per_mode) for num_points in grid]
    given = list(modes) if isinstance(modes, Sequence) else [modes] * len(grid)
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in given):
        raise ValueError(f"{model}: modes must be a whole number, or one for each axis of the grid, not {modes!r}")
    shape = "x".join(map(str, grid))
    if len(given) != len(grid):
        raise ValueError(f"{model}: modes {given} are for {len(given)} axes, and the grid {shape} has {len(grid)}")
    for axis, (number, num_points) in enumerate(zip(given, grid, strict=True)):
        if num_points < 2:
            raise ValueError(
                f"{model}: axis {axis} of the grid {shape} has one point: leave it out of the fields' shapes"
            )
        most = num_points // points_per_mode
        if not 1 <= number <= most:
            what = "the number of its points" if points_per_mode == 1 else "half its points"
            raise ValueError(
                f"{model}: {number} modes along axis {axis} of the grid {shape}: choose from 1 to {what}, {most}"
            )
    return tuple(given)


def require_points(model: str, grid: Sequence[int], modes: Sequence[int], *, points_per_mode: int = 2) -> None:
    """Raise unless a grid has enough points for each mode.

    Args:
        model: name of the model, for messages.
        grid: points along each axis.
        modes: modes along each axis.
        points_per_mode: points of an axis that a mode needs.

    Raises:
        ValueError: an axis has fewer.
    """
    for axis, (num_points, number) in enumerate(zip(grid, modes, strict=True)):
        least = points_per_mode * number
        if num_points < least:
            raise ValueError(
                f"{model}: {number} modes need at least {least} points along axis {axis}, not {num_points}"
            )


def fourier_bases(num_points: int, modes: int, like: Tensor, padding: float = 0) -> tuple[Tensor, Tensor]:
    """Return the matrices to Fourier coefficients along an axis, and back.

    The values sit at the centres x = (j + 1/2) / n. So the coefficients are those of the same function at every n, and
    those of one n may be summed at the points of another.

    Args:
        num_points: number n of points.
        modes: number M of modes.
        like: tensor with the data type and device of the result.
        padding: length p of the zeros that follow the values, as a part of the axis. The period is 1 + p.

    Returns:
        The analysis [2 M, n], whose rows are means against cos(2π k x / (1 + p)) for k = 0 ... M - 1, then against the
        sines; and the synthesis [n, 2 M]. If p = 0, synthesis @ analysis keeps the wave numbers below M and removes
        the others.
    """
    wave_numbers = torch.arange(modes, dtype=like.dtype, device=like.device)
    points = torch.arange(num_points, dtype=like.dtype, device=like.device) + 0.5
    period = num_points * (1 + padding)
    # modulo n is exact; without it float32 would lose digits of the phase. As a tensor, because ONNX has no remainder
    # of a free number
    modulus = torch.full((), period, dtype=like.dtype, device=like.device)
    phases = (2 * math.pi / period) * torch.remainder(wave_numbers[:, None] * points, modulus)
    waves = torch.cat([phases.cos(), phases.sin()])
    weights = torch.where(wave_numbers == 0, 1.0, 2.0)
    return waves / period, (waves * torch.cat([weights, weights])[:, None]).T.contiguous()


def interpolation(num_points: int, num_points_out: int, is_periodic: bool, like: Tensor) -> Tensor:
    """Return linear interpolation along an axis, between the centres of cells.

    From fine to coarse a triangle as wide as two coarse cells averages. Beyond the outermost centres of an axis that is
    not periodic the values go on as constants.

    Args:
        num_points: number n of points.
        num_points_out: number N of points of the result.
        is_periodic: whether the axis is periodic; the first and the last centre are then neighbours.
        like: tensor with the data type and device of the result.

    Returns:
        [N, n], whose rows have the sum 1.
    """
    points = (torch.arange(num_points, dtype=like.dtype, device=like.device) + 0.5) / num_points
    points_out = (torch.arange(num_points_out, dtype=like.dtype, device=like.device) + 0.5) / num_points_out
    distances, per_axis = (points_out[:, None] - points).abs(), torch.sym_min(num_points, num_points_out)
    weights = (1 - distances * per_axis).clamp_min(0)
    if is_periodic:
        weights = weights + (1 - (1 - distances) * per_axis).clamp_min(0)  # the same points the other way round
    return weights / weights.sum(dim=1, keepdim=True)


def resampled(x_GBC: Tensor, grid_out: Sequence[int], periodic: Sequence[bool]) -> Tensor:
    """Interpolate activations linearly, as `interpolation` has it.

    Args:
        x_GBC: activations [*grid, B, C].
        grid_out: points along each axis of the result.
        periodic: whether each axis is periodic.

    Returns:
        [*grid_out, B, C].
    """
    *grid, batch_size, width = x_GBC.shape
    values = x_GBC
    for axis, num_points in enumerate(grid):
        matrix = interpolation(num_points, grid_out[axis], periodic[axis], values)
        values = along_axis(matrix, values.reshape(prod(grid_out[:axis]), num_points, -1))
    return values.reshape(*grid_out, batch_size, width)


def along_axis(matrix: Tensor, values: Tensor) -> Tensor:
    """Multiply a matrix [m, n] by every [n, ...] of values [p, n, ...]."""
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
