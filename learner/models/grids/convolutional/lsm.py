"""The latent spectral model: a U-Net whose patches pass through latent tokens.

The source is Wu et al., ICML 2023, arXiv 2301.12664.

Axes:  B batch, C channels, S scalars, *grid = X, Y, Z the axes of the fields' grid, P patches of all samples, Q points
of a patch, T tokens, H heads, D channels of a head.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penstock.layout import Layout
from penstock.learner.models.grids.convolutional.convolution import Convolution, halvings
from penstock.learner.models.grids.inputs import GridLayout, channels_first
from penstock.learner.models.grids.lifted import LiftedModel
from penstock.learner.models.options import require_positive
from penstock.learner.models.parameters import normal

LEVELS = 5  # by default
LINEAR = ("linear", "bilinear", "trilinear")


class LSM(LiftedModel):
    """The latent spectral model on a grid of 1 to 3 axes.

    It is a U-Net. Level l has 2^l `width` channels, the coarsest as many as the one before. Each level has two 3-point
    convolutions on either way, with a normalisation of each sample and ReLU after each; the way down takes maxima of 2
    cells along each axis, the way up interpolates linearly. What goes from the way down to the way up passes through a
    spectral block on each level. That cuts the grid in patches of `patch` cells along each axis, and for each patch and
    head, with channels v of its points and T = `tokens` learned vectors t,

        t ← t + softmax(t Kᵀ) V,   t ← t + Σ_k a_k sin(π k t / n) + b_k cos(π k t / n),   v ← v + softmax(Q tᵀ) t,

    with K, V and Q linear in v, n = `bases` and k = 0 ... n - 1. So each channel of a token passes through a function
    of one number with learned Fourier coefficients a and b. Input channels are those of the FNO.

    Any size of grid will do, and one file serves them all: an axis of n points is cut to ⌈n / 2⌉, and the last patch
    along an axis may be smaller. Convolutions and patches reach a number of cells, not a length: on another resolution
    than that of training a model runs and means another operator.

    Args:
        layout: layout of batches.
        width: number of channels at the finest level, a multiple of the heads. Good values: 16 to 64.
        levels: number of resolutions, at least 1. An axis is halved as long as 4 points remain. None takes 5, or fewer
            where no axis can be halved so often. Good value: 5.
        patch: cells of a patch along each axis, at least 1, the same at every level. Good values: 3 to 6.
        tokens: number T of latent tokens of a head, at least 1. Good value: 4.
        bases: number n of wave numbers, at least 1. Good values: 8 to 16.
        heads: number of heads, at least 1. Good value: `width` / 8, as in the paper, which has 8 of them at width 64.

    Raises:
        ValueError: the layout or its grid does not allow these options.
    """

    resolution_free = ()  # its patches reach a number of cells

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 16,
        levels: int | None = None,
        patch: int = 4,
        tokens: int = 4,
        bases: int = 12,
        heads: int = 2,
    ):
        super().__init__()
        require_positive("lsm", width=width, levels=LEVELS if levels is None else levels, patch=patch)
        require_positive("lsm", tokens=tokens, bases=bases, heads=heads)
        if width % heads:
            raise ValueError(f"lsm: width must be a multiple of the {heads} heads, not {width}")
        of = GridLayout.of(layout, "lsm")
        self.strides = halvings("lsm", of.grid.shape, levels, LEVELS)
        sizes = [width * 2**level for level in range(max(1, len(self.strides)))]
        widths = [*sizes, sizes[-1]][: len(self.strides) + 1]
        self.lift = nn.Linear(of.num_channels, width)
        self.down = nn.ModuleList(
            _convolutions([before, channels, channels], of.grid.periodic)
            for before, channels in itertools.pairwise([width, *widths])
        )
        self.spectral = nn.ModuleList(SpectralBlock(channels, patch, tokens, bases, heads) for channels in widths)
        self.up = nn.ModuleList(
            _convolutions([2 * channels, channels, finer], of.grid.periodic)
            for finer, channels in itertools.pairwise([width, *widths[:-1]])
        )
        self.project = nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, of.num_outputs))

    def on_grid(self, x_GBC: Tensor, like: Tensor) -> Tensor:
        """See `LiftedModel.on_grid`."""
        x = channels_first(x_GBC)
        levels = []
        for level, convolutions in enumerate(self.down):
            if level:
                x = maxima(x, self.strides[level - 1])
            x = convolutions(x)
            levels.append(x)
        *finer, x = (spectral(x) for spectral, x in zip(self.spectral, levels, strict=True))
        for skip, convolutions in reversed([*zip(finer, self.up, strict=True)]):
            x = F.interpolate(x, size=skip.shape[2:], mode=LINEAR[x.dim() - 3])
            x = convolutions(torch.cat([skip, x], dim=1))
        return x.movedim((0, 1), (-2, -1))


def maxima(x: Tensor, stride: Sequence[int]) -> Tensor:
    """Return the maxima of blocks of points; the last along an axis may be smaller.

    Args:
        x: activations [B, C, *grid].
        stride: points of a block along each axis.

    Returns:
        [B, C, *coarse].
    """
    if len(stride) == 1:  # an exported max_pool1d takes one size only
        return F.max_pool2d(x[..., None], (*stride, 1), ceil_mode=True)[..., 0]
    return (F.max_pool2d if len(stride) == 2 else F.max_pool3d)(x, stride, ceil_mode=True)


def _convolutions(channels: Sequence[int], periodic: Sequence[bool]) -> nn.Sequential:
    """Convolutions, each with a norm of the sample and ReLU.

    Args:
        channels: numbers of channels, from the first one's inputs to the last one's outputs.
        periodic: whether each axis is periodic.
    """
    parts = []
    for before, after in itertools.pairwise(channels):
        parts += [Convolution(before, after, periodic, bias=False), nn.GroupNorm(1, after), nn.ReLU()]
    return nn.Sequential(*parts)


class SpectralBlock(nn.Module):
    """The spectral block of the LSM's docstring.

    Args:
        channels: number of channels.
        patch: cells of a patch along each axis.
        tokens: number of latent tokens of a head.
        bases: number of wave numbers.
        heads: number of heads.
    """

    def __init__(self, channels: int, patch: int, tokens: int, bases: int, heads: int):
        super().__init__()
        self.patch, self.heads = patch, heads
        self.tokens = normal([heads, tokens, channels // heads], 1 / channels**0.5)
        self.keys = nn.Linear(channels, channels, bias=False)  # one would add the same to all scores of a token
        self.values = nn.Linear(channels, channels)
        self.queries = nn.Linear(channels, channels)
        self.coefficients = normal([channels, 2 * bases - 1], 1 / channels)  # of sines from k = 1 on, and cosines

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to [B, C, *grid]."""
        batch_size, channels, *grid = x.shape
        into, is_inside, back = patches(batch_size, grid, self.patch, x.device)
        points_PQC = x.movedim(1, -1).reshape(-1, channels).index_select(0, into.flatten()).unflatten(0, into.shape)

        k_PHQD, v_PHQD, q_PHQD = (
            linear(points_PQC).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for linear in (self.keys, self.values, self.queries)
        )
        scores_PHTQ = (self.tokens @ k_PHQD.transpose(2, 3)).masked_fill(~is_inside[:, None, None], -math.inf)
        tokens_PHTD = self.transition(self.tokens + scores_PHTQ.softmax(dim=3) @ v_PHQD)

        shares_PHQT = (q_PHQD @ tokens_PHTD.transpose(2, 3)).softmax(dim=3)
        points_PQC = points_PQC + (shares_PHQT @ tokens_PHTD).transpose(1, 2).flatten(2)
        return points_PQC.flatten(0, 1).index_select(0, back).reshape(batch_size, *grid, channels).movedim(-1, 1)

    def transition(self, tokens: Tensor) -> Tensor:
        """Add to each channel of tokens [..., H, T, D] a Fourier series of it."""
        bases = (self.coefficients.shape[1] + 1) // 2
        phases = math.pi / bases * torch.arange(bases, device=tokens.device) * tokens[..., None]
        waves = torch.cat([phases[..., 1:].sin(), phases.cos()], dim=-1)
        coefficients_HDK = self.coefficients.unflatten(0, (self.heads, -1))
        return tokens + (waves * coefficients_HDK[:, None]).sum(dim=-1)


