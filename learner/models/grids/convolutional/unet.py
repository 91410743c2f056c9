"""The U-Net of Gupta and Brandstetter (2022), on grids of any size.

The source is arXiv 2209.15616; widths grow as in Ronneberger et al. (MICCAI 2015), arXiv 1505.04597.

Axes:  B batch, C channels, S scalars, *grid = X, Y, Z the axes of the fields' grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penstock.geometry import Grid
from penstock.layout import Layout
from penstock.learner.models.grids.convolutional.convolution import Convolution, halvings
from penstock.learner.models.grids.convolutional.ushape import UShape
from penstock.learner.models.grids.inputs import GridLayout, with_mask
from penstock.learner.models.options import require_positive
from penstock.learner.optimizers import Recipe

LEVELS = 4  # by default


class UNet(nn.Module):
    """The modern U-Net on a grid of 1 to 3 axes.

    Level l has 2^l `width` channels. On the way down each level applies `blocks` residual blocks and halves the grid by
    a convolution of stride 2; on the way up the next finer activations are joined to the coarse ones, which are
    repeated, and blocks are applied again. A block is

        u ← A u + C_2 σ((1 + α(s)) N(C_1 σ(N(u))) + β(s)),

    with 3-point convolutions C along each axis, normalisations N of each sample over all points and channels, σ = GELU,
    and A a pointwise map where the number of channels changes. The scalars s, time among them, act through α and β,
    which are linear in a net of s, and 0 at first; without scalars they are absent.

    An axis of n points is cut to ⌈n / 2⌉, so any size will do, and one file serves them all. Convolutions wrap around
    periodic axes and see zeros beyond the ends of others. They reach a number of cells, not a length: on another
    resolution than that of training a model runs and means another operator.

    Args:
        layout: layout of batches.
        width: number of channels at the finest level, at least 1. Good values: 16 to 64.
        levels: number of resolutions, at least 1. An axis is halved as long as 4 points remain. None takes 4, or fewer
            where no axis can be halved so often. Good value: 4.
        blocks: number of residual blocks at each level, at least 1, on either way. Good values: 1 or 2.

    Raises:
        ValueError: the layout or its grid does not allow these options.
    """

    accepts = (Grid,)
    resolution_free = ()  # its kernels reach a number of cells

    recipe = Recipe("muon", 4e-3)

    def __init__(self, layout: Layout, *, width: int = 32, levels: int | None = None, blocks: int = 1):
        super().__init__()
        require_positive("unet", width=width, levels=LEVELS if levels is None else levels, blocks=blocks)
        of = GridLayout.of(layout, "unet")
        strides = halvings("unet", of.grid.shape, levels, LEVELS)
        periodic, num_features = of.grid.periodic, 4 * width if of.num_scalars else 0

        def stage(channels: int, channels_out: int) -> Stage:
            sizes = [channels] + [channels_out] * blocks
            return Stage(ResidualBlock(*sizes[i : i + 2], periodic, num_features) for i in range(blocks))

        self.embed = None
        if of.num_scalars:
            self.embed = nn.Sequential(
                nn.Linear(of.num_scalars, num_features), nn.GELU(), nn.Linear(num_features, num_features), nn.GELU()
            )
        self.lift = Convolution(of.num_fields, width, periodic)
        self.ushape = UShape(width, strides, periodic, stage)
        self.norm = nn.GroupNorm(1, width)
        self.project = Convolution(width, of.num_outputs, periodic)

    def forward(self, fields: Tensor, scalars: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """Predict the outputs on the grid.

        Args:
            fields: input fields [B, C, *grid].
            scalars: input scalars [B, S], if there are any.
            weights: quadrature weights [B, *grid] of a masked grid; 0 is outside the domain.

        Returns:
            The outputs, [B, C, *grid].
        """
        features = None if self.embed is None else self.embed(scalars)
        x = self.lift(torch.cat(with_mask(fields, weights), dim=1))
        return self.project(F.gelu(self.norm(self.ushape(x, features))))


class Stage(nn.ModuleList):
    """Residual blocks on one resolution, one after another."""

    def forward(self, x: Tensor, features: Tensor | None) -> Tensor:
        """Apply the blocks to [B, C, *grid], with the features of the scalars [B, F]."""
        for block in self:
            x = block(x, features)
        return x


class ResidualBlock(nn.Module):
    """The block of a U-Net's docstring.

    Args:
        channels: number of channels in.
        channels_out: number of channels out.
        periodic: whether each axis is periodic.
        num_features: number of features of the scalars; 0 if there are no scalars.
    """

    def __init__(self, channels: int, channels_out: int, periodic: Sequence[bool], num_features: int):
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(1, channels), nn.GroupNorm(1, channels_out)])
        self.first = Convolution(channels, channels_out, periodic)
        self.second = Convolution(channels_out, channels_out, periodic)
        is_wider = channels != channels_out
        self.shortcut = Convolution(channels, channels_out, periodic, kernel=1) if is_wider else nn.Identity()
        self.modulate = nn.Linear(num_features, 2 * channels_out) if num_features else None
        if self.modulate is not None:
            nn.init.zeros_(self.modulate.weight)
            nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, features: Tensor | None) -> Tensor:
        """Apply the block to [B, C, *grid], with the features of the scalars [B, F]."""
        y = self.norms[1](self.first(F.gelu(self.norms[0](x))))
        if self.modulate is not None:
            scale, shift = self.modulate(features).reshape(x.shape[0], 2, -1, *[1] * (x.dim() - 2)).unbind(1)
            y = y * (1 + scale) + shift
        return self.shortcut(x) + self.second(F.gelu(y))
