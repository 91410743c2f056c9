"""Parameters that are drawn at random."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


def normal(shape: Sequence[int], deviation: float) -> nn.Parameter:
    """Return a parameter of normal numbers with mean 0.

    Args:
        shape: its shape.
        deviation: standard deviation of its entries.
    """
    values = torch.empty(*shape)
    if not values.is_meta:  # if it is, only the size counts, and drawing there makes torch import for 2 s
        torch.randn(values.shape, out=values).mul_(deviation)
    return nn.Parameter(values)
