"""What a row of a batch is: a sample, a trajectory, or a pair of samples.

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


class Unit(ABC):
    """How the units of a buffer become rows of batches.

    Each part of a batch's array is gathered at once, as rows of a stored array with two axes merged.
    """

    num_steps: int
    """Number T of samples in a unit."""
    num_choices: int = 1
    """Number of rows that a unit can give, one at a time."""
    samples_per_row: int = 1
    """Number of samples that a drawn row counts as, in `num_drawn` and the reuse."""

    @abstractmethod
    def layout(self, layout: Layout) -> Layout:
        """Return the layout of batches.

        Args:
            layout: layout of the problem's samples.

        Returns:
            The layout.
        """

    def parts(self, layout: Layout) -> dict[str, list[tuple[str, int]]]:
        """Return the stored arrays that each array of a batch is concatenated from.

        Args:
            layout: layout of the problem's samples.

        Returns:
            Name and time offset of each part, in the order of the channels, by name of the batch's array. The offset is
            the number of steps after the row's step.
        """
        return {name: [(name, 0)] for name in layout.blocks}

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

    def rows_of(self, block: Block, rows: Tensor, steps_after: int) -> Tensor:
        """Return the rows of one `merged` array, a number of steps later.

        Args:
            block: the array's block of the problem's layout.
            rows: what `rows` returned, int64 [B].
            steps_after: number of steps.

        Returns:
            The rows, int64 [B].
        """
        return rows

    def gather(self, merged: Mapping[str, Tensor], layout: Layout, rows: Tensor, out: Mapping[str, Tensor]) -> None:
        """Gather the arrays of a batch.

        Args:
            merged: stored arrays by name, as `merged` returns them.
            layout: layout of the problem's samples.
            rows: what `rows` returned, int64 [B] on the arrays' device.
            out: arrays of the batch by name, [B, C, *], to be filled.
        """
        for name, parts in self.parts(layout).items():
            channel = 0
            for part, steps_after in parts:
                source = merged[part]
                target = out[name] if len(parts) == 1 else out[name].narrow(1, channel, source.shape[1])
                torch.index_select(source, 0, self.rows_of(layout.blocks[part], rows, steps_after), out=target)
                channel += source.shape[1]

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
        units, choices = np.divmod(np.arange(num_units * self.num_choices), self.num_choices)
        rows = torch.from_numpy(self.rows(units, choices))
        batch, parts = self.layout(layout), self.parts(layout)
        out = {
            # if points vary, the arrays may have fewer than the layout
            name: torch.empty(len(rows), block.shape[0], *arrays[parts[name][0][0]].shape[2:], dtype=dtype_of(block))
            for name, block in batch.blocks.items()
        }
        self.gather(merged, layout, rows, out)
        first = order[units * num_steps]
        return {name: array.numpy() for name, array in out.items()}, simulations[first], steps[first] + choices

    def sources(self, layout: Layout) -> dict[str, list[tuple[str, slice]]]:
        """Return where the statistics of a batch's channels come from.

        Args:
            layout: layout of the problem's samples.

        Returns:
            Stored arrays and the steps of each, in the order of the channels, by name of the batch's array.
        """
        return {
            name: [(part, slice(after, after + self.num_choices)) for part, after in parts]
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
        _check_num_steps("trajectories", self.num_steps)

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

    def sources(self, layout: Layout) -> dict[str, list[tuple[str, slice]]]:
        """Return where the statistics of a batch's channels come from.

        Each step's targets have separate statistics. Otherwise the late steps of a decaying field would hardly count.
        """
        steps = [slice(step, step + 1) for step in range(self.num_steps)]
        return {name: [(name, step) for step in steps[: self.num_kept(block)]] for name, block in layout.blocks.items()}


@dataclass(frozen=True)
class Pairs(Unit):
    """Two samples of a simulation, k steps apart.

    They lead from the inputs and outputs at step t to the outputs at step t + k. An output u is the input u_before at
    step t. A unit gives its T - k pairs one after another, starting with a random one.

    Args:
        num_steps: number T > 1 of samples in a simulation, given by the problem.
        stride: number of steps k between the two samples, at least 1 and less than the number of samples in a
            simulation.

    Raises:
        ValueError: a simulation has only one sample, or k is out of range.
    """

    num_steps: int
    stride: int = 1

    def __post_init__(self):
        _check_num_steps("pairs", self.num_steps)
        if not 1 <= self.stride < self.num_steps:
            raise ValueError(f"the stride of pairs must be between 1 and {self.num_steps - 1}, not {self.stride}")

    @property
    def num_choices(self) -> int:
        return self.num_steps - self.stride

    def layout(self, layout: Layout) -> Layout:
        before = [replace(spec, name=f"{spec.name}_before") for spec in layout.outputs]
        return Layout((*layout.inputs, *before), layout.outputs)

    def parts(self, layout: Layout) -> dict[str, list[tuple[str, int]]]:
        stored = (*layout.input_blocks, *layout.output_blocks)  # inputs come before outputs of the earlier step
        inputs = self.layout(layout).input_blocks
        return {
            **{block.name: [(other.name, 0) for other in stored if other.on == block.on] for block in inputs},
            **{block.name: [(block.name, 0)] for block in layout.geometry_blocks},
            **{block.name: [(block.name, self.stride)] for block in layout.output_blocks},
        }

    def merged(self, stored: Tensor) -> Tensor:
        return stored.flatten(0, 1)

    def rows(self, units: np.ndarray, choices: np.ndarray) -> np.ndarray:
        return units * self.num_steps + choices

    def rows_of(self, block: Block, rows: Tensor, steps_after: int) -> Tensor:
        return rows + steps_after if self.num_kept(block) > 1 else rows // self.num_steps


def dtype_of(block: Block) -> torch.dtype:
    """Return torch's data type for the values of a block."""
    return getattr(torch, block.dtype.name)


def _check_num_steps(what: str, num_steps: int) -> None:
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


UNITS: dict[str, type[Unit]] = {"samples": Samples, "trajectories": Trajectories, "pairs": Pairs}
