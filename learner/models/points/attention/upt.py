"""UPT (Alkin et al., NeurIPS 2024): a domain as a few tokens, and queries to them.

The source is arXiv 2402.12365.

Axes:  B batch, P points, K cells near a point, N supernodes, T tokens, C channels, d dimensions of space.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from penstock.layout import Layout
from penstock.learner.models.options import require_positive
from penstock.learner.models.points.latent.latent_grid import LatentGrid, checked_resolution
from penstock.learner.models.points.sites import PointModel, Sites, net
from penstock.learner.models.transformer import Block, require_heads, waves
from penstock.learner.optimizers import Recipe

RESOLUTION = 12, 6  # in two dimensions, in three
RADIUS = 1.5  # of a supernode, in cells: the 3 cells along each axis around a point
WAVES = 5  # frequencies by which places are known
RATIO = 2  # gated neurons per channel


class UPT(PointModel):
    """Compresses the domain to T tokens, to which every point attends.

        h_n = ∫ n(x, y_n) m(f(x), x, y_n - x) dx / ∫ n(x, y_n) dx,      f = lift(x, a(x), s)
        z = L(P(E(h, y))),   u(x) = p(D(q(x, a(x), s), z))

    m, lift, q and p are fully connected nets. The N supernodes y_n are the cells of a coarse regular grid, and n falls
    from 1 to 0 within 1.5 cells. E is a block of attention among the supernodes, P one of T learned tokens to the
    supernodes (a perceiver), L `layers` blocks among the tokens, and D one of the queries to the tokens (`Block`). What
    E and P attend to counts by its measure ∫ n dx, so cells beyond the domain count nothing. The outputs at a point
    depend on no other point's query.

    In the paper supernodes are points drawn at random, m averages over at most 32 points around them, and queries are
    places alone. Here nothing is random, means are integrals by quadrature weights, and a query knows the inputs at its
    point.

    Args:
        layout: layout of batches.
        width: number C of channels, a multiple of `heads`. Good values: 96 to 192.
        resolution: supernodes along the longest edge of the box, at least 4. Good values: 8 to 24. None for 12, or 6 in
            three dimensions.
        tokens: number T of tokens, at least 1. Good values: 32 to 128.
        heads: number of heads, at least 1. Good values: 3 to 8.
        layers: number of blocks among the tokens, at least 1. Good values: 4 to 8.

    Raises:
        ValueError: not all fields sit on one geometry of 1 to 3 dimensions, an output is a scalar, or an option is out
            of its range.
    """

    recipe = Recipe("muon", 6e-3)

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 96,
        resolution: int | None = None,
        tokens: int = 64,
        heads: int = 4,
        layers: int = 4,
    ):
        super().__init__(layout, "upt")
        require_positive("upt", width=width, tokens=tokens, heads=heads, layers=layers)
        require_heads("upt", "width", width, heads)
        (geometry,) = layout.geometries
        d = geometry.dimension
        self.grid = LatentGrid(geometry, checked_resolution("upt", resolution, geometry, RESOLUTION), RADIUS)
        small = max(1, width // 3)  # channels of a pair, of which there are 3^d for each point
        self.lift = net(self.num_inputs, 2 * small, small)
        self.message = net(small + 2 * d, small, small)
        self.enter = nn.Linear(small + 2 * WAVES * d, width)
        self.encode = Block(width, heads, RATIO)
        self.tokens = nn.Parameter(torch.randn(tokens, width))
        self.pool, self.decode = (Block(width, heads, RATIO, crosses=True) for _ in range(2))
        self.blocks = nn.ModuleList(Block(width, heads, RATIO) for _ in range(layers))
        self.query = net(self.num_inputs + 2 * WAVES * d, width, width)
        self.project = nn.Sequential(nn.RMSNorm(width), nn.Linear(width, self.num_outputs))

    def at_points(self, inputs_BPC: Tensor, sites: Sites) -> Tensor:
        """Predict the outputs as rows, see `PointModel`."""
        h_BNC, measures_BN = self.supernodes(inputs_BPC, sites)
        places_BNC = waves(self.grid.centres, WAVES).expand(h_BNC.shape[0], -1, -1)
        h_BNC = self.encode(self.enter(torch.cat([h_BNC, places_BNC], dim=2)), weights_BK=measures_BN)
        z_BTC = self.pool(self.tokens.expand(h_BNC.shape[0], -1, -1), h_BNC, measures_BN)
        for block in self.blocks:
            z_BTC = block(z_BTC)
        queries_BPC = self.query(torch.cat([inputs_BPC, waves(sites.points, WAVES)], dim=2))
        return self.project(self.decode(queries_BPC, z_BTC))

    def supernodes(self, inputs_BPC: Tensor, sites: Sites) -> tuple[Tensor, Tensor]:
        """Gather what lies around each supernode.

        Args:
            inputs_BPC: as in `at_points`.
            sites: as in `at_points`.

        Returns:
            The means of the messages [B, N, C], and what each supernode counts [B, N].
        """
        near = self.grid.near(sites.points)
        f_BPKC = self.lift(inputs_BPC)[:, :, None].expand(-1, -1, near.cells.shape[2], -1)
        places_BPKd = sites.points[:, :, None].expand_as(near.offsets)
        messages_BPKC = self.message(torch.cat([f_BPKC, places_BPKd, near.offsets], dim=3))
        return near.over_points(messages_BPKC, near.nearness * sites.shares[:, :, None])
