"""RIGNO (Mousavi et al., NeurIPS 2025): messages to, among and from regions.

The source is arXiv 2501.19205.

Axes:  B batch, P points, K regions near a point, N regions, E edges among regions, C channels, d dimensions of space.
"""

from __future__ import annotations

import itertools
from math import prod

import torch
from torch import Tensor, nn

from penstock.layout import Layout
from penstock.learner.models.options import require_positive
from penstock.learner.models.points.latent.latent_grid import EMPTY, LatentGrid, checked_resolution
from penstock.learner.models.points.sites import PointModel, Sites, net
from penstock.learner.models.transformer import waves

RESOLUTION = 14, 6  # in two dimensions, in three
RADIUS = 1.5  # of a region, in cells: the 3 cells along each axis around a point
LEVELS = 3  # of edges: to neighbours 1, 2 and 4 cells away
FURTHEST = 2 ** (LEVELS - 1)
WAVES = 4  # frequencies by which a region knows its place


class RIGNO(PointModel):
    """Sends messages from points to regions, among regions, and back to points.

        m_ij = f(v_i, v_j, e_ij),   v_j += g(v_j, Σ_i w_i m_ij / Σ_i w_i),   e_ij += m_ij

    Messages go `layers` times among the regions. v is a net of the inputs at a point, or of the place of a region; e
    is one of the displacement x_i - x_j and its length, among regions in units of 4 cells, else of 1.5. f, g and these
    nets have one hidden layer of `width` neurons with SiLU, and a layer norm at their end; each round has others.
    Regions are the cells of a regular grid that the domain touches. A point sends to the regions within 1.5 cells, w
    its quadrature weight times the pair's nearness; the same edges lead back. Regions send to their neighbours 1, 2 and
    4 cells away along all axes and diagonals, w the part of the domain near the sender: so a cell beyond the domain
    sends nothing. Means by weights make it an operator: points may be refined, and what happens at a point reaches 4
    cells per round.

    In the paper regions are points drawn at random, with edges by Delaunay triangulations of nested subsets of them, w
    is 1, and half of the edges are left out at random in training; for lead times τ the norms are scaled by nets of τ,
    which is one of the scalars here. Mousavi et al. take width 128 and 12 or 18 layers.

    Args:
        layout: layout of batches.
        width: number C of channels, at least 1. Good values: 32 to 128.
        resolution: regions along the longest edge of the box, at least 4, and fewer than points, or regions do not
            reach each other. Good values: 8 to 24. None for 14, or 6 in three dimensions.
        layers: number of rounds among regions, at least 1. Good values: 4 to 12.

    Raises:
        ValueError: not all fields sit on one geometry of 1 to 3 dimensions, an output is a scalar, or an option is out
            of its range.
    """

    def __init__(self, layout: Layout, *, width: int = 32, resolution: int | None = None, layers: int = 5):
        super().__init__(layout, "rigno")
        require_positive("rigno", width=width, layers=layers)
        (geometry,) = layout.geometries
        d = geometry.dimension
        self.grid = LatentGrid(geometry, checked_resolution("rigno", resolution, geometry, RESOLUTION), RADIUS)
        pairs, displacements = region_edges(self.grid.shape)
        self.register_buffer("pairs", pairs, persistent=False)
        self.register_buffer("displacements", _with_length(displacements / FURTHEST), persistent=False)
        self.lift, self.place = _normed(self.num_inputs, width), _normed(2 * WAVES * d, width)
        self.lift_edges = nn.ModuleList(_normed(d + 1, width) for _ in range(3))
        self.messages, self.updates = (
            nn.ModuleList(_normed(number * width, width) for _ in range(layers + 2)) for number in (3, 2)
        )
        self.project = net(width, width, self.num_outputs)

    def at_points(self, inputs_BPC: Tensor, sites: Sites) -> Tensor:
        """Predict the outputs as rows, see `PointModel`."""
        near = self.grid.near(sites.points)
        to_regions, among, to_points = self.lift_edges
        v_BPC = self.lift(inputs_BPC)
        r_BNC = self.place(waves(self.grid.centres, WAVES)).expand(inputs_BPC.shape[0], -1, -1)

        sent = v_BPC[:, :, None].expand(-1, -1, near.cells.shape[2], -1)
        edges = to_regions(_with_length(-near.offsets))
        m_BPKC = self.messages[0](torch.cat([sent, near.of_cells(r_BNC), edges], dim=3))
        m_BNC, measures_BN = near.over_points(m_BPKC, near.nearness * sites.shares[:, :, None])
        r_BNC = r_BNC + self.updates[0](torch.cat([r_BNC, m_BNC], dim=2))

        r_BNC = self._among(r_BNC, among(self.displacements), measures_BN)

        received = v_BPC[:, :, None].expand(-1, -1, near.cells.shape[2], -1)
        edges = to_points(_with_length(near.offsets))
        m_BPKC = self.messages[-1](torch.cat([near.of_cells(r_BNC), received, edges], dim=3))
        weights_BPK = near.nearness * near.of_cells(measures_BN[..., None])[..., 0]
        weights_BPK = weights_BPK / (weights_BPK.sum(dim=2, keepdim=True) + EMPTY)
        m_BPC = (weights_BPK[..., None] * m_BPKC).sum(dim=2)
        return self.project(v_BPC + self.updates[-1](torch.cat([v_BPC, m_BPC], dim=2)))

    def _among(self, r_BNC: Tensor, e_EC: Tensor, measures_BN: Tensor) -> Tensor:
        """Send messages among regions."""
        sender_E, receiver_E = self.pairs.unbind(dim=1)
        weights_BE1 = measures_BN[:, sender_E, None]
        sums_BN1 = torch.zeros_like(measures_BN[..., None]).index_add(1, receiver_E, weights_BE1)
        shares_BE1 = weights_BE1 / (sums_BN1[:, receiver_E] + EMPTY)
        e_BEC = e_EC.expand(r_BNC.shape[0], -1, -1)
        for message, update in zip(self.messages[1:-1], self.updates[1:-1], strict=True):
            m_BEC = message(torch.cat([r_BNC[:, sender_E], r_BNC[:, receiver_E], e_BEC], dim=2))
            terms_BEC = (shares_BE1 * m_BEC).float()  # sums of bfloat16 would lose small messages
            means_BNC = torch.zeros_like(r_BNC, dtype=torch.float32).index_add(1, receiver_E, terms_BEC)
            r_BNC = r_BNC + update(torch.cat([r_BNC, means_BNC.to(r_BNC.dtype)], dim=2))
            e_BEC = e_BEC + m_BEC
        return r_BNC


