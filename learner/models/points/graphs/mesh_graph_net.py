"""MeshGraphNet (Pfaff et al., ICLR 2021): messages along the edges of a mesh.

The source is arXiv 2010.03409.

Axes:  B batch, P points, E directed edges, C channels, d dimensions of space.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from penstock.layout import Layout
from penstock.learner.models.options import require_positive
from penstock.learner.models.points.graphs.edges import EdgeModel, arriving
from penstock.learner.models.points.sites import Sites


class MeshGraphNet(EdgeModel):
    """Sends messages between points that an edge joins, `layers` times.

        m_ij = f(v_i, v_j, e_ij),   v_j += g(v_j, Σ_i m_ij),   e_ij += m_ij

    The sum is over the points i that an edge joins to j; edges go both ways. At first v is a net of the inputs at a
    point, and e one of the displacement x_i - x_j and its length, as `EdgeModel` scales them. f and g are nets with two
    hidden layers of `width` neurons, ReLU, and a layer norm at their end.

    It is no operator: edges are those of the mesh, so refining it changes the function, what happens at a point reaches
    `layers` edges far, and quadrature weights play no part. It suits what is local, as a step of time, and geometry
    that the mesh resolves. Pfaff et al. take width 128 and 15 layers, train on noisy inputs, and predict the change
    from step to step.

    Args:
        layout: layout of batches.
        width: number C of channels, at least 1. Good values: 32 to 128.
        layers: number of rounds of messages, at least 1. Good values: 8 to 15.
        places: whether coordinates are among the inputs at a point. Without them, as in the paper, a domain that is
            moved has the same outputs, moved.

    Raises:
        ValueError: not all fields sit on one mesh or one set of points, its samples bring no edges, an output is a
            scalar, an option is below 1, or there is no input.
    """

    def __init__(self, layout: Layout, *, width: int = 32, layers: int = 8, places: bool = True):
        super().__init__(layout, "mesh_graph_net")
        require_positive("mesh_graph_net", width=width, layers=layers)
        self.first = 0 if places else self.dimension  # of the inputs at a point
        if self.num_inputs == self.first:
            raise ValueError("mesh_graph_net: needs an input field or scalar, or places: true")
        self.lift = _normed(self.num_inputs - self.first, width)
        self.lift_edges = _normed(self.dimension + 1, width)
        self.messages = nn.ModuleList(_normed(3 * width, width) for _ in range(layers))
        self.updates = nn.ModuleList(_normed(2 * width, width) for _ in range(layers))
        self.project = nn.Sequential(*_layers(width, width, width, self.num_outputs))

    def at_points(self, inputs_BPC: Tensor, sites: Sites) -> Tensor:
        """Predict the outputs as rows, see `PointModel`."""
        sender_E, receiver_E, is_there_E1 = self.ends(sites)
        points = sites.points.flatten(0, 1) / self.spacing
        apart = points[sender_E] - points[receiver_E]
        e_EC = self.lift_edges(torch.cat([apart, torch.linalg.vector_norm(apart, dim=1, keepdim=True)], dim=1))
        v_PC = self.lift(inputs_BPC[..., self.first :].flatten(0, 1))
        for message, update in zip(self.messages, self.updates, strict=True):
            m_EC = message(torch.cat([v_PC[sender_E], v_PC[receiver_E], e_EC], dim=1))
            sums_PC = arriving(m_EC, receiver_E, is_there_E1, v_PC.shape[0])
            v_PC = v_PC + update(torch.cat([v_PC, sums_PC.to(v_PC.dtype)], dim=1))
            e_EC = e_EC + m_EC
        return self.project(v_PC).unflatten(0, inputs_BPC.shape[:2])


def _layers(*sizes: int) -> list[nn.Module]:
    return [module for a, b in itertools.pairwise(sizes) for module in (nn.Linear(a, b), nn.ReLU())][:-1]


def _normed(num_inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(*_layers(num_inputs, width, width, width), nn.LayerNorm(width))
