"""DiTTO (Ovadia et al., 2023): a U-Net with attention for a continuous time.

The source is arXiv 2307.09072; the attention is that of Shen et al. (WACV 2021), arXiv 1812.01243.

Axes:  B batch, C channels, S scalars, F features, H heads, *grid = X, Y, Z the axes of the fields' grid, N points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penstock.geometry import Grid
from penstock.layout import Layout
from penstock.learner.models.grids.convolutional.convolution import Convolution, halvings
from penstock.learner.models.grids.convolutional.ushape import UShape
from penstock.learner.models.grids.inputs import GridLayout, with_coordinates
from penstock.learner.models.options import require_positive
from penstock.learner.optimizers import Recipe

LEVELS = 4  # by default
NUM_FREQUENCIES = 5  # 1/2, 1, 2, 4 and 8 radians for a standard deviation of a scalar
HEAD_CHANNELS = 16
GROUPS = 8  # of channels that are normalised together, or fewer where these don't divide the channels


class DiTTO(nn.Module):
    """The diffusion-inspired temporal transformer operator on 1 to 3 axes.

    It maps fields and scalars s, the time t of the prediction among them, to the outputs at that time, whichever it is.
    s acts in every block,

        u ← A u + B(B(u, s)),   B(u, s) = σ((1 + α(s)) N(C u) + β(s)),

    where C is a 3-point convolution along each axis, N normalises groups of channels, σ = SiLU, and A is a pointwise
    map where the number of channels changes. α and β are linear in a net of s, sin(ω s) and cos(ω s) for ω = 1/2, 1, 2,
    4, 8, and 0 at first. There are two blocks at each resolution of a U-Net, on either way, then attention whose cost
    grows like the number of points,

        u ← u + N(W Σ_y softmax_c(q(x)) · softmax_y(k(y)) v(y) / √c),

    of q, k and v that are linear in N(u); the first softmax is over the c = 16 channels of a head, the second over
    points. Level l has 2^l `width` channels. Coordinates are further input channels, on periodic axes by cosine and
    sine.

    The source halves an axis by moving every second point to another channel, which needs even sizes; here the
    convolution has stride 2. Convolutions wrap around periodic axes and see zeros beyond the ends of others. They reach
    a number of cells: on another resolution than that of training a model runs and means another operator.

    Args:
        layout: layout of batches.
        width: number of channels at the finest level, at least 1. Good values: 16 to 64.
        levels: number of resolutions, at least 1. An axis is halved as long as 4 points remain. None takes 4, or fewer
            where no axis can be halved so often. Good value: 4.
        heads: number of heads of the attention, with 16 channels each, at least 1. Good values: 2 to 4.

    Raises:
        ValueError: the layout or its grid does not allow these options.
    """

    accepts = (Grid,)
    resolution_free = ()  # its kernels reach a number of cells
    recipe = Recipe("muon", 6e-3)

    def __init__(self, layout: Layout, *, width: int = 16, levels: int | None = None, heads: int = 2):
        super().__init__()
        require_positive("ditto", width=width, levels=LEVELS if levels is None else levels, heads=heads)
        of = GridLayout.of(layout, "ditto")
        strides = halvings("ditto", of.grid.shape, levels, LEVELS)
        self.periodic = periodic = of.grid.periodic
        num_features = 4 * width if of.num_scalars else 0

        def stage(channels: int, channels_out: int) -> Stage:
            return Stage(channels, channels_out, periodic, num_features, heads)

        self.embed = None
        if of.num_scalars:
            self.embed = nn.Sequential(
                nn.Linear((1 + 2 * NUM_FREQUENCIES) * of.num_scalars, num_features),
                nn.SiLU(),
                nn.Linear(num_features, num_features),
                nn.SiLU(),
            )
        num_inputs = of.num_fields + len(periodic) + sum(periodic)
        self.lift = Convolution(num_inputs, width, periodic, kernel=7)
        self.ushape = UShape(width, strides, periodic, stage)
        self.last = ResidualBlock(2 * width, width, periodic, num_features)
        self.project = Convolution(width, of.num_outputs, periodic, kernel=1)

    def forward(self, fields: Tensor, scalars: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """Predict the outputs on the grid.

        Args:
            fields: input fields [B, C, *grid].
            scalars: input scalars [B, S], if there are any.
            weights: quadrature weights [B, *grid] of a masked grid; 0 is outside the domain.

        Returns:
            The outputs, [B, C, *grid].
        """
        features = None if self.embed is None else self.embed(waves_of(scalars))
        first = self.lift(torch.cat(with_coordinates(fields, None, weights, self.periodic), dim=1))
        x = self.ushape(first, features)
        return self.project(self.last(torch.cat([x, first], dim=1), features))


def waves_of(scalars: Tensor) -> Tensor:
    """Return scalars with their sines and cosines.

    Args:
        scalars: [B, S].

    Returns:
        [B, (1 + 2 * NUM_FREQUENCIES) S].
    """
    phases = [scalars * 2.0 ** (number - 1) for number in range(NUM_FREQUENCIES)]
    return torch.cat([scalars, *(wave(phase) for phase in phases for wave in (torch.sin, torch.cos))], dim=1)


class Stage(nn.Module):
    """Two residual blocks and the attention of a DiTTO, on one resolution.

    Args:
        channels: number of channels in.
        channels_out: number of channels out.
        periodic: whether each axis is periodic.
        num_features: number of features of the scalars; 0 if there are no scalars.
        heads: number of heads.
    """

    def __init__(self, channels: int, channels_out: int, periodic: Sequence[bool], num_features: int, heads: int):
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(size, channels_out, periodic, num_features) for size in (channels, channels_out)
        )
        self.attention = LinearAttention(channels_out, heads)

    def forward(self, x: Tensor, features: Tensor | None) -> Tensor:
        """Apply the stage to [B, C, *grid], with the features of the scalars [B, F]."""
        for block in self.blocks:
            x = block(x, features)
        return x + self.attention(x)


class ResidualBlock(nn.Module):
    """The block u ← A u + B(B(u, s)) of a DiTTO's docstring.

    Args:
        channels: number of channels in.
        channels_out: number of channels out.
        periodic: whether each axis is periodic.
        num_features: number of features of the scalars; 0 if there are no scalars.
    """

    def __init__(self, channels: int, channels_out: int, periodic: Sequence[bool], num_features: int):
        super().__init__()
        sizes = (channels, channels_out)
        self.convolutions = nn.ModuleList(Convolution(size, channels_out, periodic, bias=False) for size in sizes)
        self.norms = nn.ModuleList(nn.GroupNorm(math.gcd(GROUPS, channels_out), channels_out) for _ in sizes)
        is_wider = channels != channels_out
        self.shortcut = Convolution(channels, channels_out, periodic, kernel=1) if is_wider else nn.Identity()
        self.modulate = nn.Linear(num_features, 4 * channels_out) if num_features else None
        if self.modulate is not None:
            nn.init.zeros_(self.modulate.weight)
            nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, features: Tensor | None) -> Tensor:
        """Apply the block to [B, C, *grid], with the features of the scalars [B, F]."""
        y, modulations = x, [None, None]
        if self.modulate is not None:
            modulations = self.modulate(features).reshape(x.shape[0], 4, -1, *[1] * (x.dim() - 2)).unbind(1)
            modulations = [modulations[:2], modulations[2:]]
        for convolution, norm, modulation in zip(self.convolutions, self.norms, modulations, strict=True):
            y = norm(convolution(y))
            if modulation is not None:
                y = y * (1 + modulation[0]) + modulation[1]
            y = F.silu(y)
        return self.shortcut(x) + y


class LinearAttention(nn.Module):
    """The attention of a DiTTO's docstring.

    Args:
        channels: number of channels.
        heads: number of heads.
    """

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.GroupNorm(1, channels) for _ in range(2))
        self.qkv = nn.Conv1d(channels, 3 * heads * HEAD_CHANNELS, 1, bias=False)
        self.out = nn.Conv1d(heads * HEAD_CHANNELS, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Attend among the points of [B, C, *grid]; the result is to be added."""
        q, k, v = self.qkv(self.norms[0](x).flatten(2)).unflatten(1, (3, self.heads, HEAD_CHANNELS)).unbind(1)
        means_BHCC = torch.softmax(k, dim=3) @ v.transpose(2, 3)
        y_BHCN = means_BHCC.transpose(2, 3) @ (torch.softmax(q, dim=2) / HEAD_CHANNELS**0.5)
        return self.norms[1](self.out(y_BHCN.flatten(1, 2))).reshape(x.shape)
