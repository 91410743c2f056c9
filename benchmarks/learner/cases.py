"""Cases of the learner's bench: a model, a batch, a buffer, and free samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from penstock.geometry import Geometry, Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.ladder.samples import LEARNING_RATE, full_reservoir
from penstock.learner.losses.losses import LOSSES, TotalLoss
from penstock.learner.models import MODELS
from penstock.learner.normalization import Normalization
from penstock.learner.optimization import Optimization
from penstock.learner.surrogate import Surrogate


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model on one device, fed from one kind of buffer."""

    title: str
    layout: Layout
    model: str
    """Name of the model in MODELS."""
    options: Mapping[str, Any] = field(default_factory=dict)
    loss: str
    """Name of the loss in LOSSES."""
    batch_size: int
    num_slots: int
    counts_bytes: bool = False
    """Whether the step does little more than read and write its weights.

    It is then held against the device's copy rate.
    """

    def surrogate(self, device: torch.device) -> Surrogate:
        torch.manual_seed(0)
        with device:
            model = MODELS[self.model](self.layout, **self.options)
        return Surrogate(model, Normalization.identity(self.layout), self.layout).to(device)

    def step(self, device: torch.device, **options: Any) -> Optimization:
        return Optimization(
            self.surrogate(device),
            loss=TotalLoss(self.layout, LOSSES[self.loss]),
            learning_rate=LEARNING_RATE,
            **options,
        )

    def full_reservoir(self, **placement: Any) -> Buffer:
        return full_reservoir(self.layout, self.num_slots, **placement)


def fno(num_points: int = 64, *, width: int = 32, modes: int = 12, batch_size: int = 16, num_slots: int = 4000) -> Case:
    grid = (num_points, num_points)
    layout = Layout((FieldSpec(name="coefficient", on=Grid(grid)),), (FieldSpec(name="solution", on=Grid(grid)),))
    return Case(
        title=f"FNO, {num_points}x{num_points}, width {width}, {modes} modes, 4 layers, batch {batch_size}, "
        f"{num_slots:,} slots",
        layout=layout,
        model="fno",
        options={"width": width, "modes": modes, "layers": 4},
        loss="relative_l2",
        batch_size=batch_size,
        num_slots=num_slots,
    )


def on_grid(model: str, shape: tuple[int, ...], batch_size: int, **options: int) -> Case:
    """One field to another on a grid.

    Args:
        model: name of the model in MODELS.
        shape: points along each axis.
        batch_size: rows of a batch.
        options: the model's.
    """
    return _one_to_one(model, Grid(shape), batch_size, options)


def on_mesh(model: str, num_points: int, batch_size: int, **options: int) -> Case:
    """One field to another on the points of a mesh, in two rows.

    Args:
        model: name of the model in MODELS.
        num_points: number of points.
        batch_size: rows of a batch.
        options: the model's.
    """
    return _one_to_one(model, Mesh(num_points, 2, partial(_strip, num_points)), batch_size, options)


def _one_to_one(model: str, geometry: Geometry, batch_size: int, options: Mapping[str, int]) -> Case:
    return Case(
        title=model,
        layout=Layout((FieldSpec(name="source", on=geometry),), (FieldSpec(name="solution", on=geometry),)),
        model=model,
        options=options,
        loss="relative_l2",
        batch_size=batch_size,
        num_slots=4 * batch_size,
    )


def points(max_points: int = 1280, *, batch_size: int = 8, num_slots: int = 2000) -> Case:
    """Samples on points that vary, in number by a fifth, as in `poisson_with_hole`."""
    cloud = Points(max_points, 2)
    return Case(
        title=f"BranchTrunk, at most {max_points} points, width 128, batch {batch_size}, {num_slots:,} slots",
        layout=_two_to_one(cloud),
        model="branch_trunk",
        loss="relative_l2",
        batch_size=batch_size,
        num_slots=num_slots,
    )


def mesh(num_points: int, *, batch_size: int = 8, num_slots: int = 2000) -> Case:
    """The same model on as many points for all samples, in two rows."""
    return Case(
        title=f"BranchTrunk, {num_points} points of a mesh, width 128, batch {batch_size}, {num_slots:,} slots",
        layout=_two_to_one(Mesh(num_points, 2, partial(_strip, num_points))),
        model="branch_trunk",
        loss="relative_l2",
        batch_size=batch_size,
        num_slots=num_slots,
    )


def _two_to_one(geometry: Geometry) -> Layout:
    inputs = (FieldSpec(name="source", on=geometry), FieldSpec(name="boundary_value", on=geometry))
    return Layout(inputs, (FieldSpec(name="solution", on=geometry),))


def _strip(num_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Points [P, 2] and cells [P - 2, 3] of a strip of triangles."""
    numbers = np.arange(num_points)
    cells = np.stack([numbers[:-2], numbers[1:-1], numbers[2:]], axis=1)
    cells[::2] = cells[::2, ::-1]
    return np.stack([numbers // 2 / num_points, numbers % 2 + 0.0], axis=1), cells


def mlp(num_outputs: int, *, num_slots: int, batch_size: int = 10) -> Case:
    """The net of Meyer et al. (SC 2023, arXiv 2309.16743).

    It maps five temperatures and the time to a temperature field.
    """
    inputs = tuple(FieldSpec(name=name) for name in ("initial", "left", "right", "bottom", "top", "time"))
    return Case(
        title=f"MLP, 6-256-256-{num_outputs:,}, batch {batch_size}, {num_slots:,} slots",
        layout=Layout(inputs, (FieldSpec(name="temperature", on=Grid((num_outputs,))),)),
        model="mlp",
        loss="mse",
        batch_size=batch_size,
        num_slots=num_slots,
        counts_bytes=True,
    )
