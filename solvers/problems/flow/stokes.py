"""Stokes flow in a box under a random force."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from penstock.geometry import Grid, Mesh
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.elements.compiled import form
from penstock.solvers.discretisation.elements.taylor_hood import TaylorHood, overwrite
from penstock.solvers.discretisation.elements.triangulation import square
from penstock.solvers.parameters.fields import GaussianField
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.problem import LinearSystem, Parameters, Problem, Solve

if TYPE_CHECKING:
    import dolfinx
    from petsc4py import PETSc


class Stokes(Problem):
    """Stokes flow on the unit square: from a force f to velocity u and pressure p.

    -Δu + ∇p = f, ∇·u = 0, u = 0 on the boundary; p has the mean 0.

    Both components of f are Gaussian fields with covariance (-Δ + 9)^-2. The part of f that is a gradient moves
    nothing and is balanced by p.

    Taylor-Hood elements, quadratic for u and linear for p, on n x n squares cut into two triangles each; f is quadratic
    between the same nodes. One matrix for all draws, symmetric and indefinite; one pressure is fixed.

    A sample holds values at the squares' vertices: `force` and `velocity` [2, n + 1, n + 1] and `pressure`
    [n + 1, n + 1], indexed [x, y].

    Args:
        resolution: n, squares along each side, at least 2. Good values: 16 to 64; errors of u shrink as h³.
    """

    def __init__(self, *, resolution: int = 32):
        if resolution < 2:
            raise ValueError(f"resolution = {resolution} is too small: an inner vertex needs 2 squares per side")
        self.resolution = resolution
        field = GaussianField(2 * resolution + 1, centring="vertices")  # and midpoints of edges
        self.space = ParameterSpace(force_x=field, force_y=field)
        grid = Grid((resolution + 1, resolution + 1), centring="vertices")
        self.inputs = (FieldSpec(name="force", on=grid, components=2),)
        self.outputs = (FieldSpec(name="velocity", on=grid, components=2), FieldSpec(name="pressure", on=grid))

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        force = np.stack([parameters["force_x"], parameters["force_y"]])
        velocity, pressure = self.elements.parts(solve(self.assemble(force)).x.array_r)
        velocity, pressure = self.elements.at_points(velocity, pressure)
        shape = self.outputs[1].shape
        yield Sample(
            inputs={"force": force[:, ::2, ::2]},
            outputs={"velocity": velocity.reshape(2, *shape), "pressure": pressure.reshape(shape)},
        )

    def assemble(self, force: np.ndarray) -> LinearSystem:
        """The system for a force.

        Args:
            force: f at vertices, midpoints of edges and centres of squares, [2, 2 n + 1, 2 n + 1].
        """
        from dolfinx.fem import assemble_vector

        for component, values in zip(self._force, force, strict=True):
            component.x.array[:] = values[self._places]
        load = assemble_vector(self._load).array
        load[self.elements.fixed] = 0.0
        self._b.array = load
        return LinearSystem(A=self._matrix, b=self._b, family="stokes")

    @cached_property
    def elements(self) -> TaylorHood:
        return TaylorHood(Mesh((self.resolution + 1) ** 2, 2, partial(square, self.resolution)).arrays)

    @cached_property
    def _places(self) -> tuple[np.ndarray, ...]:
        """The indices i and j of the velocity's nodes among the force's points."""
        return tuple(np.rint(2 * self.resolution * self.elements.nodes).astype(int).T)

    @cached_property
    def _matrix(self) -> PETSc.Mat:
        from dolfinx.fem.petsc import create_matrix
        from ufl import div, dx, grad, inner

        (u, p), (v, q) = self.elements.trials, self.elements.tests
        bilinear = form((inner(grad(u), grad(v)) - p * div(v) - q * div(u)) * dx)
        matrix = create_matrix(bilinear)
        overwrite(matrix, bilinear, self.elements.conditions)
        matrix.setOption(matrix.Option.SYMMETRIC, True)
        return matrix

    @cached_property
    def _b(self) -> PETSc.Vec:
        return self._matrix.createVecLeft()

    @cached_property
    def _force(self) -> tuple[dolfinx.fem.Function, dolfinx.fem.Function]:
        """The components of f, which `assemble` fills."""
        from dolfinx.fem import Function

        return Function(self.elements.component_space), Function(self.elements.component_space)

    @cached_property
    def _load(self) -> dolfinx.fem.Form:
        from ufl import as_vector, dx, inner

        v, _ = self.elements.tests
        return form(inner(as_vector(self._force), v) * dx)
