"""Heat conduction under a source that moves."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from math import inf

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.structured import StructuredDiffusion
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import InterleavedProblem, LinearSystem, Parameters, Turns

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

    Args:
        resolution: squares along each side of the unit square, n >= 2. Good values: 64 to 256.
        num_steps: time steps per simulation, at least 1, a sample for each. Good values: 1 / time_step, which is one
            turn of the hump.
        time_step: length of a time step, Δt > 0. Good values: 0.002 to 0.02; the slowest mode decays by 1 / (1 + 20 Δt)
            per step.
    """

    def __init__(self, *, resolution: int = 64, num_steps: int = 100, time_step: float = 0.01):
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
        self.outputs = (FieldSpec(name="solution", on=grid),)

    def turns(self, parameters: Parameters) -> Turns:
        before = np.zeros((self.resolution - 1, self.resolution - 1))
        for step in range(self.num_steps):
            source = self.source(parameters, (step + 1) * self.time_step)
            solved = yield self.assemble(before, source)
            solution = solved.x.array_r.reshape(before.shape)
            yield Sample(inputs={"before": before, "source": source}, outputs={"solution": solution}, step=step)
            before = solution

    def source(self, parameters: Parameters, time: float) -> np.ndarray:
        """The source f at a time, [n - 1, n - 1]."""
        angle = parameters["phase"] + 2 * np.pi * time
        points = np.arange(1, self.resolution) / self.resolution
        x = points[:, None] - 0.5 - parameters["radius"] * np.cos(angle)
        y = points - 0.5 - parameters["radius"] * np.sin(angle)
        return np.exp(-(x**2 + y**2) / (2 * WIDTH**2))

    def assemble(self, before: np.ndarray, source: np.ndarray) -> LinearSystem:
        """The system of one time step; the guess is u_{i-1}.

        Args:
            before: u_{i-1}, [n - 1, n - 1].
            source: f(t_i), [n - 1, n - 1].
        """
        area = 1 / self.resolution**2  # a vertex's part of the mass
        conductivity = np.full((self.resolution, self.resolution), self.time_step)
        load = area * (before + self.time_step * source)
        system = self.discretisation.assemble(conductivity, load, mass=area)
        guess = system.b.duplicate()
        guess.array = before.ravel()
        return replace(system, family="heat", guess=guess)

    @cached_property
    def discretisation(self) -> StructuredDiffusion:
        return StructuredDiffusion(self.resolution, dimension=2)
