"""Laplace's equation between random holes: every sample has a separate mesh.

Axes:  P points.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, pi, sqrt

import numpy as np

from penstock.arrays.simplices import lumped_mass
from penstock.geometry import Points
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.elements.remeshed import diffusion
from penstock.solvers.discretisation.elements.triangulate import boundary_points, missing_gmsh, triangulate
from penstock.solvers.parameters.polygons import Discs
from penstock.solvers.parameters.space import Normal, ParameterSpace
from penstock.solvers.problem import Parameters, Problem, Solve

CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
SMALLEST, LARGEST = 0.05, 0.1  # radius
GAP = 0.05
LEAST_ON_RIM = 12  # points


class SquareWithHoles(Problem):
    """The potential between round electrodes: from holes and their potentials to u.

    Δu = 0 on the unit square less the holes, u = 0 on its sides, u = V_k on the rim of hole k.

    The number of holes is uniform on 1 to K, their radii are uniform on [0.05, 0.1], their centres on the square on
    condition that all gaps are above 0.05. V_1 to V_K are standard normal; those of holes that there are not count
    nothing. The law is ours.

    P1 elements on triangles by gmsh, which is the optional package of the extra `geometry`. Holes are polygons of 12
    corners, or of as many as are h apart if these are more.

    Sizes differ from draw to draw, and nothing of one mesh serves another. So the systems, whatever their size, are one
    family: a strategy is chosen once for all of them.

    A sample holds values at the mesh's points: `boundary_value`, which is V_k on the rim of hole k and 0 elsewhere, to
    `potential` u; with it come the points and their lumped masses.

    Args:
        resolution: points along each side of the square, 1 / h, at least 20. Good values: 20 to 100.
        max_holes: K, 1 to 6.
    """

    def __init__(self, *, resolution: int = 32, max_holes: int = 4):
        if resolution < 20:
            raise ValueError(f"resolution = {resolution} is too small: gaps of {GAP} need at least 20 points per side")
        if not 1 <= max_holes <= 6:
            raise ValueError(f"max_holes = {max_holes} must be from 1 to 6: more hardly find room")
        self.resolution = resolution
        self.space = ParameterSpace(
            holes=Discs(max_holes, SMALLEST, LARGEST, GAP),
            **{f"potential_{k}": Normal() for k in range(1, max_holes + 1)},
        )
        # Triangles with equal sides have a point per √3/2 h² inside; gmsh's have up to 10 % more.
        inside = resolution**2 / (sqrt(3) / 2)
        points = Points(ceil(1.1 * inside) + 2 * resolution + 2 * LEAST_ON_RIM * max_holes, 2)
        self.inputs = (FieldSpec(name="boundary_value", on=points),)
        self.outputs = (FieldSpec(name="potential", on=points),)

    @property
    def lacks(self) -> str | None:
        return (missing := missing_gmsh()) and f"name: {missing}"

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        holes = parameters["holes"]
        points, cells = self.mesh(holes)
        boundary = boundary_points(cells)
        boundary_value = np.zeros(len(points))
        for k, (x, y, radius) in enumerate(holes, start=1):
            on_rim = boundary & (np.hypot(points[:, 0] - x, points[:, 1] - y) < radius + GAP / 2)
            boundary_value[on_rim] = parameters[f"potential_{k}"]
        weights = lumped_mass(points, cells)
        potential = diffusion(
            points,
            cells,
            load=np.zeros(len(points)),
            boundary=boundary,
            boundary_values=boundary_value,
            family="square_with_holes",
            solve=solve,
        )
        yield Sample(
            inputs={"boundary_value": boundary_value},
            outputs={"potential": potential},
            geometry={"points": points, "weights": weights},
        )

    def mesh(self, holes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points [P, 2] and cells [T, 3] of the square less these holes, [N, 3]."""
        loops = [CORNERS]
        for *centre, radius in holes:
            num_corners = max(LEAST_ON_RIM, round(2 * pi * radius * self.resolution))
            angles = 2 * pi * np.arange(num_corners) / num_corners
            loops.append(centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1))
        return triangulate(loops, 1 / self.resolution)
