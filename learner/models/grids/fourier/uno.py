"""The U-shaped neural operator: Fourier layers on coarser and finer grids.

The source is Rahman et al., TMLR 2023, arXiv 2204.11127.

Axes:  B batch, C channels, S scalars, *grid = X, Y, Z the axes of the fields' grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penstock.layout import Layout
from penstock.learner.models.grids.fourier.spectral import (
    SpectralConvolution,
    checked_modes,
    fourier_bases,
    require_points,
    resampled,
)
from penstock.learner.models.grids.inputs import GridLayout
from penstock.learner.models.grids.lifted import LiftedModel
from penstock.learner.models.options import require_positive

LEVELS = (0, 1, 2, 2, 1, 0)  # how often the grid is halved before the first layer and after each


class UNO(LiftedModel):
    """The U-shaped neural operator on a grid of 1 to 3 axes.

    Five layers take `width` channels on the whole grid to 4 `width` on a quarter of the points along each axis, and
    back. A layer from n points to N, along each axis, is

        v ← σ(K v + P W v),

    where K takes the low Fourier modes of the n points and sums their images at the N points, W is a pointwise map and
    P linear interpolation, which averages where the grid coarsens; σ = GELU, except after the last layer. In the
    second half each layer also takes the channels that the first half had on the same grid. Input channels are those of
    the FNO. Once built, a model takes any resolution whose quarter has 2 points for each mode kept there.

    Args:
        layout: layout of batches.
        width: number of channels on the whole grid, at least 1. Good values: 16 to 32.
        modes: largest number of Fourier modes kept along each axis, one number for all axes or one for each. A layer
            keeps at most half the points of the coarser of its grids. None takes 12, or half the points of an axis
            with fewer than 24. Good values: 12 to 18.

    Raises:
        ValueError: the layout or its grid does not allow these options.
    """

    def __init__(self, layout: Layout, *, width: int = 24, modes: int | Sequence[int] | None = None):
        super().__init__()
        require_positive("uno", width=width)
        of = GridLayout.of(layout, "uno")
        most = checked_modes("uno", modes, of.grid.shape)
        coarsest = [halved(num_points, max(LEVELS)) for num_points in of.grid.shape]
        if min(coarsest) < 2:
            raise ValueError(f"uno: needs at least 5 points along each axis of the grid, not {min(of.grid.shape)}")
        self.lift = nn.Sequential(nn.Linear(of.num_channels, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        widths = (width, 2 * width, 4 * width, 8 * width, 4 * width)  # from the fourth on with those of the way there
        widths_out = (2 * width, 4 * width, 4 * width, 2 * width, width)
        self.layers = nn.ModuleList()
        for levels, *sizes in zip(itertools.pairwise(LEVELS), widths, widths_out, strict=True):
            points = [halved(num_points, max(levels)) for num_points in of.grid.shape]
            kept = [min(number, num_points // 2) for number, num_points in zip(most, points, strict=True)]
            self.layers.append(ResamplingLayer(*sizes, kept, of.grid.periodic))
        self.project = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, of.num_outputs))

    def on_grid(self, x_GBC: Tensor, like: Tensor) -> Tensor:
        """See `LiftedModel.on_grid`."""
        grids = [[halved(num_points, level) for num_points in x_GBC.shape[:-2]] for level in LEVELS]
        passed = [x_GBC]  # on the way to the coarsest grid
        for number, layer in enumerate(self.layers):
            x_GBC = layer(x_GBC, grids[number + 1])
            if number < len(self.layers) - 1:
                x_GBC = F.gelu(x_GBC)
            if number < 2:
                passed.append(x_GBC)
            else:
                x_GBC = torch.cat([x_GBC, passed.pop()], dim=-1)
        return x_GBC


def halved(num_points: int, times: int) -> int:
    """Return ⌈n / 2^times⌉."""
    return (num_points + 2**times - 1) // 2**times


class ResamplingLayer(nn.Module):
    """K v + P W v of a U-NO's docstring.

    Args:
        width: number of channels in.
        width_out: number of channels out.
        modes: modes that K keeps along each axis.
        periodic: whether each axis is periodic, for P.
    """

    def __init__(self, width: int, width_out: int, modes: Sequence[int], periodic: Sequence[bool]):
        super().__init__()
        self.periodic = tuple(periodic)
        self.spectral = SpectralConvolution(width, modes, width_out=width_out)
        self.pointwise = nn.Linear(width, width_out)

    def forward(self, x_GBC: Tensor, grid_out: Sequence[int]) -> Tensor:
        """Apply the layer to activations [*grid, B, C].

        Args:
            x_GBC: activations.
            grid_out: points along each axis of the result.

        Returns:
            [*grid_out, B, C'].

        Raises:
            ValueError: either grid has fewer than 2 * modes points along an axis.
        """
        grid = x_GBC.shape[:-2]
        modes = self.spectral.modes
        for points in (grid, grid_out):
            require_points("uno", points, modes)
        bases = [
            (fourier_bases(num_points, number, x_GBC)[0], fourier_bases(num_points_out, number, x_GBC)[1])
            for num_points, num_points_out, number in zip(grid, grid_out, modes, strict=True)
        ]
        return self.spectral(x_GBC, bases).add_(resampled(self.pointwise(x_GBC), grid_out, self.periodic))
