"""The one way through a trained operator, from physical units to physical units.

Axes:  B batch, C channels, S scalars, d dimensions of space, P points, E edges, * the shape of a geometry.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from penstock.geometry import Geometry, Mesh
from penstock.layout import Block, Layout
from penstock.learner.normalization import Normalization, along, inverse

ARRAYS = ("points", "weights", "edges")  # of a geometry


class Surrogate(nn.Module):
    """A model between its normalisations.

    Training, validation, export and prediction all pass through here. A model is called with the inputs' arrays, and
    with those arrays of the geometries that its `forward` names:

    - `points` [B, P, d] and `weights` [B, P] of a `Mesh` or of `Points`; where samples are padded, weights are 0;
    - `edges` int64 [B, E, 2] of `Points` that have edges; (0, 0) is padding;
    - `weights` [B, *grid] of a masked `Grid`; 0 is outside the domain.

    What a field holds outside the domain of a masked `Grid` counts nowhere: a model sees 0 there, in normalised units.
    Outputs are 0 where a weight is.

    If there are several geometries, the name of a geometry, where it has one, comes before the array's, as in
    `wall_points`. Coordinates are measured from the lowest corner of the geometry's box in units of its longest edge,
    and weights in that unit to the power of d.

    A model may take something from the first samples, as a basis: its attribute `num_samples_to_fit` says from how many
    at most, and its method `fit` gets their outputs in normalised units, [N, C, *] by name of the array. Training calls
    it once, when it fixes the normalisation at the buffer's watermark. What the model keeps in buffers is saved.

    Args:
        model: the model, from normalised inputs to normalised outputs.
        normalization: means and deviations of all inputs and outputs.
        layout: layout of batches.
    """

    def __init__(self, model: nn.Module, normalization: Normalization, layout: Layout):
        super().__init__()
        self.model = model
        self.normalization = normalization
        self.layout = layout
        taken = geometry_arguments(model, layout)
        self._seen = {
            name: _Seen.of(array, geometry) for name, (array, geometry) in _arguments(layout).items() if name in taken
        }
        for name, seen in self._seen.items():
            if seen.constant is not None:  # moves with the model: to copy it in each step would wait for the device
                self.register_buffer(f"_{name}", torch.tensor(seen.constant, dtype=torch.float32), persistent=False)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all parameters."""
        return sum(parameter.nbytes for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        return next(self.normalization.buffers()).device

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Predict from separate inputs, in physical units.

        Args:
            inputs: every input by its name in the layout: fields [B, *] or [B, components, *], scalars [B]. The arrays
                that samples bring along for their geometries are among them: points [B, P, d], weights [B, P], edges
                [B, E, 2]; so are the layout's tangents.

        Returns:
            Every output by its name, in the same shapes.
        """
        blocks = (*self.layout.input_blocks, *self.layout.tangent_blocks, *self.layout.geometry_blocks)
        outputs = self.predict({block.name: torch.cat(block.channels_of(inputs), dim=1) for block in blocks})
        named = [block.by_name(outputs[block.name]) for block in self.layout.output_blocks]
        return {name: values for quantities in named for name, values in quantities.items()}

    def predict(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Predict from a batch, in physical units.

        Args:
            arrays: the batch's arrays as `Layout.pack` makes them. Outputs among them are ignored.

        Returns:
            The outputs' arrays, float32 [B, C, *] by name.
        """
        outputs = self.model_output(arrays)
        return {
            block.name: _inside(block, self.normalization.decode(block.name, outputs[block.name].float()), arrays)
            for block in self.layout.output_blocks
        }

    def predict_in_stds(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Predict from a batch, in multiples of the channels' standard deviations.

        The predictions are not centred. Losses are taken of them.

        Args:
            arrays: as in `predict`.

        Returns:
            The outputs' arrays, float32 [B, C, *] by name.
        """
        output = self.model_output(arrays)
        return {name: self.normalization.decode_in_stds(name, values.float()) for name, values in output.items()}

    @property
    def of_model(self) -> Surrogate:
        """The surrogate of what its model predicts itself, with the same weights."""
        return self

    @property
    def num_samples_to_fit(self) -> int:
        """Most samples that the model takes something from before training, or 0."""
        return getattr(self.model, "num_samples_to_fit", 0)

    def fit(self, arrays: Mapping[str, Tensor]) -> None:
        """Let the model take from samples what it does.

        Args:
            arrays: at most `num_samples_to_fit` samples, as in `predict`.
        """
        with torch.no_grad():
            self.model.fit(self._targets({name: array.to(self.device) for name, array in arrays.items()}))

    def model_output(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Predict from a batch, in normalised units and in the model's precision.

        Args:
            arrays: as in `predict`.

        Returns:
            What the model returns: with several outputs' arrays, a dict by their names. A single tensor is taken as
            the only output's array.
        """
        output = self.model(**self._inputs(arrays))
        blocks = self.layout.output_blocks
        return {blocks[0].name: output} if len(blocks) == 1 and not isinstance(output, dict) else output

    def own_loss(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """Return what the model's `loss` gives for each sample of a batch, [B].

        Args:
            arrays: the batch's arrays as `Layout.pack` makes them.
        """
        return self.model.loss(**self._inputs(arrays), **self._targets(arrays))

    def _targets(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs of a batch in normalised units; constants are 0."""
        targets = {}
        for block in self.layout.output_blocks:
            values = self.normalization.encode(block.name, arrays[block.name])
            targets[block.name] = torch.where(along(self.normalization.varies(block.name), values), values, 0.0)
        return targets

    def _inputs(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the model is called with for a batch."""
        inputs = {}
        for block in self.layout.input_blocks:
            values = self.normalization.encode(block.name, arrays[block.name])
            inputs[block.name] = _without_outside(block, values, arrays)
        size = next(iter(arrays.values())).shape[0]
        for name, seen in self._seen.items():
            constant = None if seen.constant is None else self.get_buffer(f"_{name}")
            inputs[name] = seen.of_batch(arrays, size, constant)
        return inputs


class DifferentiatedSurrogate(Surrogate):
    """A surrogate whose derivatives along the layout's tangents are outputs too.

    With the model G, input a and a parameter p,

        ∂u/∂p = G'(a) ∂a/∂p,

    by automatic differentiation in forward mode, through the normalisations of a and u. So losses and errors compare
    values and derivatives with those of the solver: derivative-informed learning (O'Leary-Roseberry et al., Journal of
    Computational Physics 496, 2024, arXiv 2206.10745), which is Sobolev training (Czarnecki et al., NeurIPS 2017, arXiv
    1706.04859) along directions. Each channel counts in multiples of its standard deviation.

    A batch goes through the model once per parameter, each time with its tangent: with m of them a pass takes about
    2 m times as long as one of the values alone.

    Args:
        model: the model, of the layout's `of_model`, which torch can differentiate forwards: its `forward` must not
            change buffers, as batch normalisation does.
        normalization: means and deviations of all inputs and outputs, derivatives among them.
        layout: layout of batches, with tangents.
    """

    def __init__(self, model: nn.Module, normalization: Normalization, layout: Layout):
        super().__init__(model, normalization, layout)
        with warnings.catch_warnings():  # the first derivative has torch load parts that it deprecates
            warnings.simplefilter("ignore", FutureWarning)
            torch.func.jvp(torch.neg, (torch.zeros(1),), (torch.zeros(1),))

    @property
    def of_model(self) -> Surrogate:
        """The surrogate of the values alone, with the same weights."""
        layout, own = self.layout.of_model, self.normalization
        blocks = (*layout.input_blocks, *layout.output_blocks)
        mean, std = (
            {block.name: self._of_model(block.name, getattr(own, f"{block.name}_{what}")[None])[0] for block in blocks}
            for what in ("mean", "std")
        )
        return Surrogate(self.model, Normalization(mean, std), layout).train(self.training)

    def model_output(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Predict values and derivatives from a batch, in normalised units.

        Args:
            arrays: the batch's arrays, the tangents' among them.

        Returns:
            The outputs' arrays [B, C, *] by name.
        """
        parameters = list(dict.fromkeys(spec.by for spec in self.layout.tangents))
        given = [block.name for block in (*self.layout.input_blocks, *self.layout.geometry_blocks)]
        inputs = self._inputs({name: torch.cat([arrays[name]] * len(parameters)) for name in given})
        tangents = self._tangents(arrays, parameters)
        moved = {name: inputs.pop(name) for name in tangents}

        def output(moved: Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
            return self.model(**inputs, **moved)

        with sdpa_kernel(SDPBackend.MATH):  # torch's fused attention has no derivative forwards
            both = torch.func.jvp(output, (moved,), (tangents,))
        (first, *_) = self.layout.output_blocks
        values, changes = (each if isinstance(each, dict) else {first.name: each} for each in both)
        assembled = {}
        for block in self.layout.output_blocks:
            by = dict(zip(parameters, changes[block.name].chunk(len(parameters)), strict=True))
            assembled[block.name] = self._assembled(block, values[block.name].chunk(len(parameters))[0], by)
        return assembled

    def _tangents(self, arrays: Mapping[str, Tensor], parameters: Sequence[str]) -> dict[str, Tensor]:
        """Tangents [m B, C, *] of the model's inputs, normalised, by array."""
        given = {name: values for block in self.layout.tangent_blocks for name, values in _parts(block, arrays)}
        tangents = {}
        for block in self.layout.input_blocks:
            if not any(spec.of in block.channels for spec in self.layout.tangents):
                continue
            rows = []
            for parameter in parameters:
                names = {spec.of: spec.name for spec in self.layout.tangents if spec.by == parameter}
                parts = [
                    given[names[name]] if name in names else torch.zeros_like(values)
                    for name, values in _parts(block, arrays)
                ]
                rows.append(_without_outside(block, torch.cat(parts, dim=1), arrays))
            stacked = torch.cat(rows)
            tangents[block.name] = stacked / along(getattr(self.normalization, f"{block.name}_std"), stacked)
        return tangents

    def _assembled(self, block: Block, values: Tensor, changes: Mapping[str, Tensor]) -> Tensor:
        """An output's array from the model's values and their changes, by parameter.

        All are in normalised units, in which a constant output is 0 here.
        """
        own = self.layout.of_model.blocks[block.name]
        mean, std = (getattr(self.normalization, f"{block.name}_{what}") for what in ("mean", "std"))
        parts = []
        for spec in block.specs:
            if spec not in self.layout.derivatives:
                parts.append(values[:, _span(own, spec.name)])
                continue
            change = changes[spec.by][:, _span(own, spec.of)].float()
            here, there = _span(block, spec.name), _span(block, spec.of)
            change = change * along(std[there], change) - along(mean[here], change)
            parts.append(change * along(inverse(std[here]), change))
        return torch.cat(parts, dim=1)

    def _targets(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs of a batch that the model predicts, in normalised units."""
        return {name: self._of_model(name, values) for name, values in super()._targets(arrays).items()}

    def _of_model(self, name: str, values: Tensor) -> Tensor:
        """Of values [B, C, *] of an array, those that the model is given or predicts."""
        specs = self.layout.of_model.blocks[name].specs
        return torch.cat([values[:, _span(self.layout.blocks[name], spec.name)] for spec in specs], dim=1)


def _span(block: Block, name: str) -> slice:
    """The channels of a quantity in a block's array."""
    channel = block.channels[name]
    return channel if isinstance(channel, slice) else slice(channel, channel + 1)


def _parts(block: Block, arrays: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Names and values [B, components, *] of a block's quantities."""
    return [(spec.name, arrays[block.name][:, _span(block, spec.name)]) for spec in block.specs]


def _without_outside(block: Block, values: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:
    """An input's values [B, C, *], and 0 outside of a mask.

    Padding is left to the model, which has its weights.
    """
    return values if block.is_ragged else _inside(block, values, arrays)


def _inside(block: Block, values: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:
    """A block's values [B, C, *], and 0 where a sample's weights are 0."""
    if block.on is None or not block.on.travelling:
        return values
    return torch.where(arrays[block.on.named("weights")] > 0, values, 0.0)


@dataclass(frozen=True, eq=False)
class _Seen:
    """One of ARRAYS of a geometry as a model sees it.

    Lengths are in units of the longest edge of the geometry's box, from its lowest corner on.
    """

    array: str
    source: str | None
    """Name of the batch's array; None for a mesh, of which all is constant."""
    scale: float
    """Factor that brings it into those units."""
    constant: np.ndarray | None
    """What is the same for all samples: all of a mesh, and the corner from which varying points are measured."""

    @classmethod
    def of(cls, array: str, geometry: Geometry) -> _Seen:
        lowest, highest = geometry.box
        length = float((highest - lowest).max())
        scale = {"points": 1 / length, "weights": length**-geometry.dimension, "edges": 1.0}[array]
        if isinstance(geometry, Mesh):
            values = (geometry.arrays.points - lowest) if array == "points" else geometry.weights
            return cls(array, None, scale, values * scale)
        return cls(array, geometry.named(array), scale, lowest if array == "points" else None)

    def of_batch(self, arrays: Mapping[str, Tensor], size: int, constant: Tensor | None) -> Tensor:
        """Return it for a batch: points [B, P, d], weights [B, *], edges int64 [B, E, 2].

        Args:
            arrays: the batch's arrays.
            size: B.
            constant: `constant` on the batch's device.
        """
        if self.source is None:
            return constant.expand(size, *constant.shape)
        values = arrays[self.source]
        if self.array == "weights":
            return values[:, 0] * self.scale
        rows = values.transpose(1, 2)
        return rows.long() if self.array == "edges" else (rows - constant) * self.scale


def argument(array: str, geometry: Geometry, layout: Layout) -> str:
    """Return the name of the model's argument for an array of a geometry.

    Args:
        array: one of ARRAYS.
        geometry: the geometry.
        layout: layout of batches.

    Returns:
        The array's name, after the geometry's where that has one and is not the only geometry.
    """
    return array if len(layout.geometries) == 1 else geometry.named(array)


def _arguments(layout: Layout) -> dict[str, tuple[str, Geometry]]:
    """All arrays of geometries that a model may be given, by the argument's name.

    Each is one of ARRAYS with its geometry.
    """
    return {
        argument(array, geometry, layout): (array, geometry)
        for geometry in layout.geometries
        for array in ARRAYS
        if geometry.named(array) in geometry.travelling or (isinstance(geometry, Mesh) and array != "edges")
    }


def geometry_arguments(model: nn.Module, layout: Layout) -> set[str]:
    """Return the names of the geometries' arrays that a model's `forward` takes.

    Args:
        model: the model.
        layout: layout of batches.

    Returns:
        The arguments' names; all that there are if `forward` takes any keyword.
    """
    names = _arguments(layout).keys()
    parameters = inspect.signature(model.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return set(names)
    return names & {parameter.name for parameter in parameters}
