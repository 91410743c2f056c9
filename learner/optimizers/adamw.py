"""AdamW, as torch has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

WEIGHT_DECAY = 1e-4


class AdamW(torch.optim.AdamW):
    """AdamW: each weight's step is scaled by the size of its own gradients.

    It is from Loshchilov and Hutter, ICLR 2019, arXiv 1711.05101. Nothing in a step waits for the device.

    Args:
        groups: the parameters, as torch takes them.
        weight_decay: factor of the weights that, times the learning rate, is taken off them in each step, at least 0.
            Good values: 0 to 0.01.

    Raises:
        ValueError: the factor is negative.
    """

    def __init__(self, groups: Iterable[Any], *, weight_decay: float = WEIGHT_DECAY):
        super().__init__(groups, weight_decay=weight_decay, fused=True)
