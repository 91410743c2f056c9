"""Linear elasticity of a body that is stiffer in some places than in others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from typing import TYPE_CHECKING

from penstock.geometry import Grid, Mesh
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.elements.mesh_fem import MeshElements, WeakForm, plane
from penstock.solvers.discretisation.elements.triangulation import box
from penstock.solvers.parameters.fields import GaussianField, LogNormalField
from penstock.solvers.parameters.space import Normal, ParameterSpace, Uniform
from penstock.solvers.problem import Parameters, Problem, Solve
from penstock.solvers.problems.solids.hooke import lame, stress

if TYPE_CHECKING:
    import dolfinx


class Elasticity(Problem):
    """An elastic square or cube: from stiffness and load to displacement u.

    -∇·σ = 0,   σ = λ tr(ε) I + 2 μ ε,   ε = (∇u + ∇uᵀ) / 2,
    λ = E ν / ((1 + ν) (1 - 2ν)),   μ = E / (2 (1 + ν)),

    clamped at x = 0 (u = 0), with a traction σ n = t at x = 1, the other sides free. The square is in plane strain.

    Drawn are Young's modulus E, the exponential of a Gaussian field of covariance (-Δ + 9)^-2 that is scaled to a
    variance of 1, Poisson's ratio ν, uniform on [0.2, 0.4], and the components of t, standard normal. The law is ours.

    P1 finite elements by DOLFINx on n^d squares or cubes cut into simplices; E has a value at each vertex and is linear
    between them. (The field's n + 1 cells along each axis are laid with their centres on the vertices.) The matrix is
    symmetric positive definite and comes with the rigid motions of the body for algebraic multigrid.

    A sample holds values at the vertices, indexed [x, y, z]: `youngs_modulus` [n + 1] * d and the scalars
    `poisson_ratio`, `traction_x`, `traction_y`, `traction_z` to `displacement`, [d, *grid].

    Args:
        resolution: squares or cubes along each side, n >= 2. Good values: 32 to 128, in three dimensions 8 to 32.
        dimension: d, 2 or 3.
    """

    def __init__(self, *, resolution: int = 64, dimension: int = 2):
        if resolution < 2:
            raise ValueError(f"resolution = {resolution} is too small: a side needs at least 2 squares")
        if dimension not in (2, 3):
            raise ValueError(f"dimension = {dimension} must be 2 or 3")
        self.dimension = dimension
        self.traction_names = [f"traction_{axis}" for axis in "xyz"[:dimension]]
        self.space = ParameterSpace(
            youngs_modulus=LogNormalField(GaussianField(resolution + 1, dimension=dimension)),
            poisson_ratio=Uniform(0.2, 0.4),
            **{name: Normal() for name in self.traction_names},
        )
        grid = Grid((resolution + 1,) * dimension, centring="vertices")
        self.mesh = Mesh((resolution + 1) ** dimension, dimension, partial(box, (resolution,) * dimension))
        self.inputs = (
            FieldSpec(name="youngs_modulus", on=grid),
            FieldSpec(name="poisson_ratio"),
            *(FieldSpec(name=name) for name in self.traction_names),
        )
        self.outputs = (FieldSpec(name="displacement", on=grid, components=dimension),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        for name, constant in self._constants.items():
            constant.value = parameters[name]
        self.elements.fill(self._youngs_modulus, parameters["youngs_modulus"].ravel())
        displacement = self.elements.at_points(solve(self.equation.system()).x)
        yield Sample(
            inputs=parameters,
            outputs={"displacement": displacement.reshape(-1, *parameters["youngs_modulus"].shape)},
        )

    @cached_property
    def elements(self) -> MeshElements:
        return MeshElements(self.mesh.arrays, components=self.dimension, fixed=plane(0, 0.0))

    @cached_property
    def equation(self) -> WeakForm:
        """∫ σ(u) : ∇v dx = ∫ t·v ds over x = 1."""
        from ufl import as_vector, dx, grad, inner

        u, v = self.elements.trial, self.elements.test
        material = lame(self._youngs_modulus, self._constants["poisson_ratio"])
        traction = as_vector([self._constants[name] for name in self.traction_names])
        return WeakForm(
            self.elements,
            inner(stress(u, material), grad(v)) * dx,
            inner(traction, v) * self.elements.on(plane(0, 1.0)),
            family="elasticity",
            is_spd=True,
            near_nullspace=self.elements.rigid_motions(),
        )

    @cached_property
    def _youngs_modulus(self) -> dolfinx.fem.Function:
        return self.elements.function()

    @cached_property
    def _constants(self) -> dict[str, dolfinx.fem.Constant]:
        """The scalars as data of the forms, which `simulate` fills."""
        return self.elements.constants(["poisson_ratio", *self.traction_names])
