"""The multigrid neural operator, whose layers are linear V-cycles.

The source is He, Liu and Xu, ICLR 2024, arXiv 2310.19809.

Axes:  B batch, C channels, S scalars, *grid = X, Y, Z the axes of the fields' grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penstock.geometry import Grid
from penstock.layout import Layout
from penstock.learner.models.grids.convolutional.convolution import Convolution, TransposedConvolution, halvings
from penstock.learner.models.grids.inputs import GridLayout, everywhere, with_mask
from penstock.learner.models.options import require_positive
from penstock.learner.optimizers import Recipe

LEVELS = 6  # by default


class MgNO(nn.Module):
    """The multigrid neural operator on a grid of 1 to 3 axes.

    It applies `layers` times a V-cycle V plus a pointwise map W, with GELU after each, and a pointwise map to the
    outputs; there is no lift:

        v ← σ(V v + W v).

    V is linear, and made like a multigrid cycle for A u = f, with convolutions in place of all its operators. On each
    level u ← u + S (f - A u) smooths, once, and twice on the coarsest; f ← R f and u ← Π u go to the next coarser one,
    and u ← u + T u_coarse comes back. On the finest level u = S f comes first. So a layer joins all points, with few
    parameters. Convolutions have 3 points along each axis, T has 4; each has its own weights, and none has a bias. They
    wrap around periodic axes and see zeros beyond the ends of others, which suits Dirichlet conditions.

    A multigrid cycle restricts the residual f - A u; here f itself is restricted, as in the authors' code, from which
    their errors and numbers of parameters are. Nothing is lost by it: a channel of u can hold the residual, and with
    two channels the textbook cycle for Poisson's equation is one of these V.

    An axis of n points is cut to ⌈n / 2⌉, so any size will do, and one file serves them all. Convolutions reach a
    number of cells, not a length: on another resolution than that of training a model runs and means another operator.

    Args:
        layout: layout of batches.
        width: number of channels inside, at least 1. Good values: 24 to 32.
        levels: number of grids in a V-cycle, at least 1. An axis is halved as long as 4 points remain. None takes 6, or
            fewer where no axis can be halved so often. Good values: 4 to 6.
        layers: number of V-cycles, at least 1. Good values: 4 or 5.

    Raises:
        ValueError: the layout or its grid does not allow these options.
    """

    accepts = (Grid,)
    resolution_free = ()  # its kernels reach a number of cells
    recipe = Recipe("muon", 4e-3)

    def __init__(self, layout: Layout, *, width: int = 24, levels: int | None = None, layers: int = 4):
        super().__init__()
        require_positive("mgno", width=width, levels=LEVELS if levels is None else levels, layers=layers)
        of = GridLayout.of(layout, "mgno")
        strides = halvings("mgno", of.grid.shape, levels, LEVELS)
        sizes = [of.num_fields + of.num_scalars] + [width] * layers
        self.cycles = nn.ModuleList(VCycle(size, width, of.grid.periodic, strides) for size in sizes[:-1])
        self.pointwise = nn.ModuleList(Convolution(size, width, of.grid.periodic, kernel=1) for size in sizes[:-1])
        self.project = Convolution(width, of.num_outputs, of.grid.periodic, kernel=1, bias=False)

    def forward(self, fields: Tensor, scalars: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """Predict the outputs on the grid.

        Args:
            fields: input fields [B, C, *grid].
            scalars: input scalars [B, S], if there are any.
            weights: quadrature weights [B, *grid] of a masked grid; 0 is outside the domain.

        Returns:
            The outputs, [B, C, *grid].
        """
        channels = with_mask(fields, weights)
        if scalars is not None:
            channels.append(everywhere(scalars, fields.shape[2:]))
        x = torch.cat(channels, dim=1)
        for cycle, pointwise in zip(self.cycles, self.pointwise, strict=True):
            x = F.gelu(cycle(x) + pointwise(x))
        return self.project(x)


class VCycle(nn.Module):
    """The linear map V of a MgNO's docstring.

    Args:
        channels: number of channels of f.
        width: number of channels of u.
        periodic: whether each axis is periodic.
        strides: `halvings` of the grid.
    """

    def __init__(self, channels: int, width: int, periodic: Sequence[bool], strides: Sequence[Sequence[int]]):
        super().__init__()

        def convolutions(size: int, size_out: int, strides: Sequence[Sequence[int]]) -> nn.ModuleList:
            return nn.ModuleList(Convolution(size, size_out, periodic, stride=stride, bias=False) for stride in strides)

        once = [()] * (len(strides) + 1)
        self.first = Convolution(channels, width, periodic, bias=False)
        self.smooth = convolutions(channels, width, once)  # one for each level but the first, and a last one
        self.apply_a = convolutions(width, channels, once)
        self.restrict_f = convolutions(channels, channels, strides)
        self.restrict_u = convolutions(width, width, strides)
        self.prolong = nn.ModuleList(TransposedConvolution(width, periodic, stride) for stride in strides)

    def forward(self, f: Tensor) -> Tensor:
        """Apply the cycle to [B, C, *grid]."""
        u, finer = self.first(f), []
        *smoothing, last = zip(self.smooth, self.apply_a, strict=True)
        for restrict_f, restrict_u, (smooth, apply_a) in zip(self.restrict_f, self.restrict_u, smoothing, strict=True):
            finer.append(u)
            f, u = restrict_f(f), restrict_u(u)
            u = u + smooth(f - apply_a(u))
        smooth, apply_a = last
        u = u + smooth(f - apply_a(u))
        for prolong, u_finer in reversed([*zip(self.prolong, finer, strict=True)]):
            u = u_finer + prolong(u, u_finer.shape[2:])
        return u
