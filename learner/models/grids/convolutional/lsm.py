"""The latent spectral model: a U-Net whose patches pass through a few latent tokens.

The source is Wu et al., ICML 2023, arXiv 2301.12664.

Axes:  B batch, C channels, S scalars, *grid = X, Y, Z the axes of the fields' grid, P patches, Q points of a patch,
T tokens, H heads, D channels of a head.
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
POOLING = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
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
        heads: number of heads, at least 1. Good value: 8.

    Raises:
        ValueError: the layout or its grid does not allow these options.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 16,
        levels: int | None = None,
        patch: int = 4,
        tokens: int = 4,
        bases: int = 12,
        heads: int = 8,
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
        num_axes = x.dim() - 2
        levels = []
        for level, convolutions in enumerate(self.down):
            if level:
                stride = self.strides[level - 1]
                x = POOLING[num_axes - 1](x, stride, stride, ceil_mode=True)
            x = convolutions(x)
            levels.append(x)
        *finer, x = (spectral(x) for spectral, x in zip(self.spectral, levels, strict=True))
        for skip, convolutions in reversed([*zip(finer, self.up, strict=True)]):
            x = F.interpolate(x, size=skip.shape[2:], mode=LINEAR[num_axes - 1])
            x = convolutions(torch.cat([skip, x], dim=1))
        return x.movedim((0, 1), (-2, -1))


def _convolutions(channels: Sequence[int], periodic: Sequence[bool]) -> nn.Sequential:
    """Convolutions through numbers of channels, each with a norm of the sample and ReLU."""
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
        self.keys_values = nn.Linear(channels, 2 * channels)
        self.queries = nn.Linear(channels, channels)
        self.coefficients = normal([channels, 2 * bases - 1], 1 / channels)  # of sines from k = 1 on, and cosines

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to [B, C, *grid]."""
        batch_size, channels, *grid = x.shape
        into, is_inside, back = patches(grid, self.patch, x.device)
        points_BPQC = x.flatten(2).transpose(1, 2).index_select(1, into.flatten()).unflatten(1, into.shape)

        k, v = (
            each.transpose(2, 3) for each in self.keys_values(points_BPQC).unflatten(3, (2, self.heads, -1)).unbind(3)
        )
        scores_BPHTQ = (self.tokens @ k.transpose(3, 4)).masked_fill(~is_inside[:, None, None], -math.inf)
        tokens_BPHTD = self.transition(self.tokens + scores_BPHTQ.softmax(dim=4) @ v)

        q = self.queries(points_BPQC).unflatten(3, (self.heads, -1)).transpose(2, 3)
        shares_BPHQT = (q @ tokens_BPHTD.transpose(3, 4)).softmax(dim=4)
        points_BPQC = points_BPQC + (shares_BPHQT @ tokens_BPHTD).transpose(2, 3).flatten(3)
        return points_BPQC.flatten(1, 2).index_select(1, back).transpose(1, 2).reshape(batch_size, channels, *grid)

    def transition(self, tokens: Tensor) -> Tensor:
        """Pass each channel of tokens [..., H, T, D] through a Fourier series of one number, beside itself."""
        bases = (self.coefficients.shape[1] + 1) // 2
        phases = math.pi / bases * torch.arange(bases, device=tokens.device) * tokens[..., None]
        waves = torch.cat([phases[..., 1:].sin(), phases.cos()], dim=-1)
        coefficients_HDK = self.coefficients.unflatten(0, (self.heads, -1))
        return tokens + (waves * coefficients_HDK[:, None]).sum(dim=-1)


def patches(grid: Sequence[int], size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return which points of a grid lie in which patch.

    Indices take the place of padding and slicing, which would leave a guard in an exported program.

    Args:
        grid: points along each axis.
        size: cells of a patch along each axis.
        device: device of the result.

    Returns:
        The point [P, Q] of each place in each patch, of all points in the order of the grid; whether that place is
        inside the grid [P, Q], where a place outside repeats the last point; and the place of each point, of all
        places.
    """
    num_axes, into, inside, patch, place = len(grid), 0, True, 0, 0
    for axis, num_points in enumerate(grid):
        num_patches = (num_points + size - 1) // size
        shape = [1] * (2 * num_axes)
        shape[axis], shape[num_axes + axis] = num_patches, size
        points = torch.arange(num_patches * size, device=device).reshape(shape)
        into = into * num_points + points.clamp_max(num_points - 1)
        inside = inside & (points < num_points)
        points = torch.arange(num_points, device=device).reshape([-1 if a == axis else 1 for a in range(num_axes)])
        patch, place = patch * num_patches + points // size, place * size + points % size
    into, inside = (each.flatten(0, num_axes - 1).flatten(1) for each in (into, inside))
    return into, inside, (patch * size**num_axes + place).flatten()
