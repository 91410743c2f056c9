"""Convolutions with small kernels on a grid.

They wrap around periodic axes, and see zeros beyond the ends of others.

Axes:  B batch, C channels, *grid = X, Y, Z the axes of the fields' grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
TRANSPOSED_FUNCTIONS = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
COARSEST = 4  # points that halving leaves along an axis, at least


def halvings(model: str, grid: Sequence[int], levels: int | None, default: int) -> list[tuple[int, ...]]:
    """Return how far each axis is cut from level to level.

    That is by 2, or by 1 where fewer than COARSEST points would remain.

    Args:
        model: name of the model, for messages.
        grid: points along each axis.
        levels: number of levels; None for `default`, or fewer where no axis can be halved so often.
        default: number of levels.

    Returns:
        A stride for each axis, for each level below the first.

    Raises:
        ValueError: no axis can be halved so often.
    """
    strides, sizes = [], grid
    while len(strides) < (levels or default) - 1:
        stride = tuple(2 if (size + 1) // 2 >= COARSEST else 1 for size in sizes)
        if max(stride) == 1:
            break
        strides.append(stride)
        sizes = [(size + step - 1) // step for size, step in zip(sizes, stride, strict=True)]
    if levels is not None and len(strides) < levels - 1:
        shape = "x".join(map(str, grid))
        raise ValueError(
            f"{model}: {levels} levels are too many for the grid {shape}: halved as long as {COARSEST} points remain, "
            f"it has {len(strides) + 1}"
        )
    return strides


class Convolution(nn.Module):
    """A convolution by an odd kernel, from n points of each axis to n.

    With a stride s there are ⌈n / s⌉.

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
        self.is_pointwise = kernel == 1 and not any(step > 1 for step in stride)
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
        if self.is_pointwise:  # in 3D torch has no fast convolution for it
            weight = self.convolution.weight.flatten(1).expand(x.shape[0], -1, -1)  # `@` would copy x to fold its batch
            bias, values = self.convolution.bias, x.flatten(2)
            y = torch.bmm(weight, values) if bias is None else torch.baddbmm(bias[:, None], weight, values)
            return y.unflatten(2, x.shape[2:])
        return self.convolution(F.pad(x, self.wraps, mode="circular") if any(self.wraps) else x)


class RepeatedConvolution(Convolution):
    """A convolution by 3 points along each axis, of repeated coarse activations.

    Args:
        channels: number of channels in.
        channels_out: number of channels out.
        periodic: whether each axis is periodic.
        stride: how often each axis is repeated, 1 or 2.
    """

    def __init__(self, channels: int, channels_out: int, periodic: Sequence[bool], stride: Sequence[int]):
        super().__init__(channels, channels_out, periodic)
        self.stride = tuple(stride)
        self.periodic = tuple(periodic)

    def forward(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        """Repeat [B, C, *coarse] to [B, C, *grid] and convolve it."""
        doubled = [step * num_points for step, num_points in zip(self.stride, x.shape[2:], strict=True)]
        # an exported program also takes grids that end within a coarse cell, and may not ask which
        if torch.compiler.is_exporting() or [*grid] != doubled:
            return super().forward(F.interpolate(x, size=grid))
        return self._transposed(x)

    def _transposed(self, x: Tensor) -> Tensor:
        """The same as a transposed convolution, which makes no product twice.

        That leaves 4 products of 9 in 2D and 8 of 27 in 3D.
        """
        weight = self.convolution.weight.transpose(0, 1).flip([*range(2, x.dim())])
        padding = []
        for axis, (step, is_periodic) in enumerate(zip(self.stride, self.periodic, strict=True), start=2):
            if step == 2:
                before = [0] * (2 * (x.dim() - axis - 1))
                weight = F.pad(weight, [*before, 1, 0]) + F.pad(weight, [*before, 0, 1])
            padding.append(1 + step * is_periodic)
        if any(self.wraps):
            x = F.pad(x, self.wraps, mode="circular")
        transposed = TRANSPOSED_FUNCTIONS[x.dim() - 3]
        return transposed(x, weight, self.convolution.bias, stride=self.stride, padding=padding)


class TransposedConvolution(nn.Module):
    """The transpose of a strided convolution, to a finer grid.

    The kernel has 4 points along an axis that was halved, and 3 along others.

    Args:
        width: number of channels.
        periodic: whether each axis is periodic.
        stride: stride along each axis, 1 or 2.
    """

    def __init__(self, width: int, periodic: Sequence[bool], stride: Sequence[int]):
        super().__init__()
        self.wraps = [int(is_periodic) for is_periodic in reversed(periodic) for _ in range(2)]
        self.first = [1 + step * is_periodic for step, is_periodic in zip(stride, periodic, strict=True)]
        kernel = tuple(2 + step for step in stride)
        transposed = TRANSPOSED[len(stride) - 1]
        self.convolution = transposed(width, width, kernel, stride=tuple(stride), bias=False)

    def forward(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        """Convolve [B, C, *coarse] to [B, C, *grid]."""
        y = self.convolution(F.pad(x, self.wraps, mode="circular") if any(self.wraps) else x)
        for axis, (num_points, first) in enumerate(zip(grid, self.first, strict=True)):
            # a slice would leave a guard in an exported program, by which it refuses other remainders
            y = y.index_select(2 + axis, torch.arange(num_points, device=x.device) + first)
        return y