def region_edges(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the edges among cells of a grid, on all levels.

    Args:
        shape: number of cells along each axis.

    Returns:
        Sender and receiver of each edge, int64 [E, 2], and where the sender lies from the receiver, in cells [E, d].
    """
    with torch.device("cpu"):  # has values even if the model is on the meta device
        cells = torch.cartesian_prod(*map(torch.arange, shape)).reshape(-1, len(shape))
        strides = torch.tensor([prod(shape[axis + 1 :]) for axis in range(len(shape))])
        pairs, displacements = [], []
        for level in range(LEVELS):
            for direction in itertools.product((-1, 0, 1), repeat=len(shape)):
                step = 2**level * torch.tensor(direction)
                there = cells + step
                is_inside = ((there >= 0) & (there < torch.tensor(shape))).all(dim=1)
                if any(direction) and is_inside.any():
                    ends = [(each[is_inside] * strides).sum(dim=1) for each in (there, cells)]
                    pairs.append(torch.stack(ends, dim=1))
                    displacements.append(step.float().expand(len(ends[0]), -1))
        return torch.cat(pairs), torch.cat(displacements)


def _with_length(displacements: Tensor) -> Tensor:
    return torch.cat([displacements, torch.linalg.vector_norm(displacements, dim=-1, keepdim=True)], dim=-1)


def _normed(num_inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(num_inputs, width), nn.SiLU(), nn.Linear(width, width), nn.LayerNorm(width))
