"""Samples, and how they travel: the types that all parts of penstock share.

Axes:  N samples of a chunk, C channels (one per field), S scalars, *grid the axes of the fields' grid.
"""

from __future__ import annotations

import operator
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from keyword import iskeyword
from math import inf, prod
from typing import Any

import numpy as np

from penstock.errors import Refused

RESERVED_NAMES = ("simulation", "step", "relative_l2", "self")  # columns of the stores that hold samples
DTYPE = np.dtype(np.float32)  # what the learner sees; solvers compute in float64
LEAST, MOST = float(np.finfo(DTYPE).tiny), float(np.finfo(DTYPE).max)
# A field that spans more than this fraction of its largest value keeps at least 3 digits of its variation in float32.
PLAIN_RANGE = 1e-4
# A float64 field that varies by less than this fraction of its largest value varies by a direct solve's rounding alone.
ROUNDING = 1e-10
# NumPy's letters for arrays that hold no real numbers.
OTHER_KINDS = {
    "c": "is complex: give its real and its imaginary part as two quantities",
    "M": "holds dates: give a number, such as seconds",
    "m": "holds durations: give a number, such as seconds",
    "U": "is text: give numbers",
    "S": "is text: give numbers",
    "T": "is text: give numbers",
}


def as_numbers(name: str, value: Any) -> np.ndarray:
    """The value as an array of real numbers, in its present dtype.

    Args:
        name: name of the value, for messages.
        value: an array, a number, or a list of numbers.

    Returns:
        The array.

    Raises:
        Refused: the value is anything else, such as complex, masked or text; the message says what to give instead.
    """
    try:
        array = np.ma.asarray(value) if isinstance(value, list | tuple) else np.asanyarray(value)
    except Exception as error:  # a ragged list, or another library's tensor on a GPU
        raise Refused(f"{name!r} can't be read as an array: {str(error).partition('\n')[0]}") from error
    if num_masked := np.ma.count_masked(array) if isinstance(array, np.ma.MaskedArray) else 0:
        raise Refused(
            f"{name!r} is masked at {num_masked} of {array.size} points: fill them, for instance with 0, and give the "
            "mask as a separate field if it differs between samples"
        )
    if array.dtype.kind in "fiub":
        return np.asarray(array)
    what = OTHER_KINDS.get(array.dtype.kind)
    if what is None and array.dtype.kind == "O" and not array.shape:
        what = f"is {'None' if value is None else f'a {type(value).__name__}'}: give an array of numbers"
    raise Refused(f"{name!r} {what or f'has dtype {array.dtype}: give an array of numbers'}")


@dataclass(frozen=True, kw_only=True)
class FieldSpec:
    """One quantity of a sample: a field on a grid, or a scalar.

    Raises:
        ValueError: `shape` holds anything but whole numbers from 1 on, `extent` does not match it, or `unit` is not
            text.
    """

    name: str
    """Key in `Sample.inputs` or `Sample.outputs`, and in an exported file."""
    shape: tuple[int, ...] = ()
    """Points along each axis of the grid; () for a scalar."""
    unit: str = "1"
    """Physical unit, for people; "1" when dimensionless."""
    extent: tuple[float, ...] = ()
    """Length of the domain along each axis, in the problem's unit of length.

    Gradients are per that unit. () stands for length 1 along every axis.
    """

    def __post_init__(self):
        try:
            shape = tuple(operator.index(size) for size in self.shape)
        except TypeError:
            shape = None
        if shape is None or any(size < 1 for size in shape):
            raise ValueError(
                f"{self.name!r}: shape={self.shape!r} must be whole numbers of points, at least 1 along each axis: "
                "(64, 64), (64,) on one axis, () for a scalar"
            )
        object.__setattr__(self, "shape", shape)
        try:
            extent = tuple(map(float, self.extent)) or (1.0,) * len(shape)
        except (TypeError, ValueError):
            extent = None
        if extent is None or len(extent) != len(shape) or not all(0 < length < inf for length in extent):
            raise ValueError(
                f"{self.name!r}: extent={self.extent!r} must be the domain's lengths along each of {len(shape)} axes"
            )
        object.__setattr__(self, "extent", extent)
        if not isinstance(self.unit, str):
            raise ValueError(f"{self.name!r}: unit={self.unit!r} must be text")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The named arrays of one step of a simulation, in physical units.

    Arrays have the shapes of their FieldSpecs.

    Raises:
        ValueError: `step` is no integer from 0 on.
    """

    inputs: Mapping[str, np.ndarray | float]
    """The network's inputs by name: fields as arrays, scalars as numbers."""
    outputs: Mapping[str, np.ndarray]
    """The fields that the network learns to predict, by name."""
    step: int = 0
    """Number of the sample within its simulation, from 0.

    It is an integer because a second copy of a sample is recognised by it.
    """

    def __post_init__(self):
        try:
            step = operator.index(self.step)
        except TypeError:
            step = -1
        if not 0 <= step <= np.iinfo(np.int64).max:
            raise ValueError(
                f"step={self.step!r} must be an integer from 0 on: number the samples 0, 1, 2, ... and give the time "
                "as an input"
            )
        object.__setattr__(self, "step", step)