def patches(batch_size: int, grid: Sequence[int], size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return which points of samples on a grid lie in which patch.

    Indices take the place of padding and slicing, which would leave a guard in an exported program. So would an axis
    for the patches of a sample, where there is one patch. Of a division by a free size torch.onnx has the quotient and
    not the remainder.

    Args:
        batch_size: number of samples.
        grid: points along each axis.
        size: cells of a patch along each axis.
        device: device of the result.

    Returns:
        The point [B P, Q] at each place of each patch, of all points in the order [B, *grid]; whether that place is
        inside the grid [B P, Q], where a place outside repeats the last point; and the place of each point [B *grid].
    """
    numbers = [(num_points + size - 1) // size for num_points in grid]
    num_places = size ** len(grid)
    place = torch.arange(batch_size * math.prod(numbers) * num_places, device=device).reshape(-1, num_places)
    patch, place = place // num_places, place % num_places
    into, is_inside, stride = 0, torch.ones_like(place, dtype=torch.bool), 1
    for num_points, number in reversed([*zip(grid, numbers, strict=True)]):
        rest = patch // number
        along_axis = (patch - rest * number) * size + place % size
        patch, place = rest, place // size
        is_inside = is_inside & (along_axis < num_points)
        into, stride = into + stride * along_axis.clamp_max(num_points - 1), stride * num_points
    into = into + stride * patch

    point = torch.arange(batch_size * math.prod(grid), device=device)
    back, patch_stride, place_stride = 0, num_places, 1
    for num_points, number in reversed([*zip(grid, numbers, strict=True)]):
        rest = point // num_points
        along_axis, point = point - rest * num_points, rest
        back = back + patch_stride * (along_axis // size) + place_stride * (along_axis % size)
        patch_stride, place_stride = patch_stride * number, place_stride * size
    return into, is_inside, back + patch_stride * point
