"""PointNet (Qi et al., CVPR 2017): each point, and a supremum over all points.

The source is arXiv 1612.00593.

Axes:  B batch, P points, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.layout import Layout
from penstock.learner.models.options import require_positive
from penstock.learner.models.points.sites import PointModel, Sites, net


class PointNet(PointModel):
    """The plain baseline for points: a net at each point, and their supremum.

        v(x) = p(x, a(x), s),   z = sup_x q(v(x)),   u(x) = r(v(x), z)

    p, q and r are fully connected nets with GELU, with n and 2n; 8n and 32n; 16n and 4n and n neurons. Quadrature
    weights say nothing but which points there are. Neither doubled points nor their density change the values, and a
    few extreme points decide on z: what depends on integrals is learnt better by `branch_trunk`, which takes the mean.
    The transforms of the input that Qi et al. learn for classification are left out, as is usual for fields.

    Args:
        layout: layout of batches.
        width: number n of neurons, at least 1. Good values: 8 to 32.

    Raises:
        ValueError: not all fields sit on one geometry, an output is a scalar, or `width` is below 1.
    """

    def __init__(self, layout: Layout, *, width: int = 16):
        super().__init__(layout, "pointnet")
        require_positive("pointnet", width=width)
        self.local = net(self.num_inputs, width, 2 * width)
        self.overall = net(2 * width, 8 * width, 32 * width)
        self.project = net(34 * width, 16 * width, 4 * width, width, self.num_outputs)

    def at_points(self, inputs_BPC: Tensor, sites: Sites) -> Tensor:
        """Predict the outputs as rows, see `PointModel`."""
        local_BPC = self.local(inputs_BPC)
        is_there = (sites.shares > 0)[:, :, None]
        overall_BPC = torch.where(is_there, self.overall(local_BPC), -torch.inf)
        greatest_BPC = overall_BPC.amax(dim=1, keepdim=True).expand_as(overall_BPC)
        return self.project(torch.cat([local_BPC, greatest_BPC], dim=2))
