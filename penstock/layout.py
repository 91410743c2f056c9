"""Quantities, samples and their layout: how the fields of a problem become arrays.

Axes:  N samples of a chunk, C channels, S scalars, * the shape of a geometry: *grid of a grid, P points of others.
"""

from __future__ import annotations

import operator
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from keyword import iskeyword
from math import prod
from typing import Any, Literal

import numpy as np

from penstock.arrays.brought_along import INDEX
from penstock.arrays.conversion import DTYPE
from penstock.arrays.ragged import Ragged, Rows
from penstock.arrays.room import Room
from penstock.geometry import Geometry, Grid
from penstock.registry import nearest

RESERVED_NAMES = ("simulation", "step", "relative_l2", "self")  # columns of the stores that hold samples
LAST_STEP = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True)
class FieldSpec:
    """One quantity of a sample: a field on a geometry, or a scalar.

    Raises:
        ValueError: an argument is of another type or below 1.
    """

    name: str
    """Key in `Sample.inputs` or `Sample.outputs`, and in an exported file."""
    on: Geometry | None = None
    """Where its values sit; None for a scalar."""
    components: int = 1
    """Number of components of a vector or tensor; 1 for a plain number."""
    unit: str = "1"
    """Physical unit, for people; "1" when dimensionless."""

    def __post_init__(self):
        if self.on is not None and not isinstance(self.on, Geometry):
            raise ValueError(f"{self.name!r}: on={self.on!r} must be a Grid, a Mesh or Points, or None for a scalar")
        try:
            components = operator.index(self.components)
        except TypeError:
            components = 0
        if components < 1:
            raise ValueError(f"{self.name!r}: components={self.components!r} must be a whole number from 1 on")
        object.__setattr__(self, "components", components)
        if not isinstance(self.unit, str):
            raise ValueError(f"{self.name!r}: unit={self.unit!r} must be text")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values in a sample, * or [components, *], at its largest."""
        components = (self.components,) if self.components > 1 else ()
        return (*components, *(self.on.shape if self.on is not None else ()))

    def derivative(self, by: str) -> Derivative:
        """The quantity's derivative by a parameter, `<name>_by_<by>`.

        Args:
            by: name of the parameter, or of a direction in the space of parameters.
        """
        own = {"on": self.on, "components": self.components, "unit": self.unit}
        return Derivative(name=f"{self.name}_by_{by}", of=self.name, by=by, **own)


@dataclass(frozen=True, kw_only=True)
class Derivative(FieldSpec):
    """The derivative of a quantity by a parameter; it is in units of the quantity.

    Raises:
        ValueError: see `FieldSpec`.
    """

    of: str
    """Name of the quantity."""
    by: str
    """Name of the parameter, or of a direction in the space of parameters."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The named arrays of one step of a simulation, in physical units.

    Arrays have the shapes of their FieldSpecs: *, or [components, *].

    Raises:
        ValueError: `step` is no integer from 0 on.
    """

    inputs: Mapping[str, np.ndarray | float]
    """The network's inputs by name: fields as arrays, scalars as numbers."""
    outputs: Mapping[str, np.ndarray]
    """What the network learns to predict, by name."""
    step: int = 0
    """Number of the sample within its simulation, from 0.

    It is an integer because a second copy of a sample is recognised by it.
    """
    time: float | None = None
    """Physical time of the sample: the input of the name `time`, where the problem has one."""
    geometry: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What the geometries of its fields have it bring along, by name.

    For `Points` that is `points` [P, d], `weights` [P] and, where there are any, `edges` [E, 2]; for a masked `Grid`
    `weights` [*grid].
    """

    def __post_init__(self):
        try:
            step = operator.index(self.step)
        except TypeError:
            step = -1
        if not 0 <= step <= LAST_STEP:
            raise ValueError(
                f"step={self.step!r} must be an integer from 0 on: number the samples 0, 1, 2, ... and give the time "
                "as `time`"
            )
        object.__setattr__(self, "step", step)
        if not isinstance(self.geometry, Mapping):
            raise ValueError(f"geometry={type(self.geometry).__name__} must be a dict of arrays by name")


@dataclass(frozen=True)
class Block:
    """One array of packed samples, [N, *shape].

    It holds quantities of one role on one geometry, side by side.
    """

    name: str
    role: Literal["input", "output", "geometry", "tangent"]
    on: Geometry | None
    """Where the values sit; None for scalars."""
    specs: tuple[FieldSpec, ...]
    """Its quantities, in channel order."""
    shape: tuple[int, ...]
    """[C, *] or, of scalars, [C]; the largest where points vary."""
    dtype: np.dtype = DTYPE
    is_fed: bool = False
    """Whether all its quantities are outputs of the step before, see `Layout.feeds`."""

    @property
    def is_ragged(self) -> bool:
        """Whether its rows have different lengths."""
        return self.on is not None and self.on.is_ragged

    @property
    def num_bytes(self) -> int:
        """Bytes of a sample; those of the largest if points vary."""
        return self.dtype.itemsize * prod(self.shape)

    @cached_property
    def channels(self) -> dict[str, int | slice]:
        """Where in C each quantity is: a number, or a slice for several components."""
        channels, start = {}, 0
        for spec in self.specs:
            channels[spec.name] = start if spec.components == 1 else slice(start, start + spec.components)
            start += spec.components
        return channels

    @property
    def is_rows(self) -> bool:
        """Whether by its name it is [N, P, d] or [N, E, 2]: points and edges."""
        return self.role == "geometry" and self.is_ragged and self.name != self.on.named("weights")

    def by_name[Array](self, array: Array) -> dict[str, Array]:
        """The quantities, as people give and get them.

        Args:
            array: the block's array [N, C, *] or [N, C], of NumPy or torch.

        Returns:
            [N, *] or [N] by name, [N, components, *] with several components; rows of points and edges.
        """
        if self.is_rows:
            return {self.name: array.swapaxes(1, 2)}
        return {name: array[:, channel] for name, channel in self.channels.items()}

    def channels_of[Array](self, values: Mapping[str, Array]) -> list[Array]:
        """What `by_name` gives, as parts of the block's array along C."""
        if self.is_rows:
            return [values[self.name].swapaxes(1, 2)]
        return [values[spec.name] if spec.components > 1 else values[spec.name][:, None] for spec in self.specs]

    @cached_property
    def channel_names(self) -> tuple[str, ...]:
        """The quantity's name for each channel, with a number if it has components."""
        return tuple(
            spec.name if spec.components == 1 else f"{spec.name}[{component}]"
            for spec in self.specs
            for component in range(spec.components)
        )

    def empty(self) -> Rows:
        """An array of no samples."""
        if self.is_ragged:
            return Ragged(np.empty(0, self.dtype), np.empty(0, np.int64), self.shape[0])
        return np.empty((0, *self.shape), self.dtype)


