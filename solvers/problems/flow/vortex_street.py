"""Unsteady flow around a cylinder in a channel: a vortex street."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from types import MappingProxyType

import numpy as np

from penstock.layout import FieldSpec, Sample
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import Parameters, Problem, Solve, SolveError
from penstock.solvers.problems.flow.channel import DIAMETER, Channel, channel_mesh, parabola, require_resolution
from penstock.solvers.problems.flow.splitting import FlowState, Splitting
from penstock.solvers.problems.flow.steady_flow import SteadyFlow
from penstock.solvers.problems.frames import check_frames

TURNING_TIME = 0.5
NUM_LEVELS = 4  # of Reynolds numbers on the way to the steady flow
FASTEST = 10.0  # velocity; flows around the cylinder reach 2.5


class VortexStreet(Problem):
    """Unsteady flow around a cylinder: from the flow at one time to that at the next.

    ∂u/∂t + u·∇u - (D / Re) Δu + ∇p = 0, ∇·u = 0 in a channel 2.2 long and 0.41 high with a cylinder of diameter D = 0.1
    at (0.2, 0.2). Fluid enters with a parabolic profile, u = 0 on walls and cylinder, (D / Re) ∂u/∂n = p n at the
    outlet. Velocities are in units of their mean at the inlet, pressures in its square times the density.

    The Reynolds number is uniform on [60, 140]. The flow begins as the steady one, which is unstable, and the cylinder
    turns for a time of 0.5, its surface at a velocity of a sin²(2π t), a uniform on [0.5, 1.5]. Samples begin when it
    has come to rest, and vortices are shed from then on, about 3 pairs per unit of time.

    At Re = 100 this is the benchmark 2D-2 of Schäfer and Turek (1996, "Benchmark computations of laminar flow around a
    cylinder"): once the flow is periodic, drag is 3.22 to 3.24 and lift 0.99 to 1.01 at most, D times the frequency
    0.295 to 0.305, and pressure falls by 2.46 to 2.50 along the cylinder half a period after the largest lift. With
    n = 16 and steps of 0.0025 ours are 3.231, 0.991, 0.301 and 2.493 at t = 2.4; steps of 0.005 add 1 % to drag and 6 %
    to lift.

    Taylor-Hood elements on the mesh of `Cylinder`, and steps of order 2 by pressure correction (see `Splitting`): three
    systems per step, for the components of u with one nonsymmetric matrix that changes, and for p with one that is
    symmetric positive definite and stays.

    A simulation yields a sample per interval: `reynolds` and `before` to `velocity`, [2, P] at the points of the mesh,
    `pressure` [P], and the force's coefficients `drag` and `lift`, 2 F / D.

    Args:
        resolution: n, squares across the channel, even, at least 4. Good values: 12 to 24, which give 1092 to 4200
            points.
        num_steps: samples per simulation, at least 1.
        interval: time between `before` and `velocity`.
        steps_per_interval: steps of the method in an interval, at least 1. Good values: those that make steps of 0.002
            to 0.01.
    """

    is_transient = True
    feeds = MappingProxyType({"before": "velocity"})

    def __init__(
        self, *, resolution: int = 12, num_steps: int = 20, interval: float = 0.05, steps_per_interval: int = 10
    ):
        require_resolution(resolution)
        check_frames(num_steps, interval, 1)
        if steps_per_interval < 1:
            raise ValueError(f"steps_per_interval = {steps_per_interval} is too small: an interval has at least 1 step")
        self.resolution = resolution
        self.num_steps = num_steps
        self.interval = interval
        self.steps_per_interval = steps_per_interval
        self.space = ParameterSpace(reynolds=Uniform(60.0, 140.0), turn=Uniform(0.5, 1.5))
        mesh = channel_mesh(resolution)
        self.inputs = (FieldSpec(name="reynolds"), FieldSpec(name="before", on=mesh, components=2))
        self.outputs = (
            FieldSpec(name="velocity", on=mesh, components=2),
            FieldSpec(name="pressure", on=mesh),
            FieldSpec(name="drag"),
            FieldSpec(name="lift"),
        )

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        channel, viscosity = self.channel, DIAMETER / parameters["reynolds"]
        at_rest = channel.velocity_on_boundary(parabola(self.resolution))
        state = self.turned(self.steady(parameters["reynolds"], solve), parameters["turn"], viscosity, solve)
        before, _ = channel.at_points(state.velocity, state.pressure)
        for step in range(self.num_steps):
            for _ in range(self.steps_per_interval):
                last, state = state, self.splitting.advance(state, at_rest, viscosity, solve)
            if not np.abs(state.velocity).max() < FASTEST:
                raise SolveError(
                    f"vortex street at a Reynolds number of {parameters['reynolds']:.4g}: sample {step} has a velocity "
                    f"above {FASTEST:g}: take more steps per interval"
                )
            velocity, pressure = channel.at_points(state.velocity, state.pressure)
            drag, lift = 2 / DIAMETER * self.splitting.force(last, state, viscosity, channel.rim)
            yield Sample(
                inputs={"reynolds": parameters["reynolds"], "before": before},
                outputs={"velocity": velocity, "pressure": pressure, "drag": drag, "lift": lift},
                step=step,
                time=(step + 1) * self.interval,
            )
            before = velocity

    def steady(self, reynolds: float, solve: Solve) -> FlowState:
        """The steady flow, as at a time until which it has not changed."""
        start = self.channel.state(self.channel.velocity_on_boundary(parabola(self.resolution)))
        *_, (_, unknowns) = self.steady_flow.rising(
            start, reynolds, length=DIAMETER, num_levels=NUM_LEVELS, solve=solve
        )
        return FlowState.steady(*self.channel.parts(unknowns))

    def turned(self, state: FlowState, turn: float, viscosity: float, solve: Solve) -> FlowState:
        """The flow after the cylinder has turned and come to rest.

        Args:
            state: the flow at first.
            turn: largest velocity of the cylinder's surface.
            viscosity: D / Re.
            solve: solves one `LinearSystem`.
        """
        inflow = parabola(self.resolution)
        num_steps = max(1, round(TURNING_TIME * self.steps_per_interval / self.interval))
        for step in range(num_steps):
            spin = turn * np.sin(np.pi * (step + 1) / num_steps) ** 2
            state = self.splitting.advance(
                state, self.channel.velocity_on_boundary(inflow, spin=spin), viscosity, solve
            )
        return state

    @cached_property
    def channel(self) -> Channel:
        return Channel(self.resolution)

    @cached_property
    def steady_flow(self) -> SteadyFlow:
        return SteadyFlow(self.channel, family="steady")

    @cached_property
    def splitting(self) -> Splitting:
        return Splitting(self.channel, time_step=self.interval / self.steps_per_interval)
