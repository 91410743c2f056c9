"""A cantilever whose solution is known in closed form.

Axes:  P points of the mesh.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from penstock.geometry import Mesh
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.elements.mesh_fem import MeshElements, WeakForm, plane
from penstock.solvers.discretisation.elements.triangulation import box
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import Parameters, Problem, Solve
from penstock.solvers.problems.solids.hooke import lame, stress

if TYPE_CHECKING:
    import dolfinx

DEPTH = 2.0


class Cantilever(Problem):
    """A loaded cantilever: from its load and its material to displacement and tip.

    The beam 0 < x < L, |y| < D / 2, D = 2, in plane stress. With Hooke's law for Young's modulus E and Poisson's ratio
    ν, and I = D³ / 12:

        ∇·σ(u) = 0,   σ n = (0, P (D² / 4 - y²) / (2 I)) at x = L,   σ n = 0 at |y| = D / 2,

    and u at x = 0 as in the closed form of Timoshenko and Goodier (Theory of elasticity, 1951, §20), quoted by Augarde
    and Deeks (2008, Finite Elem. Anal. Des. 44, 595-601):

        u_x = -P y / (6 E I) ((6 L - 3 x) x + (2 + ν) (y² - D² / 4)),
        u_y = P / (6 E I) (3 ν y² (L - x) + (4 + 5 ν) D² x / 4 + (3 L - x) x²).

    So the error of both the solver and the surrogate is known. Drawn uniformly are P on [-2, 2], E on [500, 2000] and
    ν on [0, 0.45]. At P = 1, E = 1000, ν = 1/4, L = 8 the tip rises by 0.2665.

    P2 finite elements by DOLFINx on n x (n L / D) squares, rounded up along the beam, of two triangles each.

    A sample goes from the scalars `load` P, `youngs_modulus` and `poisson_ratio` to `displacement` [2, P] at the points
    of the mesh and the scalar `tip`, u_y at (L, 0).

    Args:
        resolution: squares across the depth, an even n >= 2. Good values: 4 to 32.
        length: L > 0. Good values: 4 to 20.
    """

    is_parallel = True

    def __init__(self, *, resolution: int = 8, length: float = 8.0):
        if resolution < 2 or resolution % 2:
            raise ValueError(f"resolution = {resolution} must be an even number from 2 on: the tip is a vertex")
        if not 0 < length < inf:
            raise ValueError(f"length = {length} must be above 0 and finite")
        self.length = length
        self.space = ParameterSpace(
            load=Uniform(-2.0, 2.0), youngs_modulus=Uniform(500.0, 2000.0), poisson_ratio=Uniform(0.0, 0.45)
        )
        num_cells = (int(np.ceil(resolution * length / DEPTH)), resolution)
        self.mesh = Mesh((num_cells[0] + 1) * (resolution + 1), 2, partial(beam, num_cells, length))
        self.tip = num_cells[0] * (resolution + 1) + resolution // 2  # a point of the mesh
        self.inputs = tuple(FieldSpec(name=name) for name in self.space.distributions)
        self.outputs = (FieldSpec(name="displacement", on=self.mesh, components=2), FieldSpec(name="tip"))

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        for name, constant in self._constants.items():
            constant.value = parameters[name]
        self.elements.given.interpolate(partial(self.closed_form, parameters))
        displacement = self.elements.at_points(solve(self.equation.system()).x)
        yield Sample(inputs=parameters, outputs={"displacement": displacement, "tip": displacement[1, self.tip]})

    def closed_form(self, parameters: Parameters, points: np.ndarray) -> np.ndarray:
        """The solution of Timoshenko and Goodier, [2, N], at points [d, N]."""
        (x, y), length, ratio = points[:2], self.length, parameters["poisson_ratio"]
        factor = 2 * parameters["load"] / (parameters["youngs_modulus"] * DEPTH**3)  # P / (6 E I)
        along = -y * ((6 * length - 3 * x) * x + (2 + ratio) * (y**2 - DEPTH**2 / 4))
        across = 3 * ratio * y**2 * (length - x) + (4 + 5 * ratio) * DEPTH**2 * x / 4 + (3 * length - x) * x**2
        return factor * np.stack([along, across])

    @cached_property
    def elements(self) -> MeshElements:
        return MeshElements(self.mesh.arrays, degree=2, components=2, fixed=plane(0, 0.0), comm=self.comm)

    @cached_property
    def equation(self) -> WeakForm:
        """∫ σ(u) : ∇v dx = ∫ P (D² / 4 - y²) / (2 I) v_y ds over x = L."""
        from ufl import SpatialCoordinate, dx, grad, inner

        elements, constants = self.elements, self._constants
        y = SpatialCoordinate(elements.mesh)[1]
        shear = constants["load"] * (DEPTH**2 / 4 - y**2) * 6 / DEPTH**3
        u, v = elements.trial, elements.test
        material = lame(constants["youngs_modulus"], constants["poisson_ratio"], law="plane_stress")
        return WeakForm(
            elements,
            inner(stress(u, material), grad(v)) * dx,
            shear * v[1] * elements.on(plane(0, self.length)),
            family="cantilever",
            is_spd=True,
            near_nullspace=elements.rigid_motions(),
        )

    @cached_property
    def _constants(self) -> dict[str, dolfinx.fem.Constant]:
        """The parameters as data of the forms, which `simulate` fills."""
        return self.elements.constants(self.space.distributions)


def beam(num_cells: tuple[int, int], length: float) -> tuple[np.ndarray, np.ndarray]:
    """The mesh of `Cantilever`: points [P, 2] and cells [T, 3]."""
    points, cells = box(num_cells)
    return points * [length, DEPTH] - [0, DEPTH / 2], cells
