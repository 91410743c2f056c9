"""The Galerkin and the Fourier transformer: attention as a quadrature.

The source is Cao, NeurIPS 2021, arXiv 2105.14995.

Axes:  B batch, C channels, S scalars, *grid = X, Y, Z the axes of the fields' grid, N tokens, H heads, D channels of a
head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

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
from penstock.learner.models.grids.inputs import (
    GridLayout,
    cell_centres,
)
from penstock.learner.models.grids.lifted import LiftedModel
from penstock.learner.models.options import require_one_of, require_positive

Attention = Literal["galerkin", "fourier"]
DECODER_LAYERS = 2


class Galerkin(LiftedModel):
    """The Galerkin or Fourier transformer on a grid of 1 to 3 axes.

    The inputs are lifted and averaged to a grid of ⌈n / `coarsen`⌉ cells along each axis, whose n_t cells are the
    tokens. `layers` times

        z ← z + O A(z),   z ← z + F(z),

    with a linear map O, a net F of two layers at each token with ReLU, and for each head the attention

        galerkin:  A = Q (Kᵀ V) / n_t,        K and V normalised,
        fourier:   A = (Q Kᵀ) V / (n_t √D),   Q and K normalised,

    of linear maps Q, K, V of z beside the token's coordinates. Without a softmax both cost n_t D², and are quadratures
    of integrals, the same on every grid. The result is interpolated to the whole grid, added to the lifted inputs, and
    passes through two layers of an FNO with SiLU. Input channels are those of the FNO. Once built, a model takes any
    resolution with at least 2 * modes points along each axis.

    Args:
        layout: layout of batches.
        width: number of channels of a token, a multiple of the heads. Good values: 64 to 128.
        layers: number of attention layers, at least 1. Good values: 4 to 6.
        heads: number of heads, at least 1. Good value: 4.
        coarsen: number of cells along each axis that become one token, at least 1. Good values: 2 to 4.
        attention: which of the two.
        modes: number of Fourier modes kept along each axis at the end, one number for all axes or one for each, at most
            half the points of its axis. None takes 12, or half the points of an axis with fewer than 24.

    Raises:
        ValueError: the layout or its grid does not allow these options.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 64,
        layers: int = 4,
        heads: int = 4,
        coarsen: int = 2,
        attention: Attention = "galerkin",
        modes: int | Sequence[int] | None = None,
    ):
        super().__init__()
        require_positive("galerkin", width=width, layers=layers, heads=heads, coarsen=coarsen)
        require_one_of("galerkin", "attention", attention, get_args(Attention))
        if width % heads:
            raise ValueError(f"galerkin: width must be a multiple of the {heads} heads, not {width}")
        of = GridLayout.of(layout, "galerkin")
        self.modes = checked_modes("galerkin", modes, of.grid.shape)
        self.coarsen, self.periodic = coarsen, of.grid.periodic
        outer = max(1, width // 2)  # channels on the whole grid
        self.lift = nn.Sequential(nn.Linear(of.num_channels, outer), nn.SiLU(), nn.Linear(outer, outer))
        self.tokens = nn.Linear(outer, width)
        self.layers = nn.ModuleList(
            TransformerLayer(width, heads, len(of.grid.shape), attention) for _ in range(layers)
        )
        self.back = nn.Linear(width, outer)
        self.spectral = nn.ModuleList(SpectralConvolution(outer, self.modes) for _ in range(DECODER_LAYERS))
        self.pointwise = nn.ModuleList(nn.Linear(outer, outer) for _ in range(DECODER_LAYERS))
        self.project = nn.Sequential(nn.Linear(outer, 2 * outer), nn.SiLU(), nn.Linear(2 * outer, of.num_outputs))

    def on_grid(self, x_GBC: Tensor, like: Tensor) -> Tensor:
        """See `LiftedModel.on_grid`."""
        *grid, batch_size, _ = x_GBC.shape
        require_points("galerkin", grid, self.modes)
        coarse = [(num_points + self.coarsen - 1) // self.coarsen for num_points in grid]
        tokens_GBC = self.tokens(resampled(x_GBC, coarse, self.periodic))
        z_BNC = tokens_GBC.flatten(0, -3).transpose(0, 1).contiguous()  # else an exported file refuses a single sample
        centres_NA = torch.stack([c.expand(*coarse).flatten() for c in cell_centres(coarse, like)], dim=1)
        for layer in self.layers:
            z_BNC = layer(z_BNC, centres_NA)
        z_GBC = self.back(z_BNC).transpose(0, 1).reshape(*coarse, batch_size, -1)
        x_GBC = x_GBC + resampled(z_GBC, grid, self.periodic)
        bases = [fourier_bases(*sizes, like) for sizes in zip(grid, self.modes, strict=True)]
        for spectral, pointwise in zip(self.spectral, self.pointwise, strict=True):
            x_GBC = F.silu(pointwise(x_GBC).add_(spectral(x_GBC, bases)))
        return x_GBC


class TransformerLayer(nn.Module):
    """One layer of a transformer of this kind, as its docstring has it.

    Args:
        width: number of channels of a token.
        heads: number of heads.
        num_axes: number of coordinates of a token.
        attention: which of the two.
    """

    def __init__(self, width: int, heads: int, num_axes: int, attention: Attention):
        super().__init__()
        self.heads, self.attention = heads, attention
        size = width // heads
        self.maps = nn.ModuleList(nn.Linear(width, width) for _ in "qkv")
        for linear in self.maps:  # near a small multiple of the identity, as in the source
            nn.init.xavier_uniform_(linear.weight, gain=0.01)
            with torch.no_grad():
                linear.weight += 0.01 * torch.eye(width, device=linear.weight.device)
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(2))
        self.join = nn.Linear(heads * (size + num_axes), width)
        self.net = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, z_BNC: Tensor, centres_NA: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            z_BNC: tokens [B, N, C].
            centres_NA: their coordinates [N, axes].

        Returns:
            Tokens [B, N, C].
        """
        q, k, v = (linear(z_BNC).unflatten(2, (self.heads, -1)).transpose(1, 2) for linear in self.maps)
        first, second = self.norms
        q, k, v = (q, first(k), second(v)) if self.attention == "galerkin" else (first(q), second(k), v)
        num_tokens, size = q.shape[2:]
        centres = centres_NA.expand(*q.shape[:2], -1, -1)
        q, k, v = (torch.cat([centres.to(x.dtype), x], dim=3) for x in (q, k, v))
        scale = num_tokens if self.attention == "galerkin" else num_tokens * size**0.5
        attended_BHND = q @ (k.transpose(2, 3) @ v / scale)
        z_BNC = z_BNC + self.join(attended_BHND.transpose(1, 2).flatten(2))
        return z_BNC + self.net(z_BNC)
