"""A regular grid inside a model, and kernel integrals between it and points.

Axes:  B batch, P points, K candidates (cells near a point), d dimensions of space, N cells, C channels.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penstock.geometry import Geometry
from penstock.learner.models.points.sites import net

EMPTY = 1e-8  # share of the domain below which what a cell sees fades to 0
KEY_SIZE = 16  # of the vectors whose cosines attention takes


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
        return Near(numbers_BPK, offsets_BPKd.clamp(-1, 1), nearness_BPK, self.radius * self.size, prod(self.shape))


def checked_resolution(model: str, resolution: int | None, geometry: Geometry, defaults: tuple[int, int]) -> int:
    """Return the number of cells along the longest edge of a geometry's box.

    Args:
        model: name of the model, for messages.
        resolution: the number that was given; None for a default.
        geometry: the geometry.
        defaults: the numbers for at most two dimensions and for three, where as many cells lie in a smaller edge.

    Raises:
        ValueError: there are fewer than 4, or more than 3 dimensions.
    """
    found = defaults[geometry.dimension > 2] if resolution is None else resolution
    if found < 4 or geometry.dimension > 3:
        raise ValueError(f"{model}: resolution must be at least 4, not {found}, in at most 3 dimensions")
    return found


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
    radius: float
    """How far a pair may be apart, in units of the box's longest edge."""
    num_cells: int
    """N."""

    def over_points(self, values_BPKC: Tensor, weights_BPK: Tensor) -> tuple[Tensor, Tensor]:
        """Average values of pairs over the points of each cell.

        Args:
            values_BPKC: values.
            weights_BPK: what each pair counts.

        Returns:
            The means [B, N, C], which are 0 for an empty cell, and the sums of the weights [B, N].
        """
        batch_size = values_BPKC.shape[0]
        start = torch.arange(batch_size, device=values_BPKC.device)[:, None, None] * self.num_cells
        cells = (self.cells + start).flatten()
        terms = (weights_BPK[..., None] * values_BPKC).flatten(0, 2)
        sums = terms.new_zeros(batch_size * self.num_cells, terms.shape[1]).index_add(0, cells, terms)
        measures = weights_BPK.new_zeros(batch_size * self.num_cells).index_add(0, cells, weights_BPK.flatten())
        means = sums / (measures + EMPTY)[:, None]
        return means.unflatten(0, (batch_size, self.num_cells)), measures.unflatten(0, (batch_size, self.num_cells))

    def of_cells(self, v_BNC: Tensor) -> Tensor:
        """Values of cells for each pair, [B, P, K, C]."""
        _, num_points, num_pairs = self.cells.shape
        cells = self.cells.flatten(1)[:, :, None].expand(-1, -1, v_BNC.shape[2])
        return v_BNC.gather(1, cells).unflatten(1, (num_points, num_pairs))


class GridKernel(nn.Module):
    """A kernel integral between points and the cells of a `LatentGrid`, either way.

        v(y) = ∫ n(x, y) κ(x, y - x) f(x) dx / ∫ n(x, y) dx

    n is the pair's nearness; κ is a fully connected net with GELU and one value for each channel. Its last bias is 1 at
    first, so that v starts as about a mean of f. As nets are drawn κ would be about 0.1, of any sign, and 1 % of f
    would come through to the grid and back. A cell that no point is near is 0. If it attends, n is multiplied by
    exp(cos(A x, B y)) with linear maps A and B of places: softmax attention of each y to what is near.

    Args:
        dimension: number d of dimensions of space.
        width: number C of channels.
        hidden: number of neurons in the kernel's two hidden layers.
        attends: whether it does.
    """

    def __init__(self, dimension: int, width: int, hidden: int, *, attends: bool = False):
        super().__init__()
        self.kernel = net(2 * dimension, hidden, hidden, width)
        nn.init.ones_(self.kernel[-1].bias)
        self.keys = nn.ModuleList(nn.Linear(dimension, KEY_SIZE) for _ in range(2 * attends))

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
        weights_BPK = self._nearness(points_BPd, near) * shares_BP[:, :, None]
        means_BNC, measures_BN = near.over_points(self._kernel(points_BPd, near) * f_BPC[:, :, None], weights_BPK)
        return means_BNC, measures_BN / (measures_BN + EMPTY)

    def to_points(self, v_BNC: Tensor, points_BPd: Tensor, near: Near) -> Tensor:
        """Integrate over the cells, which are of one size.

        Args:
            v_BNC: values of the cells.
            points_BPd: coordinates of the points.
            near: the pairs.

        Returns:
            Values at the points, [B, P, C].
        """
        nearness_BPK = self._nearness(points_BPd, near)
        weights_BPK = nearness_BPK / (nearness_BPK.sum(dim=2, keepdim=True) + EMPTY)
        return (weights_BPK[..., None] * self._kernel(points_BPd, near) * near.of_cells(v_BNC)).sum(dim=2)

    def _nearness(self, points_BPd: Tensor, near: Near) -> Tensor:
        if not self.keys:
            return near.nearness
        of_points, of_cells = self.keys
        cells_BPKd = points_BPd[:, :, None] + near.radius * near.offsets
        cosines = F.cosine_similarity(of_points(points_BPd)[:, :, None], of_cells(cells_BPKd), dim=-1)
        return near.nearness * cosines.exp()

    def _kernel(self, points_BPd: Tensor, near: Near) -> Tensor:
        places = points_BPd[:, :, None].expand_as(near.offsets)
        return self.kernel(torch.cat([places, near.offsets], dim=-1))
