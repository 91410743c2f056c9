"""A soft block under large deformations.

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
from penstock.solvers.discretisation.newton import newton
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import LinearSystem, Parameters, Problem, Solve
from penstock.solvers.problems.solids.hooke import lame

if TYPE_CHECKING:
    import dolfinx
    import ufl

LOADS = tuple(f"{load}_{axis}" for load in ("weight", "traction") for axis in "xyz")
QUADRATURE = {1: 1, 2: 4}  # degree of the rule, by the degree of the elements


class HyperelasticBlock(Problem):
    """A neo-Hookean cube under a growing load: from material and load to displacement.

    The deformation x + u(x) of the unit cube, F = I + ∇u, J = det F, with the energy

        ψ = μ / 2 (tr FᵀF - 3) - μ ln J + λ / 2 (ln J)²,   λ and μ from Young's modulus E and Poisson's ratio ν,

    per volume: compressible neo-Hookean material. With the stress P = ∂ψ/∂F = μ (F - F⁻ᵀ) + λ ln J F⁻ᵀ

        -∇·P = b,   u = 0 at x = 0,   P n = t at x = 1,   P n = 0 on the other sides.

    Drawn uniformly are E on [5, 15], ν on [0.2, 0.4], the components of the weight b on [-0.5, 0.5] and those of the
    traction t on [-0.3, 0.3]. The material and the scale are those of FEniCS's demo of hyperelasticity, with E = 10,
    ν = 0.3, b = (0, -0.5, 0) and t = (0.1, 0, 0), there on all sides that are free; the law is ours. The largest
    displacement is 0.2 in the median draw, and 0.5 in one draw of a hundred.

    The load grows level by level: at level l = 1, ..., L it is l / L of b and t. Newton's method starts from the last
    level's solution, at first from 0. Its matrices are symmetric, and positive definite until the body buckles.

    Finite elements by DOLFINx on n³ cubes of six tetrahedra each.

    A simulation yields a sample per level: from the scalars `youngs_modulus`, `poisson_ratio`, `weight_x` to `weight_z`
    and `traction_x` to `traction_z`, at that level, to `displacement` [3, P] at the points of the mesh.

    Args:
        resolution: cubes along each side, n >= 1. Good values: 6 to 16.
        degree: of the elements, 1 or 2.
        num_levels: L, at least 1, a sample for each. Good values: 2 to 10.
    """

    def __init__(self, *, resolution: int = 8, degree: int = 1, num_levels: int = 4):
        if resolution < 1:
            raise ValueError(f"resolution = {resolution} is too small: a side needs at least 1 cube")
        if degree not in QUADRATURE:
            raise ValueError(f"degree = {degree} must be 1 or 2")
        if num_levels < 1:
            raise ValueError(f"num_levels = {num_levels} is too small: a simulation needs at least 1 level")
        self.degree = degree
        self.num_steps = num_levels
        self.space = ParameterSpace(
            youngs_modulus=Uniform(5.0, 15.0),
            poisson_ratio=Uniform(0.2, 0.4),
            **{name: Uniform(-0.5, 0.5) for name in LOADS[:3]},
            **{name: Uniform(-0.3, 0.3) for name in LOADS[3:]},
        )
        self.mesh = Mesh((resolution + 1) ** 3, 3, partial(box, (resolution,) * 3))
        self.inputs = tuple(FieldSpec(name=name) for name in self.space.distributions)
        self.outputs = (FieldSpec(name="displacement", on=self.mesh, components=3),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        u = np.zeros_like(self._displacement.x.array)
        for step in range(self.num_steps):
            share = (step + 1) / self.num_steps
            inputs = {**parameters, **{name: share * parameters[name] for name in LOADS}}
            for name, constant in self._constants.items():
                constant.value = inputs[name]
            u = newton(self.residual, self.assemble, u, solve, name=f"{share:.3g} of the load")
            self._displacement.x.array[:] = u
            displacement = self.elements.at_points(self._displacement.x.petsc_vec)
            yield Sample(inputs=inputs, outputs={"displacement": displacement}, step=step)

    def residual(self, u: np.ndarray) -> np.ndarray:
        """The forces out of balance at the displacement u, in DOLFINx's order."""
        self._displacement.x.array[:] = u
        return self.equation.vector().array_r.copy()

    def assemble(self, u: np.ndarray) -> LinearSystem:
        """The system of Newton's step from u, an array in DOLFINx's order."""
        self._displacement.x.array[:] = u
        return self.equation.system()

    @cached_property
    def elements(self) -> MeshElements:
        return MeshElements(self.mesh.arrays, degree=self.degree, components=3, fixed=plane(0, 0.0))

    @cached_property
    def equation(self) -> WeakForm:
        """A step: ∫ δP : ∇v dx = ∫ b·v dx + ∫ t·v ds - ∫ P : ∇v dx.

        δP is the change of P by the step, and the load t acts at x = 1.
        """
        from ufl import as_vector, derivative, dx, grad, inner

        elements, constants = self.elements, self._constants
        v, dx = elements.test, dx(degree=QUADRATURE[self.degree])
        weight, traction = (as_vector([constants[name] for name in names]) for names in (LOADS[:3], LOADS[3:]))
        material = lame(constants["youngs_modulus"], constants["poisson_ratio"])
        inner_forces = inner(stress(self._displacement, material), grad(v)) * dx
        return WeakForm(
            elements,
            derivative(inner_forces, self._displacement, elements.trial),
            inner(weight, v) * dx + inner(traction, v) * elements.on(plane(0, 1.0)) - inner_forces,
            family="hyperelastic_block",
            near_nullspace=elements.rigid_motions(),
        )

    @cached_property
    def _displacement(self) -> dolfinx.fem.Function:
        """u, where Newton's method is."""
        import dolfinx

        return dolfinx.fem.Function(self.elements.space)

    @cached_property
    def _constants(self) -> dict[str, dolfinx.fem.Constant]:
        """The parameters as data of the forms, which `simulate` fills."""
        return self.elements.constants(self.space.distributions)


def stress(u: dolfinx.fem.Function, material: tuple[ufl.core.expr.Expr, ufl.core.expr.Expr]) -> ufl.core.expr.Expr:
    """The stress P = μ (F - F⁻ᵀ) + λ ln J F⁻ᵀ of a displacement, from λ and μ."""
    from ufl import Identity, det, grad, inv, ln

    first, second = material
    F = Identity(3) + grad(u)
    inverse = inv(F).T
    return second * (F - inverse) + first * ln(det(F)) * inverse
