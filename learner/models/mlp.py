"""The fully connected net of Meyer et al. (SC 2023, arXiv 2309.16743): from a problem's scalars to whole fields.

Axes:  B batch, C channels, S scalars, *grid the axes of the fields' grid, H neurons of a hidden layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from penstock.layout import Layout


class MLP(nn.Module):
    """Fully connected layers with ReLU between them: y = W_n relu(... relu(W_1 x + b_1) ...) + b_n.

    x [B, S + C |grid|] are the scalars and, where there are input fields, their values; y [B, C |grid|] are all output
    fields, point by point. hidden: neurons of each hidden layer, from the first to the last. Good values: the paper's
    (256, 256) for a few scalars.

    The last layer holds nearly all weights, (H + 1) C |grid|: with 10^6 points and 256 neurons 257 million, 1 GB and
    with Adam's moments 3 GB. A built model serves one resolution, and it does not know which points are neighbours:
    for problems whose input is a field take an operator.

    Raises ValueError for a hidden layer of less than one neuron.
    """

    def __init__(self, layout: Layout, *, hidden: Sequence[int] = (256, 256)):
        super().__init__()
        if not isinstance(hidden, Sequence) or not all(isinstance(size, int) and size >= 1 for size in hidden):
            raise ValueError(f"mlp: hidden must be a list of whole numbers of at least 1, not {hidden}")
        if not layout.inputs:
            raise ValueError(
                "mlp: needs an input, and this problem has none: give it a scalar or a field to learn from"
            )
        self.output_shape = layout.shapes["targets"]
        num_inputs = sum(prod(shape) for name, shape in layout.shapes.items() if name != "targets")
        sizes = [num_inputs, *hidden, prod(self.output_shape)]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(sizes))

    def forward(self, scalars: Tensor | None = None, fields: Tensor | None = None) -> Tensor:
        """scalars [B, S] and fields [B, C, *grid], where the layout has them, to outputs [B, C, *grid]."""
        x_BH = torch.cat([values.flatten(1) for values in (scalars, fields) if values is not None], dim=1)
        for layer in self.layers[:-1]:
            x_BH = torch.relu(layer(x_BH))
        return self.layers[-1](x_BH).unflatten(1, self.output_shape)
