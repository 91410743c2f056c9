"""Remarks for people on the samples that the normalisation is fixed from.

Axes:  N samples of a chunk, C channels, * the shape of a geometry.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from penstock.layout import Layout
from penstock.learner.buffers.watermark import MIN_SIMULATIONS

GROWTH = 1e3  # of a blow-up, in each half of a simulation: decay has none, and a start from 0 only in the first


def few_simulations(num_simulations: int, capacity: int) -> list[str]:
    """Return a line for people if the statistics are of too few simulations."""
    if num_simulations >= MIN_SIMULATIONS:
        return []
    return [
        f"means and deviations are of {num_simulations} simulations, all that came or that buffer.capacity "
        f"{capacity} has room for: give at least {MIN_SIMULATIONS} of them"
    ]


class Growth:
    """How large outputs become from step to step, to find schemes that blow up.

    Args:
        layout: layout of the samples.
    """

    def __init__(self, layout: Layout):
        self._blocks = layout.output_blocks
        self._largest: dict[str, dict[int, np.ndarray]] = {block.name: {} for block in self._blocks}  # [C] by step

    def update(self, arrays: Mapping[str, np.ndarray], steps: np.ndarray) -> None:
        """Take in the samples of a chunk.

        Args:
            arrays: the samples, [N, C, *] by array name.
            steps: the step of each sample, int64 [N].
        """
        for block in self._blocks:
            values_NC, by_step = arrays[block.name], self._largest[block.name]
            axes = tuple(range(2, values_NC.ndim))
            sizes_NC = np.maximum(values_NC.max(axis=axes), -values_NC.min(axis=axes))
            for step, sizes_C in zip(steps.tolist(), sizes_NC, strict=True):
                by_step[step] = np.maximum(by_step.get(step, 0.0), sizes_C)

    def remarks(self) -> list[str]:
        """Return a line for people about each channel that grows in both halves."""
        lines = []
        for block in self._blocks:
            by_step = self._largest[block.name]
            if len(by_step) < 3:
                continue
            steps = sorted(by_step)
            steps = [steps[0], steps[len(steps) // 2], steps[-1]]
            for name, (first, middle, last) in zip(
                block.channel_names, zip(*(by_step[step].tolist() for step in steps), strict=True), strict=True
            ):
                if 0 < GROWTH * first < middle and GROWTH * middle < last:
                    lines.append(
                        f"output {name!r} reaches {first:.2g} at step {steps[0]}, {middle:.2g} at step {steps[1]} and "
                        f"{last:.2g} at step {steps[2]}: if the scheme is unstable, take smaller steps in time"
                    )
        return lines
