"""Sound in a room.

Axes:  P vertices of the grid, in C order.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import cached_property
from math import inf

import numpy as np
from scipy.sparse import csr_array, diags_array, kron

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.sparse import petsc_matrix
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import InterleavedProblem, LinearSystem, Parameters, Solution, Turns

SPEED = 343.0  # of sound, m/s
EXTENT = 3.0  # of the room, m
MARGIN = 2.0  # between source and walls, in widths of the pulse: it has fallen to 2 % there


class Sound(InterleavedProblem):
    """Sound in a room: from a pulse at any place and the time t to the pressure at t.

    ∂²p/∂t² = c² Δp in a room of 3 m x 3 m, c = 343 m/s, whose walls take a part of the sound in:

        ∂p/∂n = -1 / (c ξ) ∂p/∂t,   p = exp(-|x - s|² / w²) and ∂p/∂t = 0 at t = 0.

    ξ is the walls' impedance divided by that of air. They return (ξ - 1) / (ξ + 1) of a wave that comes straight. The
    source s is uniform on [2 w, 3 m - 2 w]².

    The problem is that of Borrel-Jensen et al. (2023, "Sound propagation in realistic interactive 3D scenes with
    parameterized sources using deep neural operators", arXiv 2308.05141), where sources move from simulation to
    simulation; the room is one of theirs, the law of s is ours. They solve by spectral elements up to 1 kHz, also in
    three dimensions and with walls whose impedance depends on the frequency.

    Bilinear finite elements on n x n squares with the modified integration of Guddati and Yue (2004, Comput. Methods
    Appl. Mech. Eng. 193, 275-287), which makes the speed of waves of wave number k wrong by (k h)⁴ / 480 at most, h the
    side of a square. Newmark's method with β = 1/4, the trapezoidal rule, has one symmetric positive definite matrix
    for all steps and draws, neither gains nor loses energy, and makes waves late by (ω Δt)² / 12. Of the pulse ω is
    about 2 c / w.

    A simulation yields a sample per interval: `source`, which is p at t = 0, and `time` t to `pressure` p, both arrays
    [n + 1, n + 1] at the vertices, indexed [x, y].

    Args:
        resolution: squares along each wall, n, of a side of w / 2 at most. Good values: 48 to 128.
        width: w, from above 0 to 0.5 m.
        impedance: ξ > 0; inf for walls that return all sound. 1 takes in what comes straight.
        num_steps: samples per simulation, at least 1.
        interval: time between samples, above 0, in s.
        num_substeps: steps in time per sample, so that Δt = interval / num_substeps. In one of them sound must not go
            further than w / 2; w / 20 is good.
    """

    is_transient = True

    def __init__(
        self,
        *,
        resolution: int = 48,
        width: float = 0.2,
        impedance: float = 5.83,
        num_steps: int = 20,
        interval: float = 1e-3,
        num_substeps: int = 40,
    ):
        if not 0 < width <= 0.5:
            raise ValueError(f"width = {width} must be above 0 and at most 0.5 m: the room is 3 m wide")
        if resolution < 2 * EXTENT / width:
            raise ValueError(f"resolution = {resolution} is too small: the side of a square is above half of the width")
        if not impedance > 0:
            raise ValueError(f"impedance = {impedance} must be above 0: walls take sound in")
        if num_steps < 1:
            raise ValueError(f"num_steps = {num_steps} is too small: a simulation needs at least 1 step")
        if not 0 < interval < inf:
            raise ValueError(f"interval = {interval} is the time between samples: it must be above 0 and finite")
        if num_substeps < 1 or SPEED * interval / num_substeps > width / 2:
            raise ValueError(
                f"num_substeps = {num_substeps} is too small: sound goes further than half of the pulse's width in one"
            )
        self.resolution = resolution
        self.width = width
        self.impedance = impedance
        self.num_steps = num_steps
        self.interval = interval
        self.num_substeps = num_substeps
        place = Uniform(MARGIN * width, EXTENT - MARGIN * width, "m")
        self.space = ParameterSpace(source_x=place, source_y=place)
        self.grid = Grid((resolution + 1,) * 2, extent=(EXTENT,) * 2, centring="vertices")
        self.inputs = (FieldSpec(name="source", on=self.grid, unit="Pa"), FieldSpec(name="time", unit="s"))
        self.outputs = (FieldSpec(name="pressure", on=self.grid, unit="Pa"),)

    def turns(self, parameters: Parameters) -> Turns:
        x, y = self.grid.axes()
        squares = np.add.outer((x - parameters["source_x"]) ** 2, (y - parameters["source_y"]) ** 2)
        source = np.exp(-squares / self.width**2)
        pressure, rate = source.ravel(), np.zeros(source.size)
        for step in range(self.num_steps):
            for _ in range(self.num_substeps):
                pressure, rate = yield from self.room.advance(pressure, rate)
            yield Sample(
                inputs={"source": source},
                outputs={"pressure": pressure.reshape(source.shape)},
                step=step,
                time=(step + 1) * self.interval,
            )

    @cached_property
    def room(self) -> Room:
        return Room(
            (self.resolution,) * 2,
            spacing=EXTENT / self.resolution,
            impedances=(self.impedance,) * 2,
            time_step=self.interval / self.num_substeps,
        )


class Room:
    """Bilinear elements for the wave equation in a rectangle, and its steps in time.

    With mass M, damping C by the walls and stiffness K, for the pressure p and its rate v:

        M ∂v/∂t + C v + K p = 0,   ∂p/∂t = v.

    The trapezoidal rule has one system per step, for the mean w of the rates before and after it:

        (M + Δt/2 C + Δt²/4 K) w = M v - Δt/2 K p.

    Args:
        shape: squares along each axis.
        spacing: side of a square.
        impedances: ξ of the two walls at the ends of each axis; inf for walls that return all sound.
        time_step: Δt.
    """

    def __init__(self, shape: tuple[int, int], *, spacing: float, impedances: tuple[float, float], time_step: float):
        (mass_x, stiffness_x, ends_x), (mass_y, stiffness_y, ends_y) = (_along(n, spacing) for n in shape)
        self.time_step = time_step
        self.mass = csr_array(kron(mass_x, mass_y)) / SPEED**2
        self.stiffness = csr_array(kron(stiffness_x, mass_y) + kron(mass_x, stiffness_y))
        self.damping = csr_array(kron(ends_x / impedances[0], mass_y) + kron(mass_x, ends_y / impedances[1])) / SPEED

    def advance(
        self, pressure: np.ndarray, rate: np.ndarray
    ) -> Generator[LinearSystem, Solution, tuple[np.ndarray, np.ndarray]]:
        """Pressure p and rate v, [P] each, one step later.

        It yields its system and is sent the solution.
        """
        system = self._system
        system.b.array = self.mass @ rate - self.time_step / 2 * (self.stiffness @ pressure)
        solution = yield system
        mean = solution.x.array_r
        return pressure + self.time_step * mean, 2 * mean - rate

    def energy(self, pressure: np.ndarray, rate: np.ndarray) -> float:
        """(v·M v + p·K p) / 2, which the walls alone take away."""
        return float(rate @ (self.mass @ rate) + pressure @ (self.stiffness @ pressure)) / 2

    @cached_property
    def _system(self) -> LinearSystem:
        step = self.time_step
        A = csr_array(self.mass + step / 2 * self.damping + step**2 / 4 * self.stiffness)
        matrix = petsc_matrix(A, is_spd=True)
        return LinearSystem(A=matrix, b=matrix.createVecLeft(), is_spd=True, family="sound")


def _along(num_cells: int, spacing: float) -> tuple[diags_array, diags_array, diags_array]:
    """Mass and stiffness on an interval, and the sum of squares at its two ends."""
    ends = np.zeros(num_cells + 1)
    ends[[0, -1]] = 1.0
    beside = np.ones(num_cells)
    # Exact integration has (2/3, 1/6) here and is of order 2; of order 4 in one dimension is (5/6, 1/12), and in two
    # it stays so, because modes of a rectangle are products.
    mass = diags_array([beside / 12, 5 / 6 - 5 / 12 * ends, beside / 12], offsets=[-1, 0, 1]) * spacing
    stiffness = diags_array([-beside, 2 - ends, -beside], offsets=[-1, 0, 1]) / spacing
    return mass, stiffness, diags_array(ends)
