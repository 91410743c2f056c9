"""MP-PDE (Brandstetter et al., ICLR 2022): messages, and frames in bundles.

The source is arXiv 2202.03376, section 3.2.

Axes:  B batch, P points, E directed edges, C channels, m predicted frames, d dimensions of space.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from penstock.layout import Layout
from penstock.learner.models.frames import FrameLayout, Persistence, numbers
from penstock.learner.models.options import require_positive
from penstock.learner.models.points.graphs.edges import EdgeModel, arriving
from penstock.learner.models.points.sites import Sites

CHANNELS = 8  # of the decoder
KERNEL, SECOND_KERNEL = 16, 13  # of its convolutions, about: sizes must meet in m frames


class MPPDE(EdgeModel):
    """Sends messages along edges, then predicts several frames at once.

        h_i = ε(u_i, x_i, θ),   m_ij = φ(h_i, h_j, u_i - u_j, x_i - x_j, θ),   h_i += ψ(h_i, mean_j m_ij, θ)

    u are the given frames, θ the scalars, and the mean is over the points j that an edge joins to i; edges go both
    ways, and `EdgeModel` scales x_i - x_j. ε, φ and ψ are nets with two layers and SiLU. After each of the `layers`
    rounds, every channel of h has mean 0 and variance 1 over the domain, by quadrature weights. At a point the `width`
    channels of h are then a signal, which two convolutions take to a slope d_l for each frame l of m (temporal
    bundling):

        u_l = a_l u_last + b_l + (l / m) d_l

    a and b are 1 and 0 at first. `buffer.draw: {name: windows, inputs: k, outputs: m}` gives k frames and asks for m;
    without frames, k = m = 1. Quantities that are predicted and not given are the d_l alone.

    As MeshGraphNet it is no operator: edges are those of the mesh, so refining it changes the function, and what
    happens at a point reaches `layers` edges far, and through the norms everywhere. The paper takes width 128,
    6 layers, k = m = 25, and pushforward in training.

    Args:
        layout: layout of batches.
        width: number C of channels, at least 2 and at least about the number of frames. Good values: 32 to 128.
        layers: number of rounds of messages, at least 1. Good value: 6.

    Raises:
        ValueError: not all fields sit on one mesh or one set of points, its samples bring no edges, an output is a
            scalar, an option is out of range, or there is no input.
    """

    def __init__(self, layout: Layout, *, width: int = 32, layers: int = 6):
        super().__init__(layout, "mp_pde")
        require_positive("mp_pde", width=width, layers=layers)
        frames = FrameLayout.of(layout)
        (self.num_scalars,) = layout.shapes.get("scalars", (0,))
        states = [self.dimension + channel for frame in frames.given for channel in frame]
        self.register_buffer("states", numbers(states), persistent=False)  # of the inputs at a point
        num_frames, num_outputs = frames.num_predicted, self.num_outputs // frames.num_predicted
        kernel = min(KERNEL, max(1, width // 2))
        if width - kernel + 1 < num_frames:
            raise ValueError(
                f"mp_pde: a width of {width} is too small for {num_frames} frames: take at least "
                f"{num_frames + min(KERNEL, num_frames)}"
            )
        stride = max(1, (width - kernel) // (num_frames + SECOND_KERNEL - 1))
        second_kernel = (width - kernel) // stride + 2 - num_frames
        differences = len(states) + self.dimension + self.num_scalars
        self.embed = _net(self.num_inputs, width)
        self.messages = nn.ModuleList(_net(2 * width + differences, width) for _ in range(layers))
        self.updates = nn.ModuleList(_net(2 * width + self.num_scalars, width) for _ in range(layers))
        self.decode = nn.Sequential(
            nn.Conv1d(1, CHANNELS, kernel, stride=stride), nn.SiLU(), nn.Conv1d(CHANNELS, num_outputs, second_kernel)
        )
        self.persistence = None
        times = torch.ones(num_frames, num_outputs, device="cpu")  # has values even if the model is on the meta device
        if any(source is not None for source in frames.carried):
            self.persistence = Persistence(frames)
            shares = torch.arange(1, num_frames + 1, device="cpu") / num_frames
            times = times + self.persistence.is_carried * (shares[:, None] - 1)
        self.register_buffer("times", times, persistent=False)

    def at_points(self, inputs_BPC: Tensor, sites: Sites) -> Tensor:
        """Predict the outputs as rows, see `PointModel`."""
        batch_size, num_points, num_inputs = inputs_BPC.shape
        sender_E, receiver_E, is_there_E1 = self.ends(sites)
        inputs_PC = inputs_BPC.flatten(0, 1)
        scalars_PC = inputs_PC[:, num_inputs - self.num_scalars :]
        places_PC = sites.points.flatten(0, 1) / self.spacing
        compared_PC = torch.cat([inputs_PC.index_select(1, self.states), places_PC], dim=1)
        apart_EC = torch.cat([compared_PC[receiver_E] - compared_PC[sender_E], scalars_PC[receiver_E]], dim=1)
        num_PC = arriving(torch.ones_like(apart_EC[:, :1]), receiver_E, is_there_E1, batch_size * num_points)
        h_PC = self.embed(inputs_PC)
        for message, update in zip(self.messages, self.updates, strict=True):
            m_EC = message(torch.cat([h_PC[receiver_E], h_PC[sender_E], apart_EC], dim=1))
            sums_PC = arriving(m_EC, receiver_E, is_there_E1, batch_size * num_points)
            means_PC = (sums_PC / num_PC.clamp_min(1)).to(h_PC.dtype)
            h_PC = h_PC + update(torch.cat([h_PC, means_PC, scalars_PC], dim=1))
            h_BPC = h_PC.unflatten(0, (batch_size, num_points))
            h_BPC = h_BPC - sites.mean(h_BPC)[:, None]
            h_PC = (h_BPC * torch.rsqrt(sites.mean(h_BPC.square()) + 1e-5)[:, None]).flatten(0, 1)
        slopes_BPmC = self.decode(h_PC[:, None]).transpose(1, 2).unflatten(0, (batch_size, num_points))
        predicted = slopes_BPmC * self.times
        if self.persistence is not None:
            predicted = predicted + self.persistence(inputs_BPC[..., self.dimension :])
        return predicted.flatten(2)


def _net(num_inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(num_inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
