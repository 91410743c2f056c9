"""Steady Navier-Stokes flow by Newton's method.

Axes:  N all unknowns.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import numpy as np

from penstock.solvers.discretisation.elements.compiled import form
from penstock.solvers.discretisation.elements.taylor_hood import TaylorHood, overwrite
from penstock.solvers.discretisation.newton import newton
from penstock.solvers.problem import LinearSystem, Solve

DEGREE = 5  # of (u·∇u)·v


def check_levels(num_levels: int, largest_reynolds: float) -> None:
    """Check the options of problems whose Reynolds number rises.

    Raises:
        ValueError: one of them is out of its range.
    """
    if num_levels < 1:
        raise ValueError(f"num_levels = {num_levels} is too small: a simulation needs at least 1 level")
    if not 0 < largest_reynolds < inf:
        raise ValueError(f"largest_reynolds = {largest_reynolds} must be above 0 and finite")


class SteadyFlow:
    """The steady Navier-Stokes equations in weak form.

    ν (∇u, ∇v) + (u·∇u, v) - (p, ∇·v) - (∇·u, q) = 0 for all v and q, so that ν ∂u/∂n = p n on open edges.

    Jacobians are nonsymmetric and indefinite, and one matrix holds them all.

    Args:
        elements: elements for u and p.
        family: name of the systems.
    """

    def __init__(self, elements: TaylorHood, *, family: str):
        from dolfinx.fem import Constant, Function
        from dolfinx.fem.petsc import create_matrix
        from ufl import derivative, div, dot, dx, grad, inner, split

        self.elements = elements
        self.family = family
        self._viscosity = Constant(elements.space.mesh, 1.0)
        self._state = Function(elements.space)
        (u, p), (v, q) = split(self._state), elements.tests
        integrand = self._viscosity * inner(grad(u), grad(v)) + inner(dot(grad(u), u), v) - p * div(v) - q * div(u)
        self._linear = form(integrand * dx(degree=DEGREE))
        self._jacobian = form(derivative(integrand * dx(degree=DEGREE), self._state))
        self._matrix = create_matrix(self._jacobian)
        self._b = self._matrix.createVecLeft()

    def solve(self, start: np.ndarray, viscosity: float, solve: Solve, *, name: str) -> np.ndarray:
        """The flow for one viscosity.

        Args:
            start: unknowns [N] to start from; their velocities on the boundary are those of the flow.
            viscosity: ν.
            solve: solves one `LinearSystem`.
            name: name of the flow, for the error.

        Returns:
            The unknowns, [N].

        Raises:
            SolveError: Newton's method does not converge.
        """
        self._viscosity.value = viscosity
        return newton(self.residual, self.system, start, solve, name=name)

    def rising(
        self, start: np.ndarray, reynolds: float, *, length: float, num_levels: int, solve: Solve
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Flows for Reynolds numbers that double, each found from the one before.

        Args:
            start: unknowns [N] to start from.
            reynolds: the last Reynolds number, of velocity 1.
            length: of the Reynolds number.
            num_levels: number of flows.
            solve: solves one `LinearSystem`.

        Yields:
            The Reynolds number and the unknowns.

        Raises:
            SolveError: Newton's method does not converge.
        """
        for level in reversed(range(num_levels)):
            number = reynolds / 2**level
            start = self.solve(start, length / number, solve, name=f"Reynolds number {number:.4g}")
            yield number, start

    def residual(self, unknowns: np.ndarray) -> np.ndarray:
        """The residual for the last viscosity, [N]; 0 where the unknowns are given."""
        residual = self._forces(unknowns)
        residual[self.elements.fixed] = 0.0
        return residual

    def system(self, unknowns: np.ndarray) -> LinearSystem:
        """The system of Newton's step from there; the next one overwrites its matrix."""
        self._b.array = -self.residual(unknowns)
        overwrite(self._matrix, self._jacobian, self.elements.conditions)
        return LinearSystem(A=self._matrix, b=self._b, family=self.family)

    def force(self, unknowns: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """The force [2] of the flow on a body.

        With the residual's terms and a v that is 1 on the body and 0 at all other nodes, which is far more accurate
        than an integral of the stress over its rim (John 1997).

        Args:
            unknowns: the flow, [N].
            nodes: all nodes of the velocity on the body's boundary.
        """
        return -self._forces(unknowns)[self.elements.velocity_dofs[:, nodes]].sum(axis=1)

    def _forces(self, unknowns: np.ndarray) -> np.ndarray:
        """The left-hand side of the weak form for every basis function, [N]."""
        from dolfinx.fem import assemble_vector

        self._state.x.array[:] = unknowns
        return assemble_vector(self._linear).array
