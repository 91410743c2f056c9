"""A branch and a trunk net: a plain model for meshes and for points that vary.

Axes:  B batch, P points, C channels, S scalars, d dimensions of space, H width, L latent.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from penstock.geometry import Geometry, Mesh, Points
from penstock.layout import Layout
from penstock.learner.models.options import require_positive


class BranchTrunk(nn.Module):
    """Pools all inputs into a vector, from which each point's outputs are predicted.

        z = ∫ b(x, a(x), s) dx / |Ω|,   u(x) = t(x, a(x), s, z),

    b (the branch) and t (the trunk) are fully connected nets with GELU, a are the input fields, s the scalars. The
    integral is the sum over the points by their quadrature weights. So points may come in any order and number, and
    padding, which has weight 0, changes nothing. The model is like DeepONet (Lu et al., Nature Machine Intelligence 3,
    2021, arXiv 1910.03193), but sees the input at the points themselves (Zaheer et al., Deep Sets, NeurIPS 2017, arXiv
    1703.06114).

    Args:
        layout: layout of batches.
        width: number of neurons in each hidden layer, at least 1. Good value: 128.
        latent: size of the vector z, at least 1. Good value: 128.
        layers: number of hidden layers in each net, at least 1. Good value: 3.

    Raises:
        ValueError: not all fields sit on one mesh or one set of points, an output is a scalar, or an option is below 1.
    """

    accepts = (Mesh, Points)

    def __init__(self, layout: Layout, *, width: int = 128, latent: int = 128, layers: int = 3):
        super().__init__()
        require_positive("branch_trunk", width=width, latent=latent, layers=layers)
        geometry = _the_one(layout)
        (outputs,) = layout.output_blocks
        num_inputs = geometry.dimension + sum(block.shape[0] for block in layout.input_blocks)
        self.branch = _net(num_inputs, width, layers, latent)
        self.trunk = _net(num_inputs + latent, width, layers, outputs.shape[0])

    def forward(
        self, points: Tensor, weights: Tensor, fields: Tensor | None = None, scalars: Tensor | None = None
    ) -> Tensor:
        """Predict the outputs at the points.

        Args:
            points: coordinates [B, P, d].
            weights: quadrature weights [B, P]; 0 is padding.
            fields: input fields [B, C, P], if there are any.
            scalars: input scalars [B, S], if there are any.

        Returns:
            The outputs, [B, C, P].
        """
        parts = [points]
        if fields is not None:
            parts.append(fields.transpose(1, 2))
        if scalars is not None:
            parts.append(scalars[:, None].expand(-1, points.shape[1], -1))
        inputs_BPC = torch.cat(parts, dim=2)
        shares_BP = weights / weights.sum(dim=1, keepdim=True)
        latent_BL = (shares_BP[:, None] @ self.branch(inputs_BPC))[:, 0]
        latent_BPL = latent_BL[:, None].expand(-1, points.shape[1], -1)
        return self.trunk(torch.cat([inputs_BPC, latent_BPL], dim=2)).transpose(1, 2)


def _the_one(layout: Layout) -> Geometry:
    if len(layout.geometries) != 1 or [block.on for block in layout.output_blocks] != [*layout.geometries]:
        raise ValueError("branch_trunk: needs all fields on one mesh or one set of points, and no scalars as outputs")
    return layout.geometries[0]


def _net(num_inputs: int, width: int, layers: int, num_outputs: int) -> nn.Sequential:
    sizes = [num_inputs, *[width] * layers]
    hidden = [module for a, b in itertools.pairwise(sizes) for module in (nn.Linear(a, b), nn.GELU())]
    return nn.Sequential(*hidden, nn.Linear(width, num_outputs))
