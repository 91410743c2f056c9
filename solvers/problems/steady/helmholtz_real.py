"""Time-harmonic waves between walls that reflect: symmetric indefinite systems."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.cells import at_corner, cell_means
from penstock.solvers.discretisation.differences.stencil import StencilMatrix
from penstock.solvers.parameters.fields import GaussianField
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.problem import LinearSystem, Parameters, Problem, Solve
from penstock.solvers.problems.steady.helmholtz import check_waves

if TYPE_CHECKING:
    from petsc4py import PETSc

CORNERS = tuple(product((0, 1), repeat=2))
OFFSETS = tuple(product((-1, 0, 1), repeat=2))
# ∫∇φ·∇φ' and ∫φφ' / h² over a square, by the number of axes along which the two corners differ.
STIFFNESS = (2 / 3, -1 / 6, -1 / 3)
MASS = (1 / 9, 1 / 18, 1 / 36)
SPEED = 20.0  # mean of c
LOADED = (0.35, 0.65)  # part of the top


class HelmholtzReal(Problem):
    """Helmholtz's equation on the square: from the speed of sound to the wave.

    -Δu - (ω/c)² u = 0, ∂u/∂n = 1 on 0.35 < x < 0.65 of the top, y = 1, and 0 on the rest of the boundary.

    c = 20 + tanh g, where g is a Gaussian field with covariance (-Δ + 9)^-2: the Helmholtz set of de Hoop et al. (2022,
    arXiv 2203.13181), 40,000 samples on 100 x 100 squares with ω = 1000. Their g has the 100 modes of least |k|, ours
    the 120 with k_i < 11, among which those are. The standard deviation of g is 0.1, so c lies between 19.5 and 20.5.

    Bilinear elements (Q1), as theirs, with (ω/c)² on a square the mean of its corners. A wave has 12 points with their
    numbers, so the phase error of the elements is part of the set. The matrix is symmetric and indefinite, and nearly
    singular where ω is close to a resonance: u then is large. Sparse LU solves it; GMRES with ILU does not.

    A sample holds c and u at the vertices of n x n squares, arrays [n + 1, n + 1] indexed [x, y].

    Args:
        resolution: squares along each side of the unit square, n >= 2. Good values: 100 (published) to 200.
        wavenumber: ω / 20, that is 2π over the wavelength where c = 20, above 0. Published is 50. A wave has
            2π n / wavenumber points; fewer than 5 are refused.
    """

    def __init__(self, *, resolution: int = 100, wavenumber: float = 50.0):
        if resolution < 2:
            raise ValueError(f"resolution = {resolution} is too small: a square of cells needs at least 2 per side")
        check_waves(resolution, wavenumber)
        self.resolution = resolution
        self.wavenumber = wavenumber
        self.space = ParameterSpace(medium=GaussianField(resolution + 1, num_modes=11, centring="vertices"))
        self._shape = (resolution + 1, resolution + 1)
        grid = Grid(self._shape, centring="vertices")
        self.inputs = (FieldSpec(name="speed", on=grid),)
        self.outputs = (FieldSpec(name="solution", on=grid),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        speed = SPEED + np.tanh(parameters["medium"])
        solution = solve(self.assemble((self.wavenumber * SPEED / speed) ** 2, self.load))
        yield Sample(inputs={"speed": speed}, outputs={"solution": solution.x.array_r.reshape(self._shape)})

    def assemble(self, squares: np.ndarray, load: np.ndarray) -> LinearSystem:
        """The system for one medium and load.

        Args:
            squares: (ω/c)² at the vertices, [n + 1, n + 1].
            load: b, [n + 1, n + 1].
        """
        n = self.resolution
        reaction = cell_means(squares) / n**2
        values = np.zeros((len(OFFSETS), *self._shape))
        for row, column in product(CORNERS, CORNERS):
            offset = column[0] - row[0], column[1] - row[1]
            kind = abs(offset[0]) + abs(offset[1])
            values[OFFSETS.index(offset)][at_corner(row, n)] += STIFFNESS[kind] - MASS[kind] * reaction
        self._vector.array = load.ravel()
        return LinearSystem(A=self._matrix.overwrite(values), b=self._vector, family="helmholtz")

    @cached_property
    def load(self) -> np.ndarray:
        """The hat functions' integrals over the loaded part of the top, [n + 1, n + 1]."""
        n = self.resolution
        start, end = (np.clip(n * x - np.arange(n + 1), -1, 1) for x in LOADED)
        load = np.zeros(self._shape)
        load[:, -1] = (_hat_integral(end) - _hat_integral(start)) / n
        return load

    @cached_property
    def _matrix(self) -> StencilMatrix:
        return StencilMatrix(self._shape, OFFSETS)

    @cached_property
    def _vector(self) -> PETSc.Vec:
        return self._matrix.mat.createVecLeft()


def _hat_integral(x: np.ndarray) -> np.ndarray:
    """The integral of 1 - |x| from -1 to x, for |x| <= 1."""
    return 0.5 + x - x * np.abs(x) / 2
