"""Case B: Darcy flow as it should be, symmetric positive definite, in two and three dimensions."""

from __future__ import annotations

import math
from functools import cached_property
from itertools import product
from typing import Protocol

import numpy as np
from scipy.fft import idctn

from benchmarks.solvers.stencil import StencilMatrix
from penstock.solvers.parameters.fields import BinaryField, GaussianField
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problem import Grid, LinearSystem
from penstock.solvers.problems.steady.darcy import DarcyDiscretisation

SEED = 0


class Field(Protocol):
    """A distribution of coefficients."""

    def draw(self, generator: np.random.Generator) -> np.ndarray: ...

    def features(self, value: np.ndarray) -> np.ndarray: ...


class Darcy:
    """-∇·(a ∇u) = 1 on the unit square or cube, u = 0 on its boundary, for drawn cell values a.

    The square is penstock's own problem, assembled by DOLFINx; its unknowns include the vertices of the boundary.
    The cube is `StructuredDarcy`.

    medium: what the coefficient is, for the name. resolution: n, cells along each side.
    """

    is_sequence = False

    def __init__(self, medium: str, field: Field, *, resolution: int, dimension: int = 2):
        self.field = field
        self.resolution = resolution
        self.dimension = dimension
        self.num_unknowns = (resolution + 1) ** 2 if dimension == 2 else (resolution - 1) ** dimension
        self.name = f"B {medium} {self.num_unknowns}"
        self.title = f"Darcy, {medium}, P1, {' x '.join([str(resolution)] * dimension)} cells"

    def features(self, i: int) -> np.ndarray:
        return self.field.features(self._draw(i))

    def system(self, i: int) -> LinearSystem:
        coefficient = self._draw(i)
        return self._discretisation.system(coefficient, np.ones_like(coefficient))

    def _draw(self, i: int) -> np.ndarray:
        return self.field.draw(generator_of(SEED, "bench", i))

    @cached_property
    def _discretisation(self) -> DarcyDiscretisation | StructuredDarcy:
        if self.dimension == 2:
            return DarcyDiscretisation(self.resolution)
        return StructuredDarcy(self.resolution, self.dimension)


class StructuredDarcy:
    """P1 finite elements for -∇·(a ∇u) = f, u = 0 on the boundary of the unit cube, for any dimension d.

    Each of the n^d cubes is cut into the d! simplices whose edges climb from its lowest to its highest corner one axis
    at a time. Only edges along an axis couple their ends: in a simplex, by a h^(d-2) / d!. An edge that starts m axes
    above a cube's lowest corner belongs to m! (d - 1 - m)! of its simplices. So the matrix has the 2 d + 1 points of
    finite differences, and its values are sums of shifted coefficients: 64^3 cubes take 20 ms.

    The unknowns are the inner vertices in C order.
    """

    def __init__(self, resolution: int, dimension: int):
        self.resolution = resolution
        self.dimension = dimension
        inner = resolution - 1
        self.grid = Grid(
            shape=(inner,) * dimension,
            spacing=(1 / resolution,) * dimension,
            permutation=np.arange(inner**dimension),
        )
        unit = np.eye(dimension, dtype=int)
        offsets = [np.zeros(dimension, dtype=int), *unit, *-unit]
        self._matrix = StencilMatrix(self.grid.shape, offsets, is_spd=True)
        self._vector = self._matrix.mat.createVecLeft()

    def system(self, coefficient: np.ndarray, source: np.ndarray) -> LinearSystem:
        """a = `coefficient` > 0 and f = `source` are values of cells, both [n] * d."""
        cells = product((slice(None, -1), slice(1, None)), repeat=self.dimension)
        mean_source = sum(source[corner] for corner in cells) / 2**self.dimension
        return self.assemble(coefficient, mean_source / self.resolution**self.dimension)

    def assemble(self, coefficient: np.ndarray, load: np.ndarray, mass: float = 0.0) -> LinearSystem:
        """The system for b = `load` [n - 1] * d; `mass` is added to the diagonal."""
        edges = [self.edges(coefficient, axis) for axis in range(self.dimension)]
        upper = [-np.delete(edge, 0, axis) for axis, edge in enumerate(edges)]
        lower = [-np.delete(edge, -1, axis) for axis, edge in enumerate(edges)]
        values = np.stack([mass - sum(upper) - sum(lower), *upper, *lower])
        self._vector.array = load.ravel()
        return LinearSystem(
            A=self._matrix.overwrite(values), b=self._vector, is_spd=True, family="darcy", grid=self.grid
        )

    def edges(self, coefficient: np.ndarray, axis: int) -> np.ndarray:
        """[n along `axis`, n - 1 along the others]: the coupling along every edge that has an inner vertex."""
        d, n = self.dimension, self.resolution
        total = 0.0
        for start in product((0, 1), repeat=d - 1):  # of the edge, in the cube that it belongs to
            m = sum(start)
            cubes = [slice(1 - offset, n - offset) for offset in start]
            cubes.insert(axis, slice(None))
            total = total + math.factorial(m) * math.factorial(d - 1 - m) * coefficient[tuple(cubes)]
        return total / (math.factorial(d) * n ** (d - 2))


class LogNormalField:
    """a = exp(g), g a Gaussian field scaled to a standard deviation of 1 in law."""

    def __init__(self, field: GaussianField):
        self.field = field

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        draw = self.field.draw(generator)
        return np.exp(np.sqrt(draw.size) * self.field.features(draw).reshape(draw.shape))

    def features(self, value: np.ndarray) -> np.ndarray:
        return np.log(value).ravel() / np.sqrt(value.size)


class GaussianField3D:
    """The sum of `GaussianField` in three dimensions, at the centres of n x n x n cells, n <= 64.

    A draw is one function at every resolution but for the modes that the grid cannot hold.
    """

    NUM_MODES = 64

    def __init__(self, resolution: int):
        self.resolution = resolution

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        n = self.resolution
        k = np.arange(n)
        squares = k[:, None, None] ** 2 + k[:, None] ** 2 + k**2
        coefficients = generator.standard_normal((self.NUM_MODES,) * 3)[:n, :n, :n] / (np.pi**2 * squares + 9)
        coefficients[0, 0, 0] = 0.0  # the mean mode
        return n**1.5 * idctn(coefficients, type=2, norm="ortho")


def two_phase(resolution: int, above: float = 12.0, below: float = 3.0) -> BinaryField:
    return BinaryField(GaussianField(resolution), above=above, below=below)


CASES = (
    *(Darcy("12/3", two_phase(n), resolution=n) for n in (100, 256, 421)),
    *(Darcy("log-normal", LogNormalField(GaussianField(n)), resolution=n) for n in (100, 256, 421)),
    *(Darcy("contrast 1e4", two_phase(n, above=1.0, below=1e-4), resolution=n) for n in (100, 256)),
    *(
        Darcy("3D 12/3", BinaryField(GaussianField3D(n), above=12.0, below=3.0), resolution=n, dimension=3)
        for n in (32, 64)
    ),
)
