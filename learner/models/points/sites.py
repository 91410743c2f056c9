"""What models at points share: where values sit, and what each point counts.

Axes:  B batch, P points, C channels, S scalars, d dimensions of space, * the shape of a geometry.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from penstock.geometry import Geometry, Grid, Mesh, Points
from penstock.layout import Layout
from penstock.learner.optimizers import Recipe
from penstock.learner.surrogate import argument


@dataclass(frozen=True)
class Sites:
    """The points of one geometry for a batch, whatever its kind."""

    points: Tensor
    """Coordinates [B, P, d], from the lowest corner of the geometry's box on, in units of the box's longest edge."""
    shares: Tensor
    """Quadrature weights divided by their sum [B, P]; 0 is padding, or outside the domain."""
    sizes: tuple[int, ...]
    """The shape * of a field."""
    edges: Tensor | None
    """Numbers of the points that samples of `Points` say are joined, int64 [B, E, 2]; (0, 0) is padding."""

    @classmethod
    def of(cls, geometry: Geometry, layout: Layout, arrays: Mapping[str, Tensor]) -> Sites:
        """Return the sites of a batch.

        Args:
            geometry: the geometry, one of the layout's.
            layout: layout of batches.
            arrays: what a model is called with, by name; a grid has the size of the fields on it.

        Returns:
            The sites.
        """
        weights = arrays.get(argument("weights", geometry, layout))
        if isinstance(geometry, Grid):
            points, measure, sizes = _of_grid(geometry, layout, arrays)
            weights = measure if weights is None else weights.flatten(1)
        else:
            points = arrays[argument("points", geometry, layout)]
            sizes = (points.shape[1],)
        edges = arrays.get(argument("edges", geometry, layout))
        return cls(points, weights / weights.sum(dim=1, keepdim=True), sizes, edges)

    def rows(self, fields: Tensor) -> Tensor:
        """Fields [B, C, *] as rows [B, P, C]."""
        return fields.flatten(2).transpose(1, 2)

    def fields(self, rows: Tensor) -> Tensor:
        """Rows [B, P, C] as fields [B, C, *]."""
        return rows.transpose(1, 2).reshape(rows.shape[0], rows.shape[2], *self.sizes)

    def mean(self, rows: Tensor) -> Tensor:
        """The mean [B, C] of rows [B, P, C] over the domain, by quadrature."""
        return (self.shares[:, None] @ rows)[:, 0]


class PointModel(nn.Module):
    """A model whose inputs and outputs sit at the points of one geometry.

    A subclass defines `at_points`, and takes any geometry: it sees a grid as points as well.

    Args:
        layout: layout of batches.
        name: what the model is called in messages.

    Raises:
        ValueError: not all fields sit on one geometry, an output is a scalar, or nothing tells samples apart.
    """

    accepts = (Grid, Mesh, Points)
    resolution_free = (Grid, Mesh, Points)
    recipe = Recipe("muon", 2e-2)

    def __init__(self, layout: Layout, name: str):
        super().__init__()
        if len(layout.geometries) != 1 or [block.on for block in layout.output_blocks] != [*layout.geometries]:
            raise ValueError(f"{name}: needs all fields on one geometry, and no scalars as outputs")
        if not layout.inputs and not layout.geometry_blocks:
            raise ValueError(f"{name}: needs an input, and this problem has none: give it a scalar or a field")
        self.layout = layout
        self.num_inputs = layout.geometries[0].dimension + sum(block.shape[0] for block in layout.input_blocks)
        self.num_outputs = layout.output_blocks[0].shape[0]

    def forward(self, scalars: Tensor | None = None, fields: Tensor | None = None, **geometry: Tensor) -> Tensor:
        """Predict the outputs at the points.

        Args:
            scalars: input scalars [B, S], if there are any.
            fields: input fields [B, C, *], if there are any.
            **geometry: what there is of points [B, P, d], weights [B, *], where 0 is padding, and edges [B, E, 2].

        Returns:
            The outputs, [B, C, *].
        """
        given = {"scalars": scalars, "fields": fields, **geometry}
        arrays = {name: values for name, values in given.items() if values is not None}
        sites = Sites.of(self.layout.geometries[0], self.layout, arrays)
        parts = [sites.points]
        if fields is not None:
            parts.append(sites.rows(fields))
        if scalars is not None:
            parts.append(scalars[:, None].expand(-1, sites.points.shape[1], -1))
        return sites.fields(self.at_points(torch.cat(parts, dim=2), sites))

    def at_points(self, inputs_BPC: Tensor, sites: Sites) -> Tensor:
        """Predict the outputs as rows.

        Args:
            inputs_BPC: coordinates, input fields and scalars at each point, `num_inputs` in all.
            sites: where the points are, and what each of them counts.

        Returns:
            [B, P, num_outputs].
        """
        raise NotImplementedError


def net(*sizes: int) -> nn.Sequential:
    """A fully connected net with GELU between its layers.

    Args:
        sizes: number of inputs, of neurons in each hidden layer, and of outputs.
    """
    layers = [module for a, b in itertools.pairwise(sizes) for module in (nn.Linear(a, b), nn.GELU())]
    return nn.Sequential(*layers[:-1])


def _of_grid(grid: Grid, layout: Layout, arrays: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Points [B, P, d], weights [1, P] up to a factor, and sizes of a grid.

    It has the size of the fields on it, which may be finer than in training.
    """
    some = next(iter(arrays.values()))
    on_grid = [arrays[block.name] for block in layout.input_blocks if block.on == grid]
    sizes = tuple(on_grid[0].shape[2:]) if on_grid else grid.shape
    coordinates, weights = [], some.new_ones(1, dtype=torch.float32)
    for size, length, repeats in zip(sizes, grid.extent, grid.periodic, strict=True):
        # linspace would freeze the size under torch.export
        steps = torch.arange(size, dtype=torch.float32, device=some.device)
        along = torch.ones_like(steps)
        if grid.centring == "cells":
            fractions = (steps + 0.5) / size
        elif repeats:
            fractions = steps / size
        else:
            fractions = steps / (size - 1)
            along = torch.where((steps == 0) | (steps == size - 1), 0.5, along)
        coordinates.append(fractions * (length / max(grid.extent)))
        weights = (weights[:, None] * along).flatten()
    points = torch.stack(torch.meshgrid(*coordinates, indexing="ij"), dim=-1).flatten(0, -2)
    return points.expand(some.shape[0], *points.shape), weights[None], sizes
