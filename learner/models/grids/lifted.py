"""Models that lift inputs at each point, act on them, and project the result.

Axes:  B batch, C channels, S scalars, *grid = X, Y, Z the axes of the fields' grid.
"""

from __future__ import annotations

from torch import Tensor, nn

from penstock.geometry import Grid
from penstock.learner.models.grids.inputs import channels_first, channels_last, with_coordinates
from penstock.learner.optimizers import Recipe


class LiftedModel(nn.Module):
    """A model on a grid with nets at each point before and after an operator.

    A subclass sets `lift` and `project`, which act on the last axis, and defines `on_grid`.
    """

    accepts = (Grid,)
    resolution_free = (Grid,)
    recipe = Recipe("muon", 2e-2)
    lift: nn.Module
    project: nn.Module
    on_circle: tuple[bool, ...] = ()
    """Axes whose coordinate is given by cosine and sine, as `with_coordinates` has it."""

    def forward(self, fields: Tensor, scalars: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """Predict the outputs on the grid.

        Args:
            fields: input fields [B, C, *grid].
            scalars: input scalars [B, S], if there are any.
            weights: quadrature weights [B, *grid] of a masked grid; 0 is outside the domain.

        Returns:
            The outputs, [B, C, *grid].

        Raises:
            ValueError: an axis has too few points for the model's modes.
        """
        x_GBC = self.lift(channels_last(with_coordinates(fields, scalars, weights, self.on_circle)))
        return channels_first(self.project(self.on_grid(x_GBC, fields)))

    def on_grid(self, x_GBC: Tensor, like: Tensor) -> Tensor:
        """Apply the operator.

        Args:
            x_GBC: lifted inputs [*grid, B, C].
            like: tensor with the data type and device of constants, which a lower precision would spoil.

        Returns:
            What `project` takes, [*grid, B, C].
        """
        raise NotImplementedError
