"""What models on a grid share: their layouts and their input channels.

Axes:  B batch, C channels, S scalars, *grid = X, Y, Z the axes of the fields' grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from penstock.geometry import Grid
from penstock.layout import Layout


@dataclass(frozen=True)
class GridLayout:
    """A layout whose fields all sit on one grid of one to three axes."""

    grid: Grid
    num_fields: int
    """Channels of the input fields, and one more for the mask of a masked grid."""
    num_scalars: int
    num_outputs: int
    """Channels of the outputs."""

    @classmethod
    def of(cls, layout: Layout, model: str) -> GridLayout:
        """Read a layout.

        Args:
            layout: layout of batches.
            model: name of the model, for messages.

        Returns:
            What a model on a grid needs to know of it.

        Raises:
            ValueError: fields sit on several grids, there is none among the inputs, an output is a scalar, or the grid
                has more than three axes.
        """
        if len(layout.geometries) > 1:
            places = " and ".join(repr(each.name or each.shape) for each in layout.geometries)
            raise ValueError(f"{model}: needs all fields on one grid, and these sit on {places}: take the model mlp")
        if "fields" not in layout.shapes:
            raise ValueError(
                f"{model}: needs an input field on the grid, and this problem has none: take the model mlp"
            )
        if [block.on for block in layout.output_blocks] != [*layout.geometries]:
            raise ValueError(
                f"{model}: needs all fields on one grid, and no scalars among the outputs: take the model mlp"
            )
        (outputs,) = layout.output_blocks
        (grid,) = layout.geometries
        if len(grid.shape) > 3:
            raise ValueError(f"{model}: works on grids of 1 to 3 axes, not {len(grid.shape)}: take the model mlp")
        num_fields = layout.shapes["fields"][0] + len(layout.geometry_blocks)
        (num_scalars,) = layout.shapes.get("scalars", (0,))
        return cls(grid, num_fields, num_scalars, outputs.shape[0])

    @property
    def num_channels(self) -> int:
        """Number of channels that `with_coordinates` gives."""
        return self.num_fields + self.num_scalars + len(self.grid.shape)


def with_mask(fields: Tensor, weights: Tensor | None) -> list[Tensor]:
    """Return the fields, and the mask of a masked grid.

    Args:
        fields: input fields [B, C, *grid].
        weights: quadrature weights [B, *grid] of a masked grid; 0 is outside the domain.

    Returns:
        Views and tensors [B, C, *grid], to be joined along C.
    """
    return [fields] if weights is None else [fields, (weights > 0).to(fields.dtype)[:, None]]


def everywhere(scalars: Tensor, grid: Sequence[int]) -> Tensor:
    """Return scalars [B, S] at every point, as a view [B, S, *grid]."""
    return scalars.reshape(*scalars.shape, *[1] * len(grid)).expand(-1, -1, *grid)


def cell_centres(grid: Sequence[int], like: Tensor) -> list[Tensor]:
    """Return the centres of n cells along each axis, in units of the domain's edge.

    Args:
        grid: points along each axis.
        like: tensor with the data type and device of the result.

    Returns:
        For each axis the centres in its place, such as [1, Y, 1].
    """
    # linspace would freeze num_points under torch.export
    centres = [
        (torch.arange(num_points, dtype=like.dtype, device=like.device) + 0.5) / num_points for num_points in grid
    ]
    return [
        each.reshape([-1 if other == axis else 1 for other in range(len(grid))]) for axis, each in enumerate(centres)
    ]


def with_coordinates(
    fields: Tensor, scalars: Tensor | None, weights: Tensor | None, on_circle: Sequence[bool] = ()
) -> list[Tensor]:
    """Return the fields, scalars and mask, and the coordinates of all points.

    Args:
        fields: input fields [B, C, *grid].
        scalars: input scalars [B, S], if there are any.
        weights: quadrature weights [B, *grid] of a masked grid; 0 is outside the domain.
        on_circle: for each axis, whether its coordinate is given by cosine and sine of a turn, which do not jump where
            the axis wraps around; none where absent.

    Returns:
        Views and tensors [B, C, *grid], to be joined along C. Coordinates are in units of the domain's edge.
    """
    batch_size, _, *grid = fields.shape
    channels = with_mask(fields, weights)
    if scalars is not None:
        channels.insert(1, everywhere(scalars, grid))
    for axis, centres in enumerate(cell_centres(grid, fields)):
        turn = 2 * math.pi * centres
        coordinates = [turn.cos(), turn.sin()] if any(on_circle) and on_circle[axis] else [centres]
        channels += [each.expand(batch_size, 1, *grid) for each in coordinates]
    return channels


def channels_last(channels: list[Tensor]) -> Tensor:
    """Join channels, each [B, C, *grid], to [*grid, B, C]."""
    return torch.cat([channel.movedim((0, 1), (-2, -1)) for channel in channels], dim=-1)


def channels_first(x_GBC: Tensor) -> Tensor:
    """Return activations [*grid, B, C] as [B, C, *grid], contiguous."""
    return x_GBC.movedim((-2, -1), (0, 1)).contiguous()
