"""GINO (Li et al., NeurIPS 2023): Fourier layers between two kernel integrals.

The source is arXiv 2309.00583.

Axes:  B batch, P points, C channels, N cells of the latent grid, *grid its axes, d dimensions of space.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penstock.layout import Layout
from penstock.learner.models.grids.fourier.spectral import SpectralConvolution, fourier_bases
from penstock.learner.models.options import require_positive
from penstock.learner.models.points.latent.latent_grid import GridKernel, LatentGrid, checked_resolution
from penstock.learner.models.points.sites import PointModel, Sites, net

RESOLUTION = 32, 16  # in two dimensions, in three
RADIUS = 1.5  # of the kernels, in cells: the 3 cells along each axis around a point


class GINO(PointModel):
    """Carries the inputs to a regular grid, applies Fourier layers, and goes back.

        v_0 = G f,   v_l = φ(W_l v_(l-1) + K_l v_(l-1)),   u(x) = p(G' v_L (x), f(x)),   f = lift(x, a(x), s)

    G and G' are kernel integrals over what lies within 1.5 cells (`GridKernel`), K_l spectral convolutions
    (`SpectralConvolution`), φ is GELU. The latent grid covers the box of the geometry, and is the same for all samples.
    Which of its cells lie in the domain is an input of the Fourier layers. Points that lie closer than its cells are
    seen apart only by f(x), which the paper leaves out; so are the signed distances that it adds for cars.

    Args:
        layout: layout of batches.
        width: number of channels inside, at least 1. Good values: 24 to 64.
        resolution: cells along the longest edge of the box, at least 4: about as many as the points' distance asks for.
            Good values: 16 to 64. None for 32, or 16 in three dimensions.
        modes: number of Fourier modes kept along each axis, at least 1; half an axis' cells where there are fewer.
            Good values: 8 to 16.
        layers: number of Fourier layers, at least 1. Good value: 4.
        hidden: neurons in each of the two hidden layers of a kernel, at least 1. Good values: 32 to 80.

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
        modes: int = 12,
        layers: int = 4,
        hidden: int = 32,
    ):
        super().__init__(layout, "gino")
        require_positive("gino", width=width, modes=modes, layers=layers, hidden=hidden)
        (geometry,) = layout.geometries
        resolution = checked_resolution("gino", resolution, geometry, RESOLUTION)
        self.lift = net(self.num_inputs, 2 * width, width)
        self.grid = LatentGrid(geometry, resolution, RADIUS)
        self.modes = tuple(max(1, min(modes, size // 2)) for size in self.grid.shape)
        self.kernels = nn.ModuleList(GridKernel(geometry.dimension, width, hidden) for _ in range(2))
        self.enter = nn.Linear(width + geometry.dimension + 1, width)
        self.spectral = nn.ModuleList(SpectralConvolution(width, self.modes) for _ in range(layers))
        self.pointwise = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.project = net(2 * width, 2 * width, self.num_outputs)

    def at_points(self, inputs_BPC: Tensor, sites: Sites) -> Tensor:
        """Predict the outputs as rows, see `PointModel`."""
        first, last = self.kernels
        near = self.grid.near(sites.points)
        f_BPC = self.lift(inputs_BPC)
        v_BNC = self._on_grid(*first.to_grid(f_BPC, sites.points, sites.shares, near))
        return self.project(torch.cat([last.to_points(v_BNC, sites.points, near), f_BPC], dim=2))

    def _on_grid(self, v_BNC: Tensor, covered_BN: Tensor) -> Tensor:
        places_BNd = self.grid.centres.expand(v_BNC.shape[0], *self.grid.centres.shape)
        x_BNC = self.enter(torch.cat([v_BNC, places_BNd, covered_BN[..., None]], dim=2))
        x_GBC = x_BNC.transpose(0, 1).unflatten(0, self.grid.shape)
        bases = [fourier_bases(*sizes, self.grid.centres) for sizes in zip(self.grid.shape, self.modes, strict=True)]
        for spectral, pointwise in zip(self.spectral, self.pointwise, strict=True):
            x_GBC = F.gelu(pointwise(x_GBC) + spectral(x_GBC.contiguous(), bases))
        return x_GBC.flatten(0, len(self.modes) - 1).transpose(0, 1)
