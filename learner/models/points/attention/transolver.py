"""Transolver (Wu et al., ICML 2024): attention among slices of the domain.

The sources are arXiv 2402.02366 and, of what `plus` adds, 2502.02414.

Axes:  B batch, P points, C channels, H heads, c channels of a head, G slices.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penstock.layout import Layout
from penstock.learner.models.options import require_positive
from penstock.learner.models.points.sites import PointModel, Sites, net

TEMPERATURE = 0.5  # of a head at first
EMPTY = 1e-8  # share of the domain below which a slice fades to 0


class Transolver(PointModel):
    """A transformer whose tokens are means over slices of the domain, which it learns.

    The inputs at each point (place x, fields a(x), scalars s) are lifted to C channels. Each of `layers` blocks adds
    first physics attention, then a fully connected net, both of layer-normalised channels. In each head

        p_g(x) = softmax_g(S z(x) / τ),   t_g = ∫ p_g f dx / ∫ p_g dx,   out(x) = Σ_g p_g(x) t'_g,

    z and f are linear in the channels, t' is what softmax attention among the G tokens t gives. τ is e^θ / 2 with a
    parameter θ, 0 at first, or with `plus` a net θ of z(x): above 0, and trained wherever it is, which the clamp in the
    authors' codes would end at its bounds. S starts orthogonal, so that all channels of z have an equal say in the
    slices. Integrals are sums by quadrature weights, so points may come in any order and number, refining them changes
    little, and padding changes nothing. The cost grows with P, not with its square. On grids the paper takes
    convolutions for z and f; here they are linear everywhere, and the model does not know which points are neighbours.

    Wu et al. take width 128, 8 heads, 8 layers, 64 slices (32 for car flows at width 256).

    Args:
        layout: layout of batches.
        width: number C of channels, a multiple of `heads`. Good values: 64 to 256.
        heads: number of heads, at least 1. Good values: 4 to 8.
        layers: number of blocks, at least 1. Good values: 4 to 8.
        slices: number G of slices, at least 1. Good values: 16 to 64.
        ratio: neurons of each block's hidden layer per channel, at least 1. Good values: 1 or 2.
        plus: whether to do as Transolver++ does: f = z, each point has a temperature τ(x), and in training Gumbel noise
            is added to S z. It needs half the memory; others found it no more accurate.

    Raises:
        ValueError: not all fields sit on one geometry, an output is a scalar, or an option is out of its range.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 64,
        heads: int = 4,
        layers: int = 4,
        slices: int = 32,
        ratio: int = 1,
        plus: bool = False,
    ):
        super().__init__(layout, "transolver")
        require_positive("transolver", width=width, heads=heads, layers=layers, slices=slices, ratio=ratio)
        if width % heads:
            raise ValueError(f"transolver: width must be a multiple of heads, and {width} is none of {heads}")
        self.lift = net(self.num_inputs, 2 * width, width)
        self.blocks = nn.ModuleList(_Block(width, heads, slices, ratio, plus) for _ in range(layers))
        self.project = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, self.num_outputs))

    def at_points(self, inputs_BPC: Tensor, sites: Sites) -> Tensor:
        """Predict the outputs as rows, see `PointModel`."""
        h_BPC = self.lift(inputs_BPC)
        for block in self.blocks:
            h_BPC = block(h_BPC, sites.shares)
        return self.project(h_BPC)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, slices: int, ratio: int, plus: bool):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = PhysicsAttention(width, heads, slices, plus=plus)
        self.net = net(width, ratio * width, width)

    def forward(self, h_BPC: Tensor, shares_BP: Tensor) -> Tensor:
        h_BPC = h_BPC + self.attention(self.norms[0](h_BPC), shares_BP)
        return h_BPC + self.net(self.norms[1](h_BPC))


class PhysicsAttention(nn.Module):
    """Attention among means over slices; the equations are in `Transolver`.

    S, the temperature's net and the maps to queries, keys and values of tokens are shared by the heads.

    Args:
        width: number C of channels.
        heads: number of heads.
        slices: number G of slices.
        plus: as in `Transolver`.
    """

    def __init__(self, width: int, heads: int, slices: int, *, plus: bool):
        super().__init__()
        self.heads, self.plus = heads, plus
        size = width // heads
        self.places = nn.Linear(width, width)
        self.slices = nn.Linear(size, slices)
        nn.init.orthogonal_(self.slices.weight)
        if plus:
            self.temperature = net(size, slices, 1)
        else:
            self.values = nn.Linear(width, width)
            self.temperatures = nn.Parameter(torch.zeros(heads, 1, 1))  # the θ of `Transolver`
        self.tokens = nn.Linear(size, 3 * size, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, h_BPC: Tensor, shares_BP: Tensor) -> Tensor:
        """Attend.

        Args:
            h_BPC: activations.
            shares_BP: what each point counts; their sum is 1.

        Returns:
            [B, P, C].
        """
        z_BPHc = self.places(h_BPC).unflatten(2, (self.heads, -1))
        f_BPHc = z_BPHc if self.plus else self.values(h_BPC).unflatten(2, (self.heads, -1))
        p_HBPG = self.slices_at(z_BPHc, shares_BP.dtype)
        # Points and tokens have fewer channels than slices, so they are weighed and divided rather than p.
        counts_BP = shares_BP * shares_BP.shape[1]
        sums_HBG1 = p_HBPG.transpose(2, 3) @ counts_BP[..., None]
        t_HBGc = p_HBPG.transpose(2, 3) @ (f_BPHc * counts_BP[..., None, None]).permute(2, 0, 1, 3)
        t_HBGc = t_HBGc / (sums_HBG1 + EMPTY * shares_BP.shape[1])
        t_HBGc = F.scaled_dot_product_attention(*self.tokens(t_HBGc).chunk(3, dim=-1))
        return self.out((p_HBPG @ t_HBGc).permute(1, 2, 0, 3).flatten(2))

    def slices_at(self, z_BPHc: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the share of each slice in each point.

        Args:
            z_BPHc: the places of the points among the slices.
            dtype: of the shares.

        Returns:
            [H, B, P, G].
        """
        if not self.plus:
            # Divided by temperatures before the slices: there are fewer channels of a head than slices.
            colds_H11 = (-self.temperatures).exp() / TEMPERATURE
            z_HRc = (z_BPHc * colds_H11[..., 0]).flatten(0, 1).transpose(0, 1)
            weight_HcG = self.slices.weight.T.expand(self.heads, -1, -1)
            logits_HRG = torch.baddbmm(self.slices.bias * colds_H11, z_HRc, weight_HcG)
            return torch.softmax(logits_HRG, dim=-1, dtype=dtype).unflatten(1, z_BPHc.shape[:2])
        z_HBPc = z_BPHc.permute(2, 0, 1, 3)
        logits_HBPG = self.slices(z_HBPc)
        if self.training:
            logits_HBPG = logits_HBPG - torch.empty_like(logits_HBPG).exponential_().log()
        colds_HBP1 = (-self.temperature(z_HBPc)).exp() / TEMPERATURE
        return torch.softmax(logits_HBPG * colds_HBP1, dim=-1, dtype=dtype)
