"""The models on grids of the package neuraloperator, which is optional.

Axes:  B batch, C channels, S scalars, *grid the axes of the fields' grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from penstock.errors import text_of
from penstock.geometry import Grid
from penstock.layout import Layout
from penstock.learner.models.grids.inputs import GridLayout, everywhere, with_mask
from penstock.learner.models.options import require_one_of

MODELS = ("FNO", "TFNO", "UNO")
MODES = 12  # of either sign along an axis, by default


class NeuralOp(nn.Module):
    """A model of the package neuraloperator, by its name there.

    Input fields, scalars as fields that are the same everywhere, and the mask of a masked grid are its channels. All
    else is neuraloperator's: periodicity unheeded, coordinates as its option `positional_embedding` says, complex
    weights.

    Args:
        layout: layout of batches.
        model: the class in neuralop.models.
        options: its arguments, such as n_modes and hidden_channels, without the numbers of channels in and out. FNO and
            TFNO take n_modes of 24 along each axis, or the points of an axis with fewer, and hidden_channels of 24 if
            they are not given; UNO needs uno_out_channels, uno_n_modes and uno_scalings.

    Raises:
        ValueError: the package is missing, the layout is not of one grid, or the model refuses its options.
    """

    accepts = (Grid,)
    resolution_free = ()  # it depends on the options, and is not held to it by our tests

    def __init__(self, layout: Layout, *, model: str = "FNO", options: Mapping[str, Any] | None = None):
        super().__init__()
        require_one_of("neuralop", "model", model, MODELS)
        of = GridLayout.of(layout, "neuralop")
        try:
            from neuralop import models
        except ImportError as error:
            raise ValueError(
                f"neuralop: needs the package neuraloperator ({error}): pip install 'penstock[neuraloperator]'"
            ) from error
        channels = {"in_channels": of.num_fields + of.num_scalars, "out_channels": of.num_outputs}
        if taken := channels.keys() & (options or {}).keys():
            raise ValueError(f"neuralop: {', '.join(sorted(taken))} follow from the problem's fields: leave them out")
        n_modes = tuple(2 * min(MODES, size // 2) for size in of.grid.shape)
        defaults = {"hidden_channels": 24} | ({} if model == "UNO" else {"n_modes": n_modes})
        try:
            self.net = getattr(models, model)(**defaults | dict(options or {}) | channels)
        except Exception as error:  # it checks some options by assertions, others not at all
            raise ValueError(
                f"neuralop: {model} refuses its options: {type(error).__name__}: {text_of(error)}"
            ) from error

    def forward(self, fields: Tensor, scalars: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """Predict the outputs on the grid.

        Args:
            fields: input fields [B, C, *grid].
            scalars: input scalars [B, S], if there are any.
            weights: quadrature weights [B, *grid] of a masked grid; 0 is outside the domain.

        Returns:
            The outputs, [B, C, *grid].
        """
        channels = with_mask(fields, weights)
        if scalars is not None:
            channels.append(everywhere(scalars, fields.shape[2:]))
        return self.net(torch.cat(channels, dim=1))
