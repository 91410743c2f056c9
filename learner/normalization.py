"""Per-channel mean and standard deviation, fixed once from the population of the warm-up.

Axes:  B batch or samples, C channels (S for scalars), * the grid's axes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from penstock.sample import Layout


class Normalization(nn.Module):
    """x -> (x - mean) / std and back, for each array of a Layout by name: "fields", "scalars", "targets".

    mean, std: [C] tensors by array name. They are buffers, so they travel with the weights.
    """

    def __init__(self, mean: Mapping[str, Tensor], std: Mapping[str, Tensor]):
        super().__init__()
        for name in mean:
            self.register_buffer(f"{name}_mean", mean[name])
            self.register_buffer(f"{name}_std", std[name])

    @classmethod
    def identity(cls, layout: Layout) -> Normalization:
        """Mean 0 and std 1: the placeholder until samples are known or a checkpoint is loaded."""
        channels = {name: shape[0] for name, shape in layout.shapes.items()}
        return cls(
            {name: torch.zeros(count) for name, count in channels.items()},
            {name: torch.ones(count) for name, count in channels.items()},
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor]) -> Normalization:
        """The statistics of arrays [B, C, *]. A channel without spread gets std 1, so it is only centred."""
        mean, std = {}, {}
        for name, values_BC in arrays.items():
            axes = [axis for axis in range(values_BC.dim()) if axis != 1]
            # float64, because the squares of a pressure in Pa lose its spread in float32
            variance, average = torch.var_mean(values_BC.double(), dim=axes, correction=0)
            spread = variance.sqrt()
            negligible = spread <= 1e-6 * average.abs()  # what float32 makes of a constant
            mean[name] = average.float()
            std[name] = torch.where(negligible, 1.0, spread).float()
        return cls(mean, std)

    def encode(self, name: str, values: Tensor) -> Tensor:
        """Physical units [B, C, *] to normalised ones."""
        return (values - self._per_channel(f"{name}_mean", values)) / self._per_channel(f"{name}_std", values)

    def decode(self, name: str, values: Tensor) -> Tensor:
        """Normalised units [B, C, *] to physical ones."""
        return values * self._per_channel(f"{name}_std", values) + self._per_channel(f"{name}_mean", values)

    def in_stds(self, name: str, values: Tensor) -> Tensor:
        """Values [B, C, *] in multiples of their channel's std, not centred: channels of any unit count alike."""
        return values / self._per_channel(f"{name}_std", values)

    def _per_channel(self, buffer: str, values: Tensor) -> Tensor:
        return getattr(self, buffer).reshape([-1] + [1] * (values.dim() - 2))
