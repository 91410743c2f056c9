"""Blocks of transformers, whose keys count by quadrature weights.

Axes:  B batch, Q queries, K keys, C channels, H heads, c channels of a head, d dimensions of space.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NOTHING = 1e-30  # weight of keys that count nothing: its logarithm is finite even if no key counts


class Attention(nn.Module):
    """Softmax attention as a quotient of integrals over the keys.

        out_i = Σ_j w_j e^(q_i·k_j / √c) v_j / Σ_j w_j e^(q_i·k_j / √c)

    Args:
        width: number C of channels.
        heads: number of heads.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.queries = nn.Linear(width, width)
        self.keys = nn.Linear(width, width, bias=False)  # one would add the same to all scores of a query
        self.values = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BQC: Tensor, z_BKC: Tensor, weights_BK: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x_BQC: where queries come from; one batch of queries serves all samples.
            z_BKC: where keys and values come from.
            weights_BK: what each key counts, up to a factor; None if all count alike.

        Returns:
            [B, Q, C].
        """
        k_BHKc, v_BHKc = self._by_head(self.keys(z_BKC)), self._by_head(self.values(z_BKC))
        q_BHQc = self._by_head(self.queries(x_BQC)).expand(k_BHKc.shape[0], -1, -1, -1)
        bias = None if weights_BK is None else weights_BK.clamp_min(NOTHING).log()[:, None, None].to(q_BHQc.dtype)
        out_BHQc = F.scaled_dot_product_attention(q_BHQc, k_BHKc, v_BHKc, attn_mask=bias)
        return self.out(out_BHQc.transpose(1, 2).flatten(2))

    def _by_head(self, h_BPC: Tensor) -> Tensor:
        return h_BPC.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Adds attention, then a gated net, both of normalised channels.

        x += Attention(N x, N z),   x += W_3 (SiLU(W_1 N x) ⊙ W_2 N x)

    N divides by the root mean square of the channels (RMSNorm); the net has `ratio` C gated neurons (SwiGLU).

    Args:
        width: number C of channels.
        heads: number of heads.
        ratio: neurons per channel.
        crosses: whether keys come from another place than queries.
    """

    def __init__(self, width: int, heads: int, ratio: int, *, crosses: bool = False):
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(3 if crosses else 2))
        self.attention = Attention(width, heads)
        self.gated = nn.Linear(width, 2 * ratio * width)
        self.out = nn.Linear(ratio * width, width)

    def forward(self, x_BQC: Tensor, z_BKC: Tensor | None = None, weights_BK: Tensor | None = None) -> Tensor:
        """Apply it.

        Args:
            x_BQC: what is changed.
            z_BKC: what it attends to, if it crosses.
            weights_BK: what each key counts; None if all count alike.

        Returns:
            [B, Q, C].
        """
        normed_BQC = self.norms[0](x_BQC)
        source_BKC = normed_BQC if z_BKC is None else self.norms[2](z_BKC)
        x_BQC = x_BQC + self.attention(normed_BQC, source_BKC, weights_BK)
        gate, values = self.gated(self.norms[1](x_BQC)).chunk(2, dim=-1)
        return x_BQC + self.out(F.silu(gate) * values)


def require_heads(model: str, option: str, width: int, heads: int) -> None:
    """Raise unless the heads share the channels evenly.

    Args:
        model: name of the model, for messages.
        option: name of the option that gives the channels.
        width: number of channels.
        heads: number of heads.

    Raises:
        ValueError: they do not.
    """
    if width % heads:
        raise ValueError(f"{model}: {option} must be a multiple of heads, and {width} is none of {heads}")


def waves(places_BPd: Tensor, number: int) -> Tensor:
    """Return sines and cosines of coordinates, so that a net tells close places apart.

    Args:
        places_BPd: coordinates in units of the box's longest edge.
        number: number of frequencies, π, 2π, 4π, ... radians per edge.

    Returns:
        [B, P, 2 `number` d].
    """
    frequencies = math.pi * 2 ** torch.arange(number, dtype=torch.float32, device=places_BPd.device)
    phases = (places_BPd[..., None] * frequencies).flatten(-2)
    return torch.cat([phases.sin(), phases.cos()], dim=-1)
