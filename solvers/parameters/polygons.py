"""Random polygons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StarPolygon:
    """A polygon around a centre from which all of it is seen, float64 [N, 2].

    Its N corners, counterclockwise, lie at the angles 2π (j + t_j) / N from the x axis and at radii r_j: t_j uniform on
    [-turn, turn], r_j on [smallest, largest], all independent.

    Raises:
        ValueError: an argument is out of its range.
    """

    num_corners: int
    """N, at least 3."""
    smallest: float
    """The smallest radius, above 0."""
    largest: float
    """The largest radius."""
    turn: float = 0.0
    """The largest turn of a corner, from 0 to below 1/4, in units of the angle between corners."""
    centre: tuple[float, float] = (0.0, 0.0)
    """The centre."""
    unit: str = "1"
    """Physical unit of the lengths, for people; "1" when dimensionless."""

    def __post_init__(self):
        if self.num_corners < 3:
            raise ValueError(f"num_corners = {self.num_corners} is too small: a polygon has at least 3")
        if not 0 < self.smallest < self.largest < np.inf:
            raise ValueError(f"smallest = {self.smallest} must be above 0 and below largest = {self.largest}")
        if not 0 <= self.turn < 0.25:
            raise ValueError(f"turn = {self.turn} must be from 0 to below 1/4: else the centre may lie outside")

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """One polygon."""
        return self._of(self.quantiles(generator))

    def at_quantiles(self, quantiles: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The polygon with these quantiles; nothing else is drawn."""
        return self._of(quantiles)

    def features(self, value: np.ndarray) -> np.ndarray:
        """The corners, scaled by the range of the radii and the root of their number."""
        return (value - self.centre).ravel() / ((self.largest - self.smallest) * np.sqrt(self.num_corners))

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The names of `quantiles`: the radii, then the turns where there are any."""
        kinds = ("radius", "turn") if self.turn else ("radius",)
        return tuple(f"{name}_{kind}_{corner}" for kind in kinds for corner in range(self.num_corners))

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantiles of the radii and turns that `draw` takes for this generator."""
        return generator.random(2 * self.num_corners if self.turn else self.num_corners)

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return (
            f"star-shaped polygon with {self.num_corners} corners, radii uniform on [{self.smallest:g}, "
            f"{self.largest:g}] {self.unit}, turned by up to {self.turn:g} of the angle between corners"
        )

    def _of(self, quantiles: np.ndarray) -> np.ndarray:
        radii = self.smallest + (self.largest - self.smallest) * quantiles[: self.num_corners]
        turns = self.turn * (2 * quantiles[self.num_corners :] - 1) if self.turn else 0.0
        angles = 2 * np.pi * (np.arange(self.num_corners) + turns) / self.num_corners
        return self.centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
