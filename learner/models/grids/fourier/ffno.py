"""The factorised Fourier neural operator: deep, with few parameters.

The source is Tran et al., ICLR 2023, arXiv 2111.13802.

Axes:  B batch, C channels, S scalars, *grid = X, Y, Z the axes of the fields' grid.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from penstock.layout import Layout
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


class FFNO(LiftedModel):
    """The factorised Fourier neural operator on a grid of 1 to 3 axes.

    It lifts the inputs to `width` channels, applies `layers` times a sum of convolutions K_a along one axis each, and
    a net F of two layers at each point with ReLU between them, and projects to the outputs:

        v ← v + F(Σ_a K_a v).

    A layer's convolutions have 2 C² m parameters for each axis instead of 4 C² m² in two dimensions, so more layers
    and modes cost little. Input channels are those of the FNO. Once built, a model takes any resolution with at least
    2 * modes points along each axis.

    Args:
        layout: layout of batches.
        width: number of channels inside, at least 1. Good values: 32 to 64.
        modes: number of Fourier modes kept along each axis, one number for all axes or one for each, at most half the
            points of its axis. None takes 12, or half the points of an axis with fewer than 24. Good values: 12 to 32.
        layers: number of layers, at least 1. Good values: 4 to 24.

    Raises:
        ValueError: the layout or its grid does not allow these options.
    """

    def __init__(self, layout: Layout, *, width: int = 32, modes: int | Sequence[int] | None = None, layers: int = 4):
        super().__init__()
        require_positive("ffno", width=width, layers=layers)
        of = GridLayout.of(layout, "ffno")
        self.modes = checked_modes("ffno", modes, of.grid.shape)
        self.lift = nn.Linear(of.num_channels, width)
        self.layers = nn.ModuleList(FactorisedLayer(width, self.modes) for _ in range(layers))
        self.project = nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, of.num_outputs))

    def on_grid(self, x_GBC: Tensor, like: Tensor) -> Tensor:
        """See `LiftedModel.on_grid`."""
        grid = x_GBC.shape[:-2]
        require_points("ffno", grid, self.modes)
        bases = [fourier_bases(*sizes, like) for sizes in zip(grid, self.modes, strict=True)]
        for layer in self.layers:
            x_GBC = x_GBC + layer(x_GBC, bases)
        return x_GBC


class FactorisedLayer(nn.Module):
    """The branch F(Σ_a K_a v) of one layer.

    Args:
        width: number of channels; there are four times as many between the two layers of F.
        modes: modes along each axis.
    """

    def __init__(self, width: int, modes: Sequence[int]):
        super().__init__()
        self.spectral = nn.ModuleList(SpectralConvolution(width, (number,)) for number in modes)
        self.net = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, x_GBC: Tensor, bases: Bases) -> Tensor:
        """Apply the branch to [*grid, B, C], with `fourier_bases` of every axis."""
        total = 0
        for axis, (spectral, basis) in enumerate(zip(self.spectral, bases, strict=True)):
            lines = x_GBC.movedim(axis, 0)  # all other axes are a batch
            convolved = spectral(lines.flatten(1, -2), [basis])
            total = total + convolved.reshape(lines.shape).movedim(0, axis)
        return self.net(total)
