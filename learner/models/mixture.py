"""A mixture of experts (Jacobs et al., 1991): models weighted sample by sample.

The sources are Neural Computation 3 (1), 79-87, and for neural operators Kratsios et al. (arXiv 2404.09101).

Axes:  B batch, C channels, S scalars, P points, E experts, * the shape of a geometry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from penstock.geometry import Grid, Mesh, Points
from penstock.layout import Layout
from penstock.learner.models.grids import ON_GRIDS
from penstock.learner.models.mlp import MLP
from penstock.learner.models.neuralop import NeuralOp
from penstock.learner.models.options import require_one_of, require_positive
from penstock.learner.models.points import AT_POINTS
from penstock.learner.models.points.sites import Sites, net
from penstock.learner.surrogate import geometry_arguments

INNER: dict[str, type] = {"mlp": MLP, "neuralop": NeuralOp, **ON_GRIDS, **AT_POINTS}
GATE_WIDTH = 32  # neurons of its hidden layer


class Mixture(nn.Module):
    """The mean of several models, weighted by a gate that sees each sample.

        u = Σ_e g_e(z) u_e,   g = softmax(net(z)),   e = 1 ... E

    u_e is the prediction of expert e, a model like the others that begins with other weights; net has one hidden layer
    with GELU. z holds the scalars [B, S]. Without scalars it holds the means of every input field, and of its square,
    over the domain, by quadrature weights, and the same of the coordinates of points that vary.

    All experts predict every sample, so each learns from every sample, by its weight there. Kratsios et al. save time:
    a tree selects a single expert.

    Args:
        layout: layout of batches.
        model: name of the model that each expert is, any but this one.
        options: its options. None takes its defaults.
        experts: number E of experts, at least 1. Good values: 2 to 8.

    Raises:
        ValueError: there is no such model, it refuses or does not take the fields' geometry, or there is no input.
    """

    accepts = (Grid, Mesh, Points)
    resolution_free = (Grid, Mesh, Points)  # where the experts are; an object's own says which model that holds for
    inside = INNER

    def __init__(
        self, layout: Layout, *, model: str = "fno", options: Mapping[str, Any] | None = None, experts: int = 4
    ):
        super().__init__()
        require_one_of("moe", "model", model, tuple(sorted(INNER)))
        require_positive("moe", experts=experts)
        kind = INNER[model]
        if strange := [geometry.label for geometry in layout.geometries if not isinstance(geometry, kind.accepts)]:
            raise ValueError(f"moe: {model} does not take fields on {strange[0]}: give another model")
        self.layout = layout
        self.resolution_free = kind.resolution_free
        self.experts = nn.ModuleList(kind(layout, **options or {}) for _ in range(experts))
        self._names = {block.name for block in layout.input_blocks} | geometry_arguments(self.experts[0], layout)
        (size,) = layout.shapes.get("scalars", (0,))
        if not size:
            fields = sum(block.shape[0] for block in layout.input_blocks)
            size = 2 * (fields + sum(each.dimension for each in layout.geometries if isinstance(each, Points)))
        if not size:
            raise ValueError("moe: needs an input, and this problem has none: give it a scalar or a field")
        self.gate = net(size, GATE_WIDTH, experts)

    @property
    def num_samples_to_fit(self) -> int:
        """Most samples that an expert is fitted to, see `Surrogate`."""
        return getattr(self.experts[0], "num_samples_to_fit", 0)

    def fit(self, outputs: Mapping[str, Tensor]) -> None:
        """Fit every expert to samples.

        Args:
            outputs: the samples' outputs in normalised units, [N, C, *], by name of the array.
        """
        for expert in self.experts:
            expert.fit(outputs)

    def forward(self, **arrays: Tensor) -> Tensor | dict[str, Tensor]:
        """Predict the outputs.

        Args:
            **arrays: scalars [B, S], input fields [B, C, *], and of geometries points [B, P, d], weights [B, *] and
                edges [B, E, 2], by name.

        Returns:
            The outputs [B, C, *], by name of the array if there are several arrays.
        """
        shares_BE = self.shares(arrays)
        given = {name: values for name, values in arrays.items() if name in self._names}
        outputs = [expert(**given) for expert in self.experts]
        if isinstance(outputs[0], dict):
            return {name: _weighted(shares_BE, [each[name] for each in outputs]) for name in outputs[0]}
        return _weighted(shares_BE, outputs)

    def shares(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """Return the weight of each expert, [B, E], between 0 and 1 with a sum of 1.

        Args:
            arrays: what `forward` is called with, by name.
        """
        seen = arrays["scalars"] if "scalars" in arrays else self._statistics(arrays)
        return torch.softmax(self.gate(seen).float(), dim=1)

    def _statistics(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """Means over the domain of fields, coordinates that vary, and their squares."""
        fields = {block.on: arrays[block.name] for block in self.layout.input_blocks}
        means = []
        for geometry in self.layout.geometries:
            sites = Sites.of(geometry, self.layout, arrays)
            rows = [sites.points] if isinstance(geometry, Points) else []
            rows += [sites.rows(fields[geometry])] if geometry in fields else []
            means += [sites.mean(power) for each in rows for power in (each, each.square())]
        return torch.cat(means, dim=1)


def _weighted(shares_BE: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """The sum [B, C, *] of E tensors of that shape, weighted sample by sample."""
    return sum(
        share.reshape(-1, *[1] * (part.dim() - 1)) * part
        for share, part in zip(shares_BE.unbind(dim=1), parts, strict=True)
    )
