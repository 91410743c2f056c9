"""A branch and a trunk net: a plain model for meshes and for points that vary.

Axes:  B batch, P points, C channels, L latent.
"""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.layout import Layout
from penstock.learner.models.options import require_positive
from penstock.learner.models.points.sites import PointModel, Sites, net


class BranchTrunk(PointModel):
    """Pools all inputs into a vector, from which each point's outputs are predicted.

        z = ∫ b(x, a(x), s) dx / |Ω|,   u(x) = t(x, a(x), s, z),

    b (the branch) and t (the trunk) are fully connected nets with GELU, a are the input fields, s the scalars. The
    integral is the sum over the points by their quadrature weights. So points may come in any order and number, and
    padding, which has weight 0, changes nothing. Unlike DeepONet (Lu et al., Nature Machine Intelligence 3, 2021, arXiv
    1910.03193) it sees the input at the points themselves (Zaheer et al., Deep Sets, NeurIPS 2017, arXiv 1703.06114),
    and z goes through the trunk instead of being multiplied by it. With the supremum over the points in place of their
    mean it would be PointNet.

    Args:
        layout: layout of batches.
        width: number of neurons in each hidden layer, at least 1. Good value: 128.
        latent: size of the vector z, at least 1. Good value: 128.
        layers: number of hidden layers in each net, at least 1. Good value: 3.

    Raises:
        ValueError: not all fields sit on one geometry, an output is a scalar, or an option is below 1.
    """

    def __init__(self, layout: Layout, *, width: int = 128, latent: int = 128, layers: int = 3):
        super().__init__(layout, "branch_trunk")
        require_positive("branch_trunk", width=width, latent=latent, layers=layers)
        self.branch = net(self.num_inputs, *[width] * layers, latent)
        self.trunk = net(self.num_inputs + latent, *[width] * layers, self.num_outputs)

    def at_points(self, inputs_BPC: Tensor, sites: Sites) -> Tensor:
        """Predict the outputs as rows, see `PointModel`."""
        latent_BL = sites.mean(self.branch(inputs_BPC))
        latent_BPL = latent_BL[:, None].expand(-1, inputs_BPC.shape[1], -1)
        return self.trunk(torch.cat([inputs_BPC, latent_BPL], dim=2))
