"""Steady flow around a cylinder in a channel."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.parameters.space import LogUniform, ParameterSpace
from penstock.solvers.problem import Parameters, Problem, Solve
from penstock.solvers.problems.flow.channel import DIAMETER, HEIGHT, Channel, channel_mesh, require_resolution
from penstock.solvers.problems.flow.profile import Profile
from penstock.solvers.problems.flow.steady_flow import SteadyFlow, check_levels


class Cylinder(Problem):
    """Steady flow around a cylinder: from the inflow to the flow, its drag and lift.

    u·∇u - (D / Re) Δu + ∇p = 0, ∇·u = 0 in a channel 2.2 long and 0.41 high with a cylinder of diameter D = 0.1 at
    (0.2, 0.2), a little below the middle. u = (g(y), 0) at the inlet, u = 0 on walls and cylinder, (D / Re) ∂u/∂n = p n
    at the outlet. Velocities are in units of their mean at the inlet, pressures in its square times the density.

    The inflow g has mean 1 and a shape like a parabola's (see `Profile`). The drawn Reynolds number is log-uniform on
    [Re_max / 2, Re_max]. Newton's method starts at 1/8 of it, with 4 levels, from fluid at rest; each level doubles the
    Reynolds number and starts from the last flow. So the Reynolds numbers of all samples are log-uniform on
    [Re_max / 16, Re_max]. Real flows become unsteady at about Re = 50.

    With a parabola and Re = 20 this is the benchmark 2D-1 of Schäfer and Turek (1996, "Benchmark computations of
    laminar flow around a cylinder"), whose drag is 5.57953523 and lift 0.01061895 (Nabh 1998).

    Taylor-Hood elements on a mesh of rings that grow from the cylinder to a square, and of a channel behind; edges on
    the cylinder are curved. Jacobians are nonsymmetric and indefinite.

    A simulation yields a sample per level: `reynolds` and `inflow` g [2 n + 1], at heights i H / (2 n), to `velocity`
    [2, P] and `pressure` [P] at the points of the mesh, and the force's coefficients `drag` and `lift`, 2 F / D.

    Args:
        resolution: n, squares across the channel, even, at least 4. Good values: 8 to 32, which give 504 to 7392
            points; they leave 4e-4 to 3e-6 of the drag of 2D-1 and 7 % to 0.03 % of its lift.
        num_levels: Reynolds numbers per simulation, at least 1, a sample for each.
        largest_reynolds: Re_max > 0. Good values: 5 to 50.
    """

    def __init__(self, *, resolution: int = 16, num_levels: int = 4, largest_reynolds: float = 40.0):
        require_resolution(resolution)
        check_levels(num_levels, largest_reynolds)
        self.resolution = resolution
        self.num_steps = num_levels
        self.space = ParameterSpace(
            reynolds=LogUniform(largest_reynolds / 2, largest_reynolds), inflow=Profile(2 * resolution + 1, power=1)
        )
        inlet = Grid((2 * resolution + 1,), extent=(HEIGHT,), centring="vertices", name="inlet")
        mesh = channel_mesh(resolution)
        self.inputs = (FieldSpec(name="reynolds"), FieldSpec(name="inflow", on=inlet))
        self.outputs = (
            FieldSpec(name="velocity", on=mesh, components=2),
            FieldSpec(name="pressure", on=mesh),
            FieldSpec(name="drag"),
            FieldSpec(name="lift"),
        )

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        channel, inflow = self.channel, parameters["inflow"]
        start = channel.state(channel.velocity_on_boundary(inflow))
        flows = self.flow.rising(start, parameters["reynolds"], length=DIAMETER, num_levels=self.num_steps, solve=solve)
        for step, (reynolds, unknowns) in enumerate(flows):
            velocity, pressure = channel.at_points(*channel.parts(unknowns))
            drag, lift = 2 / DIAMETER * self.flow.force(unknowns, channel.rim)
            yield Sample(
                inputs={"reynolds": reynolds, "inflow": inflow},
                outputs={"velocity": velocity, "pressure": pressure, "drag": drag, "lift": lift},
                step=step,
            )

    @cached_property
    def channel(self) -> Channel:
        return Channel(self.resolution)

    @cached_property
    def flow(self) -> SteadyFlow:
        return SteadyFlow(self.channel, family="cylinder")
