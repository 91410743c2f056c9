"""GAOT (Wen et al., NeurIPS 2025): patches of a grid that attend to each other.

The source is arXiv 2505.18781.

Axes:  B batch, P points, K cells near a point, N cells of the latent grid, *grid its axes, T patches, C channels, d
dimensions of space.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penstock.geometry import Geometry
from penstock.layout import Layout
from penstock.learner.models.options import require_positive
from penstock.learner.models.points.latent.latent_grid import GridKernel, LatentGrid, Near, checked_resolution
from penstock.learner.models.points.sites import PointModel, Sites, net
from penstock.learner.models.transformer import Block, require_heads, waves

RESOLUTION = 24, 12  # in two dimensions, in three
WAVES = 4  # frequencies by which a patch knows its place
FURTHEST = 8.0  # radius of a kernel, in cells: pairs grow as its power d


class GAOT(PointModel):
    """Carries the inputs to a grid by attention, lets patches attend, and goes back.

        v(y) = Σ_r g_r(y) L[G_r f (y), e(s_r(y))],   u(x) = p(Σ_r g'_r(x) G'_r (v + T v) (x), f(x)),

    and f = lift(x, a(x), s). G_r and G'_r are kernel integrals over what lies within r cells, weighted by attention
    (`GridKernel` that attends), one for each of `radii`; g and g' are softmax weights of the radii by place. e is a net
    of statistics s_r of where the domain lies around a cell: what part of it, mean distance and its variance, centroid
    and covariance of the offsets. L is linear. T is a vision transformer: patches of cells are tokens with `channels`
    channels, of which the later half of the layers sees the earlier half's outputs as well (U-ViT). The latent grid
    covers the box of the geometry, and is the same for all samples. f(x) beside the result tells points apart that lie
    closer than its cells; the paper leaves it out, and the v that is added to T v as well.

    The statistics are integrals, in units of r, where the paper counts points and standardises over the cells of a
    sample; for covariances it takes their eigenvalues. Wen et al. take width 64, 64 cells, patches of 2, 256 channels,
    8 heads, 3 layers, and about one cell as radius.

    Args:
        layout: layout of batches.
        width: number C of channels on the grid, at least 1. Good values: 24 to 64.
        resolution: cells along the longest edge of the box, at least 4: about as many as the points' distance asks for.
            Good values: 16 to 64. None for 24, or 12 in three dimensions.
        radii: of the kernels, in cells, from 1 to 8. Good values: 1.5 alone, or with 2.5.
        hidden: neurons in each of the two hidden layers of a kernel, at least 1. Good values: 32 to 64.
        patch: cells along each edge of a patch, at least 1. Good values: 2 to 4.
        channels: number of channels of a patch, a multiple of `heads`. Good values: 96 to 256.
        heads: number of heads, at least 1. Good values: 4 to 8.
        layers: number of layers of the transformer, at least 1. Good values: 3 to 5.

    Raises:
        ValueError: not all fields sit on one geometry of 1 to 3 dimensions, an output is a scalar, or an option is out
            of its range.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 32,
        resolution: int | None = None,
        radii: Sequence[float] = (1.5,),
        hidden: int = 32,
        patch: int = 2,
        channels: int = 96,
        heads: int = 4,
        layers: int = 3,
    ):
        super().__init__(layout, "gaot")
        require_positive("gaot", width=width, hidden=hidden, patch=patch, channels=channels, heads=heads, layers=layers)
        require_heads("gaot", "channels", channels, heads)
        (geometry,) = layout.geometries
        resolution = checked_resolution("gaot", resolution, geometry, RESOLUTION)
        if not radii or not all(1 <= radius <= FURTHEST for radius in radii):
            raise ValueError(f"gaot: radii must be numbers from 1 to {FURTHEST:g}, one at least, not {radii}")
        self.lift = net(self.num_inputs, 2 * width, width)
        self.scales = nn.ModuleList(_Scale(geometry, resolution, radius, width, hidden) for radius in radii)
        self.gates = nn.ModuleList(net(geometry.dimension, hidden, len(radii)) for _ in range(2 * (len(radii) > 1)))
        self.patches = _Patches(self.scales[0].grid, width, patch, channels, heads, layers)
        self.project = net(2 * width, 2 * width, self.num_outputs)

    def at_points(self, inputs_BPC: Tensor, sites: Sites) -> Tensor:
        """Predict the outputs as rows, see `PointModel`."""
        f_BPC = self.lift(inputs_BPC)
        nears = [scale.grid.near(sites.points) for scale in self.scales]
        pairs = [*zip(self.scales, nears, strict=True)]
        places_BNd = self.scales[0].grid.centres[None]
        v_BNC = self._gated(0, places_BNd, [scale.to_grid(f_BPC, sites, near) for scale, near in pairs])
        v_BNC = v_BNC + self.patches(v_BNC)
        back = [scale.back.to_points(v_BNC, sites.points, near) for scale, near in pairs]
        return self.project(torch.cat([self._gated(1, sites.points, back), f_BPC], dim=2))

    def _gated(self, which: int, places: Tensor, values: list[Tensor]) -> Tensor:
        """The mean of the radii's values, by weights of each place."""
        if not self.gates:
            return values[0]
        weights = torch.softmax(self.gates[which](places), dim=-1)
        return sum(weights[..., number : number + 1] * each for number, each in enumerate(values))


