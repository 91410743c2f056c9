"""Random polygons and discs.

Axes:  N corners, or discs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RASTER = 32  # squares along each axis, for features


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


@dataclass(frozen=True)
class Discs:
    """Discs apart from each other in the unit square, float64 [N, 3].

    A row is x and y of the centre, and the radius. N is uniform on 1, ..., `most`. Given N, radii are uniform on
    [smallest, largest] and centres on the square, on condition that all distances between discs, and from them to the
    sides, are above `gap`.

    Raises:
        ValueError: an argument is out of its range, or that condition is hardly ever met.
    """

    most: int
    """The largest number of discs, at least 1."""
    smallest: float
    """The smallest radius, above 0."""
    largest: float
    """The largest radius."""
    gap: float
    """The smallest distance, at least 0."""

    def __post_init__(self):
        if self.most < 1:
            raise ValueError(f"most = {self.most} is too small: there is at least 1 disc")
        if not 0 < self.smallest < self.largest:
            raise ValueError(f"smallest = {self.smallest} must be above 0 and below largest = {self.largest}")
        if self.gap < 0:
            raise ValueError(f"gap = {self.gap} must be at least 0")
        if self.most * (2 * self.largest + self.gap) ** 2 > 0.4:  # one try of 700 succeeds there
            raise ValueError(f"most = {self.most} is too large: discs of this size with these gaps fill the square")

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """The discs of one draw."""
        return self._of(generator.random(), generator)

    def at_quantiles(self, quantiles: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Discs whose number has this quantile, [1]; radii and centres are drawn."""
        generator.random()  # that of `draw`
        return self._of(quantiles[0], generator)

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The name of the quantile of the number.

        Radii and centres are not independent of each other, so they have none.
        """
        return (f"{name}_number",)

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantile of the number of discs that `draw` returns for this generator, [1]."""
        quantile = generator.random()
        self._of(quantile, generator)
        return np.array([quantile])

    def _of(self, quantile: float, generator: np.random.Generator) -> np.ndarray:
        """Discs whose number has this quantile."""
        num_discs = 1 + int(self.most * quantile)
        while True:
            radii = generator.uniform(self.smallest, self.largest, num_discs)
            centres = generator.random((num_discs, 2))
            apart = np.linalg.norm(centres[:, None] - centres, axis=2) - radii[:, None] - radii
            np.fill_diagonal(apart, np.inf)
            to_sides = np.minimum(centres, 1 - centres).min(axis=1) - radii
            if min(apart.min(), to_sides.min()) > self.gap:
                return np.column_stack([centres, radii])

    def features(self, value: np.ndarray) -> np.ndarray:
        """Whether the centres of 32 x 32 squares are in a disc.

        It is scaled so that distances are roots of areas, in units of the area of the most and largest discs.
        """
        centres = (np.arange(RASTER) + 0.5) / RASTER
        x, y, radii = value.T[:, :, None, None]
        covered = ((centres[:, None] - x) ** 2 + (centres - y) ** 2 < radii**2).any(axis=0)
        return covered.ravel() / (RASTER * np.sqrt(self.most * np.pi) * self.largest)

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return (
            f"1 to {self.most} discs in the unit square, radii uniform on [{self.smallest:g}, {self.largest:g}], "
            f"centres uniform given that all gaps are above {self.gap:g}"
        )
