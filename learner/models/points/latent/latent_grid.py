"""A regular grid inside a model, and kernel integrals between it and points.

Axes:  B batch, P points, K candidates (cells near a point), d dimensions of space, N cells, C channels.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from penstock.geometry import Geometry
from penstock.learner.models.points.sites import net

EMPTY = 1e-8  # share of the domain below which what a cell sees fades to 0


class LatentGrid(nn.Module):
    """Cells of one size that cover a geometry's box.

    The cells that can lie within a radius of a point are those around the point's own, so pairs are index arithmetic:
    dense, exported as they are, the same on every device.

    Args:
        geometry: the geometry.
        resolution: number of cells along the longest edge of its box.
        radius: how far a pair may be apart, in cells.
    """

    def __init__(self, geometry: Geometry, resolution: int, radius: float):
        super().__init__()
        lowest, highest = geometry.box
        edges = (highest - lowest) / (highest - lowest).max()
        self.shape = tuple(max(1, math.ceil(resolution * edge - 1e-6)) for edge in edges)
        self.size, self.radius = 1 / resolution, radius
        reach = max(1, math.ceil(radius + 0.5) - 1)
        with torch.device("cpu"):
            around = torch.tensor(list(itertools.product(range(-reach, reach + 1), repeat=len(self.shape))))
            centres = torch.cartesian_prod(*((torch.arange(n) + 0.5) * self.size for n in self.shape))
        self.register_buffer("around", around, persistent=False)
        self.register_buffer("centres", centres.reshape(-1, len(self.shape)), persistent=False)

    def near(self, points_BPd: Tensor) -> Near:
        """Return the pairs of points and cells.

        Args:
            points_BPd: coordinates, from the lowest corner of the box on, in units of its longest edge.

        Returns:
            The pairs.
        """
        most = torch.tensor(self.shape, device=points_BPd.device) - 1
        # A point may lie anywhere where it is padding.
        own_BPd = (points_BPd / self.size).floor().clamp(-1e6, 1e6).long().clamp_min(0).minimum(most)
        cells_BPKd = own_BPd[:, :, None] + self.around
        inside_BPK = ((cells_BPKd >= 0) & (cells_BPKd <= most)).all(dim=-1)
        cells_BPKd = cells_BPKd.clamp_min(0).minimum(most)
        offsets_BPKd = ((cells_BPKd + 0.5) * self.size - points_BPd[:, :, None]) / (self.radius * self.size)
        nearness_BPK = (1 - offsets_BPKd.square().sum(dim=-1)).clamp_min(0).square() * inside_BPK
        numbers_BPK = cells_BPKd[..., 0]
        for axis in range(1, len(self.shape)):
            numbers_BPK = numbers_BPK * self.shape[axis] + cells_BPKd[..., axis]
        return Near(numbers_BPK, offsets_BPKd.clamp(-1, 1), nearness_BPK, prod(self.shape))


@dataclass(frozen=True)
class Near:
    """Pairs of each point with the cells around it."""

    cells: Tensor
    """Numbers of the cells, int64 [B, P, K]."""
    offsets: Tensor
    """From the point to the cell's centre, in radii [B, P, K, d]."""
    nearness: Tensor
    """(1 - distance²)² of the pair, in radii, and 0 beyond [B, P, K].

    So that values depend continuously on places, where a ball that is simply cut off would jump.
    """
    num_cells: int
    """N."""


class GridKernel(nn.Module):
    """A kernel integral between points and the cells of a `LatentGrid`, either way.

        v(y) = ∫ n(x, y) κ(x, y - x) f(x) dx / ∫ n(x, y) dx

    n is the pair's nearness; κ is a fully connected net with GELU and one value for each channel. A cell that no point
    is near is 0.

    Args:
        dimension: number d of dimensions of space.
        width: number C of channels.
        hidden: number of neurons in the kernel's two hidden layers.
    """

    def __init__(self, dimension: int, width: int, hidden: int):
        super().__init__()
        self.kernel = net(2 * dimension, hidden, hidden, width)

    def to_grid(self, f_BPC: Tensor, points_BPd: Tensor, shares_BP: Tensor, near: Near) -> tuple[Tensor, Tensor]:
        """Integrate over the points, by their quadrature weights.

        Args:
            f_BPC: values at the points.
            points_BPd: coordinates.
            shares_BP: what each point counts; their sum is 1.
            near: the pairs.

        Returns:
            Values of the cells [B, N, C], and which of them are near the domain, 0 or 1 [B, N].
        """
        batch_size = f_BPC.shape[0]
        weights_BPK = near.nearness * shares_BP[:, :, None]
        terms_BPKC = weights_BPK[..., None] * self._kernel(points_BPd, near) * f_BPC[:, :, None]
        start = torch.arange(batch_size, device=f_BPC.device)[:, None, None] * near.num_cells
        cells = (near.cells + start).flatten()
        sums = terms_BPKC.new_zeros(batch_size * near.num_cells, f_BPC.shape[2])
        sums = sums.index_add(0, cells, terms_BPKC.flatten(0, 2))
        measures = weights_BPK.new_zeros(batch_size * near.num_cells).index_add(0, cells, weights_BPK.flatten())
        values = sums / (measures + EMPTY)[:, None], measures / (measures + EMPTY)
        return tuple(each.unflatten(0, (batch_size, near.num_cells)) for each in values)

    def to_points(self, v_BNC: Tensor, points_BPd: Tensor, near: Near) -> Tensor:
        """Integrate over the cells, which are of one size.

        Args:
            v_BNC: values of the cells.
            points_BPd: coordinates of the points.
            near: the pairs.

        Returns:
            Values at the points, [B, P, C].
        """
        _, num_points, num_pairs = near.cells.shape
        cells = near.cells.flatten(1)[:, :, None].expand(-1, -1, v_BNC.shape[2])
        v_BPKC = v_BNC.gather(1, cells).unflatten(1, (num_points, num_pairs))
        weights_BPK = near.nearness / (near.nearness.sum(dim=2, keepdim=True) + EMPTY)
        return (weights_BPK[..., None] * self._kernel(points_BPd, near) * v_BPKC).sum(dim=2)

    def _kernel(self, points_BPd: Tensor, near: Near) -> Tensor:
        places = points_BPd[:, :, None].expand_as(near.offsets)
        return self.kernel(torch.cat([places, near.offsets], dim=-1))
