"""Examples on which a file is traced, and compared with its surrogate.

Axes:  B batch, * the shape of a geometry: *grid of a grid, P points of others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from penstock.errors import PenstockError
from penstock.geometry import Grid, Points
from penstock.layout import Layout
from penstock.learner.export.card import Shapes, arguments, varying_axes
from penstock.learner.normalization import along
from penstock.learner.surrogate import Surrogate

ROUNDING = 4 * torch.finfo(torch.float32).eps  # of a value near a mean, relative to it, in both that are compared
NUM_EXAMPLES = 2  # torch.export would take a batch of one for a constant of the model


def example(layout: Layout, arrays: Mapping[str, np.ndarray | Tensor]) -> dict[str, Tensor]:
    """Return the arguments of a file for two samples, fields [2, *], scalars [2].

    Args:
        layout: layout of batches.
        arrays: arrays of at least one sample, from `Layout.pack`.
    """
    inputs = {}
    for block, spec in arguments(layout):
        values = torch.as_tensor(np.asarray(arrays[block.name]))
        if block.is_ragged and values.shape[-1] < NUM_EXAMPLES:  # fewer would be taken for a constant, as of a batch
            values = F.pad(values, (0, NUM_EXAMPLES - values.shape[-1]))
        rows = torch.arange(NUM_EXAMPLES) % len(values)
        inputs[spec.name] = block.by_name(values[rows])[spec.name].contiguous()
    return inputs


def alone(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the first sample of an example."""
    return {name: values[:1].contiguous() for name, values in inputs.items()}


def elsewhere(layout: Layout, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an example at another batch size and resolution, or number of points."""
    others = {}
    for block, spec in arguments(layout):
        values = inputs[spec.name]
        rows = values[torch.arange(NUM_EXAMPLES + 1) % NUM_EXAMPLES]
        if isinstance(block.on, Points):
            axis = 1 if block.is_rows else rows.dim() - 1
            size = rows.shape[axis]
            rows = rows.index_select(axis, torch.arange(size + size // 2 + 1) % size)
        elif isinstance(block.on, Grid):
            # each axis grows by a different amount, so that a mix-up of sizes shows
            grid = [size + size // 2 + axis for axis, size in enumerate(rows.shape[-block.on.dimension :])]
            channels = rows if spec.components > 1 else rows[:, None]
            channels = F.interpolate(channels, size=grid, mode="nearest")
            rows = channels if spec.components > 1 else channels[:, 0]
        others[spec.name] = rows
    return others


def takes_other_sizes(surrogate: Surrogate, inputs: Mapping[str, Tensor]) -> bool:
    """Whether a surrogate predicts at another resolution, or number of points."""
    try:
        with torch.no_grad():
            surrogate(**elsewhere(surrogate.layout, inputs))
    except Exception:  # whatever a user's model raises for sizes that it was not made for
        return False
    return True


def tried_shapes(surrogate: Surrogate, inputs: Mapping[str, Tensor]) -> Shapes:
    """Return the shapes that a surrogate takes as it is, not traced.

    Args:
        surrogate: the surrogate.
        inputs: an example.
    """
    takes_others = takes_other_sizes(surrogate, inputs)
    shapes = {}
    for block, spec in arguments(surrogate.layout):
        sizes = inputs[spec.name].shape
        free = {0, *varying_axes(block, len(sizes))} if takes_others else {0}
        shapes[spec.name] = tuple(None if axis in free else size for axis, size in enumerate(sizes))
    return shapes


def require_agreement(
    surrogate: Surrogate,
    written: Callable[[dict[str, Tensor]], Mapping[str, Tensor]],
    inputs: dict[str, Tensor],
    shapes: Shapes,
    tolerance: float,
    least_batch: int = 1,
) -> None:
    """Compare what was written with the surrogate.

    Where sizes are free, this is on the example, a batch of one, and the example at another batch size and resolution.
    Each channel is compared about its mean μ, in units of its deviation σ: the root mean square of what was found less
    what was expected, y, may be

        tolerance · max(σ, rms(y − μ)) + 4 ε |μ|,

    ε float32's, whose rounding about the mean is the second term. A constant has σ = 0 and y = μ.

    Args:
        surrogate: the surrogate.
        written: predicts by what was written.
        inputs: the example.
        shapes: the shapes that the file takes.
        tolerance: largest difference in deviations, beyond that of rounding.
        least_batch: the least batch that the file takes.

    Raises:
        PenstockError: they differ.
    """
    for trial in [inputs, elsewhere(surrogate.layout, inputs), *([alone(inputs)] if least_batch == 1 else [])]:
        sizes = ((size, other) for name in trial for size, other in zip(shapes[name], trial[name].shape, strict=True))
        if not all(size is None or size == other for size, other in sizes):
            continue
        with torch.no_grad():
            expected, found = surrogate(**trial), written(trial)
        for block in surrogate.layout.output_blocks:
            y_BC, found_BC = (torch.cat(block.channels_of(values), dim=1).double() for values in (expected, found))
            axes = [axis for axis in range(y_BC.dim()) if axis != 1]
            mean, std = (getattr(surrogate.normalization, f"{block.name}_{each}").double() for each in ("mean", "std"))
            spread = torch.maximum(std, (y_BC - along(mean, y_BC)).square().mean(axes).sqrt())
            difference = (found_BC - y_BC).square().mean(axes).sqrt()
            agrees = difference <= tolerance * spread + ROUNDING * mean.abs()
            if not agrees.all():
                worst = int(agrees.int().argmin())
                raise PenstockError(
                    f"the exported file disagrees with the model: {block.channel_names[worst]} differs by "
                    f"{difference[worst]:.1e}, and varies by {spread[worst]:.1e}, at shape {list(y_BC.shape)}; nothing "
                    "was written",
                    exit_code=1,
                )
