"""The FNO with local differential and integral kernels.

The source is Liu-Schiaffini et al., ICML 2024, arXiv 2402.16845.

Axes:  B batch, C channels, S scalars, *grid = X, Y, Z the axes of the fields' grid, M kept modes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from penstock.layout import Layout
from penstock.learner.models.grids.fourier.spectral import (
    Bases,
    SpectralConvolution,
    along_axis,
    checked_modes,
    fourier_bases,
    require_points,
)
from penstock.learner.models.grids.inputs import GridLayout
from penstock.learner.models.grids.lifted import LiftedModel
from penstock.learner.models.options import require_positive
from penstock.learner.optimizers import Recipe

KNOTS = (-1, 0, 1)  # of a local kernel along an axis, in units of half its reach


class LocalNO(LiftedModel):
    """The localised Fourier neural operator on a grid of 1 to 3 axes.

    It is the FNO with two more terms in every layer but no option,

        v ← σ(K v + D v + I v + W v);   the last layer has no σ.

    D is a differential operator of first order, Σ_a B_a r ∂_a with a matrix B_a for each axis, by central differences.
    I is an integral with a kernel that reaches r around each point. The kernel is a matrix at each of 3 points along
    each axis, -r/2, 0 and r/2, linear in between and 0 from r on. Lengths are in units of the domain's edge, and r =
    `radius`. So both are the same operators on every grid, up to the square of its spacing. Where a cell has the length
    r / 2, I is a convolution by 3 points along each axis; where it is longer, values between the centres are linear.
    Both wrap around periodic axes. Beyond the ends of others v goes on, linearly for D and as a constant for I.

    The paper's D is a stencil of zero mean, which tends to the same operators under refinement, and the kernels of its
    I are linear in polar coordinates. Input channels are those of the FNO, except that the coordinate along a periodic
    axis is given by cosine and sine: D would see a jump. Once built, a model takes any resolution with at least
    2 * modes points along each axis.

    Args:
        layout: layout of batches.
        width: number of channels inside, at least 1. Good values: 24 to 64.
        modes: number of Fourier modes kept along each axis, one number for all axes or one for each, at most half the
            points of its axis. None takes 12, or half the points of an axis with fewer than 24. Good values: 12 to 16.
        layers: number of layers, at least 1. Good value: 4.
        radius: reach r of the local kernels as a part of each axis, above 0 and at most 0.5. Good values: 2 to 4 cells.

    Raises:
        ValueError: the layout or its grid does not allow these options.
    """

    recipe = Recipe("muon", 6e-3)

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 24,
        modes: int | Sequence[int] | None = None,
        layers: int = 4,
        radius: float = 0.0625,
    ):
        super().__init__()
        require_positive("localno", width=width, layers=layers)
        if not 0 < radius <= 0.5:
            raise ValueError(f"localno: radius must be above 0 and at most 0.5, not {radius}")
        of = GridLayout.of(layout, "localno")
        self.modes = checked_modes("localno", modes, of.grid.shape)
        self.radius, self.on_circle = radius, of.grid.periodic
        self.lift = nn.Linear(of.num_channels + sum(self.on_circle), width)
        self.layers = nn.ModuleList(
            LocalLayer(width, self.modes, is_last=number == layers - 1) for number in range(layers)
        )
        self.project = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, of.num_outputs))

    def on_grid(self, x_GBC: Tensor, like: Tensor) -> Tensor:
        """See `LiftedModel.on_grid`."""
        grid = x_GBC.shape[:-2]
        require_points("localno", grid, self.modes)
        bases = [fourier_bases(*sizes, like) for sizes in zip(grid, self.modes, strict=True)]
        windows = [
            local_averages(num_points, self.radius, is_periodic, x_GBC)
            for num_points, is_periodic in zip(grid, self.on_circle, strict=True)
        ]
        for layer in self.layers:
            x_GBC = layer(x_GBC, bases, windows, gradient(x_GBC, self.radius, self.on_circle))
        return x_GBC


class LocalLayer(nn.Module):
    """One layer of a LocalNO, as its docstring has it.

    Args:
        width: number of channels.
        modes: modes along each axis.
        is_last: whether there is no σ at the end.
    """

    def __init__(self, width: int, modes: Sequence[int], *, is_last: bool):
        super().__init__()
        self.spectral = SpectralConvolution(width, modes)
        self.pointwise = nn.Linear(width, width)
        self.differential = nn.Linear(len(modes) * width, width, bias=False)
        self.integral = nn.Linear(len(KNOTS) ** len(modes) * width, width, bias=False)
        self.activation = nn.Identity() if is_last else nn.GELU()

    def forward(self, x_GBC: Tensor, bases: Bases, windows: Sequence[Tensor], gradient_GBC: Tensor) -> Tensor:
        """Apply the layer to activations.

        Args:
            x_GBC: activations [*grid, B, C].
            bases: `fourier_bases` of every axis.
            windows: `local_averages` of every axis.
            gradient_GBC: `gradient` of the activations.

        Returns:
            [*grid, B, C].
        """
        y_GBC = self.pointwise(x_GBC).add_(self.spectral(x_GBC, bases))
        y_GBC = y_GBC.add_(self.differential(gradient_GBC)).add_(self.integral(averages(x_GBC, windows)))
        return self.activation(y_GBC)


def gradient(x_GBC: Tensor, length: float, periodic: Sequence[bool]) -> Tensor:
    """Return central differences along every axis, times a length.

    At the ends of an axis that is not periodic, values go on linearly.

    Args:
        x_GBC: activations [*grid, B, C].
        length: the length, as a part of each axis.
        periodic: whether each axis is periodic.

    Returns:
        [*grid, B, axes C].
    """
    differences = []
    for axis, is_periodic in enumerate(periodic):
        num_points = x_GBC.shape[axis]
        first, second, next_to_last, last = (
            x_GBC.narrow(axis, start, 1) for start in (0, 1, num_points - 2, num_points - 1)
        )
        ends = (last, first) if is_periodic else (2 * first - second, 2 * last - next_to_last)
        extended = torch.cat([ends[0], x_GBC, ends[1]], dim=axis)
        difference = extended.narrow(axis, 2, num_points) - extended.narrow(axis, 0, num_points)
        differences.append(difference * (length * num_points / 2))
    return torch.cat(differences, dim=-1)


def local_averages(num_points: int, radius: float, is_periodic: bool, like: Tensor) -> Tensor:
    """Return averages along an axis around each of KNOTS, as seen from each point.

    Their weights fall linearly from the knot to half the radius on either side, or to one cell if that is longer.
    Beyond the ends of an axis that is not periodic the outermost values go on.

    Args:
        num_points: number n of points, at the centres of cells.
        radius: the radius, as a part of the axis.
        is_periodic: whether the axis is periodic.
        like: tensor with the data type and device of the result.

    Returns:
        [3 n, n], where the rows of one point are neighbours.
    """
    half = like.new_full((), radius / 2) * num_points  # of the radius, in cells
    knots = torch.tensor(KNOTS, dtype=like.dtype, device=like.device) * half

    def weights(offsets: Tensor) -> Tensor:
        return (1 - (offsets[:, None] - knots[:, None]).abs() / half.clamp_min(1)).clamp_min(0)

    points = torch.arange(num_points, dtype=like.dtype, device=like.device)
    unbounded = torch.arange(2 * num_points + 1, dtype=like.dtype, device=like.device) - num_points
    sums = weights(unbounded[None]).sum(dim=2, keepdim=True)
    offsets = points - points[:, None]
    found = weights(offsets) / sums
    if is_periodic:
        found = found + (weights(offsets - num_points) + weights(offsets + num_points)) / sums
    else:
        nearest_end = torch.where(points < num_points / 2, 0, num_points - 1)
        is_end = (points == nearest_end[:, None])[:, None]
        found = found + is_end * (1 - found.sum(dim=2, keepdim=True))
    return found.flatten(0, 1)


def averages(x_GBC: Tensor, windows: Sequence[Tensor]) -> Tensor:
    """Return the averages of activations around all knots, the products over all axes.

    Args:
        x_GBC: activations [*grid, B, C].
        windows: `local_averages` of every axis.

    Returns:
        [*grid, B, 3^d C].
    """
    *grid, batch_size, width = x_GBC.shape
    num_axes, before, values = len(grid), 1, x_GBC
    for window, num_points in zip(windows, grid, strict=True):
        values = along_axis(window, values.reshape(before, num_points, -1))
        before = before * window.shape[0]
    values = values.reshape(*(size for num_points in grid for size in (num_points, len(KNOTS))), batch_size, width)
    points_then_knots = [*range(0, 2 * num_axes, 2), 2 * num_axes, *range(1, 2 * num_axes, 2), 2 * num_axes + 1]
    return values.permute(points_then_knots).flatten(num_axes + 1)
