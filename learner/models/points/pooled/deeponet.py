"""DeepONet (Lu et al., Nature Machine Intelligence 3, 2021), unstacked.

The sources are arXiv 1910.03193, of the modified nets Wang et al., arXiv 2110.01654, and of masks Kumar et al., Neural
Networks 184, 2025, arXiv 2408.02198.

Axes:  B batch (1 where all samples share it), P points, C channels, S scalars, W width, K latent.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penstock.geometry import Grid, Mesh, Points
from penstock.layout import Layout
from penstock.learner.models.options import require_positive
from penstock.learner.models.points.pooled.branch_inputs import BranchInputs, trunk_sites


class DeepONet(nn.Module):
    """Writes the outputs as a sum of functions of place.

    Their coefficients come from the inputs:

        u_c(x) = Σ_k b_ck(a, s) t_ck(x) + β_c,   k = 1 ... K

    b (the branch) and t (the trunk) are fully connected nets with GELU; the trunk's last layer is activated too. The
    branch sees scalars s, and input fields a on any geometries: where all samples share the points, the values at all
    of them (sensors), which fixes their number; of points that vary, the mean over the domain of a net of (x, a(x)).
    Outputs sit on one geometry, the inputs' or another. The trunk sees nothing but the place, so that all outputs lie
    in a space of dimension K.

    On a masked grid it is the multi-task DeepONet (Kumar et al.), one net for all domains on the grid: the branch sees
    the mask χ of the sample's domain, 1 inside and 0 outside, as one more field at the sensors, and the surrogate
    predicts χ u.

    With `modified`, two more layers U = φ(W_u a), V = φ(W_x x) act in every hidden layer of both nets: for
    z = φ(W h + b), the next h is z U + (1 - z) V. The branch then differs from point to point, and costs P times as
    much. That is so from the first hidden layer on, as in code that follows the authors', while their equations begin
    with the second; that code has no activation after the trunk's last layer.

    Args:
        layout: layout of batches.
        width: number of neurons in each hidden layer, at least 1. Good value: 128.
        latent: number K of functions for each output, at least 1. Good values: 64 to 128.
        layers: number of hidden layers in each net, at least 1. Good values: 3 to 4.
        modified: whether to take the modified nets.

    Raises:
        ValueError: outputs are scalars or sit on several geometries, there is no input, or an option is below 1.
    """

    accepts = (Grid, Mesh, Points)
    resolution_free = (Points,)  # of a grid or mesh it reads the values in their order

    def __init__(self, layout: Layout, *, width: int = 128, latent: int = 128, layers: int = 3, modified: bool = False):
        super().__init__()
        require_positive("deeponet", width=width, latent=latent, layers=layers)
        self.layout, self.latent = layout, latent
        self.seen = BranchInputs(layout, width, "deeponet")
        (outputs,) = layout.output_blocks
        starts = self.seen.size, outputs.on.dimension
        self.nets = nn.ModuleList(_layers(start, *[width] * layers, outputs.shape[0] * latent) for start in starts)
        self.gates = nn.ModuleList(nn.Linear(start, width) for start in starts if modified)
        self.offset = nn.Parameter(torch.zeros(outputs.shape[0]))

    def forward(self, **arrays: Tensor) -> Tensor:
        """Predict the outputs at the points.

        Args:
            **arrays: scalars [B, S], input fields [B, C, *], and of geometries points [B, P, d] and weights [B, *], by
                name.

        Returns:
            The outputs, [B, C, *].
        """
        sites, places_BPd = trunk_sites(self.layout, arrays)
        branch, trunk = self._both(self.seen(arrays)[:, None], places_BPd)
        terms = (branch * F.gelu(trunk)).unflatten(-1, (-1, self.latent))
        return sites.fields(terms.sum(dim=-1) + self.offset)

    def _both(self, branch: Tensor, trunk: Tensor) -> tuple[Tensor, Tensor]:
        """What becomes of branch and trunk, [B, 1 or P, C K] and [B, P, C K]."""
        both = [branch, trunk]
        gates = [F.gelu(gate(h)) for gate, h in zip(self.gates, both, strict=bool(self.gates))]
        *hidden, last = zip(*self.nets, strict=True)
        for layers in hidden:
            both = [F.gelu(layer(h)) for layer, h in zip(layers, both, strict=True)]
            if gates:
                both = [z * gates[0] + (1 - z) * gates[1] for z in both]
        return tuple(layer(h) for layer, h in zip(last, both, strict=True))


def _layers(*sizes: int) -> nn.ModuleList:
    return nn.ModuleList(itertools.starmap(nn.Linear, itertools.pairwise(sizes)))
