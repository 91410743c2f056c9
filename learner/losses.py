"""Losses by name: each takes prediction and target [B, C, *grid] to one value a sample, [B].

Prediction and target come in multiples of the target channels' standard deviation, not centred. For one output channel
the relative L2 error is therefore the one in physical units; for several, none dominates by its unit alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SMALLEST_NORM = 1e-12  # an all-zero target has no relative error; its absolute one is then large, but finite


def relative_l2(prediction: Tensor, target: Tensor) -> Tensor:
    """||prediction - target||_2 / ||target||_2 over all axes but the batch."""
    error = torch.linalg.vector_norm((prediction - target).flatten(1), dim=1)
    return error / torch.linalg.vector_norm(target.flatten(1), dim=1).clamp_min(SMALLEST_NORM)


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of the squared error over all axes but the batch."""
    return (prediction - target).square().flatten(1).mean(dim=1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"relative_l2": relative_l2, "mse": mse}