class _Scale(nn.Module):
    """The kernels of one radius, and what is embedded of the domain's shape within it."""

    def __init__(self, geometry: Geometry, resolution: int, radius: float, width: int, hidden: int):
        super().__init__()
        d = geometry.dimension
        self.grid = LatentGrid(geometry, resolution, radius)
        self.forth, self.back = (GridKernel(d, width, hidden, attends=True) for _ in range(2))
        self.embed = net(4 + d + d * (d + 1) // 2, hidden, hidden)
        self.join = nn.Linear(width + hidden, width)

    def to_grid(self, f_BPC: Tensor, sites: Sites, near: Near) -> Tensor:
        """Values of the cells, [B, N, C]."""
        v_BNC, covered_BN = self.forth.to_grid(f_BPC, sites.points, sites.shares, near)
        embedding = self.embed(torch.cat([covered_BN[..., None], shape_statistics(sites.shares, near)], dim=2))
        return self.join(torch.cat([v_BNC, embedding], dim=2))


def shape_statistics(shares_BP: Tensor, near: Near) -> Tensor:
    """Describe where the domain lies around each cell.

    Args:
        shares_BP: what each point counts; their sum is 1.
        near: the pairs.

    Returns:
        [B, N, 3 + d + d (d + 1) / 2]: the part m of the domain that is near, as m / (m + 1 / N); mean and variance of
        the distance; from the cell on, the centroid, and the covariance's entries on and above the diagonal. Lengths
        are in radii.
    """
    offsets_BPKd = -near.offsets
    upper = [*itertools.combinations_with_replacement(range(offsets_BPKd.shape[-1]), 2)]
    products = torch.stack([offsets_BPKd[..., a] * offsets_BPKd[..., b] for a, b in upper], dim=-1)
    distances = torch.linalg.vector_norm(offsets_BPKd, dim=-1, keepdim=True)
    weights_BPK = near.nearness * shares_BP[:, :, None]
    means, measures = near.over_points(torch.cat([distances, offsets_BPKd, products], dim=-1), weights_BPK)
    distance, centroid, squares = means.split([1, offsets_BPKd.shape[-1], len(upper)], dim=2)
    covariance = squares - torch.stack([centroid[..., a] * centroid[..., b] for a, b in upper], dim=-1)
    trace = sum(squares[..., n : n + 1] for n, (a, b) in enumerate(upper) if a == b)
    part = measures / (measures + 1 / near.num_cells)
    return torch.cat([part[..., None], distance, trace - distance.square(), centroid, covariance], dim=2)


class _Patches(nn.Module):
    """A vision transformer on a `LatentGrid`."""

    def __init__(self, grid: LatentGrid, width: int, patch: int, channels: int, heads: int, layers: int):
        super().__init__()
        self.shape, self.patch = grid.shape, patch
        self.numbers = [math.ceil(size / patch) for size in grid.shape]
        size = patch ** len(grid.shape) * width
        with torch.device("cpu"):
            places = torch.cartesian_prod(*((torch.arange(n) + 0.5) * patch * grid.size for n in self.numbers))
        self.register_buffer("places", waves(places.reshape(-1, len(grid.shape)), WAVES), persistent=False)
        self.place = nn.Linear(self.places.shape[1], channels)
        self.enter, self.leave = nn.Linear(size, channels), nn.Linear(channels, size)
        self.blocks = nn.ModuleList(Block(channels, heads, 2) for _ in range(layers))
        self.skips = nn.ModuleList(nn.Linear(2 * channels, channels) for _ in range(layers // 2))
        self.norm = nn.RMSNorm(channels)

    def forward(self, v_BNC: Tensor) -> Tensor:
        """Change the values of the cells, [B, N, C]."""
        h_BTC = self.enter(self._to_patches(v_BNC)) + self.place(self.places)
        earlier = []
        for number, block in enumerate(self.blocks):
            later = number - (len(self.blocks) - len(self.skips))
            if later >= 0:
                h_BTC = self.skips[later](torch.cat([h_BTC, earlier.pop()], dim=2))
            h_BTC = block(h_BTC)
            if number < len(self.skips):
                earlier.append(h_BTC)
        return self._to_cells(self.leave(self.norm(h_BTC)))

    def _to_patches(self, v_BNC: Tensor) -> Tensor:
        """Cells [B, N, C] as patches [B, T, patch^d C]; beyond the grid's end they are 0."""
        missing = [n * self.patch - size for n, size in zip(self.numbers, self.shape, strict=True)]
        v = F.pad(v_BNC.unflatten(1, self.shape), [0, 0, *(side for m in reversed(missing) for side in (0, m))])
        v = v.reshape(v.shape[0], *(size for n in self.numbers for size in (n, self.patch)), v.shape[-1])
        d = len(self.shape)
        return v.permute(0, *range(1, 2 * d, 2), *range(2, 2 * d + 1, 2), 2 * d + 1).flatten(1, d).flatten(2)

    def _to_cells(self, h_BTC: Tensor) -> Tensor:
        """Patches [B, T, patch^d C] as cells [B, N, C]."""
        d = len(self.shape)
        v = h_BTC.reshape(h_BTC.shape[0], *self.numbers, *[self.patch] * d, -1)
        v = v.permute(0, *(axis for a in range(d) for axis in (1 + a, 1 + d + a)), 2 * d + 1)
        v = v.reshape(v.shape[0], *(n * self.patch for n in self.numbers), v.shape[-1])
        for axis, size in enumerate(self.shape):
            v = v.narrow(1 + axis, 0, size)
        return v.flatten(1, d)
