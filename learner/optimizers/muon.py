"""Muon, for matrices and stacks of them.

Axes:  K matrices in a stack, M rows, N columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from penstock.errors import PenstockError
from penstock.learner.optimizers.adamw import WEIGHT_DECAY, AdamW

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, from Jordan et al.
ITERATIONS = 5
SMALLEST_NORM = 1e-7
OF_OTHERS = 0.2  # of the learning rate, for what is no matrix: AdamW's best rates are lower than Muon's
SMALLEST_EDGE = 3  # of a matrix: a complex number is two real ones beside each other, and its matrix means nothing


class Muon(torch.optim.Optimizer):
    """Muon: steps along matrices whose singular values are all about 1.

    With momentum μ, learning rate η and weight decay λ, a matrix W [M, N] with gradient G changes by

        B <- μ B + (1 - μ) G,   W <- (1 - η λ) W - 0.2 η sqrt(max(M, N)) U Vᵀ   where   U S Vᵀ = (1 - μ) G + μ B,

    in which U Vᵀ is found by five steps of an iteration of matrix products, up to singular values from 0.7 to 1.2. The
    source is Jordan et al. (2024), kellerjordan.github.io/posts/muon; the factor 0.2 sqrt(max(M, N)), with which a step
    has the root mean square that one of AdamW has, is from Liu et al., arXiv 2502.16982.

    torch.optim.Muon takes matrices alone. This one takes the stacks of matrices [K, M, N] of spectral convolutions as
    well, all K at once, and kernels [C, C', *kernel] as C rows. Parameters that are no matrices of at least 3
    rows and columns, such as biases, are trained with AdamW at a fifth of the learning rate, which left smaller errors
    than all of it on six of seven trainings (benchmarks/LOG.md).

    Args:
        groups: the parameters, as torch takes them; `kernels=True` marks a group of the weights of convolutions.
        weight_decay: factor λ of the weights that, times the learning rate, is taken off them in each step, at least 0.
            Good values: 0 to 0.01.
        momentum: μ, at least 0 and below 1. Good values: 0.9 to 0.95.

    Raises:
        ValueError: an option is out of bounds.
    """

    def __init__(self, groups: Iterable[Any], *, weight_decay: float = WEIGHT_DECAY, momentum: float = 0.95):
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay must be at least 0, not {weight_decay}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1, not {momentum}")
        super().__init__(groups, {"lr": 1e-3, "weight_decay": weight_decay, "momentum": momentum, "kernels": False})
        others = [p for group in self.param_groups for p in group["params"] if not _is_matrix(p, group["kernels"])]
        self._adamw = AdamW(others, weight_decay=weight_decay) if others else None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Change the parameters by their gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and _is_matrix(parameter, group["kernels"]):
                    self._change(parameter, group)
        if self._adamw is not None:
            # One state for both, which a checkpoint takes and restores.
            self._adamw.state = self.state
            self._adamw.param_groups[0]["lr"] = OF_OTHERS * self.param_groups[0]["lr"]
            self._adamw.step()

    def _change(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, momentum, rate = self.state[parameter], group["momentum"], group["lr"]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        elif "momentum" not in state:
            raise PenstockError("the checkpoint was trained with another optimizer: give it as training.optimizer")
        state["momentum"].lerp_(parameter.grad, 1 - momentum)
        blend = parameter.grad.lerp(state["momentum"], momentum)
        direction = orthogonal(blend.flatten(1) if group["kernels"] else blend)
        scale = 0.2 * math.sqrt(max(direction.shape[-2:]))
        parameter.mul_(1 - rate * group["weight_decay"])
        parameter.add_(direction.reshape(parameter.shape), alpha=-rate * scale)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return the nearest semi-orthogonal matrices, roughly.

    Args:
        matrices: [..., M, N], with U S Vᵀ each.

    Returns:
        [..., M, N], with the same singular vectors and singular values from 0.7 to 1.2, where those of `matrices` are
        not small beside their largest.
    """
    a, b, c = COEFFICIENTS
    stack = matrices.reshape(-1, *matrices.shape[-2:])
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = stack.mT if is_tall else stack
    # The iteration needs singular values of at most 1, which a Frobenius norm of 1 ensures.
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(SMALLEST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).reshape(matrices.shape)


def _is_matrix(parameter: Tensor, is_kernel: bool) -> bool:
    if parameter.dim() < 2 or not parameter.is_floating_point():
        return False
    shape = (parameter.shape[0], parameter[0].numel()) if is_kernel else parameter.shape[-2:]
    return min(shape) >= SMALLEST_EDGE
