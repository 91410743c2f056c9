"""Linear elasticity of a body that is stiffer in some places than in others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from typing import TYPE_CHECKING

from penstock.geometry import Grid, Mesh
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.elements.compiled import form
from penstock.solvers.discretisation.elements.mesh_fem import MeshElements, WeakForm, plane
from penstock.solvers.discretisation.elements.triangulation import box
from penstock.solvers.parameters.fields import GaussianField, LogNormalField
from penstock.solvers.parameters.space import Normal, ParameterSpace, Uniform
from penstock.solvers.problem import Parameters, Problem, Solve, tangents_of
from penstock.solvers.problems.solids.hooke import lame, stress

if TYPE_CHECKING:
    import dolfinx
    import numpy as np
    from petsc4py import PETSc


class Elasticity(Problem):
    """An elastic square or cube: from stiffness and load to displacement u.

    -∇·σ = 0,   σ = λ tr(ε) I + 2 μ ε,   ε = (∇u + ∇uᵀ) / 2,
    λ = E ν / ((1 + ν) (1 - 2ν)),   μ = E / (2 (1 + ν)),

    clamped at x = 0 (u = 0), with a traction σ n = t at x = 1, the other sides free. The square is in plane strain.

    Drawn are Young's modulus E, the exponential of a Gaussian field of covariance (-Δ + 9)^-2 that is scaled to a
    variance of 1, Poisson's ratio ν, uniform on [0.2, 0.4], and the components of t, standard normal. The law is ours.

    P1 finite elements by DOLFINx on n^d squares or cubes cut into simplices; E has a value at each vertex and is linear
    between them. The matrix is symmetric positive definite and comes with the rigid motions of the body for algebraic
    multigrid.

    With m `derivatives` a sample also has ∂u/∂ξ_k for the m leading modes of E's Gaussian field, whose coefficients ξ_k
    are standard normal. A ∂u/∂ξ = -(∂A/∂ξ) u has the matrix of u, so a direct solver factors once.

    A sample holds values at the vertices, indexed [x, y, z]: `youngs_modulus` [n + 1] * d and the scalars
    `poisson_ratio`, `traction_x`, `traction_y`, `traction_z` to `displacement`, [d, *grid], and
    `displacement_by_mode_<k_1>_<k_2>` likewise.

    Args:
        resolution: squares or cubes along each side, n >= 2. Good values: 32 to 128, in three dimensions 8 to 32.
        dimension: d, 2 or 3.
        derivatives: m, from 0 on. Good values: 0 to 8.
        derivatives_as: "outputs", which the model predicts like others; "tangents", with which the surrogate's own
            derivatives are compared: then a sample also has those of the inputs.
    """

    is_parallel = True

    def __init__(
        self, *, resolution: int = 64, dimension: int = 2, derivatives: int = 0, derivatives_as: str = "outputs"
    ):
        if resolution < 2:
            raise ValueError(f"resolution = {resolution} is too small: a side needs at least 2 squares")
        if dimension not in (2, 3):
            raise ValueError(f"dimension = {dimension} must be 2 or 3")
        self.dimension = dimension
        self.traction_names = [f"traction_{axis}" for axis in "xyz"[:dimension]]
        gaussian = GaussianField(resolution + 1, dimension=dimension, centring="vertices")
        self.stiffness = LogNormalField(gaussian)
        self.directions = gaussian.directions(derivatives) if derivatives else {}
        self.space = ParameterSpace(
            youngs_modulus=self.stiffness,
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
        displacement = FieldSpec(name="displacement", on=grid, components=dimension)
        self.outputs = (displacement, *map(displacement.derivative, self.directions))
        self.tangents = tangents_of(self.inputs[:1], self.directions, derivatives_as)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        for name, constant in self._constants.items():
            constant.value = parameters[name]
        modulus = parameters["youngs_modulus"]
        self.elements.fill(self._youngs_modulus, modulus.ravel())
        x = solve(self.equation.system()).x
        outputs = {"displacement": self._on_grid(x)}
        if self.directions:
            self._displacement.x.petsc_vec.array = x.array_r
            self._displacement.x.scatter_forward()
        changes = {mode: self.stiffness.derivative(modulus, each) for mode, each in self.directions.items()}
        for mode, change in changes.items():
            self.elements.fill(self._change, change.ravel())
            derivative = solve(self.equation.with_load(self._derivative_load))
            outputs[f"displacement_by_{mode}"] = self._on_grid(derivative.x)
        tangents = {each.name: changes[each.by] for each in self.tangents}
        yield Sample(inputs={**parameters, **tangents}, outputs=outputs)

    def _on_grid(self, x: PETSc.Vec) -> np.ndarray:
        """The displacement [d, *grid] of a vector."""
        return self.elements.at_points(x).reshape(self.outputs[0].shape)

    @cached_property
    def elements(self) -> MeshElements:
        return MeshElements(self.mesh.arrays, components=self.dimension, fixed=plane(0, 0.0), comm=self.comm)

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
    def _derivative_load(self) -> dolfinx.fem.Form:
        """-∫ σ'(u) : ∇v dx, with the stress σ' by the change of E, in which σ is linear."""
        from ufl import dx, grad, inner

        material = lame(self._change, self._constants["poisson_ratio"])
        return form(-inner(stress(self._displacement, material), grad(self.elements.test)) * dx)

    @cached_property
    def _youngs_modulus(self) -> dolfinx.fem.Function:
        return self.elements.function()

    @cached_property
    def _change(self) -> dolfinx.fem.Function:
        """The derivative of E in one direction."""
        return self.elements.function()

    @cached_property
    def _displacement(self) -> dolfinx.fem.Function:
        import dolfinx

        return dolfinx.fem.Function(self.elements.space)

    @cached_property
    def _constants(self) -> dict[str, dolfinx.fem.Constant]:
        """The scalars as data of the forms, which `simulate` fills."""
        return self.elements.constants(["poisson_ratio", *self.traction_names])
