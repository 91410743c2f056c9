"""Poisson's equation on random polygons: every sample has a separate mesh.

Axes:  P points, [X, Y] cells of the source's grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, pi, sqrt

import numpy as np
from scipy.ndimage import map_coordinates

from penstock.arrays.simplices import lumped_mass
from penstock.geometry import Points
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.elements.remeshed import diffusion
from penstock.solvers.discretisation.elements.triangulate import boundary_points, missing_gmsh, triangulate
from penstock.solvers.parameters.fields import GaussianField
from penstock.solvers.parameters.polygons import StarPolygon
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.problem import Parameters, Problem, Solve

SMALLEST, LARGEST = 0.2, 0.5  # distance of a corner from the middle
TURN = 0.2
SOURCE_CELLS = 64  # along each axis


class PoissonPolygons(Problem):
    """Poisson's equation on random polygons: from the polygon and f to u.

    -Δu = f inside of the polygon, u = 0 on its boundary.

    The polygon's N corners lie around the middle of the unit square, at radii uniform on [0.2, 0.5] and at angles that
    differ from those of a regular polygon by up to 0.2 of the angle between two corners. f is a Gaussian field on the
    unit square, with covariance (-Δ + 9)^-2 scaled to a variance of 1, of 64 x 64 values, linear in between. The law is
    ours.

    P1 elements with lumped loads, on triangles by gmsh, which is the optional package of the extra `geometry`. Where
    the polygon's inner angle ω is above π, u is like r^(π/ω) at the corner, and the order of convergence falls from 2
    to 2π/ω.

    Sizes differ from draw to draw, and nothing of one mesh serves another. So the systems, whatever their size, are one
    family: a strategy is chosen once for all of them.

    A sample holds values at the mesh's points: `source` f to `solution` u; with it come the points and their lumped
    masses.

    Args:
        resolution: points per unit of length, at least 10. Good values: 20 to 100.
        num_corners: N, at least 3. Good values: 3 to 12.
    """

    def __init__(self, *, resolution: int = 32, num_corners: int = 8):
        if resolution < 10:
            raise ValueError(f"resolution = {resolution} is too small: a polygon needs at least 10 points per unit")
        self.resolution = resolution
        self.field = GaussianField(SOURCE_CELLS)
        polygon = StarPolygon(num_corners, SMALLEST, LARGEST, turn=TURN, centre=(0.5, 0.5))
        self.space = ParameterSpace(polygon=polygon, source=self.field)
        # Triangles with equal sides have a point per √3/2 h² inside; gmsh's have up to 10 % more.
        inside = pi * LARGEST**2 / (sqrt(3) / 2) * resolution**2
        along = (2 * pi * LARGEST + 2 * num_corners * (LARGEST - SMALLEST)) * resolution
        points = Points(ceil(1.1 * inside + along / 2) + num_corners, 2)
        self.inputs = (FieldSpec(name="source", on=points),)
        self.outputs = (FieldSpec(name="solution", on=points),)

    @property
    def lacks(self) -> str | None:
        return (missing := missing_gmsh()) and f"name: {missing}"

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        points, cells = triangulate([parameters["polygon"]], 1 / self.resolution)
        weights = lumped_mass(points, cells)
        source = self.source_at(points, parameters["source"])
        solution = diffusion(
            points,
            cells,
            load=weights * source,
            boundary=boundary_points(cells),
            boundary_values=np.zeros(len(points)),
            family="poisson_polygons",
            solve=solve,
        )
        yield Sample(
            inputs={"source": source},
            outputs={"solution": solution},
            geometry={"points": points, "weights": weights},
        )

    def source_at(self, points: np.ndarray, field: np.ndarray) -> np.ndarray:
        """f at points [P, 2], from values at the centres of the grid's cells, [X, Y]."""
        places = SOURCE_CELLS * points.T - 0.5
        return map_coordinates(field, places, order=1, mode="nearest") / sqrt(self.field.variance)
