"""Loops of a good DOLFINx user for flows by Taylor-Hood elements; see `solids`."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.peers.loops.solids import Kept, basix, dofs_of_points, fem, mesh_of, side, ufl
from penstock.geometry import Mesh
from penstock.solvers.discretisation.elements.triangulation import square
from penstock.solvers.problem import Parameters, Problem


class Enclosed:
    """The spaces of a flow in the unit square, whose velocity is given all around."""

    def __init__(self, problem: Problem):
        n = problem.resolution
        self.mesh = mesh_of(Mesh((n + 1) ** 2, 2, partial(square, n)).arrays)
        quadratic = basix.ufl.element("Lagrange", "triangle", 2, shape=(2,))
        linear = basix.ufl.element("Lagrange", "triangle", 1)
        self.space = fem.functionspace(self.mesh, basix.ufl.mixed_element([quadratic, linear]))
        velocities, in_all = self.space.sub(0).collapse()
        self.velocities, self.velocity_dofs = velocities, np.array(in_all).reshape(-1, 2)
        pressures, in_all = self.space.sub(1).collapse()
        corner = fem.locate_dofs_geometrical((self.space.sub(1), pressures), lambda x: np.isclose(x[0] + x[1], 0))
        facets, _ = side(self.mesh, lambda x: np.ones(x.shape[1], bool))
        around = fem.locate_dofs_topological((self.space.sub(0), velocities), 1, facets)
        self.given = fem.Function(velocities)
        self.conditions = [
            fem.dirichletbc(self.given, around, self.space.sub(0)),
            fem.dirichletbc(fem.Function(pressures), corner, self.space.sub(1)),
        ]
        self.at_points = self.velocity_dofs[dofs_of_points(velocities)].T

    def velocity(self, unknowns: np.ndarray) -> np.ndarray:
        return unknowns[self.at_points]


class Stokes:
    """A constant matrix, factored once; a draw assembles its right-hand side and solves."""

    def __init__(self, problem: Problem, solver: str):
        self._flow = flow = Enclosed(problem)
        self._force = fem.Function(flow.velocities)
        (u, p), (v, q) = ufl.TrialFunctions(flow.space), ufl.TestFunctions(flow.space)
        a = (ufl.inner(ufl.grad(u), ufl.grad(v)) - p * ufl.div(v) - q * ufl.div(u)) * ufl.dx
        self._kept = Kept(a, ufl.inner(self._force, v) * ufl.dx, flow.conditions, solver)
        self._kept.factor()
        nodes = flow.velocities.tabulate_dof_coordinates()[:, :2]
        self._i, self._j = np.rint(2 * problem.resolution * nodes).astype(int).T

    def __call__(self, parameters: Parameters) -> np.ndarray:
        for axis, name in enumerate(("force_x", "force_y")):
            self._force.x.array[axis::2] = parameters[name][self._i, self._j]
        self._kept.load()
        return self._flow.velocity(self._kept.solve())[None]


class Cavity:
    """Newton's method from one Reynolds number to its double, one matrix for all steps."""

    def __init__(self, problem: Problem, solver: str):
        self._flow = flow = Enclosed(problem)
        self._num_levels = problem.num_steps
        self._viscosity = fem.Constant(flow.mesh, 1.0)
        self._state = fem.Function(flow.space)
        (u, p), (v, q) = ufl.split(self._state), ufl.TestFunctions(flow.space)
        weak = self._viscosity * ufl.inner(ufl.grad(u), ufl.grad(v)) + ufl.inner(ufl.dot(ufl.grad(u), u), v)
        weak = (weak - p * ufl.div(v) - q * ufl.div(u)) * ufl.dx(degree=5)
        self._kept = Kept(ufl.derivative(weak, self._state), -weak, flow.conditions, solver)
        nodes = flow.velocities.tabulate_dof_coordinates()
        self._lid = np.flatnonzero(nodes[:, 1] > 1 - 1e-9)
        self._columns = np.rint(2 * problem.resolution * nodes[self._lid, 0]).astype(int)

    def __call__(self, parameters: Parameters) -> np.ndarray:
        # Newton's steps have no velocity on the boundary: the state has it from the start.
        unknowns = self._state.x.array
        unknowns[:] = 0.0
        unknowns[self._flow.velocity_dofs[self._lid, 0]] = parameters["lid"][self._columns]
        samples = []
        for level in reversed(range(self._num_levels)):
            self._viscosity.value = 2**level / parameters["reynolds"]
            first = norm = self._kept.load().norm()
            while norm > 1e-8 * first:
                self._kept.factor()
                unknowns[:] += self._kept.solve()
                norm = self._kept.load().norm()
            samples.append(self._flow.velocity(unknowns))
        return np.array(samples)
