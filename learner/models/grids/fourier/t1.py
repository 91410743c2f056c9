"""Transform once: all layers act on the coefficients of one cosine transform.

The source is Poli et al., NeurIPS 2022, arXiv 2211.14453.

Axes:  B batch, C channels, S scalars, *grid = X, Y, Z the axes of the fields' grid, M kept modes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penstock.layout import Layout
from penstock.learner.models.grids.fourier.spectral import along_axis, checked_modes, require_points
from penstock.learner.models.grids.inputs import GridLayout
from penstock.learner.models.grids.lifted import LiftedModel
from penstock.learner.models.options import require_positive
from penstock.learner.models.parameters import normal

MODES = 24  # along an axis, by default


class T1(LiftedModel):
    """The transform-once operator on a grid of 1 to 3 axes.

    The inputs are lifted at each point to `width` channels, whose cosine transform keeps the wave numbers π k, k = 0 to
    m - 1, along each axis. On these coefficients z(k), `layers` times

        z ← z + M_1 ... M_d σ(R z),

    with a real matrix R(k) of the channels for each wave vector, and for each channel and axis a an m x m matrix M_a
    that mixes wave numbers; σ = GELU. A net of two layers without biases at each wave vector gives the coefficients of
    the outputs, and the sum of their cosines the outputs. Nothing is computed on the grid but the lift, so layers cost
    the same on every grid, and outputs have no more than m modes along an axis. Cosines need no periodic fields.

    But all of them are flat at the ends of an axis. Of outputs that are not, such as those that vanish on the boundary,
    coefficients fall as k^-2, and the relative L2 error can't go below what the other cosines hold: of solutions of
    `darcy`, 0.9 % at 64 x 64 and 1.1 % at 128 x 128 with m = 24, 2 % with m = 16, 0.5 to 0.7 % with m = 32.

    Coefficients are scaled so that the sum of their squares is the number of modes times the mean square of the field,
    whatever the grid. So the relative error of a field is, by Parseval's identity, that of its coefficients, which the
    paper trains by. Input channels are those of the FNO. Once built, a model takes any resolution with at least m
    points along each axis.

    Args:
        layout: layout of batches.
        width: number of channels inside, at least 1. Good values: 24 to 48.
        modes: number m of cosines kept along each axis, one number for all axes or one for each, at most the number of
            its points. None takes 24, or as many as there are points. Good values: 16 to 32.
        layers: number of layers, at least 1. Good values: 4 to 8.

    Raises:
        ValueError: the layout or its grid does not allow these options.
    """

    def __init__(self, layout: Layout, *, width: int = 32, modes: int | Sequence[int] | None = None, layers: int = 4):
        super().__init__()
        require_positive("t1", width=width, layers=layers)
        of = GridLayout.of(layout, "t1")
        self.modes = checked_modes("t1", modes, of.grid.shape, default=MODES, points_per_mode=1)
        self.lift = nn.Sequential(nn.Linear(of.num_channels, width), nn.GELU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(ModeMixing(width, self.modes) for _ in range(layers))
        self.head = nn.Sequential(
            nn.Linear(width, 128, bias=False), nn.GELU(), nn.Linear(128, of.num_outputs, bias=False)
        )
        self.project = nn.Identity()

    def on_grid(self, x_GBC: Tensor, like: Tensor) -> Tensor:
        """See `LiftedModel.on_grid`."""
        *grid, batch_size, _ = x_GBC.shape
        require_points("t1", grid, self.modes, points_per_mode=1)
        bases = [cosine_bases(*sizes, like) for sizes in zip(grid, self.modes, strict=True)]
        z = x_GBC
        for axis, (analysis, _) in enumerate(bases):
            z = along_axis(analysis, z.reshape(prod(self.modes[:axis]), grid[axis], -1))
        z_KBC = z.reshape(*self.modes, batch_size, -1)
        for layer in self.layers:
            z_KBC = z_KBC + layer(z_KBC)
        values = self.head(z_KBC)
        for axis in reversed(range(len(grid))):
            values = along_axis(bases[axis][1], values.reshape(prod(self.modes[:axis]), self.modes[axis], -1))
        return values.reshape(*grid, batch_size, -1)


def cosine_bases(num_points: int, modes: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the matrices to coefficients of cosines along an axis, and back.

    The values sit at the centres of n cells.

    Args:
        num_points: number n of points.
        modes: number m of modes.
        like: tensor with the data type and device of the result.

    Returns:
        The analysis [m, n], which is √m times the means against 1 and √2 cos(π k x), k = 1 to m - 1; and the synthesis
        [n, m], which undoes it for a sum of these cosines.
    """
    wave_numbers = torch.arange(modes, dtype=like.dtype, device=like.device)
    points = torch.arange(num_points, dtype=like.dtype, device=like.device) + 0.5
    period = 2 * num_points
    # modulo the period is exact; without it float32 would lose digits of the phase
    phases = (2 * math.pi / period) * torch.remainder(wave_numbers[:, None] * points, period)
    cosines = phases.cos() * torch.where(wave_numbers == 0, 1.0, math.sqrt(2))[:, None]
    return cosines * (math.sqrt(modes) / num_points), cosines.T / math.sqrt(modes)


class ModeMixing(nn.Module):
    """The map M_1 ... M_d σ(R z) of T1's docstring.

    Args:
        width: number of channels.
        modes: modes along each axis.
    """

    def __init__(self, width: int, modes: Sequence[int]):
        super().__init__()
        self.channels = normal([prod(modes), width, width], 1 / math.sqrt(width))
        self.modes = nn.ParameterList(normal([width, number, number], 1 / math.sqrt(number)) for number in modes)

    def forward(self, z_KBC: Tensor) -> Tensor:
        """Apply the map to coefficients [*modes, B, C]."""
        y = F.gelu(torch.bmm(z_KBC.flatten(0, -3), self.channels)).reshape(z_KBC.shape)
        for axis, matrices in enumerate(self.modes):
            lines = y.movedim(axis, 0)
            mixed = torch.einsum("ckl,lnc->knc", matrices, lines.flatten(1, -2))
            y = mixed.reshape(lines.shape).movedim(0, axis)
        return y
