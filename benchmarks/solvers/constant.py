"""Case C: one matrix for all systems, and right-hand sides that change."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.polynomial import chebyshev
from scipy.fft import dstn, idstn

from benchmarks.solvers.darcy import StructuredDarcy
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problem import LinearSystem

SEED = 0
NUM_COEFFICIENTS = 6  # of each of the five polynomials


class Poisson:
    """-Δu = f on the unit square, u = g on its boundary: 30 parameters, all of them in the right-hand side.

    g is a Chebyshev polynomial of degree 5 on each side, f = Σ_k c_k T_k(x) T_k(y); the 5 x 6 coefficients are normal.
    This is the Poisson set of Wang et al. (2024, arXiv 2401.09516, D.2). P1 on inner vertices; the
    matrix is written anew for every system, as by a code that doesn't know it to be constant.

    resolution: squares along each side.
    """

    is_sequence = False
    num_systems = 100  # of a table: beyond the 30 that span all right-hand sides

    def __init__(self, *, resolution: int):
        self.resolution = resolution
        self.num_unknowns = (resolution - 1) ** 2
        self.name = f"C Poisson {self.num_unknowns}"
        self.title = (
            f"Poisson, constant matrix, {5 * NUM_COEFFICIENTS} parameters in b, {resolution} x {resolution} squares"
        )

    def features(self, i: int) -> np.ndarray:
        return self.coefficients(i).ravel() / np.sqrt(5 * NUM_COEFFICIENTS)

    def system(self, i: int) -> LinearSystem:
        return self._discretisation.assemble(self._ones, self.load(self.coefficients(i)))

    def coefficients(self, i: int) -> np.ndarray:
        """[5, 6]: of g at x = 0, x = 1, y = 0, y = 1, and of f."""
        return generator_of(SEED, "poisson", i).standard_normal((5, NUM_COEFFICIENTS))

    def load(self, coefficients: np.ndarray) -> np.ndarray:
        """[X, Y] b, linear in the coefficients."""
        n = self.resolution
        polynomials = chebyshev.chebvander(np.linspace(-1, 1, n + 1)[1:-1], NUM_COEFFICIENTS - 1)  # [X, K]
        load = np.einsum("k,xk,yk->xy", coefficients[4], polynomials, polynomials) / n**2
        sides = polynomials @ coefficients[:4].T  # an edge to the boundary couples by 1
        load[0, :] += sides[:, 0]
        load[-1, :] += sides[:, 1]
        load[:, 0] += sides[:, 2]
        load[:, -1] += sides[:, 3]
        return load

    @cached_property
    def _discretisation(self) -> StructuredDarcy:
        return StructuredDarcy(self.resolution, dimension=2)

    @cached_property
    def _ones(self) -> np.ndarray:
        return np.ones((self.resolution, self.resolution))


class Heat:
    """u_t - Δu = f on the unit square, u = 0 on its boundary and at first; implicit Euler steps, P1, lumped mass M:

        (M + Δt K) u_i = M (u_{i-1} + Δt f(t_i)).

    f is a hump a tenth of the side wide that circles the centre once in 100 steps of Δt = 0.01. The guess is u_{i-1}.
    So that every arm meets the same systems, the steps behind b are those of an exact solve: sines diagonalise M and K.

    resolution: squares along each side.
    """

    is_sequence = True
    TIME_STEP = 0.01

    def __init__(self, *, resolution: int):
        self.resolution = resolution
        self.num_unknowns = (resolution - 1) ** 2
        self.name = f"C heat {self.num_unknowns}"
        self.title = f"heat equation, implicit steps, constant matrix, {resolution} x {resolution}"
        self._states = [np.zeros((resolution - 1, resolution - 1))]

    def features(self, i: int) -> np.ndarray:
        return np.array([float(i)])

    def system(self, i: int) -> LinearSystem:
        load = self.load(i)
        self._guess.array = self.state(i).ravel()
        mass = 1 / self.resolution**2
        system = self._discretisation.assemble(self._coefficient, load, mass)
        return LinearSystem(A=system.A, b=system.b, is_spd=True, family="heat", grid=system.grid, guess=self._guess)

    def load(self, i: int) -> np.ndarray:
        """[X, Y] b of system i, whose solution is u_{i+1}."""
        x, y = np.indices(self._states[0].shape) / self.resolution + 1 / self.resolution
        angle = 2 * np.pi * (i + 1) / 100
        hump = np.exp(-((x - 0.5 - 0.3 * np.cos(angle)) ** 2 + (y - 0.5 - 0.3 * np.sin(angle)) ** 2) / (2 * 0.05**2))
        return (self.state(i) + self.TIME_STEP * hump) / self.resolution**2

    def state(self, i: int) -> np.ndarray:
        """[X, Y] u_i."""
        while len(self._states) <= i:
            transformed = dstn(self.load(len(self._states) - 1), type=1)
            self._states.append(idstn(transformed / self._eigenvalues, type=1))
        return self._states[i]

    @cached_property
    def _eigenvalues(self) -> np.ndarray:
        """[X, Y] those of M + Δt K."""
        n = self.resolution
        along = 2 - 2 * np.cos(np.pi * np.arange(1, n) / n)
        return 1 / n**2 + self.TIME_STEP * (along[:, None] + along)

    @cached_property
    def _coefficient(self) -> np.ndarray:
        return np.full((self.resolution, self.resolution), self.TIME_STEP)

    @cached_property
    def _discretisation(self) -> StructuredDarcy:
        return StructuredDarcy(self.resolution, dimension=2)

    @cached_property
    def _guess(self):
        return self._discretisation.assemble(self._coefficient, self._states[0]).b.duplicate()


CASES = tuple(kind(resolution=resolution) for kind in (Poisson, Heat) for resolution in (128, 264))
