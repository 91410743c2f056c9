"""The stress around a void of random shape: the mesh follows it.

Axes:  P points, the same number for all samples, A points around the void.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from penstock.arrays.simplices import checked_cells, lumped_mass
from penstock.geometry import MeshArrays, Points
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.elements.mesh_fem import MeshElements, Recovery, WeakForm, plane
from penstock.solvers.discretisation.elements.triangulation import graded, halves, quadrilaterals
from penstock.solvers.parameters.fields import PeriodicField
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.problem import Parameters, Problem, Solve
from penstock.solvers.problems.solids.hooke import lame, stress

if TYPE_CHECKING:
    import dolfinx

STIFFNESSES = 1.863e5, 9.79e3  # C1 and C2 of the published set's material
YOUNGS_MODULUS, POISSON_RATIO = 6 * sum(STIFFNESSES), 0.5  # of that material under small strains
MATERIAL = lame(YOUNGS_MODULUS, POISSON_RATIO, law="plane_stress")
TRACTION = 100.0
MIDDLE = 0.5  # of the cell, in x and y
SMALLEST, LARGEST = 0.2, 0.4  # radius of the void
GROWTH = 2.0  # from the innermost layer around the void to the outermost


class VoidCell(Problem):
    """A cell with a void under tension: from its shape to displacement and stress.

    -∇·σ(u) = 0 on the unit square less the void, u = 0 at y = 0, σ n = (0, 100) at y = 1, other sides free; Hooke's
    law in plane stress. The void lies around the middle of the cell, its rim at the distance

        r(θ) = 0.2 + 0.2 / (1 + exp g(θ)),

    g a Gaussian function on the circle with covariance 16 (-d²/dθ² + 9)^-1, of the modes cos kθ and sin kθ, k = 1 to 5.

    The problem is the elasticity set of Geo-FNO (Li et al. 2022, arXiv 2207.05209), in which 972 points of a sample
    bear one number, the stress. It keeps 10 random numbers per draw, which we take for the coefficients of those modes.
    Its material is the incompressible one of Rivlin and Saunders, with C1 = 1.863e5 and C2 = 9.79e3. Strains are about
    1e-3 at most, where this is Hooke's law with E = 6 (C1 + C2) and ν = 1/2, which is solved here. The set's stress has
    a mean of 187 and a standard deviation of 127 over its points. Ours has 182 and 120 by area, 203 and 152 over
    points, which are denser at the rim.

    Finite elements by DOLFINx. The A points on the rim lie at equal angles, and on each ray there are A/8 + 1 points
    from the rim to the square. Whatever the void, the triangles between them are the same: all systems have one size
    and pattern. Their angles are from 14° to 136° in the median draw, from 3° to 161° in 500 draws.

    A sample has at the mesh's points: `distance` [P], that to the rim on the ray from the middle of the cell, to
    `displacement` [2, P] and `stress` [P], von Mises' √(σ_xx² - σ_xx σ_yy + σ_yy² + 3 σ_xy²), each σ the mean over the
    triangles around a point. At a round hole of radius 0.2 it is right to 1.5 % of its maximum. With them come the
    points and their lumped masses.

    Args:
        resolution: A, a multiple of 8 from 32 on. Good values: 48 to 160, which give 336 to 3,360 points.
        degree: of the elements, 1 or 2.
    """

    def __init__(self, *, resolution: int = 80, degree: int = 2):
        if resolution < 32 or resolution % 8:
            raise ValueError(f"resolution = {resolution} must be a multiple of 8 from 32 on: corners are points")
        if degree not in (1, 2):
            raise ValueError(f"degree = {degree} must be 1 or 2")
        self.resolution = resolution
        self.degree = degree
        shape = PeriodicField(resolution, extent=2 * np.pi, scale=16.0, exponent=1.0, inverse_length=3.0, num_modes=5)
        self.space = ParameterSpace(shape=shape)
        points = Points(resolution * (resolution // 8 + 1), 2)
        self.inputs = (FieldSpec(name="distance", on=points),)
        self.outputs = (FieldSpec(name="displacement", on=points, components=2), FieldSpec(name="stress", on=points))

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        radii = SMALLEST + (LARGEST - SMALLEST) / (1 + np.exp(parameters["shape"]))
        points = around_void(radii)
        displacement, stress = self.deform(points, solve)
        yield Sample(
            inputs={"distance": np.linalg.norm(points - MIDDLE, axis=1) - np.tile(radii, self.resolution // 8 + 1)},
            outputs={"displacement": displacement, "stress": stress},
            geometry={"points": points, "weights": lumped_mass(points, self.cells)},
        )

    def deform(self, points: np.ndarray, solve: Solve) -> tuple[np.ndarray, np.ndarray]:
        """Displacement [2, P] and von Mises' stress [P] of a cell.

        Args:
            points: of its mesh, [P, 2].
            solve: solves one `LinearSystem`.
        """
        self.elements.move(points)
        u = solve(replace(self.equation.system(), near_nullspace=self.elements.rigid_motions())).x
        self._displacement.x.array[:] = u.array_r
        xx, xy, _, yy = self.stress.at_points()
        return self.elements.at_points(u), np.sqrt(xx**2 - xx * yy + yy**2 + 3 * xy**2)

    @cached_property
    def cells(self) -> np.ndarray:
        """The triangles between the points, whatever the void, [T, 3]."""
        numbers = np.arange(self.resolution * (self.resolution // 8 + 1)).reshape(-1, self.resolution)
        corners = quadrilaterals(np.concatenate([numbers, numbers[:, :1]], axis=1))
        octant = np.arange(len(corners)) % self.resolution // (self.resolution // 8)
        return halves(corners, octant % 2 == 1)  # these are the shorter diagonals

    @cached_property
    def elements(self) -> MeshElements:
        points = around_void(np.full(self.resolution, (SMALLEST + LARGEST) / 2))
        arrays = MeshArrays(*checked_cells(points, self.cells), lumped_mass(points, self.cells))
        return MeshElements(arrays, degree=self.degree, components=2, fixed=plane(1, 0.0))

    @cached_property
    def equation(self) -> WeakForm:
        """∫ σ(u) : ∇v dx = ∫ t·v ds over y = 1."""
        from ufl import as_vector, dx, grad, inner

        u, v = self.elements.trial, self.elements.test
        return WeakForm(
            self.elements,
            inner(stress(u, MATERIAL), grad(v)) * dx,
            inner(as_vector([0.0, TRACTION]), v) * self.elements.on(plane(1, 1.0)),
            family="void_cell",
            is_spd=True,
        )

    @cached_property
    def stress(self) -> Recovery:
        """σ of the displacement, with the components xx, xy, yx, yy."""
        return Recovery(self.elements, stress(self._displacement, MATERIAL))

    @cached_property
    def _displacement(self) -> dolfinx.fem.Function:
        import dolfinx

        return dolfinx.fem.Function(self.elements.space)


def around_void(radii: np.ndarray) -> np.ndarray:
    """The points of the mesh of `VoidCell`, layer by layer.

    Args:
        radii: of the void at the angles 2π j / A, [A].

    Returns:
        Points [P, 2], those on the rim first.
    """
    angles = 2 * np.pi * np.arange(len(radii)) / len(radii)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rim, sides = radii[:, None] * directions, directions / (2 * np.abs(directions).max(axis=1, keepdims=True))
    fractions = graded(len(radii) // 8, GROWTH)[:, None, None]
    return (MIDDLE + (1 - fractions) * rim + fractions * sides).reshape(-1, 2)