@dataclass(frozen=True)
class Layout:
    """The arrays that hold a problem's samples, and their channels.

    `fields` [C, *] holds the input fields, `scalars` [S] the input scalars, `targets` [C, *] the output fields,
    `target_scalars` [C] the output scalars, `tangents` and `scalar_tangents` derivatives of inputs, all in float32.
    Fields of one role on several geometries are in separate arrays, `fields_<name of the geometry>`. What a geometry
    has each sample bring along is in arrays by the names that it gives them, such as `points` [d, P] and `weights`
    [1, P]. An array that a problem lacks is absent from every mapping.

    Raises:
        ValueError: there is no output, a name is not valid or occurs twice, two geometries' arrays share a name, an
            input is fed by what it can't hold, or a derivative has nothing that it is of.
    """

    inputs: tuple[FieldSpec, ...]
    """Quantities that the network is given, in channel order."""
    outputs: tuple[FieldSpec, ...]
    """Quantities that the network predicts, in channel order."""
    feeds: Mapping[str, str] = field(default_factory=dict, hash=False)
    """For inputs of the next step that are quantities of this one, the quantity's name by the input's.

    With them a surrogate is rolled out: what it predicts becomes what it is given next.
    """
    tangents: tuple[Derivative, ...] = ()
    """Derivatives of inputs, which the network is not given.

    Where there are any, outputs that are derivatives by the same parameters are not predicted by the network: they are
    the derivative of what it predicts along the tangents.
    """

    def __post_init__(self):
        for what, specs in (("inputs", self.inputs), ("outputs", self.outputs), ("tangents", self.tangents)):
            if not isinstance(specs, tuple | list) or not all(isinstance(spec, FieldSpec) for spec in specs):
                raise ValueError(f"{what} must be a tuple of FieldSpecs: (FieldSpec(...), ), with the comma")
            object.__setattr__(self, what, tuple(specs))
        names = [spec.name for spec in (*self.inputs, *self.outputs, *self.tangents)]
        for name in names:
            _check_name(name)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(map(repr, twice))} occurs twice among the FieldSpecs: rename one")
        if not self.outputs:
            raise ValueError("there must be an output")
        self._check_feeds()
        self._check_derivatives()
        arrays = [block.name for block in self._all_blocks()]
        if twice := {name for name in arrays if arrays.count(name) > 1}:
            raise ValueError(
                f"two geometries have an array {', '.join(sorted(twice))}: tell them apart by a name, as in "
                "Points(..., name='wall')"
            )
        fixed = [geometry for geometry in self.geometries if not isinstance(geometry, Grid) or geometry.travelling]
        if len({geometry.name for geometry in fixed}) < len(fixed):
            raise ValueError(
                "two geometries have the same name, or none: tell them apart, as in Mesh(..., name='wall'). A mesh "
                "made twice is two: make it once and give it to all its fields"
            )
        if twice := set(names) & {name for geometry in self.geometries for name in geometry.travelling}:
            raise ValueError(f"{', '.join(sorted(twice))} names a quantity and an array of a geometry: rename one")

    def _check_feeds(self) -> None:
        inputs = {spec.name: spec for spec in self.inputs}
        both = inputs | {spec.name: spec for spec in self.outputs}
        for name, source in self.feeds.items():
            if name not in inputs:
                raise ValueError(f"feeds[{name!r}]: there is no input of that name: {nearest(name, inputs)}")
            if source not in both:
                known = [spec.name for spec in self.outputs]
                raise ValueError(f"feeds[{name!r}]: there is no output {source!r}: {nearest(source, known)}")
            if (inputs[name].on, inputs[name].components) != (both[source].on, both[source].components):
                raise ValueError(f"feeds: {name!r} can't hold {source!r}, which has another geometry or components")

    def _check_derivatives(self) -> None:
        for specs, derivatives in ((self.inputs, self.tangents), (self.outputs, self.derivatives)):
            like = {(spec.name, spec.on, spec.components) for spec in specs}
            for each in derivatives:
                if not isinstance(each, Derivative) or (each.of, each.on, each.components) not in like:
                    raise ValueError(f"{each.name!r} must be the derivative of a quantity beside it: spec.derivative()")

    @cached_property
    def derivatives(self) -> tuple[Derivative, ...]:
        """The outputs that are derivatives of others along the tangents."""
        known = {each.by for each in self.tangents if isinstance(each, Derivative)}
        return tuple(spec for spec in self.outputs if isinstance(spec, Derivative) and spec.by in known)

    @cached_property
    def of_model(self) -> Layout:
        """The layout of what the network itself is given and predicts."""
        if not self.tangents:
            return self
        return Layout(self.inputs, tuple(spec for spec in self.outputs if spec not in self.derivatives), self.feeds)

    @cached_property
    def geometries(self) -> tuple[Geometry, ...]:
        """The geometries of the outputs, then those of inputs alone."""
        specs = (*self.outputs, *self.inputs)
        return tuple(dict.fromkeys(spec.on for spec in specs if spec.on is not None))

    @cached_property
    def blocks(self) -> dict[str, Block]:
        """The arrays by name: inputs, tangents, what geometries bring along, outputs."""
        return {block.name: block for block in self._all_blocks()}

    def _all_blocks(self) -> list[Block]:
        travelling = [
            Block(
                name,
                "geometry",
                geometry,
                (FieldSpec(name=name, on=geometry, components=shape[0], unit=""),),
                shape,
                INDEX if name == geometry.named("edges") else DTYPE,
            )
            for geometry in self.geometries
            for name, shape in geometry.travelling.items()
        ]
        inputs = _grouped("input", self.inputs, fields="fields", scalars="scalars")
        inputs = [replace(block, is_fed=all(spec.name in self.feeds for spec in block.specs)) for block in inputs]
        tangents = _grouped("tangent", self.tangents, fields="tangents", scalars="scalar_tangents")
        outputs = _grouped("output", self.outputs, fields="targets", scalars="target_scalars")
        return [*inputs, *tangents, *travelling, *outputs]

    @cached_property
    def input_blocks(self) -> tuple[Block, ...]:
        """The arrays of quantities that the network is given."""
        return tuple(block for block in self.blocks.values() if block.role == "input")

    @cached_property
    def output_blocks(self) -> tuple[Block, ...]:
        """The arrays of quantities that the network predicts."""
        return tuple(block for block in self.blocks.values() if block.role == "output")

    @cached_property
    def tangent_blocks(self) -> tuple[Block, ...]:
        """The arrays of derivatives of inputs."""
        return tuple(block for block in self.blocks.values() if block.role == "tangent")

    @cached_property
    def geometry_blocks(self) -> tuple[Block, ...]:
        """The arrays that samples bring along for their geometries."""
        return tuple(block for block in self.blocks.values() if block.role == "geometry")

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array for a single sample; the largest where points vary."""
        return {name: block.shape for name, block in self.blocks.items()}

    @property
    def sample_bytes(self) -> int:
        """Bytes of one packed sample; where points vary, of the largest."""
        return sum(block.num_bytes for block in self.blocks.values())

    def weights_of[Array](self, block: Block, arrays: Mapping[str, Array]) -> Array | np.ndarray | None:
        """Quadrature weights of a block's values.

        Args:
            block: one of inputs or outputs.
            arrays: packed samples.

        Returns:
            [N, 1, *] where they travel with the samples, [*] where all samples share them; None where values count
            alike.
        """
        if block.on is None:
            return None
        name = block.on.named("weights")
        return arrays[name] if name in block.on.travelling else block.on.weights

    def empty(self) -> dict[str, Rows]:
        """The arrays of no samples."""
        return {name: block.empty() for name, block in self.blocks.items()}

    def pack(self, samples: Sequence[Sample]) -> dict[str, Rows]:
        """Pack samples into arrays.

        Args:
            samples: N samples of the problem, one at least.

        Returns:
            Every array by name, [N, *shape]; ragged where points vary.

        Raises:
            Refused: a quantity is missing, misshapen, not finite, no real number, or one that float32 does not hold,
                a name is none of a FieldSpec, or a geometry is not one; the message names it.
        """
        room = Room(self, len(samples))
        for sample in samples:
            room.add(sample)
        return room.arrays()

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all quantities."""
        return frozenset(spec.name for spec in (*self.inputs, *self.outputs, *self.tangents))

    @cached_property
    def travelling(self) -> tuple[Geometry, ...]:
        """The geometries that each sample brings arrays along for."""
        return tuple(geometry for geometry in self.geometries if geometry.travelling)


