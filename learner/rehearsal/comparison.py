"""The size and the step of a model with default options, for comparison."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch

from penstock.geometry import Grid, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.losses.losses import RelativeL2, TotalLoss
from penstock.learner.models import MODELS
from penstock.learner.normalization import Normalization
from penstock.learner.optimization import Optimization
from penstock.learner.optimizers import OPTIMIZERS, recipe_of
from penstock.learner.rehearsal.free_samples import free_samples
from penstock.learner.surrogate import Surrogate
from penstock.registry import with_defaults

GEOMETRIES = (Grid((64, 64)), Points(4096, 2, max_edges=3 * 4096))  # the first one that a model takes
WHERE = "on 64 x 64 cells, one field in and one out; of a model that takes no grid, on 4096 points with 12288 edges"
BATCH_SIZE = 8
NUM_STEPS = 3


def num_parameters(name: str) -> int | None:
    """Return the number of parameters of a model of MODELS.

    It takes no memory for them. A complex parameter counts as two.

    Args:
        name: name of the model.

    Returns:
        The number; None if it can't be built without options, or lacks a package.
    """
    for layout in _layouts(name):
        try:
            with torch.device("meta"):
                model = MODELS[name](layout)
        except ValueError:
            continue
        return sum(parameter.numel() * (1 + parameter.is_complex()) for parameter in model.parameters())
    return None


def seconds_per_step(name: str) -> float | None:
    """Return the processor time of a step by the model's own recipe.

    The step is on BATCH_SIZE samples in float32. It is the median of NUM_STEPS after a first one. Other work of the
    machine disturbs it less than wall time.

    Args:
        name: name of the model.

    Returns:
        Seconds, of all threads together; None as in `num_parameters`.
    """
    for layout in _layouts(name):
        try:
            model = MODELS[name](layout)
        except ValueError:
            continue
        recipe = recipe_of(MODELS[name], with_defaults(MODELS[name], {}, given=1))
        step = Optimization(
            Surrogate(model, Normalization.identity(layout), layout),
            loss=TotalLoss(layout, RelativeL2),
            learning_rate=recipe.learning_rate,
            optimizer=OPTIMIZERS[recipe.optimizer],
        )
        samples, seconds = free_samples(layout, BATCH_SIZE, torch.device("cpu")), []
        for _ in range(1 + NUM_STEPS):
            start = time.process_time()
            step(samples, step.learning_rate)
            seconds.append(time.process_time() - start)
        return statistics.median(seconds[1:])
    return None


def _layouts(name: str) -> Iterator[Layout]:
    for geometry in GEOMETRIES:
        if isinstance(geometry, MODELS[name].accepts):
            yield Layout((FieldSpec(name="a", on=geometry),), (FieldSpec(name="u", on=geometry),))
