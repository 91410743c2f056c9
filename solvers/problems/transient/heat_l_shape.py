"""Heat conduction on an L-shaped domain, on a mesh that stays the same.

Axes:  P points of the mesh.
"""

from __future__ import annotations

from functools import cached_property, partial
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from penstock.geometry import Mesh
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.elements.compiled import form
from penstock.solvers.discretisation.elements.mesh_fem import MeshElements
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import InterleavedProblem, LinearSystem, Parameters, Turns
from penstock.solvers.problems.frames import FEEDS

if TYPE_CHECKING:
    from petsc4py import PETSc

MIDDLE = 0.25  # of a leg of the L, whose width is 0.5
GRADING = 1.5  # 1 / (2/3): order 2 in L2 up to a logarithm; a uniform mesh leaves 4/3


class HeatLShape(InterleavedProblem):
    """The heat equation on an L-shaped domain, heated in pulses.

    ∂u/∂t - Δu = f on the unit square less its upper right quarter, u = 0 on the boundary and at first.

    The heater is a hump q of height 1 on the middle line of the L, its power pulsates with frequency ω:

        f(x, t) = q(x) sin²(π ω t).

    Drawn are the hump's place on that line, from -1 in the middle of the upper leg through 0 at the bend to 1 in the
    middle of the right leg, its standard deviation `width`, and ω.

    At the re-entrant corner u behaves like r^(2/3), r the distance to it. So the mesh, n x n squares cut into two
    triangles each, is drawn together there: with s the larger of |2x - 1| and |2y - 1|, points move from s to s^1.5.

    Implicit Euler with P1 finite elements by DOLFINx, K the stiffness and M the mass matrix:

        (M + Δt K) u_i = M (u_{i-1} + Δt f(t_i)),   t_i = i Δt,

    one matrix for all steps and draws. A simulation yields a sample per step: from `before` u_{i-1}, `heater` q,
    `frequency` ω and `time` t_i to `solution` u_i. Fields are values at the points of the mesh.

    Args:
        resolution: squares along each side of the unit square, an even n >= 4; each is two triangles of the mesh.
            Good values: 16 to 128, which give 225 to 12,545 points.
        num_steps: time steps per simulation, at least 1, a sample for each.
        time_step: length of a time step, Δt > 0. Good values: 0.002 to 0.02; the slowest mode decays by 1 / (1 + 39 Δt)
            per step.
    """

    is_transient = True
    feeds = FEEDS
    is_parallel = True

    def __init__(self, *, resolution: int = 32, num_steps: int = 20, time_step: float = 0.01):
        if resolution < 4 or resolution % 2:
            raise ValueError(f"resolution = {resolution} must be an even number from 4 on: the corner is a vertex")
        if num_steps < 1:
            raise ValueError(f"num_steps = {num_steps} is too small: a simulation needs at least 1 step")
        if not 0 < time_step < inf:
            raise ValueError(f"time_step = {time_step} must be above 0 and finite")
        self.resolution = resolution
        self.num_steps = num_steps
        self.time_step = time_step
        self.space = ParameterSpace(place=Uniform(-1.0, 1.0), width=Uniform(0.05, 0.15), frequency=Uniform(2.0, 10.0))
        self.mesh = Mesh((resolution + 1) ** 2 - (resolution // 2) ** 2, 2, partial(l_shape, resolution))
        self.inputs = (
            FieldSpec(name="before", on=self.mesh),
            FieldSpec(name="heater", on=self.mesh),
            FieldSpec(name="frequency"),
            FieldSpec(name="time"),
        )
        self.outputs = (FieldSpec(name="solution", on=self.mesh),)

    def turns(self, parameters: Parameters) -> Turns:
        heater, frequency = self.heater(parameters), parameters["frequency"]
        before = np.zeros(self.mesh.num_points)
        for step in range(self.num_steps):
            time = (step + 1) * self.time_step
            solved = yield self.assemble(before, heater * np.sin(np.pi * frequency * time) ** 2)
            solution = self.elements.at_points(solved.x)
            yield Sample(
                inputs={"before": before, "heater": heater, "frequency": frequency},
                outputs={"solution": solution},
                step=step,
                time=time,
            )
            before = solution

    def heater(self, parameters: Parameters) -> np.ndarray:
        """The hump q, [P]."""
        place, width = parameters["place"], parameters["width"]
        centre = MIDDLE + np.array([max(place, 0), max(-place, 0)]) / 2
        squares = ((self.mesh.arrays.points - centre) ** 2).sum(axis=1)
        return np.exp(-squares / (2 * width**2))

    def assemble(self, before: np.ndarray, source: np.ndarray) -> LinearSystem:
        """The system of one time step; the guess is u_{i-1}.

        The next call overwrites its b.

        Args:
            before: u_{i-1}, [P].
            source: f(t_i), [P].
        """
        matrix, mass, right = self._equation
        mass.mult(self.elements.at_dofs(before + self.time_step * source), right)
        guess = self.elements.at_dofs(before)
        return LinearSystem(A=matrix, b=right, guess=guess, is_spd=True, family="heat_l_shape")

    @cached_property
    def elements(self) -> MeshElements:
        return MeshElements(self.mesh.arrays, comm=self.comm)

    @cached_property
    def _equation(self) -> tuple[PETSc.Mat, PETSc.Mat, PETSc.Vec]:
        """M + Δt K, M without its rows on the boundary, and a vector for b.

        At 14,145 points a product with M takes 0.1 ms, where to assemble M f takes 1.3.
        """
        from dolfinx.fem.petsc import assemble_matrix
        from ufl import dx, grad, inner

        u, v, conditions = self.elements.trial, self.elements.test, self.elements.conditions
        matrix = assemble_matrix(form(u * v * dx + self.time_step * inner(grad(u), grad(v)) * dx), bcs=conditions)
        mass = assemble_matrix(form(u * v * dx))
        for assembled in (matrix, mass):
            assembled.assemble()
        matrix.setOption(matrix.Option.SPD, True)
        mass.zeroRowsLocal(conditions[0].dof_indices()[0], diag=0.0)
        return matrix, mass, mass.createVecLeft()


def l_shape(resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """The mesh of `HeatLShape`.

    Args:
        resolution: n, an even number.

    Returns:
        Points [P, 2] and cells [T, 3].
    """
    n, half = resolution, resolution // 2
    i, j = np.indices((n + 1, n + 1))
    is_point = (i <= half) | (j <= half)
    number = np.cumsum(is_point).reshape(is_point.shape) - 1
    offsets = np.stack([i, j], axis=-1)[is_point] / half - 1
    distances = np.abs(offsets).max(axis=1, keepdims=True)
    points = (1 + offsets * distances ** (GRADING - 1)) / 2

    i, j = np.nonzero(((i < half) | (j < half))[:n, :n])  # the squares
    low, right, left, high = number[i, j], number[i + 1, j], number[i, j + 1], number[i + 1, j + 1]
    climbs = (i < half) == (j < half)  # all diagonals point to the corner, because the grading has kinks there
    lower = np.stack([low, right, np.where(climbs, high, left)], axis=1)
    upper = np.stack([np.where(climbs, low, right), high, left], axis=1)
    return points, np.concatenate([lower, upper])