def _grouped(
    role: Literal["input", "output", "tangent"], specs: Sequence[FieldSpec], *, fields: str, scalars: str
) -> list[Block]:
    """One block for each geometry, in the specs' order, then that of the scalars."""
    geometries = list(dict.fromkeys(spec.on for spec in specs if spec.on is not None))
    blocks = []
    for geometry in (*geometries, None):
        own = tuple(spec for spec in specs if spec.on == geometry)
        if own:
            suffix = f"_{geometry.name}" if len(geometries) > 1 and geometry is not None and geometry.name else ""
            name = scalars if geometry is None else f"{fields}{suffix}"
            shape = (sum(spec.components for spec in own), *(() if geometry is None else geometry.shape))
            blocks.append(Block(name, role, geometry, own, shape))
    return blocks


def _check_name(name: Any) -> None:
    """Raise ValueError unless the name suits every place where it is used.

    It is a key, an array of a store, and an argument of the exported module.
    """
    if not isinstance(name, str) or not name.isidentifier() or iskeyword(name) or name in RESERVED_NAMES:
        raise ValueError(
            f"{name!r} can't name a quantity: it must be an identifier, no keyword of Python, and none of "
            f"{', '.join(RESERVED_NAMES)}"
        )
    plain = unicodedata.normalize("NFKC", name)
    if plain != name:  # an argument that is typed as micro sign arrives as Greek mu
        raise ValueError(f"{name!r} can't name a quantity: Python reads it as {plain!r}; call it that")
