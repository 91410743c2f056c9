"""What models that go along edges share: which edges there are, and sums.

Axes:  B batch, P points, E directed edges, d dimensions of space.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from penstock.geometry import Mesh, Points
from penstock.layout import Layout
from penstock.learner.models.points.sites import PointModel, Sites


class EdgeModel(PointModel):
    """A model on one mesh, or on points whose samples bring edges.

    Edges are those of the mesh's cells, or the samples' own. Displacements along them are divided by `spacing`, about
    the distance between points, so that they are about 1: in units of the box nearly all edges would be alike to a net
    as it is drawn. It is one number for all samples, as the deviation over the data is in the paper of MeshGraphNet:
    the mean length of a sample's edges would hide its size.

    Args:
        layout: layout of batches.
        name: what the model is called in messages.

    Raises:
        ValueError: as for `PointModel`, or samples bring no edges.
    """

    accepts = (Mesh, Points)
    resolution_free = ()  # more edges of a point, or shorter ones, are another function

    def __init__(self, layout: Layout, name: str):
        super().__init__(layout, name)
        (geometry,) = layout.geometries
        self.dimension = geometry.dimension
        lowest, highest = geometry.box
        sides = (highest - lowest) / (highest - lowest).max()
        self.spacing = float(sides.prod() / geometry.shape[0]) ** (1 / self.dimension)
        """Edge of a cell of the box if each point has one, in units of the box's longest edge."""
        if isinstance(geometry, Mesh):
            self.register_buffer(
                "edges", torch.tensor(_edges_of(geometry.arrays.cells), device="cpu"), persistent=False
            )
        elif not getattr(geometry, "max_edges", 0):
            raise ValueError(f"{name}: needs edges, and these samples bring none: give Points(..., max_edges=...)")

    def ends(self, sites: Sites) -> tuple[Tensor, Tensor, Tensor]:
        """Return the edges of a batch, each in both directions.

        Args:
            sites: where the points are.

        Returns:
            The senders and the receivers, int64 [E], as numbers of points of the whole batch; and which edges there
            are, bool [E, 1]: padding joins a point to itself.
        """
        batch_size, num_points, _ = sites.points.shape
        pairs_BE2 = self.edges.expand(batch_size, -1, -1) if sites.edges is None else sites.edges
        start = torch.arange(batch_size, device=sites.points.device)[:, None, None] * num_points
        pairs_E2 = (pairs_BE2 + start).flatten(0, 1)
        sender_E, receiver_E = torch.cat([pairs_E2, pairs_E2.flip(1)]).unbind(dim=1)
        return sender_E, receiver_E, (sender_E != receiver_E)[:, None]


def arriving(messages_EC: Tensor, receiver_E: Tensor, is_there_E1: Tensor, num_points: int) -> Tensor:
    """Return the sum of the messages to each point, [P, C] in float32.

    Sums of bfloat16 would lose small messages.
    """
    counted = torch.where(is_there_E1, messages_EC, 0.0).float()
    return counted.new_zeros(num_points, counted.shape[1]).index_add(0, receiver_E, counted)


def _edges_of(cells: np.ndarray) -> np.ndarray:
    """The edges [E, 2] of simplices [T, d + 1], each once, i < j."""
    pairs = [cells[:, pair] for pair in itertools.combinations(range(cells.shape[1]), 2)]
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)
