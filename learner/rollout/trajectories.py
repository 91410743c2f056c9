"""Whole trajectories from rollouts, for pictures.

Axes:  N rows, S simulations, A applications, F frames, * the shape of a quantity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from penstock.layout import Layout
from penstock.learner.buffers.units import Frames, Unit
from penstock.learner.rollout.feedback import roll_out
from penstock.learner.surrogate import Surrogate


@dataclass(frozen=True)
class Trajectories:
    """The true and the predicted frames of some simulations, in physical units."""

    simulations: np.ndarray
    """int64 [S]."""
    first_rows: np.ndarray
    """int64 [S]: the row that each begins with."""
    steps: list[int]
    """Number of steps from the last frame that is given to each of the F frames."""
    true: dict[str, np.ndarray]
    """[S, F, *] by output of the problem."""
    predicted: dict[str, np.ndarray]
    """Likewise."""
    given: dict[str, np.ndarray]
    """The last frame that is given, [S, *], of the outputs of which one is."""


def rollout_rows(frames: Frames, layout: Layout, simulations: np.ndarray, steps: np.ndarray) -> np.ndarray | None:
    """Return the rows that the rollout of each simulation goes along.

    Each begins where the one before ends.

    Args:
        frames: the frames that a row leads to.
        layout: layout of batches.
        simulations: simulation of each row, int64 [N].
        steps: step of each row's inputs, int64 [N].

    Returns:
        int64 [S, A], in the order of the simulations, as many as the shortest has; A = 1 where no input is fed. None
        where there would be one frame alone.
    """
    order = np.lexsort((steps, simulations))
    _, first, counts = np.unique(simulations[order], return_index=True, return_counts=True)
    num = (counts.min() - 1) // frames.advance + 1 if layout.feeds else 1
    return order[first[:, None] + frames.advance * np.arange(num)] if num * len(frames.names) > 1 else None


def trajectories(
    surrogate: Surrogate, unit: Unit, layout: Layout, rows: Mapping[str, np.ndarray], *origins: np.ndarray
) -> Trajectories | None:
    """Roll a surrogate out along simulations.

    Args:
        surrogate: the surrogate, on the CPU.
        unit: what a row is.
        layout: layout of the problem's samples.
        rows: arrays of the rows, [N, C, *] by name, as `Unit.all_rows` returns them.
        origins: simulation and step of each row, int64 [N].

    Returns:
        The trajectories, from the first row of each simulation; None where they would have one frame alone.
    """
    frames, batch = unit.frames(layout), surrogate.layout
    rows_SA = rollout_rows(frames, batch, *origins)
    if rows_SA is None:
        return None
    given = ({name: torch.from_numpy(array[rows_S]) for name, array in rows.items()} for rows_S in rows_SA.T)
    columns: list[list[dict[str, np.ndarray]]] = [[], []]  # true ones and predicted ones
    with torch.no_grad():
        for outputs in roll_out(surrogate.predict, batch, given):
            for column, arrays in zip(columns, outputs, strict=True):
                named = [block.by_name(arrays[block.name].numpy()) for block in batch.output_blocks]
                column.append({name: values for quantities in named for name, values in quantities.items()})
    quantities = [
        {
            spec.name: np.stack([each[names[number]] for each in column for names in frames.names], axis=1)
            for number, spec in enumerate(layout.outputs)
        }
        for column in columns
    ]
    num_frames = rows_SA.shape[1] * len(frames.names)
    steps = [frames.spacing * (number + 1) for number in range(num_frames)]
    first_rows = rows_SA[:, 0]
    given = _given(frames, layout, batch, {name: array[first_rows] for name, array in rows.items()})
    return Trajectories(origins[0][first_rows], first_rows, steps, *quantities, given)


def _given(frames: Frames, layout: Layout, batch: Layout, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The last frame that rows are given, by output of the problem."""
    inputs = {name: values for block in batch.input_blocks for name, values in block.by_name(rows[block.name]).items()}
    # what the last state of a row becomes is the last one that the next row is given
    last = {source: name for name, source in (batch.feeds or layout.feeds).items()}
    numbered = frames.names[-1] if batch.feeds else [spec.name for spec in layout.outputs]
    names = {spec.name: last.get(source) for spec, source in zip(layout.outputs, numbered, strict=True)}
    return {output: inputs[name] for output, name in names.items() if name in inputs}
