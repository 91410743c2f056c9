"""Unsteady Navier-Stokes flow by pressure correction.

Axes:  M nodes of the velocity, P points, where the pressure sits, B nodes where the velocity is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penstock.solvers.discretisation.elements.compiled import form
from penstock.solvers.discretisation.elements.taylor_hood import TaylorHood, overwrite
from penstock.solvers.problem import LinearSystem, Solve
from penstock.solvers.problems.flow.steady_flow import DEGREE


@dataclass(frozen=True, eq=False)
class FlowState:
    """A flow at one time, with what the next step needs to know of the time before."""

    velocity: np.ndarray
    """u, [2, M]."""
    velocity_before: np.ndarray
    """u a step earlier, [2, M]."""
    pressure: np.ndarray
    """p, [P]."""
    correction: np.ndarray
    """φ, by which the last step changed p, [P]."""
    correction_before: np.ndarray
    """φ of the step before, [P]."""

    @classmethod
    def steady(cls, velocity: np.ndarray, pressure: np.ndarray) -> FlowState:
        """A flow that has not changed until now."""
        none = np.zeros_like(pressure)
        return cls(velocity, velocity, pressure, none, none)


class Splitting:
    """Incremental pressure correction of order 2 for unsteady flow.

    The method is the standard one in section 3 of Guermond, Minev and Shen (2006, "An overview of projection methods
    for incompressible flows"). With w = 2 u_n - u_{n-1} and D u_{n+1} = (3 u_{n+1} - 4 u_n + u_{n-1}) / (2 Δt) a step
    solves

        (D u_{n+1} + w·∇u_{n+1}, v) + ν (∇u_{n+1}, ∇v) = (p_n + (4 φ_n - φ_{n-1}) / 3, ∇·v),
        (∇φ_{n+1}, ∇q) = -3 / (2 Δt) (∇·u_{n+1}, q),   p_{n+1} = p_n + φ_{n+1}.

    The first has one nonsymmetric matrix for both components, which w changes in every step; the second, with φ = 0 on
    open edges, has one that stays. The velocities without divergence, u - 2/3 Δt ∇φ, are eliminated.

    Args:
        elements: elements for u and p, with open edges.
        time_step: Δt.
    """

    def __init__(self, elements: TaylorHood, *, time_step: float):
        from dolfinx.fem import Constant, Function, assemble_matrix, dirichletbc
        from dolfinx.fem.petsc import create_matrix
        from ufl import TestFunction, TrialFunction, as_vector, dot, dx, grad, inner

        self.elements = elements
        self.time_step = time_step
        components, pressures = elements.component_space, elements.pressure_space
        self._viscosity = Constant(components.mesh, 1.0)
        self._wind, self._velocity, self._history = ([Function(components), Function(components)] for _ in range(3))
        self._pressure = Function(pressures)

        u, v, wind = TrialFunction(components), TestFunction(components), as_vector(self._wind)
        rate = Constant(components.mesh, 1.5 / time_step)

        def transport(u):
            return (rate * u + dot(wind, grad(u))) * v + self._viscosity * inner(grad(u), grad(v))

        self._linear = [
            form((transport(u) - history * v - self._pressure * v.dx(axis)) * dx(degree=DEGREE))
            for axis, (u, history) in enumerate(zip(self._velocity, self._history, strict=True))
        ]
        self._transport = form(transport(u) * dx(degree=DEGREE))
        self._conditions = [dirichletbc(0.0, elements.boundary, components)]
        self._matrix = create_matrix(self._transport)
        self._b = self._matrix.createVecLeft()

        p, q = TrialFunction(pressures), TestFunction(pressures)
        laplacian = form(inner(grad(p), grad(q)) * dx(degree=DEGREE))
        self._laplacian = create_matrix(laplacian)
        overwrite(self._laplacian, laplacian, [dirichletbc(0.0, elements.outlet, pressures)])
        self._laplacian.setOption(self._laplacian.Option.SPD, True)
        self._c = self._laplacian.createVecLeft()
        self._divergence = [assemble_matrix(form(u.dx(axis) * q * dx(degree=DEGREE))).to_scipy() for axis in range(2)]

    def advance(self, state: FlowState, on_boundary: np.ndarray, viscosity: float, solve: Solve) -> FlowState:
        """The flow a step later.

        Args:
            state: the flow now.
            on_boundary: velocity on the boundary then, [2, B].
            viscosity: ν.
            solve: solves one `LinearSystem`.
        """
        elements = self.elements
        velocity = 2 * state.velocity - state.velocity_before
        velocity[:, elements.boundary] = on_boundary
        expected = state.pressure + (4 * state.correction - state.correction_before) / 3
        residuals = self._residuals(state, velocity, expected, viscosity)
        overwrite(self._matrix, self._transport, self._conditions)
        for component, residual in zip(velocity, residuals, strict=True):
            residual[elements.boundary] = 0.0
            self._b.array = -residual
            component += solve(LinearSystem(A=self._matrix, b=self._b, family="velocity")).x.array_r
        divergence = sum(D @ component for D, component in zip(self._divergence, velocity, strict=True))
        divergence[elements.outlet] = 0.0
        self._c.array = -1.5 / self.time_step * divergence
        solution = solve(LinearSystem(A=self._laplacian, b=self._c, is_spd=True, family="pressure"))
        correction = solution.x.array_r.copy()
        return FlowState(velocity, state.velocity, state.pressure + correction, correction, state.correction)

    def force(self, before: FlowState, after: FlowState, viscosity: float, nodes: np.ndarray) -> np.ndarray:
        """The force [2] on a body at the end of a step.

        It is the first equation with v = 1 at the body's nodes and 0 at all others.

        Args:
            before: the flow before the step.
            after: the flow after it.
            viscosity: ν.
            nodes: all nodes of the velocity on the body's boundary.
        """
        return -self._residuals(before, after.velocity, after.pressure, viscosity)[:, nodes].sum(axis=1)

    def _residuals(self, before: FlowState, velocity: np.ndarray, pressure: np.ndarray, viscosity: float) -> np.ndarray:
        """The first equation's left side less its right side, [2, M].

        It leaves w and ν for the matrix.
        """
        from dolfinx.fem import assemble_vector

        self._viscosity.value = viscosity
        self._pressure.x.array[:] = pressure
        wind = 2 * before.velocity - before.velocity_before
        history = (2 * before.velocity - 0.5 * before.velocity_before) / self.time_step
        for functions, values in ((self._wind, wind), (self._velocity, velocity), (self._history, history)):
            for function, component in zip(functions, values, strict=True):
                function.x.array[:] = component
        return np.stack([assemble_vector(form).array for form in self._linear])
