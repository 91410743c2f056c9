"""Convolutions with small kernels on a grid, periodic along its periodic axes and padded by zeros along others.

Axes:  B batch, C channels, *grid = X, Y, Z the axes of the fields' grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Convolution(nn.Module):
    """A convolution by an odd kernel that keeps the number n of points of each axis, or with a stride s has ⌈n / s⌉.

    Args:
        channels: number of channels in.
        channels_out: number of channels out.
        periodic: whether each axis is periodic.
        stride: stride along each axis; 1 along all of them where absent.
        kernel: points of the kernel along each axis, an odd number.
        bias: whether a number is added to each channel.
    """

    def __init__(
        self,
        channels: int,
        channels_out: int,
        periodic: Sequence[bool],
        *,
        stride: Sequence[int] = (),
        kernel: int = 3,
        bias: bool = True,
    ):
        super().__init__()
        reach = kernel // 2
        self.wraps = [reach * is_periodic for is_periodic in reversed(periodic) for _ in range(2)]
        self.convolution = CONVOLUTIONS[len(periodic) - 1](
            channels,
            channels_out,
            kernel,
            stride=tuple(stride) or 1,
            padding=tuple(0 if is_periodic else reach for is_periodic in periodic),
            bias=bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [B, C, *grid]."""
        return self.convolution(F.pad(x, self.wraps, mode="circular") if any(self.wraps) else x)
