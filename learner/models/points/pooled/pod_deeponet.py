"""POD-DeepONet (Lu et al., CMAME 393, 2022): the trunk is a basis of the outputs.

The source is arXiv 2111.05512.

Axes:  B batch, N samples, K functions, C outputs, D = C P values of all outputs at all points.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from penstock.geometry import Grid, Mesh
from penstock.layout import Layout
from penstock.learner.models.options import require_positive
from penstock.learner.models.points.pooled.branch_inputs import BranchInputs
from penstock.learner.models.points.sites import net

SAMPLES_PER_FUNCTION = 4  # that the basis is taken from at most
PART = 1 << 22  # values that are converted to float64 at a time


class PODDeepONet(nn.Module):
    """Writes the outputs in their proper orthogonal decomposition.

        u(x) = ū(x) + Σ_k b_k(a, s) ψ_k(x),   k = 1 ... K

    b is a fully connected net with GELU of what the branch of `DeepONet` sees. ū is the mean of samples, ψ_k their k-th
    principal component in the L2 norm over the domain and all outputs, in normalised units, times the root mean square
    of its coefficient. Both are taken from the first samples, at most 4 K, once the normalisation is fixed at the
    buffer's watermark; then they stay, and lie in checkpoints and exported files. The validation set is not seen. With
    fewer samples than functions the last functions are 0. Until then they are random.

    Args:
        layout: layout of batches.
        width: number of neurons in each hidden layer, at least 1. Good value: 128.
        latent: number K of functions, at least 1; no more than `buffer.watermark` are of use. Good values: 32 to 128.
        layers: number of hidden layers, at least 1. Good values: 3 to 4.

    Raises:
        ValueError: outputs are scalars, sit on several geometries or on one that varies, there is no input, or an
            option is below 1.
    """

    accepts = (Grid, Mesh)
    resolution_free = ()  # its basis is at the points of one resolution

    def __init__(self, layout: Layout, *, width: int = 128, latent: int = 64, layers: int = 3):
        super().__init__()
        require_positive("pod_deeponet", width=width, latent=latent, layers=layers)
        self.seen = BranchInputs(layout, width, "pod_deeponet")
        (outputs,) = layout.output_blocks
        if outputs.on.travelling:
            raise ValueError("pod_deeponet: needs outputs on a mesh or on a grid without a mask: take deeponet")
        self.shape = outputs.shape
        self.branch = net(self.seen.size, *[width] * layers, latent)
        self.num_samples_to_fit = SAMPLES_PER_FUNCTION * latent
        weights = np.ones(outputs.on.shape) if outputs.on.weights is None else outputs.on.weights
        self._shares = np.broadcast_to(weights / weights.sum(), self.shape).reshape(-1)
        self.register_buffer("mean", torch.zeros(len(self._shares)))
        self.register_buffer("functions", torch.randn(latent, len(self._shares)))

    def forward(self, **arrays: Tensor) -> Tensor:
        """Predict the outputs at the points.

        Args:
            **arrays: scalars [B, S], input fields [B, C, *], and of geometries points [B, P, d] and weights [B, *], by
                name.

        Returns:
            The outputs, [B, C, *].
        """
        values_BD = self.mean + self.branch(self.seen(arrays)) @ self.functions
        return values_BD.reshape(-1, *self.shape)

    def fit(self, outputs: Mapping[str, Tensor]) -> None:
        """Take the basis from samples, see `Surrogate`.

        Args:
            outputs: the samples' outputs in normalised units, [N, C, *], by name of the array.
        """
        (values,) = outputs.values()
        values_ND = values.flatten(1).float()
        mean_D = values_ND.double().mean(dim=0).float()
        values_ND = values_ND - mean_D
        shares_D = torch.tensor(self._shares, device=values_ND.device)
        num_samples = len(values_ND)
        columns = max(1, PART // num_samples)
        products_NN = sum(
            (part.double() * shares) @ part.double().T
            for part, shares in zip(values_ND.split(columns, dim=1), shares_D.split(columns), strict=True)
        )
        _, vectors_NN = torch.linalg.eigh(products_NN)  # the largest eigenvalues last
        number = min(num_samples, len(self.functions))
        directions_KN = vectors_NN.flip(1)[:, :number].T.float() / num_samples**0.5
        self.mean.copy_(mean_D)
        self.functions.zero_()
        self.functions[:number] = directions_KN @ values_ND
