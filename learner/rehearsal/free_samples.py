"""Random samples on random geometries, to try a model before anything is solved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from penstock.geometry import Geometry, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.storage import TRIM

SHARE = 0.2  # largest fraction of its points that a sample may lack


def free_samples(layout: Layout, num: int, device: torch.device) -> dict[str, Tensor]:
    """Return samples of independent standard normal values, the same each time.

    Where points vary, they lie anywhere in their box. The first sample has the most points that there may be, the
    others up to SHARE fewer.

    Args:
        layout: layout of the samples.
        num: number of samples; another number gives other values.
        device: where the arrays are to lie.

    Returns:
        The arrays by name, as `Layout.pack` makes them.
    """
    generator = torch.Generator().manual_seed(num)
    arrays = {}
    for geometry in layout.geometries:
        arrays |= dict(_free_geometry(geometry, num, generator))
    for name, block in layout.blocks.items():
        if block.role != "geometry":
            arrays[name] = torch.randn(num, *block.shape, generator=generator)
    return {name: arrays[name].to(device) for name in layout.blocks}


def trimmed(layout: Layout) -> Layout:
    """Return the layout with room for fewer points and edges, as batches are cut.

    Args:
        layout: layout of batches.

    Returns:
        The layout, with at most TRIM points, and fewer than there may be.
    """

    def fewer(spec: FieldSpec) -> FieldSpec:
        if not isinstance(spec.on, Points):
            return spec
        points, edges = (max(1, min(TRIM, most - 1)) for most in (spec.on.max_points, spec.on.max_edges))
        return replace(spec, on=replace(spec.on, max_points=points, max_edges=edges if spec.on.max_edges else 0))

    inputs, outputs, tangents = (tuple(map(fewer, each)) for each in (layout.inputs, layout.outputs, layout.tangents))
    return Layout(inputs, outputs, tangents=tangents)


def _free_geometry(geometry: Geometry, num: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    shapes = geometry.travelling
    if not shapes:
        return
    name = geometry.named("weights")
    lacking = (torch.rand(num, generator=generator) * SHARE * shapes[name][-1]).long()
    lacking[0] = 0
    counts = shapes[name][-1] - lacking
    is_there = torch.arange(shapes[name][-1]) < counts.reshape(-1, *[1] * len(shapes[name]))
    weights = torch.where(is_there, 0.5 + torch.rand(num, *shapes[name], generator=generator), 0.0)
    measure = float(np.prod(geometry.box[1] - geometry.box[0]))  # of the domain: models may integrate
    yield name, weights * (measure / weights.flatten(1).sum(dim=1)).reshape(-1, *[1] * len(shapes[name]))
    if not isinstance(geometry, Points):
        return
    lowest, highest = (torch.tensor(corner, dtype=torch.float32)[:, None] for corner in geometry.box)
    points = lowest + (highest - lowest) * torch.rand(num, *shapes[geometry.named("points")], generator=generator)
    yield geometry.named("points"), torch.where(is_there, points, 0.0)
    if geometry.max_edges:
        # edges lead from each point to the next
        ends = torch.arange(geometry.max_edges) % (counts - 1).clamp_min(1).reshape(-1, 1)
        edges = torch.stack([ends, ends + 1], dim=1)
        yield geometry.named("edges"), torch.where((counts > 1).reshape(-1, 1, 1), edges, 0).int()
