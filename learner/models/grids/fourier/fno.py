"""The Fourier neural operator (Li et al., ICLR 2021), and its later forms.

The sources are arXiv 2010.08895, and arXiv 2310.00120 for factored weights (TFNO).

Axes:  B batch, C channels, S scalars, *grid = X, Y, Z the axes of the fields' grid, M kept modes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from penstock.layout import Layout
from penstock.learner.models.grids.fourier.spectral import (
    Bases,
    SpectralConvolution,
    checked_modes,
    fourier_bases,
    require_points,
)
from penstock.learner.models.grids.fourier.spectral_weights import FACTORED
from penstock.learner.models.grids.inputs import GridLayout
from penstock.learner.models.grids.lifted import LiftedModel
from penstock.learner.models.options import require_one_of, require_positive


class FNO(LiftedModel):
    """The Fourier neural operator on a grid of 1 to 3 axes.

    It lifts the inputs to `width` channels, applies `layers` times a spectral convolution K plus a pointwise linear map
    W, with GELU in between, and projects to the outputs:

        v ← σ(K v + W v);   the last layer has no σ.

    The centres of n cells along each axis, in units of the domain's edge, are further input channels, and so is the
    mask of a domain that does not fill its grid. Nothing else in the model depends on lengths. Once built, a model
    takes any resolution with at least 2 * modes points along each axis.

    Args:
        layout: layout of batches.
        width: number of channels inside, at least 1. Good values: 24 to 64.
        modes: number of Fourier modes kept along each axis, which are the wave numbers 0 to modes - 1 of either sign:
            one number for all axes or one for each, at most half the points of its axis. None takes 12, or half the
            points of an axis with fewer than 24. Good values: 12 to 16.
        layers: number of spectral layers, at least 1. Good value: 4.
        rank: number of parameters of each K as a part of the whole, above 0 and at most 1; K is then factored, which
            is the TFNO. None keeps K whole. Good values: 0.1 to 0.5.
        factors: how K is factored: into a core and a matrix for each axis, or into a sum of products of vectors.
        padding: length of the zeros that K sees behind the values of each axis that is not periodic, as a part of the
            axis, from 0 to 1. Without them K joins opposite sides. Good values where sides differ: 0.1 to 0.25.
        norm: whether each sample's K v is normalised over all points and channels.
        mixing: whether each layer ends with a net of two layers at each point, and a factor for each channel of v:
            v ← σ(norm(f(σ(K v + W v)) + g v)).

    Raises:
        ValueError: the layout or its grid does not allow these options.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 24,
        modes: int | Sequence[int] | None = None,
        layers: int = 4,
        rank: float | None = None,
        factors: Literal["tucker", "cp"] = "tucker",
        padding: float = 0.0,
        norm: bool = False,
        mixing: bool = False,
    ):
        super().__init__()
        require_positive("fno", width=width, layers=layers)
        require_one_of("fno", "factors", factors, tuple(FACTORED))
        if rank is not None and not 0 < rank <= 1:
            raise ValueError(f"fno: rank must be above 0 and at most 1, not {rank}")
        if not 0 <= padding <= 1:
            raise ValueError(f"fno: padding must be from 0 to 1, not {padding}")
        of = GridLayout.of(layout, "fno")
        self.modes = checked_modes("fno", modes, of.grid.shape)
        self.padding = tuple(0 if is_periodic else padding for is_periodic in of.grid.periodic)
        self.lift = nn.Linear(of.num_channels, width)
        self.layers = nn.ModuleList(
            FourierLayer(
                SpectralConvolution(width, self.modes, rank=rank, factors=factors),
                width,
                norm=norm,
                mixing=mixing,
                is_last=number == layers - 1,
            )
            for number in range(layers)
        )
        self.project = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, of.num_outputs))

    def on_grid(self, x_GBC: Tensor, like: Tensor) -> Tensor:
        """See `LiftedModel.on_grid`."""
        grid = x_GBC.shape[:-2]
        require_points("fno", grid, self.modes)
        axes = zip(grid, self.modes, self.padding, strict=True)
        bases = [fourier_bases(num_points, modes, like, padding) for num_points, modes, padding in axes]
        for layer in self.layers:
            x_GBC = layer(x_GBC, bases)
        return x_GBC


class FourierLayer(nn.Module):
    """One layer of an FNO, as its docstring has it.

    Args:
        spectral: the convolution K.
        width: number of channels.
        norm: whether K v is normalised.
        mixing: whether there is a net at each point after the sum.
        is_last: whether there is no σ at the end.
    """

    def __init__(self, spectral: SpectralConvolution, width: int, *, norm: bool, mixing: bool, is_last: bool):
        super().__init__()
        self.spectral = spectral
        self.pointwise = nn.Linear(width, width)
        self.norm = SampleNorm(width) if norm else nn.Identity()
        self.mixing = ChannelMixing(width, norm=norm) if mixing else None
        self.activation = nn.Identity() if is_last else nn.GELU()

    def forward(self, x_GBC: Tensor, bases: Bases) -> Tensor:
        """Apply the layer to [*grid, B, C], with `fourier_bases` of every axis."""
        # in place, because fresh memory takes 3 % of a step
        y_GBC = self.activation(self.pointwise(x_GBC).add_(self.norm(self.spectral(x_GBC, bases))))
        return y_GBC if self.mixing is None else self.activation(self.mixing(y_GBC, x_GBC))


class ChannelMixing(nn.Module):
    """A net of two layers at each point, beside the layer's input.

    The input is multiplied by a factor for each channel.

    Args:
        width: number of channels; there are half as many between the two layers.
        norm: whether the sum is normalised.
    """

    def __init__(self, width: int, *, norm: bool):
        super().__init__()
        hidden = max(1, width // 2)
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.gate = nn.Parameter(torch.ones(width))
        self.norm = SampleNorm(width) if norm else nn.Identity()

    def forward(self, x_GBC: Tensor, before_GBC: Tensor) -> Tensor:
        """Mix activations [*grid, B, C], beside those before the layer."""
        return self.norm(self.net(x_GBC) + self.gate * before_GBC)


class SampleNorm(nn.Module):
    """Brings each sample to mean 0 and variance 1 over all points and channels.

    Then each channel is scaled and shifted.

    Args:
        width: number of channels.
    """

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_GBC: Tensor) -> Tensor:
        """Normalise activations [*grid, B, C]."""
        over = [*range(x_GBC.dim() - 2), x_GBC.dim() - 1]
        variance, mean = torch.var_mean(x_GBC, dim=over, keepdim=True, correction=0)
        return (x_GBC - mean) * torch.rsqrt(variance + 1e-5) * self.weight + self.bias
