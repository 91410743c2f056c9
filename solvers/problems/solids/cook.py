"""Cook's membrane.

Axes:  P points of the mesh.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from penstock.geometry import Mesh
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.elements.mesh_fem import MeshElements, WeakForm, plane
from penstock.solvers.discretisation.elements.triangulation import box
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import Parameters, Problem, Solve
from penstock.solvers.problems.solids.hooke import LAWS, lame, stress

if TYPE_CHECKING:
    import dolfinx

WIDTH, BEND, TOP = 48.0, 44.0, 60.0  # the corners (0, 0), (48, 44), (48, 60), (0, 44)


class Cook(Problem):
    """Cook's membrane: from its material and its load to displacement and tip.

    A tapered panel with the corners (0, 0), (48, 44), (48, 60), (0, 44), clamped at x = 0 and pulled at x = 48 by a
    traction (t_x, t_y). With Hooke's law for Young's modulus E and Poisson's ratio ν, in plane stress or plane strain:

        ∇·σ(u) = 0,   u = 0 at x = 0,   σ n = t at x = 48.

    Drawn uniformly are E on [0.5, 2], ν on [0, 0.45], and 16 t_x and 16 t_y, the forces on the end, on [-1, 1]. The
    panel is that of Cook (1974, J. Struct. Div. ASCE 100, 1851-1863), whose benchmark has E = 1, ν = 1/3, a shear force
    of 1, and plane stress. There u_y is 23.9676 at the middle of the end, (48, 52), and 25.188 at its upper corner.

    Finite elements by DOLFINx on n x n quadrilaterals of two triangles each. The solution is singular at (0, 44), which
    limits the order to about 1.4. Elements of degree 1 are too stiff where ν approaches 1/2 in plane strain (locking):
    at ν = 0.4999 and n = 64 they have 37 % of the displacement.

    A sample goes from the scalars `youngs_modulus`, `poisson_ratio`, `force_x`, `force_y` to `displacement` [2, P] at
    the points of the mesh and the scalar `tip`, u_y at (48, 52).

    Args:
        resolution: quadrilaterals along each side, an even n >= 2. Good values: 16 to 64.
        degree: of the elements, 1 or 2.
        law: "plane_stress" or "plane_strain".
    """

    is_parallel = True

    def __init__(self, *, resolution: int = 32, degree: int = 2, law: str = "plane_stress"):
        if resolution < 2 or resolution % 2:
            raise ValueError(f"resolution = {resolution} must be an even number from 2 on: the tip is a vertex")
        if degree not in (1, 2):
            raise ValueError(f"degree = {degree} must be 1 or 2")
        if law not in LAWS:
            raise ValueError(f"law = {law!r} is not known: {' or '.join(LAWS)}")
        self.degree = degree
        self.law = law
        self.space = ParameterSpace(
            youngs_modulus=Uniform(0.5, 2.0),
            poisson_ratio=Uniform(0.0, 0.45),
            force_x=Uniform(-1.0, 1.0),
            force_y=Uniform(-1.0, 1.0),
        )
        self.mesh = Mesh((resolution + 1) ** 2, 2, partial(panel, resolution))
        self.tip = resolution * (resolution + 1) + resolution // 2  # a point of the mesh
        self.inputs = tuple(FieldSpec(name=name) for name in self.space.distributions)
        self.outputs = (FieldSpec(name="displacement", on=self.mesh, components=2), FieldSpec(name="tip"))

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        for name, constant in self._constants.items():
            constant.value = parameters[name]
        displacement = self.elements.at_points(solve(self.equation.system()).x)
        yield Sample(inputs=parameters, outputs={"displacement": displacement, "tip": displacement[1, self.tip]})

    @cached_property
    def elements(self) -> MeshElements:
        return MeshElements(self.mesh.arrays, degree=self.degree, components=2, fixed=plane(0, 0.0), comm=self.comm)

    @cached_property
    def equation(self) -> WeakForm:
        """∫ σ(u) : ∇v dx = ∫ t·v ds over x = 48."""
        from ufl import as_vector, dx, grad, inner

        constants, u, v = self._constants, self.elements.trial, self.elements.test
        material = lame(constants["youngs_modulus"], constants["poisson_ratio"], law=self.law)
        traction = as_vector([constants["force_x"], constants["force_y"]]) / (TOP - BEND)
        return WeakForm(
            self.elements,
            inner(stress(u, material), grad(v)) * dx,
            inner(traction, v) * self.elements.on(plane(0, WIDTH)),
            family="cook",
            is_spd=True,
            near_nullspace=self.elements.rigid_motions(),
        )

    @cached_property
    def _constants(self) -> dict[str, dolfinx.fem.Constant]:
        """The parameters as data of the forms, which `simulate` fills."""
        return self.elements.constants(self.space.distributions)


def panel(resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """The mesh of `Cook`, n x n quadrilaterals: points [P, 2] and cells [T, 3]."""
    points, cells = box((resolution, resolution))
    along, across = points.T
    height = BEND + (TOP - 2 * BEND) * along
    return np.stack([WIDTH * along, BEND * along + height * across], axis=1), cells
