"""Sequences of slowly varying systems: Newton's method, a continuation, time steps.

The i-th system follows from the states before it, so a sequence is solved in order. The states are those of exact
solves, whatever strategy is measured; `prepare` computes them once.

Axes:  F the five points of the stencil, X and Y inner points of the grid; arrays are indexed [x, y]. Grids have
resolution² inner points at h = 1 / (resolution + 1), and zero on the boundary. Equations are multiplied by h².
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.solvers.stencil import StencilMatrix
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.strategy import Tolerance
from penstock.solvers.parameters.fields import GaussianField
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problem import Grid, LinearSystem, Outcome

if TYPE_CHECKING:
    from petsc4py import PETSc

SEED = 0
OFFSETS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
REFERENCE = Tolerance(1e-10)
NEWTON_RTOL = 1e-8  # ||F(u)|| against ||F|| at the first state of a level, at which the next level begins,
ROUNDING = 1e-14  # or against ||u||


@dataclass(frozen=True)
class State:
    """Where a sequence stands before a system."""

    level: int
    """Number of the load, of the parameter, or of the time step."""
    u: np.ndarray
    """[X, Y]"""
    start: float = 0.0
    """||F(u)|| at the first state of this level, for the sequences that iterate on one."""


class Sequence(ABC):
    """Systems that must be solved in order.

    resolution: inner points along each axis.
    """

    is_sequence = True
    is_spd = False
    kind: str
    title: str

    def __init__(self, resolution: int):
        self.resolution = resolution
        self.num_unknowns = resolution**2
        self.name = f"D {self.kind} {self.num_unknowns}"
        self.spacing = 1 / (resolution + 1)
        self._states: list[State] = []
        self._solver = Direct(solver="mumps")

    def prepare(self, num_systems: int) -> None:
        """Compute those states of the first `num_systems` systems that are not known yet, by direct solves.

        Raises ArithmeticError where one fails.
        """
        if not self._states:
            self._states.append(self.first())
        while len(self._states) < num_systems:
            state = self._states[-1]
            attempt = self._solver.solve(self.assemble(state), REFERENCE)
            if attempt.outcome is not Outcome.CONVERGED:
                raise ArithmeticError(f"{self.name}, system {len(self._states) - 1}: {attempt.outcome}")
            self._states.append(self.next(state, attempt.x.array_r.reshape(state.u.shape)))

    def features(self, i: int) -> np.ndarray:
        return np.array([float(i)])

    def system(self, i: int) -> LinearSystem:
        return self.assemble(self.state(i))

    def state(self, i: int) -> State:
        """The state before system i."""
        self.prepare(i + 1)
        return self._states[i]

    @abstractmethod
    def first(self) -> State: ...

    @abstractmethod
    def next(self, state: State, x: np.ndarray) -> State:
        """What follows when x solves the system of `state`."""

    @abstractmethod
    def assemble(self, state: State) -> LinearSystem: ...

    @cached_property
    def zero(self) -> np.ndarray:
        """[X, Y]"""
        return np.zeros((self.resolution, self.resolution))

    @cached_property
    def matrix(self) -> StencilMatrix:
        return StencilMatrix(self.zero.shape, OFFSETS, is_spd=self.is_spd)

    @cached_property
    def vector(self) -> PETSc.Vec:
        return self.matrix.mat.createVecLeft()

    @cached_property
    def grid(self) -> Grid:
        spacing = (self.spacing, self.spacing)
        return Grid(shape=self.zero.shape, spacing=spacing, permutation=np.arange(self.num_unknowns))

    def linear_system(self, values_FXY: np.ndarray, right_hand_side: np.ndarray, **others) -> LinearSystem:
        self.vector.array = right_hand_side.ravel()
        A = self.matrix.overwrite(values_FXY)
        return LinearSystem(A=A, b=self.vector, is_spd=self.is_spd, family=self.name, grid=self.grid, **others)


class NewtonSequence(Sequence):
    """J(u) δ = -F(u), u = u + δ, until ||F(u)|| is small; then the next level from there.

    A level ends before its residual is rounding: at 1e-8 of its first one, or at 1e-14 of the state.
    """

    def first(self) -> State:
        return self._begin(1, self.zero)

    def next(self, state: State, x: np.ndarray) -> State:
        u = state.u + x
        small = max(NEWTON_RTOL * state.start, ROUNDING * np.linalg.norm(u))
        if np.linalg.norm(self.residual(state.level, u)) <= small:
            return self._begin(state.level + 1, u)
        return State(state.level, u, state.start)

    def assemble(self, state: State) -> LinearSystem:
        return self.linear_system(self.jacobian(state.level, state.u), -self.residual(state.level, state.u))

    @abstractmethod
    def residual(self, level: int, u: np.ndarray) -> np.ndarray:
        """[X, Y] F(u)."""

    @abstractmethod
    def jacobian(self, level: int, u: np.ndarray) -> np.ndarray:
        """[F, X, Y] ∂F/∂u."""

    def _begin(self, level: int, u: np.ndarray) -> State:
        return State(level, u, float(np.linalg.norm(self.residual(level, u))))


class NonlinearDiffusion(NewtonSequence):
    """-∇·((1 + u²) ∇u) = load · s under a load that grows step by step; nonsymmetric Jacobians.

    s = exp(g) with a Gaussian field g of covariance (-Δ + 9)^-2 scaled to a standard deviation of 1: one fixed draw.
    Step l has load 20 l. Fluxes take the mean of 1 + u² at their two points.
    """

    kind = "Newton"
    title = "Newton's method for -∇·((1 + u²) ∇u) = load · s, load steps"
    load_step = 20.0

    @cached_property
    def source(self) -> np.ndarray:
        """[X, Y] s."""
        return np.exp(unit_field(self.resolution, "newton source", 0))

    def residual(self, level: int, u: np.ndarray) -> np.ndarray:
        total = -(self.spacing**2) * self.load_step * level * self.source
        for neighbour in neighbours(np.pad(u, 1)):
            total -= (1 + (u**2 + neighbour**2) / 2) * (neighbour - u)
        return total

    def jacobian(self, level: int, u: np.ndarray) -> np.ndarray:
        values_FXY = np.zeros((len(OFFSETS), *u.shape))
        for values, neighbour in zip(values_FXY[1:], neighbours(np.pad(u, 1)), strict=True):
            mean, jump = 1 + (u**2 + neighbour**2) / 2, neighbour - u
            values_FXY[0] += mean - u * jump
            values[:] = -mean - neighbour * jump
        return values_FXY


class Bratu(NewtonSequence):
    """-Δu = λ e^u on its lower branch, λ_l = 6.8 (1 - 0.9^l): towards the fold at 6.808 and never over it.

    F is concave, so Newton's iterates from the solution for a smaller λ rise to the next one from below, and all
    Jacobians -Δ - λ e^u are symmetric positive definite. Their least eigenvalue falls from 2π² towards 0.
    """

    kind = "continuation"
    title = "continuation of -Δu = λ exp(u) towards its fold"
    is_spd = True

    def parameter(self, level: int) -> float:
        """λ"""
        return 6.8 * (1 - 0.9**level)

    def residual(self, level: int, u: np.ndarray) -> np.ndarray:
        return 4 * u - sum(neighbours(np.pad(u, 1))) - self.spacing**2 * self.parameter(level) * np.exp(u)

    def jacobian(self, level: int, u: np.ndarray) -> np.ndarray:
        values_FXY = np.full((len(OFFSETS), *u.shape), -1.0)
        values_FXY[0] = 4 - self.spacing**2 * self.parameter(level) * np.exp(u)
        return values_FXY


class Transient(Sequence):
    """Implicit Euler steps of ∂u/∂t = ∇·(a(x, t) ∇u) + 1 from u = 0, while a drifts; symmetric positive definite.

    a = exp(g₀ cos(2πt) + g₁ sin(2πt)) with two draws of a Gaussian field of covariance (-Δ + 9)^-2, scaled to a
    standard deviation of 1: a's law is the same at all times, its contrast 70 to 390. Fluxes take the mean of a at
    their two points. The guess is the last step's u.

    time_step: Δt. Good values: 0.001 to 0.05, that is Δt / h² = 40 to 2000 at 200 points an axis.
    """

    kind = "transient"
    title = "implicit Euler for ∂u/∂t = ∇·(a(x, t) ∇u) + 1, a drifting"
    is_spd = True

    def __init__(self, resolution: int, *, time_step: float = 0.01):
        super().__init__(resolution)
        self.time_step = time_step

    def first(self) -> State:
        return State(0, self.zero)

    def next(self, state: State, x: np.ndarray) -> State:
        return State(state.level + 1, x.copy())

    def assemble(self, state: State) -> LinearSystem:
        a = self.coefficient((state.level + 1) * self.time_step)
        inner, ratio = a[1:-1, 1:-1], self.time_step / self.spacing**2
        values_FXY = np.ones((len(OFFSETS), *inner.shape))
        for values, neighbour in zip(values_FXY[1:], neighbours(a), strict=True):
            values[:] = -ratio * (inner + neighbour) / 2
            values_FXY[0] -= values
        self._guess.array = state.u.ravel()
        return self.linear_system(values_FXY, state.u + self.time_step, guess=self._guess)

    def coefficient(self, time: float) -> np.ndarray:
        """[X + 2, Y + 2] a at the points of the grid, those of the boundary included."""
        first, second = self._fields
        return np.exp(np.cos(2 * np.pi * time) * first + np.sin(2 * np.pi * time) * second)

    @cached_property
    def _fields(self) -> tuple[np.ndarray, np.ndarray]:
        return unit_field(self.resolution + 2, "transient", 0), unit_field(self.resolution + 2, "transient", 1)

    @cached_property
    def _guess(self) -> PETSc.Vec:
        return self.matrix.mat.createVecLeft()


def neighbours(padded: np.ndarray) -> Iterator[np.ndarray]:
    """The four neighbours of all inner points, in the order of `OFFSETS`."""
    yield from (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])


def unit_field(resolution: int, design: str, i: int) -> np.ndarray:
    """[X, Y] a Gaussian field of covariance (-Δ + 9)^-2, scaled to a standard deviation of 1 in law."""
    field = GaussianField(resolution)
    draw = field.draw(generator_of(SEED, design, i))
    return resolution * field.features(draw).reshape(draw.shape)


CASES = tuple(kind(resolution) for kind in (NonlinearDiffusion, Bratu, Transient) for resolution in (100, 200))
