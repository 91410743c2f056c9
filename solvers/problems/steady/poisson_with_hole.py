"""Poisson's equation around a random hole: every sample has a separate mesh.

Axes:  P points, T cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from math import ceil, sqrt

import numpy as np
from scipy.spatial import Delaunay

from penstock.arrays.simplices import lumped_mass, measures
from penstock.geometry import Points
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.elements.remeshed import diffusion
from penstock.solvers.parameters.space import Normal, ParameterSpace, Uniform
from penstock.solvers.problem import Parameters, Problem, Solve

MODES = tuple((j, k) for j in (1, 2, 3) for k in (1, 2, 3))  # of the source, along x and y
SMALLEST, LARGEST = 0.1, 0.25  # radius
GAP = 0.6  # between the rim and other points, in spacings; the grid's Voronoi cells reach 1 / √3 = 0.577
FLAT = 1e-3  # of spacing², area of a cell between three points of one side


class PoissonWithHole(Problem):
    """Poisson's equation around a round hole: from the hole, f and g to u.

    -Δu = f on the unit square less the hole, u = g on the hole's rim, u = 0 on the sides of the square.

    The hole's centre is uniform on [0.35, 0.65]², its radius on [0.1, 0.25]. f = Σ c_jk sin(jπx) sin(kπy) with j and k
    up to 3, and g = a + b cos θ + c sin θ, θ the angle around the centre; c_jk = 10 ξ with ξ standard normal, as a, b
    and c are. So f and g lift u about alike.

    P1 elements with lumped loads, on a Delaunay triangulation that follows the hole: rows of points h apart and offset
    by h / 2 from row to row, which make triangles with equal sides, and points about h apart on the rim. Those inside
    the hole or nearer than 0.6 h to its rim are left out. Angles are 20° at least.

    Sizes differ from draw to draw, and nothing of one mesh serves another. So the systems, whatever their size, are one
    family: a strategy is chosen once for all of them.

    A sample holds values at the mesh's points: `source` f and `boundary_value`, which is g on the rim and 0 elsewhere,
    to `solution` u; with it come the points and their lumped masses.

    Args:
        resolution: points along each side of the unit square, 1 / h >= 20. Good values: 20 to 128, at which samples
            have up to 537 and 19,295 points.
    """

    def __init__(self, *, resolution: int = 32):
        if resolution < 20:
            raise ValueError(f"resolution = {resolution} must be at least 20: a small hole needs that many points")
        self.resolution = resolution
        self.space = ParameterSpace(
            centre_x=Uniform(0.35, 0.65),
            centre_y=Uniform(0.35, 0.65),
            radius=Uniform(SMALLEST, LARGEST),
            **{f"source_{j}{k}": Normal(deviation=10.0) for j, k in MODES},
            **{f"rim_{k}": Normal() for k in range(3)},
        )
        # A hole takes more points of the grid than its rim gets. The Voronoi cells of those points, of an area of
        # √3/2 h² at most, cover it: their number is at least π r² / (√3/2 h²), above 2π r / h + 1/2 for r >= 2 h.
        points = Points(len(self.grid), 2)
        self.inputs = (FieldSpec(name="source", on=points), FieldSpec(name="boundary_value", on=points))
        self.outputs = (FieldSpec(name="solution", on=points),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        centre, radius = np.array([parameters["centre_x"], parameters["centre_y"]]), parameters["radius"]
        points, cells, num_rim = self.mesh(centre, radius)
        weights = lumped_mass(points, cells)
        source = sum(parameters[f"source_{j}{k}"] * _mode(points, j, k) for j, k in MODES)
        cosines, sines = (points[:num_rim] - centre).T / radius
        boundary_value = np.zeros(len(points))
        boundary_value[:num_rim] = parameters["rim_0"] + parameters["rim_1"] * cosines + parameters["rim_2"] * sines
        boundary = ((points == 0) | (points == 1)).any(axis=1)
        boundary[:num_rim] = True
        solution = diffusion(
            points,
            cells,
            load=weights * source,
            boundary=boundary,
            boundary_values=boundary_value,
            family="poisson_with_hole",
            solve=solve,
        )
        yield Sample(
            inputs={"source": source, "boundary_value": boundary_value},
            outputs={"solution": solution},
            geometry={"points": points, "weights": weights},
        )

    def mesh(self, centre: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, int]:
        """The mesh around a hole.

        Args:
            centre: of the hole, [2].
            radius: of the hole.

        Returns:
            Points [P, 2], those on the rim first; cells [T, 3]; and the number of points on the rim.
        """
        h = 1 / self.resolution
        num_rim = round(2 * np.pi * radius / h)
        angles = 2 * np.pi * np.arange(num_rim) / num_rim
        rim = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        is_outside = np.hypot(*(self.grid - centre).T) >= radius + GAP * h
        points = np.concatenate([rim, self.grid[is_outside]])
        cells = Delaunay(points).simplices.astype(np.int64)
        # No point lies inside the rim's circle, so all of its chords are edges; and of a convex polygon's corners no
        # triangle lies outside.
        in_hole = (cells < num_rim).all(axis=1)
        return points, cells[~in_hole & (measures(points, cells) > FLAT * h**2)], num_rim

    @cached_property
    def grid(self) -> np.ndarray:
        """The points that there would be without a hole, [P, 2]."""
        n = self.resolution
        num_rows = ceil(2 * n / sqrt(3))
        even = np.arange(n + 1) / n
        odd = np.concatenate([[0], (np.arange(n) + 0.5) / n, [1]])
        rows = [(odd if row % 2 else even, row / num_rows) for row in range(num_rows + 1)]
        return np.concatenate([np.stack([x, np.full(len(x), y)], axis=1) for x, y in rows])


def _mode(points: np.ndarray, j: int, k: int) -> np.ndarray:
    """The mode sin(jπx) sin(kπy), [P]."""
    return np.sin(j * np.pi * points[:, 0]) * np.sin(k * np.pi * points[:, 1])
