"""MG-TFNO (Kossaifi et al., 2023): a model on a grid, applied to each part of it.

The source is arXiv 2310.00120, section 3.3, where the model is a TFNO.

Axes:  B batch, C channels, S scalars, T patches of a sample, *grid = X, Y, Z the axes of the fields' grid,
       *window those of a patch with its margins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.grids.attention import ATTENTION
from penstock.learner.models.grids.convolutional import CONVOLUTIONAL
from penstock.learner.models.grids.fourier import FOURIER
from penstock.learner.models.grids.inputs import GridLayout, with_coordinates, with_mask
from penstock.learner.models.options import require_one_of

INNER: dict[str, type] = {**ATTENTION, **CONVOLUTIONAL, **FOURIER}
DEFAULTS = {"fno": {"rank": 0.1}}  # a TFNO


class MGTFNO(nn.Module):
    """A model that predicts each part of a grid from its surroundings.

    The grid is cut into 2^L patches along each axis, which share the model inside and are stitched together again. Of
    each patch of s points along an axis it is given L + 1 windows of s + 2 p points around the patch's centre, side by
    side as channels: level 0 is the patch with a margin of p points, and level l has cells 2^l as long. The last one
    spans the whole domain; where the axis is not periodic it is shifted to do so, unless margins of at least
    1/2 - 2^-(L + 1) of a patch do. What is far from a patch reaches it by means over such cells alone.

    Beyond the ends of an axis that is not periodic its outermost values go on; periodic axes wrap around. (The source
    wraps both, and takes every 2^l-th point in place of a mean.) The centres of the cells of the whole grid are further
    channels of level 0, on periodic axes by cosine and sine, so that a patch knows where it is.

    On d axes a sample is 2^(L d) samples of the model inside, each on a grid 2^L times smaller, plus the margins. So
    its modes and kernels are that much finer at the same number of parameters.

    Args:
        layout: layout of batches.
        model: name of the model inside, one on grids.
        options: its options. None takes its defaults and, of an `fno`, a rank of 0.1, which makes it the TFNO.
        levels: number L, at least 0, where the model sees the whole grid. Good values: 1 or 2, on fine grids.
        margin: length of the margins, as a part of a patch, from 0 to 1; there are none if L = 0. Good values: 1/8 to
            1/2.

    Raises:
        ValueError: the layout or its grid does not allow these options, there is no such model, or it refuses.
    """

    accepts = (Grid,)
    resolution_free = (Grid,)  # with the default model inside; an object's own says what holds with another one
    inside = INNER

    def __init__(
        self,
        layout: Layout,
        *,
        model: str = "fno",
        options: Mapping[str, Any] | None = None,
        levels: int = 1,
        margin: float = 0.25,
    ):
        super().__init__()
        require_one_of("mg_tfno", "model", model, tuple(sorted(INNER)))
        if not isinstance(levels, int) or levels < 0:
            raise ValueError(f"mg_tfno: levels must be a whole number from 0 on, not {levels}")
        if not 0 <= margin <= 1:
            raise ValueError(f"mg_tfno: margin must be from 0 to 1, not {margin}")
        of = GridLayout.of(layout, "mg_tfno")
        self.levels, self.margin, self.periodic = levels, margin, of.grid.periodic
        self.resolution_free = INNER[model].resolution_free
        shape, num_patches = of.grid.shape, 2**levels
        if min(shape) < 2 * num_patches:
            sizes = "x".join(map(str, shape))
            raise ValueError(
                f"mg_tfno: {levels} levels are too many for the grid {sizes}: a patch has 2 points or more"
            )
        windows = tuple(self._sizes(num_points)[1] for num_points in shape)
        window = Grid(windows, periodic=tuple(is_periodic and not levels for is_periodic in self.periodic))
        num_fields = (levels + 1) * of.num_fields + len(shape) + sum(self.periodic)
        scalars = [spec for spec in layout.inputs if spec.on is None]
        inner = Layout(
            (FieldSpec(name="windows", on=window, components=num_fields), *scalars),
            (FieldSpec(name="outputs", on=window, components=of.num_outputs),),
        )
        self.model = INNER[model](inner, **(DEFAULTS.get(model, {}) if options is None else options))

    def forward(self, fields: Tensor, scalars: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """Predict the outputs on the grid.

        Args:
            fields: input fields [B, C, *grid].
            scalars: input scalars [B, S], if there are any.
            weights: quadrature weights [B, *grid] of a masked grid; 0 is outside the domain.

        Returns:
            The outputs, [B, C, *grid].

        Raises:
            ValueError: the model inside refuses the size of a window.
        """
        batch_size, _, *grid = fields.shape
        finest = torch.cat(with_coordinates(fields, None, weights, self.periodic), dim=1)
        coarser = torch.cat(with_mask(fields, weights), dim=1)
        windows = [self.windows(coarser if level else finest, level) for level in range(self.levels + 1)]
        given = {"fields": torch.cat(windows, dim=1)}
        if scalars is not None:
            given["scalars"] = scalars.repeat_interleave(2 ** (self.levels * len(grid)), dim=0)
        return self.stitched(self.model(**given), batch_size, grid)

    def windows(self, values: Tensor, level: int) -> Tensor:
        """Return the windows of one level.

        Args:
            values: [B, C, *grid].
            level: l from 0 to L.

        Returns:
            [B T, C, *window], the patches of a sample one after another.
        """
        batch_size, num_channels, *grid = values.shape
        num_patches, num_cells = 2**self.levels, 2**level
        for axis, num_points in enumerate(grid):
            values = values.index_select(2 + axis, self._places(num_points, axis, num_cells, values.device))
            if num_cells > 1:
                values = values.unflatten(2 + axis, (-1, num_cells)).mean(dim=3 + axis)
        sizes = [size for num_points in grid for size in (num_patches, self._sizes(num_points)[1])]
        axes = range(2, 2 + 2 * len(grid))
        values = values.reshape(batch_size, num_channels, *sizes).permute(0, *axes[::2], 1, *axes[1::2])
        return values.flatten(0, len(grid)).contiguous()

    def stitched(self, windows: Tensor, batch_size: int, grid: Sequence[int]) -> Tensor:
        """Return the patches without their margins, side by side.

        Args:
            windows: [B T, C, *window].
            batch_size: number B of samples.
            grid: points along each axis of the grid.

        Returns:
            [B, C, *grid].
        """
        num_patches, d = 2**self.levels, len(grid)
        values = windows.reshape(batch_size, *[num_patches] * d, *windows.shape[1:])
        values = values.permute(0, 1 + d, *(axis for pair in range(1, 1 + d) for axis in (pair, 1 + d + pair)))
        for axis, num_points in enumerate(grid):
            size, window = self._sizes(num_points)
            patches, points, whole = (
                torch.arange(num, device=windows.device) for num in (num_patches, size, num_points)
            )
            places = (patches[:, None] * window + points + (window - size) // 2).flatten()
            # a slice would leave a guard in an exported program, by which it refuses other remainders
            values = values.flatten(2 + axis, 3 + axis).index_select(2 + axis, places.index_select(0, whole))
        return values

    def _sizes(self, num_points: int) -> tuple[int, int]:
        """Points of a patch and of its windows, along an axis."""
        size = (num_points + 2**self.levels - 1) // 2**self.levels
        return size, size + 2 * (size * round(64 * self.margin) // 64) if self.levels else size

    def _places(self, num_points: int, axis: int, num_cells: int, device: torch.device) -> Tensor:
        """The points whose means by `num_cells` are the windows along an axis."""
        size, window = self._sizes(num_points)
        patches, points = (torch.arange(num, device=device) for num in (2**self.levels, window * num_cells))
        before = (window * num_cells - size + 1) // 2
        starts = patches * size - before
        if num_cells == 2**self.levels and not self.periodic[axis]:
            starts = starts.clamp(num_points - window * num_cells, 0)
        places = (starts[:, None] + points).flatten()
        if self.periodic[axis]:
            return torch.remainder(places, torch.full((), num_points, device=device))
        return places.clamp(0, num_points - 1)
