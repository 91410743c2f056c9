"""The codomain attention neural operator: attention among physical variables.

The source is Rahman et al., NeurIPS 2024, arXiv 2403.12553.

Axes:  B batch, C channels, S scalars, *grid = X, Y, Z the axes of the fields' grid, T tokens, H heads, D channels of a
head.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penstock.layout import Layout
from penstock.learner.models.grids.fourier.fno import FourierLayer, SampleNorm
from penstock.learner.models.grids.fourier.spectral import (
    Bases,
    SpectralConvolution,
    checked_modes,
    fourier_bases,
    require_points,
)
from penstock.learner.models.grids.inputs import GridLayout
from penstock.learner.models.grids.lifted import LiftedModel
from penstock.learner.models.options import require_positive
from penstock.learner.models.parameters import normal


class CoDANO(LiftedModel):
    """The codomain attention neural operator on a grid of 1 to 3 axes.

    A token is one physical variable on the whole grid: there is one for each component of the input fields, and one for
    each of the outputs, which starts without values. All are lifted alike, from the variable's values, the scalars,
    mask and coordinates, and a learned vector that says which variable it is. `layers` times

        z_i ← z_i + O Σ_j softmax_j(⟨q_i, k_j⟩ / √D) v_j,   z_i ← z_i + F(z_i),

    for all tokens i at once, both on z normalised over all points and channels of the token, where q, k and v are each
    a spectral convolution plus a pointwise map of z, O is a pointwise map for all heads, and F two layers of an FNO,
    the same for all tokens. ⟨q, k⟩ is the mean over the grid of the product of D channels, which is an integral: so the
    weights are the same on every grid. Outputs are projected from their tokens. Once built, a model takes any
    resolution with at least 2 * modes points along each axis.

    The paper gives a variable a learned function in place of the vector, which the coordinates make up for here, and
    has no tokens for outputs, since its outputs are the variables of its inputs.

    Args:
        layout: layout of batches.
        width: number C of channels of a token, a multiple of the heads. Good values: 16 to 64.
        layers: number of attention layers, at least 1. Good values: 2 to 5.
        heads: number of heads, at least 1. Good value: 2.
        modes: number of Fourier modes kept along each axis, one number for all axes or one for each, at most half the
            points of its axis. None takes 12, or half the points of an axis with fewer than 24. Good values: 12 to 32.

    Raises:
        ValueError: the layout or its grid does not allow these options.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 16,
        layers: int = 2,
        heads: int = 2,
        modes: int | Sequence[int] | None = None,
    ):
        super().__init__()
        require_positive("codano", width=width, layers=layers, heads=heads)
        if width % heads:
            raise ValueError(f"codano: width must be a multiple of the {heads} heads, not {width}")
        of = GridLayout.of(layout, "codano")
        self.modes = checked_modes("codano", modes, of.grid.shape)
        num_variables = layout.shapes["fields"][0]
        self.num_outputs = of.num_outputs
        self.lift = VariableLift(num_variables, of.num_channels - num_variables, of.num_outputs, width)
        self.layers = nn.ModuleList(
            CodomainLayer(width, heads, num_variables + of.num_outputs, self.modes) for _ in range(layers)
        )
        self.project = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 1), nn.Flatten(start_dim=-2)
        )

    def on_grid(self, x_GBTC: Tensor, like: Tensor) -> Tensor:
        """See `LiftedModel.on_grid`; there is an axis of tokens before the channels."""
        grid = x_GBTC.shape[:-3]
        require_points("codano", grid, self.modes)
        bases = [fourier_bases(*sizes, like) for sizes in zip(grid, self.modes, strict=True)]
        z_GBC = x_GBTC.flatten(-3, -2)
        for layer in self.layers:
            z_GBC = layer(z_GBC, bases)
        outputs_first = x_GBTC.shape[-2] - self.num_outputs
        return z_GBC.unflatten(-2, x_GBTC.shape[-3:-1]).narrow(-2, outputs_first, self.num_outputs)


class VariableLift(nn.Module):
    """Lifts every variable to a token.

    Args:
        num_variables: number of variables with values.
        num_others: number of channels that all tokens see.
        num_outputs: number of variables without values.
        width: number of channels of a token.
    """

    def __init__(self, num_variables: int, num_others: int, num_outputs: int, width: int):
        super().__init__()
        self.num_outputs = num_outputs
        self.values = nn.Linear(1, width, bias=False)
        self.others = nn.Linear(num_others, width, bias=False)
        self.which = normal([num_variables + num_outputs, width], 1)
        self.second = nn.Linear(width, width)

    def forward(self, x_GBC: Tensor) -> Tensor:
        """Lift channels [*grid, B, C], variables first, to [*grid, B, T, C]."""
        num_variables = len(self.which) - self.num_outputs
        values, others = x_GBC.tensor_split([num_variables], dim=-1)
        lifted = F.pad(self.values(values[..., None]), (0, 0, 0, self.num_outputs))
        return self.second(F.gelu(lifted + self.others(others)[..., None, :] + self.which))


class CodomainLayer(nn.Module):
    """One layer of a CoDA-NO, as its docstring has it.

    Args:
        width: number of channels of a token.
        heads: number of heads.
        num_tokens: number of tokens.
        modes: modes along each axis.
    """

    def __init__(self, width: int, heads: int, num_tokens: int, modes: Sequence[int]):
        super().__init__()
        self.heads, self.num_tokens = heads, num_tokens
        self.norms = nn.ModuleList(SampleNorm(width) for _ in range(2))
        self.spectral = SpectralConvolution(width, modes, width_out=3 * width)
        self.pointwise = nn.Linear(width, 3 * width, bias=False)  # the norm before and `join` shift; one of k is lost
        self.join = nn.Linear(width, width)
        self.mixer = nn.ModuleList(
            FourierLayer(SpectralConvolution(width, modes), width, norm=False, mixing=False, is_last=is_last)
            for is_last in (False, True)
        )

    def forward(self, z_GBC: Tensor, bases: Bases) -> Tensor:
        """Apply the layer to tokens [*grid, B T, C], with `fourier_bases` of every axis."""
        normalised = self.norms[0](z_GBC)
        z_GBC = z_GBC + self.join(self.attended(self.pointwise(normalised).add_(self.spectral(normalised, bases))))
        y_GBC = self.norms[1](z_GBC)
        for layer in self.mixer:
            y_GBC = layer(y_GBC, bases)
        return z_GBC + y_GBC

    def attended(self, qkv_GBC: Tensor) -> Tensor:
        """Return what tokens see of each other.

        Args:
            qkv_GBC: q, k and v of every token side by side, [*grid, B T, 3 C].

        Returns:
            [*grid, B T, C].
        """
        *grid, _, width = qkv_GBC.shape
        qkv = qkv_GBC.reshape(prod(grid), -1, self.num_tokens, 3, self.heads, width // (3 * self.heads))
        q_NBTHD, k_NBTHD, v_NBTHD = qkv.unbind(3)
        products_BHTT = torch.einsum("nbihd,nbjhd->bhij", q_NBTHD, k_NBTHD) / prod(grid)
        shares_BHTT = (products_BHTT / q_NBTHD.shape[-1] ** 0.5).softmax(dim=-1)
        return torch.einsum("bhij,nbjhd->nbihd", shares_BHTT, v_NBTHD).reshape(*grid, -1, width // 3)
