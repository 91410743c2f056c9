"""The one way through a trained operator, from physical units to physical units.

Axes:  B batch, C channels, S scalars, d dimensions of space, P points, E edges, * the shape of a geometry.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from penstock.geometry import Geometry, Mesh
from penstock.layout import Block, Layout
from penstock.learner.normalization import Normalization

ARRAYS = ("points", "weights", "edges")  # of a geometry


class Surrogate(nn.Module):
    """A model between its normalisations. Training, validation, export and prediction all pass through here.

    A model is called with the inputs' arrays and, of what the geometries have, with what its `forward` names:

    - `points` [B, P, d] and `weights` [B, P], of a `Mesh` and of `Points`; where samples are padded, weights are 0;
    - `edges` int64 [B, E, 2], of `Points` that have some; (0, 0) is padding;
    - `weights` [B, *grid], of a masked `Grid`; 0 is outside the domain.

    Of several geometries those with a name have it before theirs, as in `wall_points`. Lengths are in units of the
    longest edge of the geometry's box, from its lowest corner on, and weights in such lengths to the power of d.
    """

    def __init__(self, model: nn.Module, normalization: Normalization, layout: Layout):
        super().__init__()
        self.model = model
        self.normalization = normalization
        self.layout = layout
        self._arguments = geometry_arguments(model, layout)
        for name, (array, geometry) in _arguments(layout).items():
            constant = _constant(array, geometry) if name in self._arguments else None
            if constant is not None:  # on the model's device: a step that brought it there would wait for it
                self.register_buffer(f"_{name}", torch.tensor(constant, dtype=torch.float32), persistent=False)

    @property
    def weight_bytes(self) -> int:
        """Of the trained parameters."""
        return sum(parameter.nbytes for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        return next(self.normalization.buffers()).device

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Inputs by the layout's names to outputs by name: fields [B, *] or [B, components, *], scalars [B].

        What geometries have each sample bring along is among the inputs, as in packed samples: points [B, d, P],
        weights [B, P], edges [B, 2, E].
        """
        blocks = (*self.layout.input_blocks, *self.layout.geometry_blocks)
        outputs = self.predict({block.name: joined_channels(block, inputs) for block in blocks})
        return {
            name: outputs[block.name][:, channel]
            for block in self.layout.output_blocks
            for name, channel in block.channels.items()
        }

    def predict(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Arrays as `Layout.pack` gives them to the outputs' arrays, [B, C, *] by name.

        Outputs among the arrays are not looked at.
        """
        output = self.model_output(arrays)
        return {name: self.normalization.decode(name, values.float()) for name, values in output.items()}

    def predict_in_stds(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`predict` in multiples of the channels' standard deviation, not centred: what losses are taken of."""
        output = self.model_output(arrays)
        return {name: self.normalization.decode_in_stds(name, values.float()) for name, values in output.items()}

    def model_output(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs' arrays in normalised units, as precise as the model has them; float32 from there on."""
        inputs = {
            block.name: self.normalization.encode(block.name, arrays[block.name]) for block in self.layout.input_blocks
        }
        size = next(iter(arrays.values())).shape[0]
        for name, (array, geometry) in _arguments(self.layout).items():
            if name in self._arguments:
                inputs[name] = self._seen(name, array, geometry, arrays, size)
        output = self.model(**inputs)
        blocks = self.layout.output_blocks
        return {blocks[0].name: output} if len(blocks) == 1 and not isinstance(output, dict) else output

    def _seen(self, name: str, array: str, geometry: Geometry, arrays: Mapping[str, Tensor], size: int) -> Tensor:
        """An argument of the model, for a batch of `size`: one of ARRAYS of a geometry."""
        if isinstance(geometry, Mesh):
            values = self.get_buffer(f"_{name}")
            return values.expand(size, *values.shape)
        values = arrays[geometry.named(array)]
        if array == "weights":
            return values[:, 0] / _length(geometry) ** geometry.dimension
        rows = values.transpose(1, 2)
        return rows.long() if array == "edges" else (rows - self.get_buffer(f"_{name}")) / _length(geometry)


def _constant(array: str, geometry: Geometry) -> np.ndarray | None:
    """What of it is the same for all samples: a mesh as models see it, the corner that points are seen from."""
    if not isinstance(geometry, Mesh):
        return geometry.box[0] if array == "points" else None
    if array == "points":
        return (geometry.arrays.points - geometry.box[0]) / _length(geometry)
    return geometry.weights / _length(geometry) ** geometry.dimension


def _length(geometry: Geometry) -> float:
    """Of the longest edge of its box."""
    return float(np.ptp(geometry.box, axis=0).max())


def argument(array: str, geometry: Geometry, layout: Layout) -> str:
    """What a model calls one of ARRAYS: of the only geometry that there is, just that."""
    return array if len(layout.geometries) == 1 else geometry.named(array)


def _arguments(layout: Layout) -> dict[str, tuple[str, Geometry]]:
    """What a model may be given of the geometries, by its name: which of ARRAYS of which."""
    return {
        argument(array, geometry, layout): (array, geometry)
        for geometry in layout.geometries
        for array in ARRAYS
        if geometry.named(array) in geometry.travelling or (isinstance(geometry, Mesh) and array != "edges")
    }


def geometry_arguments(model: nn.Module, layout: Layout) -> set[str]:
    """What a model's `forward` takes of the geometries, by name."""
    names = _arguments(layout).keys()
    parameters = inspect.signature(model.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return set(names)
    return names & {parameter.name for parameter in parameters}


def joined_channels(block: Block, values: Mapping[str, Tensor]) -> Tensor:
    """A block's array [B, C, *] of its quantities by name."""
    parts = [values[spec.name] if spec.components > 1 else values[spec.name].unsqueeze(1) for spec in block.specs]
    return torch.cat(parts, dim=1)
