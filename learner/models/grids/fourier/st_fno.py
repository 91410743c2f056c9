"""ST-FNO (Cao et al., 2024): spectral convolutions in space and time.

The source is arXiv 2405.17211.

Axes:  B batch, C channels, S scalars, *grid = X, Y, Z the axes of the fields' grid, k given frames, m predicted ones,
       T = k + m.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from penstock.geometry import Grid
from penstock.layout import Layout
from penstock.learner.models.frames import FrameLayout, Persistence, numbers
from penstock.learner.models.grids.fourier.spectral import (
    Bases,
    SpectralConvolution,
    checked_modes,
    fourier_bases,
    require_points,
)
from penstock.learner.models.grids.inputs import GridLayout, channels_first, channels_last, with_coordinates
from penstock.learner.models.options import require_positive
from penstock.learner.optimizers import Recipe

TIME_MODES = 5  # by default
NUM_WAVES = 4  # of the time, with 1 to 4 half periods from the last given frame to the last predicted one
PADDING = 1.0  # of the time axis: as long as itself, so that the first frames don't see the last ones around the end


class STFNO(nn.Module):
    """The space-time FNO on a grid of 1 to 3 axes, with a further axis of frames.

    The k given frames and m places for those to predict, where the last given one stands at first, are T points of a
    further axis t. Channels at each point are lifted to `width`, and `layers` times

        v ← σ(F(K v) + W v);   the last layer has no σ,

    where K is a convolution in space and time at once, truncated to the lowest modes, W is linear at each point, F a
    net of two layers at each point, and σ = GELU. Then frame l of the m ones is

        u_l = a_l u_last + b_l + Q v(l),

    Q a net of two layers at each point. a and b are 1 and 0 at first, and act on the quantities that are given; others
    are Q v alone. The time, from 0 at the last given frame to 1 at the last of all, its sines and cosines, and the
    centres of the cells are further channels. Time is padded by zeros, since it is not periodic.

    `buffer.draw: {name: windows, inputs: k, outputs: m}` gives k frames and asks for m; `trajectories` ask for all from
    one. Without frames, k = m = 1, where an FNO does as well for half the work. The source's output layer is one more K
    with a bias for each mode, and its flows are projected to be free of divergence; both are left out.

    Once built, a model takes any resolution in space with at least 2 * modes points along each axis.

    Args:
        layout: layout of batches.
        width: number of channels inside, at least 1. Good values: 16 to 32.
        modes: number of Fourier modes kept along each axis of space, of either sign: one number for all axes or one for
            each, at most half the points of its axis. None takes 12, or half the points of an axis with fewer than 24.
        time_modes: number of Fourier modes kept along time, at most T. None takes 5, or T if it is less.
        layers: number of spectral layers, at least 1. Good value: 4.

    Raises:
        ValueError: the layout or its grid does not allow these options.
    """

    accepts = (Grid,)
    resolution_free = (Grid,)
    recipe = Recipe("muon", 2e-2)

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 16,
        modes: int | Sequence[int] | None = None,
        time_modes: int | None = None,
        layers: int = 4,
    ):
        super().__init__()
        require_positive("st_fno", width=width, layers=layers)
        of = GridLayout.of(layout, "st_fno")
        self.modes = checked_modes("st_fno", modes, of.grid.shape)
        frames = FrameLayout.of(layout)
        num_frames = len(frames.given) + frames.num_predicted
        if time_modes is None:
            time_modes = min(TIME_MODES, num_frames)
        if not 1 <= time_modes <= num_frames:
            raise ValueError(
                f"st_fno: time_modes must be from 1 to the number of frames, given and predicted, which is "
                f"{num_frames}, not {time_modes}"
            )
        self.time_modes = time_modes
        num_outputs = of.num_outputs // frames.num_predicted
        self.num_given, self.num_predicted = len(frames.given), frames.num_predicted
        states = [channel for frame in frames.given for channel in frame]
        self.register_buffer("states", numbers(states), persistent=False)
        self.register_buffer("others", numbers(frames.others), persistent=False)
        self.lift = nn.Linear(len(frames.given[0]), width)
        self.lift_rest = nn.Linear(of.num_channels - len(states), width)
        self.lift_time = nn.Linear(2 + 2 * NUM_WAVES, width, bias=False)
        self.layers = nn.ModuleList(
            SpaceTimeLayer(width, (*self.modes, time_modes), is_last=number == layers - 1) for number in range(layers)
        )
        self.project = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, num_outputs))
        is_carried = any(source is not None for source in frames.carried)
        self.persistence = Persistence(frames) if is_carried else None

    def forward(self, fields: Tensor, scalars: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """Predict the outputs on the grid.

        Args:
            fields: input fields [B, C, *grid].
            scalars: input scalars [B, S], if there are any.
            weights: quadrature weights [B, *grid] of a masked grid; 0 is outside the domain.

        Returns:
            The outputs, [B, C, *grid].

        Raises:
            ValueError: an axis has too few points for the model's modes.
        """
        grid = fields.shape[2:]
        require_points("st_fno", grid, self.modes)
        rest = with_coordinates(fields.index_select(1, self.others), scalars, weights)
        states_BTC = fields.index_select(1, self.states).unflatten(1, (self.num_given, -1))
        lifted = self.lift(states_BTC.movedim((1, 0, 2), (-3, -2, -1)))
        last = lifted.narrow(-3, self.num_given - 1, 1).expand(*[-1] * len(grid), self.num_predicted, -1, -1)
        x_GTBC = torch.cat([lifted, last], dim=-3) + self.lift_rest(channels_last(rest)).unsqueeze(-3)
        x_GTBC = x_GTBC + self.lift_time(times_of(self.num_given, self.num_predicted, fields))[:, None]
        bases = [fourier_bases(*sizes, fields) for sizes in zip(grid, self.modes, strict=True)]
        bases.append(fourier_bases(self.num_given + self.num_predicted, self.time_modes, fields, PADDING))
        for layer in self.layers:
            x_GTBC = layer(x_GTBC, bases)
        y_GBTC = self.project(x_GTBC.narrow(-3, self.num_given, self.num_predicted)).transpose(-3, -2)
        if self.persistence is not None:
            y_GBTC = y_GBTC + self.persistence(channels_last([fields]))
        return channels_first(y_GBTC.flatten(-2))


def times_of(num_given: int, num_predicted: int, like: Tensor) -> Tensor:
    """Return what is known of the time of each frame.

    Args:
        num_given: number k of given frames.
        num_predicted: number m of predicted ones.
        like: tensor with the data type and device of the result.

    Returns:
        [T, 2 + 2 * NUM_WAVES]: the time t, in units of that from the last given frame to the last of all; whether the
        frame is given; cosines and sines of π j t.
    """
    steps = torch.arange(num_given + num_predicted, dtype=like.dtype, device=like.device)
    times = (steps - (num_given - 1)) / num_predicted
    phases = [math.pi * (number + 1) * times for number in range(NUM_WAVES)]
    is_given = (steps < num_given).to(like.dtype)
    return torch.stack([times, is_given, *(wave(p) for p in phases for wave in (torch.cos, torch.sin))], dim=1)


class SpaceTimeLayer(nn.Module):
    """One layer of an ST-FNO, as its docstring has it.

    Args:
        width: number of channels.
        modes: number of modes along each axis of space, and along time.
        is_last: whether there is no σ at the end.
    """

    def __init__(self, width: int, modes: Sequence[int], *, is_last: bool):
        super().__init__()
        self.spectral = SpectralConvolution(width, modes)
        self.net = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.pointwise = nn.Linear(width, width, bias=False)
        self.activation = nn.Identity() if is_last else nn.GELU()

    def forward(self, x_GTBC: Tensor, bases: Bases) -> Tensor:
        """Apply the layer to [*grid, T, B, C], with `fourier_bases` of every axis."""
        return self.activation(self.net(self.spectral(x_GTBC, bases)).add_(self.pointwise(x_GTBC)))
