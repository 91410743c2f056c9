"""What U-shaped models share: the way down to coarser grids and up again.

Axes:  B batch, C channels, *grid = X, Y, Z the axes of the fields' grid, F features of the scalars.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from penstock.learner.models.grids.convolutional.convolution import Convolution, RepeatedConvolution


class UShape(nn.Module):
    """Stages on coarser and coarser grids, and on finer ones again.

    Level l has 2^l `width` channels. On the way down each level applies a stage and halves the grid by a convolution of
    stride 2; on the way up coarse activations are repeated, widened by a convolution, and joined to those of the next
    finer level, to which another stage is applied.

    Args:
        width: number of channels at the finest level.
        strides: `halvings` of the grid.
        periodic: whether each axis is periodic.
        stage: makes a stage from the numbers of channels in and out. It is called with activations [B, C, *grid] and
            with the features of the scalars [B, F], or None.
    """

    def __init__(
        self,
        width: int,
        strides: Sequence[Sequence[int]],
        periodic: Sequence[bool],
        stage: Callable[[int, int], nn.Module],
    ):
        super().__init__()
        widths = [width * 2**level for level in range(len(strides) + 1)]
        self.down = nn.ModuleList(stage(channels, channels) for channels in widths)
        self.halve = nn.ModuleList(
            Convolution(channels, 2 * channels, periodic, stride=stride)
            for channels, stride in zip(widths[:-1], strides, strict=True)
        )
        self.widen = nn.ModuleList(
            RepeatedConvolution(2 * channels, channels, periodic, stride)
            for channels, stride in zip(widths[:-1], strides, strict=True)
        )
        self.up = nn.ModuleList(stage(2 * channels, channels) for channels in widths[:-1])

    def forward(self, x: Tensor, features: Tensor | None) -> Tensor:
        """Go down and up, [B, C, *grid] to the same."""
        finer = []
        for level, stage in enumerate(self.down):
            if level:
                finer.append(x)
                x = self.halve[level - 1](x)
            x = stage(x, features)
        for widen, stage, skip in reversed([*zip(self.widen, self.up, finer, strict=True)]):
            x = torch.cat([skip, widen(x, skip.shape[2:])], dim=1)
            x = stage(x, features)
        return x
