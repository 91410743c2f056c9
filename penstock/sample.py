"""The vocabulary that solvers, learner and orchestrator share: what a sample is and how samples travel.

Axes:  N samples of a chunk, C channels (one per field), S scalars, *grid the axes of the fields' grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np

RESERVED_NAMES = ("simulation", "step", "relative_l2", "self")  # columns of the stores that hold samples
DTYPE = np.dtype(np.float32)  # what the learner sees; solvers compute in float64


@dataclass(frozen=True, kw_only=True)
class FieldSpec:
    """One quantity of a sample: a field on a grid, or a scalar."""

    name: str
    """Key of the quantity in `Sample.inputs` or `Sample.outputs`, and in an exported file."""
    shape: tuple[int, ...] = ()
    """Points along each axis of the grid; () for a scalar."""
    unit: str = "1"
    """Physical unit, for people; "1" when dimensionless."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a simulation yields once a step: named arrays in physical units, shaped as their FieldSpecs say."""

    inputs: Mapping[str, np.ndarray | float]
    outputs: Mapping[str, np.ndarray]
    step: int = 0
    """Number of the sample inside its simulation, from 0."""


@dataclass(frozen=True)
class Layout:
    """How the named quantities of a problem's samples lie in arrays: `fields`, `scalars` and `targets`.

    fields [C, *grid]: the input fields, scalars [S]: the input scalars, targets [C, *grid]: the output fields.
    What a problem lacks is absent from every mapping. All are float32.

    Raises ValueError when the fields do not share one grid, an output is no field, or a name can't be one or occurs
    twice.
    """

    inputs: tuple[FieldSpec, ...]
    outputs: tuple[FieldSpec, ...]

    def __post_init__(self):
        names = [spec.name for spec in (*self.inputs, *self.outputs)]
        if len(set(names)) < len(names):
            raise ValueError(f"a name occurs twice among inputs and outputs: {', '.join(names)}")
        for name in names:
            if not name.isidentifier() or name in RESERVED_NAMES:
                raise ValueError(
                    f"{name!r} can't name a quantity: it must be an identifier, and none of {', '.join(RESERVED_NAMES)}"
                )
        if not self.outputs or not all(spec.shape for spec in self.outputs):
            raise ValueError("every output must be a field, and there must be one")
        if len({spec.shape for spec in (*self.inputs, *self.outputs) if spec.shape}) > 1:
            raise ValueError("all fields of a problem must share one grid")

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
        """Shape of each array for one sample."""
        return {name: (len(specs), *specs[0].shape) for name, specs in self.groups.items()}

    @property
    def sample_bytes(self) -> int:
        return DTYPE.itemsize * sum(prod(shape) for shape in self.shapes.values())

    def pack(self, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """Samples as float32 arrays [N, C, *grid] and [N, S].

        Raises ValueError with the quantity's name when one is missing, misshapen or not finite.
        """
        arrays = {name: np.empty((len(samples), *shape), DTYPE) for name, shape in self.shapes.items()}
        for row, sample in enumerate(samples):
            for name, specs in self.groups.items():
                values = sample.outputs if name == "targets" else sample.inputs
                for channel, spec in enumerate(specs):
                    if spec.name not in values:
                        raise ValueError(f"the sample lacks {spec.name!r}")
                    if np.shape(values[spec.name]) != spec.shape:
                        raise ValueError(
                            f"{spec.name!r} has shape {np.shape(values[spec.name])}, its FieldSpec says {spec.shape}"
                        )
                    with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, and is refused below
                        arrays[name][row, channel] = values[spec.name]
                    if not np.isfinite(arrays[name][row, channel]).all():
                        raise ValueError(f"{spec.name!r} holds values that are not finite")
        return arrays


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What `strategy: auto` found fastest for the systems of a family; made once in a run and shared by its workers."""

    family: str
    number: int = 0
    """Counts the decisions about the family: a later one replaces an earlier one."""
    strategy: str
    """Label of the choice, for instance "cg + multigrid"."""
    seconds: Mapping[str, float | None]
    """Median time of a solve by label, of all that were tried; None for one that failed or was cut short."""
    reason: str
    """One line for people: what was chosen, over what, by how much."""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The simulations that a worker takes at a time: its look-ahead window."""

    number: int
    """Counts the leases of a run."""
    simulations: tuple[int, ...]
    design: str = "training"
    """Second word of every draw's seed; "validation" draws are never trained on."""
    decisions: tuple[Decision, ...] = ()
    """What is known about strategies by now, one a family."""
    may_try: bool = True
    """Whether this worker may try strategies out; others follow `decisions`."""
    lane: int = 0
    """The worker's place among those of the run; a worker that replaces a dead one takes over its lane."""


@dataclass(frozen=True)
class LeaseEnd:
    """Comes out of the stream after a lease's last chunk."""

    lease_number: int
    error: str | None = None
    """How the worker died before all its simulations had ended; None for a whole lease."""


@dataclass(frozen=True, kw_only=True)
class SolveRecord:
    """What one linear solve cost; rides in chunk headers."""

    strategy: str
    """The strategy that gave the solution, which after a retry is not the configured one."""
    seconds: float
    iterations: int
    """Products with A; 0 for a direct solve."""
    relative_residual: float
    """True relative residual ||b - A x|| / ||b||."""
    family: str = "default"
    reason: str = ""
    """Why it took more than one strategy; "" where the first one worked."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Samples packed as arrays, the unit that travels, and what became of the simulations since the last one."""

    design: str = "training"
    """Design of the lease that the samples belong to."""
    arrays: dict[str, np.ndarray]
    """`Layout.pack` of the chunk's samples."""
    simulations: np.ndarray
    """int64 [N]: the simulation each sample belongs to."""
    steps: np.ndarray
    """int64 [N]"""
    parameters: np.ndarray | None = None
    """float32 [N, F]: rank of each parameter of the sample's draw, in [0, 1], uniform under the target distribution;
    [N, 0] where none is given."""
    finished: tuple[int, ...] = ()
    """Simulations whose last sample is in this chunk."""
    failed: Mapping[int, str] = field(default_factory=dict)
    """Simulations that were given up, with the reason. None of their samples is in this or a later chunk."""
    solves: tuple[SolveRecord, ...] = ()
    decisions: tuple[Decision, ...] = ()
    """What the worker knows about strategies, but for what its lease told it."""
    retried: int = 0
    """Simulations in which a system had to be solved again by a more robust strategy."""
    blocked_seconds: float = 0.0
    """Time the worker waited for its last chunk to be taken."""

    def __post_init__(self):
        if self.parameters is None:
            object.__setattr__(self, "parameters", np.empty((len(self), 0), DTYPE))

    def __len__(self) -> int:
        return len(self.simulations)

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())
