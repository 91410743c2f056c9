"""Geo-FNO (Li et al., JMLR 2023): Fourier layers on points that a map moves.

The source is arXiv 2207.05209.

Axes:  B batch, P points, C channels, d dimensions of space, *grid the axes of the latent grid, M products of waves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penstock.layout import Layout
from penstock.learner.models.grids.fourier.spectral import SpectralConvolution, fourier_bases
from penstock.learner.models.options import require_positive
from penstock.learner.models.points.latent.latent_grid import checked_resolution
from penstock.learner.models.points.sites import PointModel, Sites, net
from penstock.learner.models.transformer import waves

RESOLUTION = 32, 12  # in two dimensions, in three
MODES = 12, 5  # in two dimensions, in three, where each point has a thousand products of waves
CODE_SIZE = 32  # numbers by which the map knows the sample
FREQUENCIES = 3  # of the sines by which the map knows the place
BEND = 0.25  # edges of the box by which the map moves a point at most
FLAT = 0.01  # part of its usual size that the map's last layer starts with


class GeoFNO(PointModel):
    """Moves points on a torus by a map that it learns, and applies Fourier layers.

        ξ(x) = x + b tanh m(x, ∫ c(x', a(x'), s) dx'),   v̂_0(k) = ∫ f e^(-2πi k·ξ) dx,
        v_l = φ(W_l v_(l-1) + K_l v_(l-1)),              u(x) = p(Σ_k v̂_L(k) e^(2πi k·ξ(x)), f(x)),

    with f = lift(x, a(x), s), fully connected nets m, c, p and lift with GELU (φ), and spectral convolutions K_l
    (`SpectralConvolution`) on the latent grid. Wave vectors have |k_a| < `modes` along each axis. Integrals over the
    domain are sums by quadrature weights, divided by its measure, where the paper's code sums over points, so that its
    values grow with their number. The map starts near the identity, and moves no point by more than a quarter of the
    box's edge (b); nothing keeps it from folding. The paper gives the map what parametrises the domain, as radii; here
    it sees a mean over the domain, so that domains need no parameters.

    Args:
        layout: layout of batches.
        width: number C of channels, at least 1. Good values: 24 to 64.
        resolution: cells of the latent grid along the longest edge of the box, at least 4. Good values: 24 to 40. None
            for 32, or 12 in three dimensions.
        modes: number of Fourier modes kept along each axis, at least 1; half an axis' cells where there are fewer.
            Good values: 8 to 16. None for 12, or 5 in three dimensions.
        layers: number of Fourier layers, at least 1. Good values: 3 to 4.
        padding: length of the torus that no point of the box is mapped to without m, as a part of the box's edge, at
            least 0. Choose 0 where the solution is periodic.

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
        modes: int | None = None,
        layers: int = 4,
        padding: float = 0.25,
    ):
        super().__init__(layout, "geo_fno")
        (geometry,) = layout.geometries
        d = geometry.dimension
        resolution = checked_resolution("geo_fno", resolution, geometry, RESOLUTION)
        modes = MODES[d > 2] if modes is None else modes
        require_positive("geo_fno", width=width, modes=modes, layers=layers)
        if not 0 <= padding < math.inf:
            raise ValueError(f"geo_fno: padding must be at least 0, not {padding}")
        edges = (geometry.box[1] - geometry.box[0]) / (geometry.box[1] - geometry.box[0]).max()
        self.register_buffer("edges", torch.tensor(edges, dtype=torch.float32, device="cpu"), persistent=False)
        self.period = 1 + padding
        self.shape = tuple(max(2, math.ceil(resolution * edge - 1e-6)) for edge in edges)
        self.modes = modes
        self.modes_of_axes = tuple(min(modes, size // 2) for size in self.shape)
        self.code = net(self.num_inputs, 2 * width, CODE_SIZE)
        self.map = net(d + 2 * FREQUENCIES * d + CODE_SIZE, 2 * width, width, d)
        with torch.no_grad():
            self.map[-1].weight.mul_(FLAT)
            self.map[-1].bias.zero_()
        self.lift = net(self.num_inputs, 2 * width, width)
        self.spectral = nn.ModuleList(SpectralConvolution(width, self.modes_of_axes) for _ in range(layers))
        self.pointwise = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.project = net(2 * width, 2 * width, self.num_outputs)

    def at_points(self, inputs_BPC: Tensor, sites: Sites) -> Tensor:
        """Predict the outputs as rows, see `PointModel`."""
        f_BPC = self.lift(inputs_BPC)
        products_BPM = wave_products(self._mapped(inputs_BPC, sites), self.modes_of_axes)
        x_GBC = _in_float32(self._to_grid, f_BPC * sites.shares[..., None], products_BPM)
        bases = [fourier_bases(*sizes, self.edges) for sizes in zip(self.shape, self.modes_of_axes, strict=True)]
        for spectral, pointwise in zip(self.spectral, self.pointwise, strict=True):
            x_GBC = F.gelu(pointwise(x_GBC) + spectral(x_GBC.contiguous(), bases))
        return self.project(torch.cat([_in_float32(self._to_points, x_GBC, products_BPM), f_BPC], dim=2))

    def _mapped(self, inputs_BPC: Tensor, sites: Sites) -> Tensor:
        """Places on the torus [B, P, d], in periods."""
        code_BPC = sites.mean(self.code(inputs_BPC))[:, None].expand(-1, inputs_BPC.shape[1], -1)
        seen = torch.cat([sites.points, waves(sites.points, FREQUENCIES), code_BPC], dim=2)
        return (sites.points / self.edges + BEND * torch.tanh(self.map(seen))) / self.period

    def _to_grid(self, parts_BPC: Tensor, products_BPM: Tensor) -> Tensor:
        """The transform of values at points, summed at the cells, [*grid, B, C]."""
        v_BMC = products_BPM.transpose(1, 2) @ parts_BPC
        v = v_BMC.transpose(0, 1).unflatten(0, [2 * number for number in self.modes_of_axes])
        for axis, (size, number) in enumerate(zip(self.shape, self.modes_of_axes, strict=True)):
            v = _along(fourier_bases(size, number, v)[1], v, axis)
        return v

    def _to_points(self, x_GBC: Tensor, products_BPM: Tensor) -> Tensor:
        """The transform of values at the cells, summed at points, [B, P, C]."""
        v = x_GBC
        for axis, (size, number) in enumerate(zip(self.shape, self.modes_of_axes, strict=True)):
            counts = torch.where(torch.arange(2 * number, device=v.device) % number == 0, 1.0, 2.0)  # waves k and -k
            v = _along(counts[:, None] * fourier_bases(size, number, v)[0], v, axis)
        return products_BPM @ v.flatten(0, len(self.modes_of_axes) - 1).transpose(0, 1)


def wave_products(places_BPd: Tensor, modes: Sequence[int]) -> Tensor:
    """Return the products of cosines and sines of places, one factor for each axis.

    Args:
        places_BPd: places on the torus, in periods.
        modes: number of modes along each axis.

    Returns:
        [B, P, M] with M = Π 2 modes_a: along each axis first the cosines of all wave numbers, then the sines.
    """
    products = torch.ones_like(places_BPd[..., :1])
    for axis, number in enumerate(modes):
        wave_numbers = torch.arange(number, dtype=torch.float32, device=places_BPd.device)
        phases = 2 * math.pi * places_BPd[..., axis, None] * wave_numbers
        along = torch.cat([phases.cos(), phases.sin()], dim=-1)
        products = (products[..., None] * along[..., None, :]).flatten(-2)
    return products


def _along(matrix: Tensor, values: Tensor, axis: int) -> Tensor:
    return torch.tensordot(matrix, values, dims=([1], [axis])).movedim(0, axis)


def _in_float32(transform: Callable[[Tensor, Tensor], Tensor], values: Tensor, products_BPM: Tensor) -> Tensor:
    """Transform without autocast, as `SpectralConvolution` does, and for its reason."""
    device = values.device.type
    if not torch.is_autocast_enabled(device):
        return transform(values, products_BPM)
    with torch.autocast(device, enabled=False):
        return transform(values.float(), products_BPM.float()).to(values.dtype)
