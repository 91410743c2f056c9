"""What a row of a batch is: a sample, the whole trajectory of a simulation, or two samples of one simulation.

Axes:  N samples, U units, B rows of a batch, T steps, C channels (S for scalars), * the shape of a geometry.

A unit is what a slot of the buffer holds: T = 1 sample, or the T samples of a simulation. It is stored by the problem's
layout, in arrays [U, T, C, *]; a batch has a layout of its own, which model, training and validation see.
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
    """How units become rows of batches: by one gather an array, of rows of the stored array with two axes merged."""

    num_steps: int
    """T, samples of a unit."""
    num_choices: int = 1
    """Rows that a unit has to give, one at a time."""
    samples_per_row: int = 1
    """Samples that are new in a row: what reuse is counted by."""

    @abstractmethod
    def layout(self, layout: Layout) -> Layout:
        """The layout of batches, for a problem's layout."""

    def parts(self, layout: Layout) -> dict[str, list[tuple[str, int]]]:
        """Of each array of a batch the stored arrays whose channels it has, with how many steps after the row's."""
        return {name: [(name, 0)] for name in layout.blocks}

    def num_kept(self, block: Block) -> int:
        """The steps of a unit, from the first on, that are stored of an array.

        The geometry of a simulation's first step is that of all.
        """
        return 1 if block.role == "geometry" else self.num_steps

    def merged(self, stored: Tensor) -> Tensor:
        """A view of a stored array [U, T, C, *], of which batches take rows."""
        return stored.flatten(1, 2)

    def rows(self, units: np.ndarray, choices: np.ndarray) -> np.ndarray:
        """int64 [B]: the rows of `merged` for a choice in [0, num_choices) of each unit."""
        return units

    def rows_of(self, block: Block, rows: Tensor, steps_after: int) -> Tensor:
        """`rows` in one of the `merged` arrays, so many steps later."""
        return rows

    def gather(self, merged: Mapping[str, Tensor], layout: Layout, rows: Tensor, out: Mapping[str, Tensor]) -> None:
        """Fills `out`, a batch's arrays, with rows (int64 [B], on the arrays' device) of `merged` stored ones."""
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
        """Everything that could be drawn of these samples, arrays [N, C, *] of the problem's layout: a validation set.

        simulations, steps: int64 [N], in any order. Returned beside the arrays: of each row its simulation, and the
        step of its inputs. Raises ValueError where a simulation has not each step once, and PenstockError where its
        geometry changes from step to step.
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
            # where points vary the arrays may be shorter than the layout's
            name: torch.empty(len(rows), block.shape[0], *arrays[parts[name][0][0]].shape[2:], dtype=dtype_of(block))
            for name, block in batch.blocks.items()
        }
        self.gather(merged, layout, rows, out)
        first = order[units * num_steps]
        return {name: array.numpy() for name, array in out.items()}, simulations[first], steps[first] + choices

    def sources(self, layout: Layout) -> dict[str, list[tuple[str, slice]]]:
        """Where the statistics of a batch's channels come from: stored arrays, and steps of theirs."""
        return {
            name: [(part, slice(after, after + self.num_choices)) for part, after in parts]
            for name, parts in self.parts(layout).items()
        }


@dataclass(frozen=True)
class Samples(Unit):
    """Single samples, of steady problems and of transient ones with the time as an input."""

    num_steps = 1

    def layout(self, layout: Layout) -> Layout:
        return layout


@dataclass(frozen=True)
class Trajectories(Unit):
    """Whole simulations: from the inputs of step 0 to the outputs of all steps.

    An output u gives the channels u_0, u_1, ..., all outputs of a step before those of the next. Of the inputs only
    step 0 is stored.

    Args:
        num_steps: samples of a simulation, T > 1: the problem's.

    Raises:
        ValueError: a simulation has one sample.
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
        """Each step's targets have statistics of their own: late steps of a decaying field would else be nothing."""
        steps = [slice(step, step + 1) for step in range(self.num_steps)]
        return {name: [(name, step) for step in steps[: self.num_kept(block)]] for name, block in layout.blocks.items()}


@dataclass(frozen=True)
class Pairs(Unit):
    """Two samples of a simulation: from the inputs and outputs at step t to the outputs at step t + k.

    An output u is the input u_before at step t. A unit gives its T - k pairs one after another, from a random one on.

    Args:
        num_steps: samples of a simulation, T > 1: the problem's.
        stride: steps between the two samples, k, at least 1 and below T, the samples of a simulation.

    Raises:
        ValueError: a simulation has one sample, or k does not suit it.
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
        stored = (*layout.input_blocks, *layout.output_blocks)  # inputs come before what was an output
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
    """torch's type of a block's values."""
    return getattr(torch, block.dtype.name)


def _check_num_steps(what: str, num_steps: int) -> None:
    if num_steps <= 1:
        raise ValueError(f"{what} need a problem whose num_steps is above 1, not {num_steps}")


def _check_stays(name: str, units: np.ndarray, simulations: np.ndarray) -> None:
    """Raise PenstockError where a geometry's array [U, T, C, *] is not that of step 0 at all steps."""
    moves = (units != units[:, :1]).reshape(len(units), -1).any(axis=1)
    if moves.any():
        raise PenstockError(
            f"buffer.draw: {name} of simulation {simulations[moves][0]} change from step to step, and those of step 0 "
            "stand for all: take samples"
        )


UNITS: dict[str, type[Unit]] = {"samples": Samples, "trajectories": Trajectories, "pairs": Pairs}
