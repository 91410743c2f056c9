"""The fully connected net of Meyer et al. (SC 2023), from scalars to whole fields.

The source is arXiv 2309.16743.

Axes:  B batch, C channels, S scalars, * the shape of a geometry, H neurons of a hidden layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from penstock.geometry import Grid, Mesh
from penstock.layout import Layout


class MLP(nn.Module):
    """Fully connected layers with ReLU between them.

        y = W_n relu(... relu(W_1 x + b_1) ...) + b_n

    x holds the scalars [B, S] and the values of input fields, if there are any, at all points; y holds all outputs at
    all points.

    The last layer holds nearly all weights, H + 1 for each value: with 10^6 points and 256 neurons these are 257
    million, or 1 GB, and 3 GB with Adam's moments. Once built, a model serves one resolution, and it does not know
    which points are neighbours: for problems whose input is a field take an operator.

    Args:
        layout: layout of batches.
        hidden: number of neurons in each hidden layer, from first to last, at least 1 each. Good values for a few
            scalars: [256, 256], as in Meyer et al.

    Raises:
        ValueError: a hidden layer has less than one neuron, or the layout has no inputs.
    """

    accepts = (Grid, Mesh)
    resolution_free = ()

    def __init__(self, layout: Layout, *, hidden: Sequence[int] = (256, 256)):
        super().__init__()
        if not isinstance(hidden, Sequence) or not all(isinstance(size, int) and size >= 1 for size in hidden):
            raise ValueError(f"mlp: hidden must be a list of whole numbers of at least 1, not {hidden}")
        if not layout.inputs:
            raise ValueError(
                "mlp: needs an input, and this problem has none: give it a scalar or a field to learn from"
            )
        self.field_names = [block.name for block in layout.input_blocks if block.on is not None]
        self.output_shapes = {block.name: block.shape for block in layout.output_blocks}
        num_inputs = sum(prod(block.shape) for block in layout.input_blocks)
        sizes = [num_inputs, *hidden, sum(map(prod, self.output_shapes.values()))]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(sizes))

    def forward(self, scalars: Tensor | None = None, **arrays: Tensor) -> Tensor | dict[str, Tensor]:
        """Predict the outputs.

        Args:
            scalars: input scalars [B, S], if there are any.
            **arrays: arrays of input fields [B, C, *] by name, if there are any.

        Returns:
            The outputs [B, C, *], by name of the array if there are several arrays.
        """
        inputs = [*([] if scalars is None else [scalars]), *(arrays[name] for name in self.field_names)]
        x_BH = torch.cat([values.flatten(1) for values in inputs], dim=1)
        for layer in self.layers[:-1]:
            x_BH = torch.relu(layer(x_BH))
        parts = self.layers[-1](x_BH).split([prod(shape) for shape in self.output_shapes.values()], dim=1)
        shapes = self.output_shapes.items()
        outputs = {name: part.unflatten(1, shape) for (name, shape), part in zip(shapes, parts, strict=True)}
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))
