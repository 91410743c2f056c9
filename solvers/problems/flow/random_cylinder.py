"""Steady flow around a cylinder at a random place: the mesh moves with it.

Axes:  P points, the same number for all samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from penstock.arrays.simplices import lumped_mass
from penstock.geometry import Points
from penstock.layout import FieldSpec, Sample
from penstock.solvers.parameters.space import LogUniform, ParameterSpace, Uniform
from penstock.solvers.problem import Parameters, Problem, Solve
from penstock.solvers.problems.flow.channel import HEIGHT, LENGTH, Channel, require_resolution
from penstock.solvers.problems.flow.profile import Profile
from penstock.solvers.problems.flow.steady_flow import SteadyFlow, check_levels


class RandomCylinder(Problem):
    """Steady flow around a random cylinder: from its place and the inflow to u and p.

    u·∇u - (D / Re) Δu + ∇p = 0, ∇·u = 0 in a channel 2.2 long and 0.41 high, D the cylinder's diameter. Its centre is
    uniform on [0.15, 0.25]², its radius on [0.03, 0.06]. The inflow g, the Reynolds number and the conditions on the
    boundary are those of `Cylinder`, and so are levels and elements.

    The mesh is that of `Cylinder` with its points moved: the same triangles, so all systems have one size and pattern.

    A simulation yields a sample per level: `reynolds` and `boundary_velocity`, which is (g, 0) at the inlet and 0
    elsewhere, to `velocity` u and `pressure` p: [2, P] and [P] at the mesh's points; with them come the points and
    their lumped masses.

    Args:
        resolution: n, squares across the channel, even, at least 4. Good values: 8 to 32, which give 504 to 7392
            points.
        num_levels: Reynolds numbers per simulation, at least 1, a sample for each.
        largest_reynolds: Re_max > 0. Good values: 5 to 50.
    """

    def __init__(self, *, resolution: int = 12, num_levels: int = 4, largest_reynolds: float = 40.0):
        require_resolution(resolution)
        check_levels(num_levels, largest_reynolds)
        self.resolution = resolution
        self.num_steps = num_levels
        self.space = ParameterSpace(
            centre_x=Uniform(0.15, 0.25),
            centre_y=Uniform(0.15, 0.25),
            radius=Uniform(0.03, 0.06),
            reynolds=LogUniform(largest_reynolds / 2, largest_reynolds),
            inflow=Profile(2 * resolution + 1, power=1),
        )
        points = Points(7 * resolution * (resolution + 1), 2, extent=(LENGTH, HEIGHT))
        self.inputs = (FieldSpec(name="reynolds"), FieldSpec(name="boundary_velocity", on=points, components=2))
        self.outputs = (FieldSpec(name="velocity", on=points, components=2), FieldSpec(name="pressure", on=points))

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        channel, radius = self.channel, parameters["radius"]
        points, cells = channel.move(np.array([parameters["centre_x"], parameters["centre_y"]]), radius)
        geometry = {"points": points, "weights": lumped_mass(points, cells)}
        start = channel.state(channel.velocity_on_boundary(parameters["inflow"]))
        boundary_velocity, _ = channel.at_points(*channel.parts(start))
        flows = self.flow.rising(
            start, parameters["reynolds"], length=2 * radius, num_levels=self.num_steps, solve=solve
        )
        for step, (reynolds, unknowns) in enumerate(flows):
            velocity, pressure = channel.at_points(*channel.parts(unknowns))
            yield Sample(
                inputs={"reynolds": reynolds, "boundary_velocity": boundary_velocity},
                outputs={"velocity": velocity, "pressure": pressure},
                step=step,
                geometry=geometry,
            )

    @cached_property
    def channel(self) -> Channel:
        return Channel(self.resolution)

    @cached_property
    def flow(self) -> SteadyFlow:
        return SteadyFlow(self.channel, family="random_cylinder")
