"""Gradients of a batch whose rows lie on several ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from penstock.learner.ranks.group import Group


class SharedGradients:
    """Makes each rank's gradients those of the mean loss over all ranks' rows.

    With B_r rows on rank r, whose mean loss has the gradient g_r, that is Σ B_r g_r / Σ B_r. A rank may have no rows.
    A parameter that the loss of no rank depends on keeps no gradient, and the optimizer leaves it as it is.

    Of persistent floating-point buffers that a model changes while it trains, such as the running statistics of a
    BatchNorm, the changes become the same means over the rows of all ranks. Integer buffers are left.

    Args:
        group: the ranks.
        parameters: the trained parameters by name, real.
        module: what they belong to; its parameters and buffers become those of rank 0.
    """

    def __init__(self, group: Group, parameters: Mapping[str, Tensor], module: nn.Module):
        self.group = group
        self._parameters = list(parameters.values())
        self._module = module
        self._buffers: dict[str, Tensor] = {}  # copies from before the step
        with torch.no_grad():
            tensors = (*module.parameters(), *module.buffers())
            group.copy_first(tensor for tensor in tensors if tensor.layout == torch.strided)

    def begin(self) -> None:
        """Take note of the buffers before a step."""
        if self.group.size > 1:
            self._buffers = {name: buffer.clone() for name, buffer in self._changeable()}

    @torch.no_grad()
    def unite(self, num_rows: int, loss: Tensor) -> None:
        """Replace gradients, mean loss and changed buffers by those over all ranks.

        Args:
            num_rows: rows that the gradients of this rank come from.
            loss: their mean loss, float32 scalar on the device; it is changed in place.

        Raises:
            RankLost: a rank is gone.
        """
        if self.group.size == 1:
            return
        has_gradient = [parameter.grad is not None for parameter in self._parameters]
        said = self.group.gather([num_rows, *has_gradient])
        share, is_used = num_rows / said[:, 0].sum(), said[:, 1:].any(axis=0)
        used = [parameter for parameter, used in zip(self._parameters, is_used, strict=True) if used]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        summands = [parameter.grad for parameter in used]
        buffers = [(buffer, self._buffers[name]) for name, buffer in self._changeable() if name in self._buffers]
        # where they are equal they may be infinite
        changes = [torch.where(buffer == before, 0.0, buffer - before) for buffer, before in buffers]
        summands += [*changes, loss]
        torch._foreach_mul_(summands, share)
        self.group.add_up(summands)
        for (buffer, before), change in zip(buffers, changes, strict=True):
            buffer.copy_(before + change)

    def _changeable(self) -> Iterator[tuple[str, Tensor]]:
        """The floating-point buffers that a checkpoint holds, by name.

        All are looked at, because torch's version counter misses what BatchNorm writes.
        """
        for prefix, module in self._module.named_modules():
            for name, buffer in module.named_buffers(recurse=False):
                if buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                    yield f"{prefix}.{name}", buffer
