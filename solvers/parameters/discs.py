"""Random discs that stay apart.

Axes:  N discs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RASTER = 32  # squares along each axis, for features


@dataclass(frozen=True)
class Discs:
    """Discs in the unit square that touch neither each other nor its sides, float64 [N, 3].

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
        num_discs = generator.integers(1, self.most, endpoint=True)
        while True:
            radii = generator.uniform(self.smallest, self.largest, num_discs)
            centres = generator.random((num_discs, 2))
            apart = np.linalg.norm(centres[:, None] - centres, axis=2) - radii[:, None] - radii
            np.fill_diagonal(apart, np.inf)
            to_sides = np.minimum(centres, 1 - centres).min(axis=1) - radii
            if min(apart.min(), to_sides.min()) > self.gap:
                return np.column_stack([centres, radii])

    def features(self, value: np.ndarray) -> np.ndarray:
        """Whether the centres of 32 x 32 squares are in a disc, scaled by the root of the largest area."""
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
