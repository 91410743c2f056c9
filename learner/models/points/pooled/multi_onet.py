"""MultiONet (Zang and Koutsourelakis, 2025): products in every layer.

The source is arXiv 2502.06250.

Axes:  B batch (1 where all samples share it), P points, C outputs, K neurons for each output.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penstock.geometry import Grid, Mesh, Points
from penstock.layout import Layout
from penstock.learner.models.options import require_positive
from penstock.learner.models.points.pooled.branch_inputs import BranchInputs, trunk_sites


class MultiONet(nn.Module):
    """The mean over all layers of products of branch and trunk.

        u_c(x) = Σ_l (w_l Σ_k b_lck(a, s) t_lck(x) + β_lc) / L,   l = 1 ... L,   k = 1 ... K

    b_l and t_l are the l-th of L equal layers of the branch and the trunk, fully connected nets with GELU, each behind
    an input layer. Inputs of the branch are those of `DeepONet`, and L = 1 is one, except for the activation of its
    branch. So the outputs lie in a space of dimension K L instead of K, for the same neurons, and every layer has a
    short way to the loss.

    Args:
        layout: layout of batches.
        width: number K of neurons for each output in each layer, at least 1. Good values: 64 to 128.
        layers: number L of layers that are multiplied, at least 1. Good values: 3 to 5.

    Raises:
        ValueError: outputs are scalars or sit on several geometries, there is no input, or an option is below 1.
    """

    accepts = (Grid, Mesh, Points)
    resolution_free = (Points,)  # of a grid or mesh it reads the values in their order

    def __init__(self, layout: Layout, *, width: int = 128, layers: int = 4):
        super().__init__()
        require_positive("multi_onet", width=width, layers=layers)
        self.layout = layout
        self.seen = BranchInputs(layout, width, "multi_onet")
        (outputs,) = layout.output_blocks
        num_outputs = outputs.shape[0]
        size = num_outputs * width
        self.enter = nn.ModuleList(nn.Linear(start, size) for start in (self.seen.size, outputs.on.dimension))
        self.nets = nn.ModuleList(nn.ModuleList(nn.Linear(size, size) for _ in range(layers)) for _ in range(2))
        self.factors = nn.Parameter(torch.ones(layers))
        self.offsets = nn.Parameter(torch.zeros(layers, num_outputs))

    def forward(self, **arrays: Tensor) -> Tensor:
        """Predict the outputs at the points.

        Args:
            **arrays: scalars [B, S], input fields [B, C, *], and of geometries points [B, P, d] and weights [B, *], by
                name.

        Returns:
            The outputs, [B, C, *].
        """
        sites, places_BPd = trunk_sites(self.layout, arrays)
        both = [self.seen(arrays)[:, None], places_BPd]
        both = [F.gelu(layer(values)) for layer, values in zip(self.enter, both, strict=True)]
        num_outputs, mean = self.offsets.shape[1], 0.0
        for layers, factor, offset in zip(zip(*self.nets, strict=True), self.factors, self.offsets, strict=True):
            branch, trunk = both = [F.gelu(layer(values)) for layer, values in zip(layers, both, strict=True)]
            branch_BCK, trunk_BPCK = branch[:, 0].unflatten(1, (num_outputs, -1)), trunk.unflatten(2, (num_outputs, -1))
            products = torch.einsum("bck,bpck->bpc", branch_BCK, trunk_BPCK.expand(branch_BCK.shape[0], -1, -1, -1))
            mean = mean + (factor * products + offset) / len(self.factors)
        return sites.fields(mean)
