"""Heat conduction under a source that moves."""

from __future__ import annotations

from functools import cached_property
from math import inf

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.structured import StructuredDiffusion
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import InterleavedProblem, LinearSystem, Parameters, Turns, tangents_of
from penstock.solvers.problems.frames import FEEDS

WIDTH = 0.05  # standard deviation of the hump


class Heat(InterleavedProblem):
    """The heat equation on the unit square: one step of time, from u and f to u.

    ∂u/∂t - Δu = f, u = 0 on the boundary and at first.

    f is a hump of height 1, a tenth of the side wide, that circles the centre once per unit of time. Drawn are the
    circle's radius, uniform on [0.2, 0.4], and the angle at which the hump begins.

    Implicit Euler with P1 finite elements, K the stiffness and M the lumped mass matrix:

        (M + Δt K) u_i = M (u_{i-1} + Δt f(t_i)),   t_i = i Δt.

    A simulation yields a sample per step, `before` u_{i-1} and `source` f(t_i) to `solution` u_i, at the inner
    vertices of n x n squares: arrays [n - 1, n - 1] indexed [x, y]. The matrix is the same at every step, and is
    assembled again at every step, as by a code that doesn't know it to be constant.

    With m `derivatives` a sample also has ∂u_i/∂p for the first m of the parameters p, radius and phase, at a u_{i-1}
    that is kept, because it is an input: `solution_by_radius` and `solution_by_phase`. (M + Δt K) ∂u_i/∂p =
    Δt M ∂f(t_i)/∂p has the matrix of u_i, so a direct solver factors once: each takes a quarter of the solve for u_i.
    There are none along modes of u_{i-1}, in which u_i is linear: they would be the same in all samples.

    Args:
        resolution: squares along each side of the unit square, n >= 2. Good values: 64 to 256.
        num_steps: time steps per simulation, at least 1, a sample for each. Good values: 1 / time_step, which is one
            turn of the hump.
        time_step: length of a time step, Δt > 0. Good values: 0.002 to 0.02; the slowest mode decays by 1 / (1 + 20 Δt)
            per step.
        derivatives: m, 0 to 2.
        derivatives_as: "outputs", which the model predicts like others; "tangents", with which the surrogate's own
            derivatives are compared: then a sample also has those of the inputs.
    """

    is_transient = True
    feeds = FEEDS

    def __init__(
        self,
        *,
        resolution: int = 64,
        num_steps: int = 100,
        time_step: float = 0.01,
        derivatives: int = 0,
        derivatives_as: str = "outputs",
    ):
        if resolution < 2:
            raise ValueError(f"resolution = {resolution} is too small: an inner vertex needs 2 squares per side")
        if num_steps < 1:
            raise ValueError(f"num_steps = {num_steps} is too small: a simulation needs at least 1 step")
        if not 0 < time_step < inf:
            raise ValueError(f"time_step = {time_step} must be above 0 and finite")
        self.resolution = resolution
        self.num_steps = num_steps
        self.time_step = time_step
        self.space = ParameterSpace(radius=Uniform(0.2, 0.4), phase=Uniform(0.0, 2 * np.pi))
        grid = Grid.of_inner_vertices((resolution - 1, resolution - 1))
        self.inputs = (FieldSpec(name="before", on=grid), FieldSpec(name="source", on=grid))
        names = tuple(self.space.distributions)
        if not 0 <= derivatives <= len(names):
            raise ValueError(f"derivatives = {derivatives} must be between 0 and {len(names)}, one per parameter")
        self.directions = names[:derivatives]
        solution = FieldSpec(name="solution", on=grid)
        self.outputs = (solution, *map(solution.derivative, self.directions))
        self.tangents = tangents_of(self.inputs[1:], self.directions, derivatives_as)

    def turns(self, parameters: Parameters) -> Turns:
        before = np.zeros((self.resolution - 1, self.resolution - 1))
        for step in range(self.num_steps):
            time = (step + 1) * self.time_step
            source = self.source(parameters, time)
            solved = yield self.assemble(before, source)
            solution = solved.x.array_r.reshape(before.shape)
            outputs = {"solution": solution}
            changes = {name: self.source_derivative(parameters, time, name) for name in self.directions}
            for name, change in changes.items():
                derivative = yield self.discretisation.with_load(self._load(self.time_step * change))
                outputs[f"solution_by_{name}"] = derivative.x.array_r.reshape(before.shape)
            tangents = {each.name: changes[each.by] for each in self.tangents}
            yield Sample(inputs={"before": before, "source": source, **tangents}, outputs=outputs, step=step)
            before = solution

    def source(self, parameters: Parameters, time: float) -> np.ndarray:
        """The source f at a time, [n - 1, n - 1]."""
        x, y = self._from_hump(parameters, time)
        return np.exp(-(x**2 + y**2) / (2 * WIDTH**2))

    def source_derivative(self, parameters: Parameters, time: float, name: str) -> np.ndarray:
        """The derivative of f at a time by a parameter, [n - 1, n - 1].

        Args:
            parameters: the draw.
            time: t.
            name: of the parameter, "radius" or "phase".
        """
        x, y = self._from_hump(parameters, time)
        angle = self._angle(parameters, time)
        # The hump moves outwards with the radius, and along the circle with the phase.
        if name == "radius":
            way = x * np.cos(angle) + y * np.sin(angle)
        else:
            way = parameters["radius"] * (y * np.cos(angle) - x * np.sin(angle))
        return way / WIDTH**2 * self.source(parameters, time)

    def _angle(self, parameters: Parameters, time: float) -> float:
        """Where on its circle the hump is."""
        return parameters["phase"] + 2 * np.pi * time

    def _from_hump(self, parameters: Parameters, time: float) -> tuple[np.ndarray, np.ndarray]:
        """x and y of the inner vertices from the hump's centre, [n - 1, 1] and [n - 1]."""
        angle = self._angle(parameters, time)
        points = np.arange(1, self.resolution) / self.resolution - 0.5
        radius = parameters["radius"]
        return points[:, None] - radius * np.cos(angle), points - radius * np.sin(angle)

    def assemble(self, before: np.ndarray, source: np.ndarray) -> LinearSystem:
        """The system of one time step; the guess is u_{i-1}.

        Args:
            before: u_{i-1}, [n - 1, n - 1].
            source: f(t_i), [n - 1, n - 1].
        """
        conductivity = np.full((self.resolution, self.resolution), self.time_step)
        load = self._load(before + self.time_step * source)
        system = self.discretisation.assemble(conductivity, load, mass=self._area)
        system.guess = system.b.duplicate()
        system.guess.array = before.ravel()
        return system

    def _load(self, values: np.ndarray) -> np.ndarray:
        """M times values at the inner vertices, [n - 1, n - 1]."""
        return self._area * values

    @property
    def _area(self) -> float:
        """A vertex's part of the mass."""
        return 1 / self.resolution**2

    @cached_property
    def discretisation(self) -> StructuredDiffusion:
        return StructuredDiffusion(self.resolution, dimension=2, family="heat")
