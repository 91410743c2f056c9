"""What a row of a batch is: a sample, a trajectory, or a window of one.

Axes:  N samples, U units, B rows of a batch, T steps, C channels (S for scalars), * the shape of a geometry.

A unit is what a slot of the buffer holds: T = 1 sample, or the T samples of a simulation. Units are stored in the
problem's layout, in arrays [U, T, C, *]. Batches have a layout that follows from it, which model, training and
validation see.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from penstock.errors import PenstockError
from penstock.layout import Block, Layout


@dataclass(frozen=True)
class Part:
    """Channels of an array of samples that become channels of an array of a batch."""

    array: str
    """Name of the array in the layout of samples."""
    channels: slice = slice(None)
    steps_after: int = 0
    """Number of steps after the row's step."""
    earlier: Part | None = None
    """Where the values are that are stored as outputs of the step before; None if all are in `array`."""


@dataclass(frozen=True)
class Frames:
    """The frames, states at one time each, that a row leads to."""

    names: tuple[tuple[str, ...], ...]
    """Outputs of each frame, in the order of time."""
    spacing: int
    """Number of steps from one to the next."""

    @property
    def advance(self) -> int:
        """Number of steps of a row."""
        return self.spacing * len(self.names)


class Unit(ABC):
    """How the units of a buffer become rows of batches.

    Each part of a batch's array is gathered at once, as rows of a stored array with two axes merged.
    """

    num_steps: int
    """Number T of samples in a unit."""
    num_windows: int = 1
    """Number of rows that there are of a unit, each a step after the one before."""
    num_unrolled: int = 1
    """Number of rows that are drawn together, each where the one before ends."""
    samples_per_row: int = 1
    """Number of samples that a drawn row counts as, in `num_drawn` and the reuse."""

    @property
    def num_choices(self) -> int:
        """Number of rows that a unit can give, one at a time."""
        return self.num_windows

    def fitted(self, layout: Layout) -> Unit:
        """Return the unit for samples of a layout.

        Args:
            layout: layout of the problem's samples.

        Returns:
            The unit.

        Raises:
            ValueError: such samples can't be drawn so.
        """
        return self

    def unrolled(self, num: int) -> Unit:
        """Return the unit that gives several rows at a time.

        Each begins where the one before ends.

        Args:
            num: number of rows, from 1 on.

        Returns:
            The unit.

        Raises:
            ValueError: there are no such rows.
        """
        if num > 1:
            raise ValueError("it takes several steps of a simulation: draw windows or pairs")
        return self

    def frames(self, layout: Layout) -> Frames:
        """Return the frames that a row leads to.

        Args:
            layout: layout of the problem's samples.

        Returns:
            The frames.
        """
        return Frames((tuple(spec.name for spec in self.layout(layout).outputs),), 1)

    @abstractmethod
    def layout(self, layout: Layout) -> Layout:
        """Return the layout of batches.

        Args:
            layout: layout of the problem's samples.

        Returns:
            The layout.
        """

    def parts(self, layout: Layout) -> dict[str, list[Part]]:
        """Return what each array of a batch is concatenated from.

        Args:
            layout: layout of the problem's samples.

        Returns:
            The parts, in the order of the channels, by name of the batch's array.
        """
        return {name: [Part(name)] for name in layout.blocks}

    def num_kept(self, block: Block) -> int:
        """Return how many of a unit's steps are stored of an array.

        They are the first steps. The geometry of a simulation's step 0 is that of all its steps.

        Args:
            block: the array's block of the problem's layout.

        Returns:
            The number of steps.
        """
        return 1 if block.role == "geometry" else self.num_steps

    def merged(self, stored: Tensor) -> Tensor:
        """Return the view of a stored array whose rows a batch gathers.

        Args:
            stored: array [U, kept steps, C, *].

        Returns:
            The view, with two of its first three axes merged.
        """
        return stored.flatten(1, 2)

    def rows(self, units: np.ndarray, choices: np.ndarray) -> np.ndarray:
        """Return the rows of `merged` arrays that make up a batch.

        Args:
            units: places of the units, int64 [B].
            choices: a number from 0 to num_choices - 1 for each unit, int64 [B].

        Returns:
            The rows, int64 [B].
        """
        return units

    def drawn_rows(self, units: np.ndarray, choices: np.ndarray) -> np.ndarray:
        """Return the rows of `merged` arrays that make up a drawn batch.

        Args:
            units: as for `rows`.
            choices: as for `rows`, the first of the rows that are drawn together.

        Returns:
            The rows, int64 [num_unrolled B]: the first of all units, then the second of all, and so on.
        """
        return self.rows(units, choices)

    def gather_part(self, part: Part, merged: Mapping[str, Tensor], layout: Layout, rows: Tensor, out: Tensor) -> None:
        """Gather one part of an array.

        Args:
            part: the part.
            merged: stored arrays by name, as `merged` returns them.
            layout: layout of the problem's samples.
            rows: what `rows` returned, int64 [B] on the arrays' device.
            out: where it goes, [B, C, *].
        """
        torch.index_select(merged[part.array][:, part.channels], 0, rows, out=out)

    def gather(self, merged: Mapping[str, Tensor], layout: Layout, rows: Tensor, out: Mapping[str, Tensor]) -> None:
        """Gather the arrays of a batch.

        Args:
            merged: stored arrays by name, as `merged` returns them.
            layout: layout of the problem's samples.
            rows: what `rows` returned, int64 [B] on the arrays' device.
            out: arrays of the batch by name, [B, C, *], to be filled.
        """
        for name, parts in self.parts(layout).items():
            start = 0
            for part in parts:
                # as many channels as there are in the array: a row of a trajectory has those of all steps
                size = len(range(*part.channels.indices(merged[part.array].shape[1])))
                self.gather_part(part, merged, layout, rows, out[name].narrow(1, start, size))
                start += size

    def all_rows(
        self, arrays: Mapping[str, np.ndarray], layout: Layout, simulations: np.ndarray, steps: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Return every row that could be drawn from samples, as for a validation set.

        Args:
            arrays: arrays [N, C, *] of the problem's layout.
            layout: layout of the problem's samples.
            simulations: simulation of each sample, int64 [N], in any order.
            steps: step of each sample, int64 [N].

        Returns:
            The rows' arrays by name, the simulation of each row, and the step of each row's inputs.

        Raises:
            ValueError: a simulation does not have each step once.
            PenstockError: a simulation's geometry changes from step to step.
        """
        num_units, num_steps = len(simulations) // self.num_steps, self.num_steps
        order = np.lexsort((steps, simulations)) if num_steps > 1 else np.arange(num_units)
        if num_steps > 1:
            numbers, counts = np.unique(simulations, return_counts=True)
            if (counts != num_steps).any() or (steps[order] != np.tile(np.arange(num_steps), len(numbers))).any():
                raise ValueError(f"each simulation must have steps 0 to {num_steps - 1}, each of them once")
        merged = {}
        for name, array in arrays.items():
            num_kept = self.num_kept(layout.blocks[name])
            units = array[order].reshape(num_units, num_steps, *array.shape[1:])
            if layout.blocks[name].role == "geometry":
                _check_stays(name, units, simulations[order[::num_steps]])
            units = units[:, :num_kept]
            merged[name] = self.merged(torch.from_numpy(np.ascontiguousarray(units)))
        units, choices = np.divmod(np.arange(num_units * self.num_windows), self.num_windows)
        rows = torch.from_numpy(self.rows(units, choices))
        batch, parts = self.layout(layout), self.parts(layout)
        out = {
            # if points vary, the arrays may have fewer than the layout
            name: torch.empty(len(rows), block.shape[0], *arrays[parts[name][0].array].shape[2:], dtype=dtype_of(block))
            for name, block in batch.blocks.items()
        }
        self.gather(merged, layout, rows, out)
        first = order[units * num_steps]
        return {name: array.numpy() for name, array in out.items()}, simulations[first], steps[first] + choices

    def sources(self, layout: Layout) -> dict[str, list[tuple[str, slice, slice]]]:
        """Return where the statistics of a batch's channels come from.

        Args:
            layout: layout of the problem's samples.

        Returns:
            Arrays of samples, with the channels and the steps of each, in the order of the channels, by name of the
            batch's array.
        """
        return {
            name: [
                (part.array, part.channels, slice(part.steps_after, part.steps_after + self.num_windows))
                for part in parts
            ]
            for name, parts in self.parts(layout).items()
        }


@dataclass(frozen=True)
class Samples(Unit):
    """Single samples, of steady problems or of transient ones with time as an input."""

    num_steps = 1

    def layout(self, layout: Layout) -> Layout:
        return layout


@dataclass(frozen=True)
class Trajectories(Unit):
    """Whole simulations: from the inputs of step 0 to the outputs of all steps.

    An output u gives the channels u_0, u_1, ..., with all outputs of a step before those of the next. Inputs are stored
    for step 0 only.

    Args:
        num_steps: number T > 1 of samples in a simulation, given by the problem.

    Raises:
        ValueError: a simulation has only one sample.
    """

    num_steps: int

    def __post_init__(self):
        check_num_steps("trajectories", self.num_steps)

    @property
    def samples_per_row(self) -> int:
        return self.num_steps

    def layout(self, layout: Layout) -> Layout:
        outputs = [
            replace(spec, name=f"{spec.name}_{step}") for step in range(self.num_steps) for spec in layout.outputs
        ]
        return Layout(layout.inputs, tuple(outputs))

    def num_kept(self, block: Block) -> int:
        return self.num_steps if block.role == "output" else 1

    def frames(self, layout: Layout) -> Frames:
        names = [[f"{spec.name}_{step}" for spec in layout.outputs] for step in range(self.num_steps)]
        return Frames(tuple(map(tuple, names)), 1)

    def sources(self, layout: Layout) -> dict[str, list[tuple[str, slice, slice]]]:
        """Return where the statistics of a batch's channels come from.

        Each step's targets have separate statistics. Otherwise the late steps of a decaying field would hardly count.
        """
        steps = [slice(step, step + 1) for step in range(self.num_steps)]
        return {
            name: [(name, slice(None), step) for step in steps[: self.num_kept(block)]]
            for name, block in layout.blocks.items()
        }


def dtype_of(block: Block) -> torch.dtype:
    """Return torch's data type for the values of a block."""
    return getattr(torch, block.dtype.name)


def check_num_steps(what: str, num_steps: int) -> None:
    """Raise ValueError unless a simulation has several samples, which a unit needs."""
    if num_steps <= 1:
        raise ValueError(f"{what} need a problem whose num_steps is above 1, not {num_steps}")


def _check_stays(name: str, units: np.ndarray, simulations: np.ndarray) -> None:
    """Raise PenstockError if a geometry's array [U, T, C, *] changes after step 0."""
    moves = (units != units[:, :1]).reshape(len(units), -1).any(axis=1)
    if moves.any():
        raise PenstockError(
            f"buffer.draw: {name} of simulation {simulations[moves][0]} change from step to step, but only those of "
            "step 0 are kept: take samples"
        )