@dataclass(frozen=True)
class Layout:
    """The arrays that hold a problem's samples, and their channels.

    `fields` [C, *grid] holds the input fields, `scalars` [S] the input scalars, `targets` [C, *grid] the output fields,
    all in float32. An array that a problem lacks is absent from every mapping.

    Raises:
        ValueError: the fields do not share one grid, an output is a scalar or there is none, or a name is not valid or
            occurs twice.
    """

    inputs: tuple[FieldSpec, ...]
    """Quantities that the network is given, in channel order."""
    outputs: tuple[FieldSpec, ...]
    """Fields that the network predicts, in channel order."""

    def __post_init__(self):
        for what, specs in (("inputs", self.inputs), ("outputs", self.outputs)):
            if not isinstance(specs, tuple | list) or not all(isinstance(spec, FieldSpec) for spec in specs):
                raise ValueError(f"{what} must be a tuple of FieldSpecs: (FieldSpec(...), ), with the comma")
            object.__setattr__(self, what, tuple(specs))
        names = [spec.name for spec in (*self.inputs, *self.outputs)]
        for name in names:
            _check_name(name)
        if len(set(names)) < len(names):
            raise ValueError(f"a name occurs twice among inputs and outputs: {', '.join(names)}")
        if not self.outputs or not all(spec.shape for spec in self.outputs):
            raise ValueError("every output must be a field, and there must be one")
        if len({(spec.shape, spec.extent) for spec in (*self.inputs, *self.outputs) if spec.shape}) > 1:
            raise ValueError("all fields of a problem must share one grid: one shape and one extent")

    @cached_property
    def groups(self) -> dict[str, tuple[FieldSpec, ...]]:
        """The specs of each array, in channel order."""
        groups = {
            "fields": tuple(spec for spec in self.inputs if spec.shape),
            "scalars": tuple(spec for spec in self.inputs if not spec.shape),
            "targets": self.outputs,
        }
        return {name: specs for name, specs in groups.items() if specs}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array for a single sample."""
        return {name: (len(specs), *specs[0].shape) for name, specs in self.groups.items()}

    @property
    def extent(self) -> tuple[float, ...]:
        """Length of the fields' domain along each axis."""
        return self.outputs[0].extent

    @property
    def sample_bytes(self) -> int:
        """Bytes of one packed sample."""
        return DTYPE.itemsize * sum(prod(shape) for shape in self.shapes.values())

    @np.errstate(over="ignore")  # a value beyond float32 becomes infinite, and is refused
    def pack(self, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """Pack samples into float32 arrays.

        Args:
            samples: N samples of the problem.

        Returns:
            `fields` and `targets` [N, C, *grid] and `scalars` [N, S], those that the problem has.

        Raises:
            Refused: a quantity is missing, misshapen, not finite, no real number, or one that float32 does not hold;
                the message names it.
        """
        arrays = {name: np.empty((len(samples), *shape), DTYPE) for name, shape in self.shapes.items()}
        for row, sample in enumerate(samples):
            for name, specs in self.groups.items():
                values = sample.outputs if name == "targets" else sample.inputs
                for channel, spec in enumerate(specs):
                    if spec.name not in values:
                        raise Refused(f"the sample lacks {spec.name!r}")
                    value = values[spec.name]
                    if type(value) is not np.ndarray or value.dtype.kind != "f":
                        value = as_numbers(spec.name, value)
                    if value.shape != spec.shape:
                        raise Refused(f"{spec.name!r} has shape {value.shape}, its FieldSpec says {spec.shape}")
                    arrays[name][row, channel] = value
                    _require_kept(spec.name, value, arrays[name][row, channel])
        return arrays


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


def _require_kept(name: str, values: np.ndarray, packed: np.ndarray) -> None:
    """Raise Refused where the float32 array `packed` has lost what `values` hold."""
    lowest, highest = (float(packed.min()), float(packed.max())) if values.ndim else (float(packed),) * 2
    largest = max(-lowest, highest)
    if highest - lowest > max(PLAIN_RANGE * largest, LEAST) and values.dtype.kind == "f":  # False for NaN and infinity
        return
    if not LEAST <= largest <= MOST:
        _require_range(name, values)
    if values.dtype.kind in "iu":
        with np.errstate(invalid="ignore"):
            wrong = packed.astype(values.dtype) != values
        if wrong.any():
            raise Refused(
                f"{name!r} holds the integer {np.extract(wrong, values)[0]}, which float32 rounds: give it as float64 "
                "if that will do"
            )
    if values.ndim and values.dtype.itemsize > DTYPE.itemsize:
        _require_variation(name, values.astype(np.float64), largest)


def _require_range(name: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise Refused(f"{name!r} holds values that are not finite")
    largest = np.abs(values).max()
    if largest > MOST:
        raise Refused(f"{name!r} reaches {largest:.3g}, beyond float32's {MOST:.2g}: give it in another unit")
    if largest:
        raise Refused(f"{name!r} is {largest:.3g} at most, below float32's {LEAST:.2g}: give it in another unit")


def _require_variation(name: str, values: np.ndarray, largest: float) -> None:
    """Raise Refused where float32 loses half of a field's variation.

    A variation no larger than the field's rounding does not count.
    """
    mean = values.mean()
    deviation = values.std()
    lost = np.sqrt(np.mean((values.astype(DTYPE) - values) ** 2))
    if deviation > ROUNDING * largest and lost > deviation / 2:
        raise Refused(
            f"{name!r} varies by {deviation:.2g} about {mean:.7g}, where float32 has steps of "
            f"{np.spacing(DTYPE.type(largest)):.2g}: give it less its offset, or as float32 if that variation is noise"
        )


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The strategy that `auto` found fastest for a family of systems.

    It is made once in a run and shared by the run's workers.
    """

    family: str
    """Name of the family."""
    number: int = 0
    """Count of the decisions about the family: a later one replaces an earlier one."""
    strategy: str
    """Label of the choice, for instance "cg + multigrid"."""
    seconds: Mapping[str, float | None]
    """Median time of a solve, in seconds, by label of every strategy tried.

    None stands for one that failed or was cut short.
    """
    reason: str
    """One line for people: what was chosen, over what, by how much."""


# Only the families met last are remembered, because a problem may name a new one for every draw.
MAX_FAMILIES = 32


def keep_last[Key, Value](kept: dict[Key, Value], key: Key, value: Value) -> None:
    """Set the key as the last one, and drop the first ones beyond MAX_FAMILIES."""
    kept.pop(key, None)
    kept[key] = value
    while len(kept) > MAX_FAMILIES:
        del kept[next(iter(kept))]


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The simulations that a worker takes at a time: its look-ahead window."""

    number: int
    """Count of the leases of a run."""
    simulations: tuple[int, ...]
    design: str = "training"
    """Second word of every draw's seed; "validation" draws are never trained on."""
    decisions: tuple[Decision, ...] = ()
    """Decisions about strategies so far, one per family."""
    may_try: bool = True
    """Whether this worker may try strategies; if not, it follows `decisions`."""
    lane: int = 0
    """The worker's place among those of the run.

    A worker that replaces a dead one takes over its lane.
    """


@dataclass(frozen=True)
class LeaseEnd:
    """The end of a lease, sent through the stream after its last chunk."""

    lease_number: int
    error: str | None = None
    """How the worker died before the lease was complete; None if it was."""
    outgrown_bytes: int | None = None
    """Memory in bytes of a worker that has outgrown its bound; None for others.

    It solves nothing more, and may have left simulations out.
    """


@dataclass(frozen=True, kw_only=True)
class SolveRecord:
    """The cost of one linear solve, sent with the chunks."""

    strategy: str
    """The strategy that gave the solution; after a retry, not the configured one."""
    seconds: float
    iterations: int
    """Products with A; 0 for a direct solve."""
    relative_residual: float
    """True relative residual ||b - A x|| / ||b||."""
    family: str = "default"
    """Name of the system's family."""
    reason: str = ""
    """Why it took more than one strategy; "" where the first one worked."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Packed samples, the unit that travels, with news of their simulations.

    The news is what happened since the chunk before: simulations finished and failed, solves, decisions.
    """

    design: str = "training"
    """Design of the lease that the samples belong to."""
    arrays: dict[str, np.ndarray]
    """The samples as arrays, packed by `Layout.pack`."""
    simulations: np.ndarray
    """The simulation that each sample belongs to, int64 [N]."""
    steps: np.ndarray
    """The number of each sample within its simulation, int64 [N]."""
    parameters: np.ndarray | None = None
    """Rank of each parameter of the sample's draw, float32 [N, F].

    Ranks lie in [0, 1] and are uniform under the target distribution; [N, 0] where none is given.
    """
    finished: tuple[int, ...] = ()
    """Simulations whose last sample is in this chunk."""
    failed: Mapping[int, str] = field(default_factory=dict)
    """Simulations that were given up, with the reason.

    None of their samples is in this or a later chunk.
    """
    solves: tuple[SolveRecord, ...] = ()
    decisions: tuple[Decision, ...] = ()
    """Decisions the worker has made or adopted beyond those in its lease."""
    retried: int = 0
    """Number of simulations in which a system needed a more robust strategy."""
    blocked_seconds: float = 0.0
    """Time the worker waited for its last chunk to be taken, in seconds."""
    outgrown_bytes: int | None = None
    """The `outgrown_bytes` of the `LeaseEnd` that will follow."""

    def __post_init__(self):
        if self.parameters is None:
            object.__setattr__(self, "parameters", np.empty((len(self), 0), DTYPE))

    def __len__(self) -> int:
        return len(self.simulations)

    @property
    def num_bytes(self) -> int:
        """Bytes of the chunk's arrays."""
        return sum(array.nbytes for array in self.arrays.values())
