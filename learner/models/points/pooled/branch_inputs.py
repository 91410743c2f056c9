"""What the branch of a DeepONet sees: all inputs as one vector.

Axes:  B batch, C channels, d dimensions of space, * the shape of a geometry.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor, nn

from penstock.geometry import Geometry
from penstock.layout import Block, Layout
from penstock.learner.models.points.sites import Sites, net
from penstock.learner.surrogate import argument


class BranchInputs(nn.Module):
    """Scalars, fields and masks at sensors, and means over points that vary.

    Where all samples share the points of an input field, the values at all of them are sensors, which fixes their
    number. The mask of a masked grid, 1 inside the domain and 0 outside, is one more field, whatever sits on the grid.
    Of points that vary the mean over the domain of a net of (x, a(x)) is taken.

    Args:
        layout: layout of batches.
        width: neurons of the hidden layer of each net, and its number of outputs.
        model: name of the model, for messages.

    Raises:
        ValueError: outputs are scalars or sit on several geometries, or there is no input.
    """

    def __init__(self, layout: Layout, width: int, model: str):
        super().__init__()
        needs = f"{model}: needs all outputs on one geometry, no scalars among them, and an input"
        if len(layout.output_blocks) != 1 or layout.output_blocks[0].on is None:
            raise ValueError(needs)
        self.layout = layout
        self.sensors = [block for block in layout.input_blocks if not block.is_ragged]
        self.masks = {
            argument("weights", geometry, layout): prod(geometry.shape)
            for geometry in layout.geometries
            if geometry.travelling and not geometry.is_ragged
        }
        self.pools = nn.ModuleDict()
        for number, (geometry, block) in enumerate(self._brought_along()):
            num_fields = 0 if block is None else block.shape[0]
            self.pools[str(number)] = net(geometry.dimension + num_fields, width, width)
        num_sensors = sum(prod(block.shape) for block in self.sensors) + sum(self.masks.values())
        self.size = num_sensors + width * len(self.pools)
        """Numbers in the vector."""
        if self.size == 0:
            raise ValueError(needs)

    def forward(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors.

        Args:
            arrays: scalars [B, S], input fields [B, C, *], and of geometries points [B, P, d] and weights [B, *], by
                name.

        Returns:
            [B, `size`].
        """
        seen = [arrays[block.name].flatten(1) for block in self.sensors]
        seen += [(arrays[name] > 0).float().flatten(1) for name in self.masks]
        for (geometry, block), pool in zip(self._brought_along(), self.pools.values(), strict=True):
            sites = Sites.of(geometry, self.layout, arrays)
            fields = [] if block is None else [sites.rows(arrays[block.name])]
            seen.append(sites.mean(pool(torch.cat([sites.points, *fields], dim=2))))
        return torch.cat(seen, dim=1)

    def _brought_along(self) -> list[tuple[Geometry, Block | None]]:
        """The geometries whose points vary by sample, with the input fields there."""
        inputs = {block.on: block for block in self.layout.input_blocks}
        return [(geometry, inputs.get(geometry)) for geometry in self.layout.geometries if geometry.is_ragged]


def trunk_sites(layout: Layout, arrays: Mapping[str, Tensor]) -> tuple[Sites, Tensor]:
    """Return where the outputs sit.

    Args:
        layout: layout of batches.
        arrays: as in `BranchInputs`.

    Returns:
        The sites, and the places to evaluate the trunk at, [B or 1, P, d]: where all samples share them, once.
    """
    geometry = layout.output_blocks[0].on
    sites = Sites.of(geometry, layout, arrays)
    return sites, sites.points if geometry.is_ragged else sites.points[:1]
