"""The one way through a trained operator, from physical units to physical units.

Axes:  B batch, C channels, S scalars, *grid the axes of the fields' grid.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from penstock.layout import Layout
from penstock.learner.normalization import Normalization


class Surrogate(nn.Module):
    """A model between its normalisations. Training, validation, export and prediction all pass through here."""

    def __init__(self, model: nn.Module, normalization: Normalization, layout: Layout):
        super().__init__()
        self.model = model
        self.normalization = normalization
        self.layout = layout

    @property
    def weight_bytes(self) -> int:
        """Of the trained parameters."""
        return sum(parameter.nbytes for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        return self.normalization.targets_mean.device

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Inputs by the layout's names, fields [B, *grid] and scalars [B], to outputs by name, [B, *grid]."""
        arrays = {
            group: torch.stack([inputs[spec.name] for spec in specs], dim=1)
            for group, specs in self.layout.groups.items()
            if group != "targets"
        }
        targets_BC = self.predict(arrays)
        return {spec.name: targets_BC[:, channel] for channel, spec in enumerate(self.layout.outputs)}

    def predict(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """Arrays as `Layout.pack` gives them, fields [B, C, *grid] and scalars [B, S], to targets [B, C, *grid].

        Targets among the arrays are not looked at.
        """
        return self.normalization.decode("targets", self.model_output(arrays).float())

    def predict_in_stds(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """`predict` in multiples of the target channels' standard deviation, not centred: what losses are taken of."""
        return self.normalization.decode_in_stds("targets", self.model_output(arrays).float())

    def model_output(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """[B, C, *grid] in normalised units, as precise as the model has it; float32 from there on."""
        return self.model(
            **{name: self.normalization.encode(name, arrays[name]) for name in arrays if name != "targets"}
        )
