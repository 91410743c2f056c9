"""A vision transformer that is asked for values at points.

The source is Wang et al., ICLR 2025, arXiv 2405.13998 (CViT).

Axes:  B batch, C channels, S scalars, *grid = X, Y, Z the axes of the fields' grid, T tokens, N points.
"""

from __future__ import annotations

import math
from math import prod

import torch
from torch import Tensor, nn

from penstock.geometry import Grid
from penstock.layout import Layout
from penstock.learner.models.grids.fourier.spectral import resampled
from penstock.learner.models.grids.inputs import GridLayout, cell_centres
from penstock.learner.models.grids.lifted import LiftedModel
from penstock.learner.models.options import require_positive
from penstock.learner.models.parameters import normal
from penstock.learner.models.transformer import Attention


class CViT(LiftedModel):
    """The continuous vision transformer on a grid of 1 to 3 axes.

    The inputs are interpolated to ⌈n / p⌉ p cells along each axis of n points that the model is built for, p = `patch`,
    and cut in patches of p cells along each axis. A patch's values, mapped linearly, plus a learned vector for its
    place are a token z. `layers` times

        z ← z + A(N z, N z),   z ← z + F(N z),

    with the softmax attention A of several heads, nets F of two layers with GELU, and normalisations N of a token's
    channels. A point x asks with a query q(x), and the same step is done once with the tokens,

        q ← q + A(N q, z),   q ← q + F(N q),

    before a net of two layers at each point gives the outputs. Nothing else tells points apart, so q(x) is as fine as
    the outputs: it interpolates learned vectors at the centres of the n cells along each axis, `width` numbers per
    cell, linearly, and as a constant in the outer half of the outermost cells. Both interpolations wrap around periodic
    axes. Input channels are those of the FNO, except that the coordinate along a periodic axis is given by cosine and
    sine, since interpolation would see a jump.

    Since the tokens are as many on every grid, and their number does not grow, the model takes any resolution. But what
    is finer than the cells that it was built for is averaged in the inputs, and linear in the queries.

    The paper, too, has a learned vector per cell of its data, 128 x 128 or 96 x 192. There they start as independent
    random numbers, here as random waves of about one period, with which close points ask alike from the first step on.
    The paper interpolates them by Gaussians that are narrower than a cell, and maps and normalises the result; it fixes
    the places of patches by sines, and joins frames of several times by attention, where here they are channels.

    Args:
        layout: layout of batches.
        width: number of channels of a token, a multiple of the heads. Good values: 64 to 384.
        layers: number of attention layers among tokens, at least 1. Good values: 4 to 10.
        heads: number of heads, at least 1. Good values: 4 to 6.
        patch: cells of a patch along each axis, at least 1. Good values: 4 to 8 in two dimensions.

    Raises:
        ValueError: the layout or its grid does not allow these options.
    """

    def __init__(self, layout: Layout, *, width: int = 64, layers: int = 4, heads: int = 4, patch: int = 8):
        super().__init__()
        require_positive("cvit", width=width, layers=layers, heads=heads, patch=patch)
        if width % heads:
            raise ValueError(f"cvit: width must be a multiple of the {heads} heads, not {width}")
        of = GridLayout.of(layout, "cvit")
        self.patch, self.on_circle = patch, of.grid.periodic
        self.patches = tuple((num_points + patch - 1) // patch for num_points in of.grid.shape)
        self.lift = nn.Identity()
        num_channels = of.num_channels + sum(self.on_circle)
        self.embed = nn.Linear(patch ** len(self.patches) * num_channels, width)
        self.places = normal([prod(self.patches), width], 0.02)
        self.layers = nn.ModuleList(AttentionLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.queries = random_waves(of.grid, width)
        self.decode = AttentionLayer(width, heads)
        self.project = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, of.num_outputs)
        )

    def on_grid(self, x_GBC: Tensor, like: Tensor) -> Tensor:
        """See `LiftedModel.on_grid`."""
        *grid, _, _ = x_GBC.shape
        z_BTC = self.embed(self.cut(x_GBC)) + self.places
        for layer in self.layers:
            z_BTC = layer(z_BTC)
        queries_BNC = resampled(self.queries, grid, self.on_circle).flatten(0, -3).transpose(0, 1)
        y_BNC = self.decode(queries_BNC, self.norm(z_BTC))
        return y_BNC.transpose(0, 1).unflatten(0, grid)

    def cut(self, x_GBC: Tensor) -> Tensor:
        """Return the values in each patch, [B, T, p^d C]."""
        num_axes = len(self.patches)
        values = resampled(x_GBC, [number * self.patch for number in self.patches], self.on_circle)
        for axis, number in enumerate(self.patches):
            values = values.unflatten(2 * axis, (number, self.patch))
        patches_then_cells = [2 * num_axes, *range(0, 2 * num_axes, 2), *range(1, 2 * num_axes, 2), 2 * num_axes + 1]
        return values.permute(patches_then_cells).flatten(1, num_axes).flatten(2)


def random_waves(grid: Grid, width: int) -> nn.Parameter:
    """Return waves with random wave vectors at the centres of cells.

    The number of periods along an axis is normal with deviation 1, so that queries far apart differ and close ones
    do not.

    Args:
        grid: the grid; waves fit its periodic axes.
        width: number C of channels, which have different waves.

    Returns:
        [*grid, 1, C], of mean square 1.
    """
    waves = torch.empty(*grid.shape, 1, width)
    if not waves.is_meta:  # if it is, only the size counts
        phases = 2 * math.pi * torch.rand(width)
        for centres, is_periodic in zip(cell_centres(grid.shape, waves), grid.periodic, strict=True):
            numbers = torch.randn(width)
            phases = phases + 2 * math.pi * (numbers.round() if is_periodic else numbers) * centres[..., None, None]
        waves.copy_(math.sqrt(2) * phases.cos())
    return nn.Parameter(waves)


class AttentionLayer(nn.Module):
    """A step of attention, and one of a net, as CViT's docstring has them.

    Args:
        width: number of channels.
        heads: number of heads.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = Attention(width, heads)
        self.net = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x_BNC: Tensor, context_BTC: Tensor | None = None) -> Tensor:
        """Apply the layer.

        Args:
            x_BNC: tokens or queries; one batch of queries serves all samples.
            context_BTC: the tokens that they attend to; None for themselves.

        Returns:
            [B, N, C].
        """
        normalised = self.norms[0](x_BNC)
        x_BNC = x_BNC + self.attention(normalised, normalised if context_BTC is None else context_BTC)
        return x_BNC + self.net(self.norms[1](x_BNC))
