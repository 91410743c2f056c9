"""Geometries: where the values of a field sit.

Axes:  P points, T cells, E edges, d dimensions of space, *grid the axes of a grid.

Three kinds: a `Grid`, regular, the same for all samples; a `Mesh`, whose points are the same for all samples; `Points`,
which every sample brings along. What depends on the kind is one table per concern: norms, pictures, export.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, prod
from typing import Any, ClassVar

import numpy as np

from penstock.arrays.simplices import checked_cells, lumped_mass, stiffness
from penstock.errors import PenstockError, Refused, describe, file_of

CENTRINGS = ("cells", "vertices")


class Geometry(ABC):
    """Where the values of a field sit.

    Frozen, and equal to another one that says the same.
    """

    label: ClassVar[str]
    """What such a geometry is called in sentences."""
    name: str
    """Tells geometries of one problem apart: the arrays of one named "wall" are "wall_points", "wall_weights"."""

    shape: tuple[int, ...]
    """Shape of the values of one component, [*grid] or [P]; if points vary, that of the largest sample."""
    dimension: int
    """Dimension d of the space that the points are in."""

    @property
    @abstractmethod
    def box(self) -> np.ndarray:
        """Lowest and highest coordinates of the domain, float64 [2, d]."""

    @property
    def is_ragged(self) -> bool:
        """Whether the number of points varies from sample to sample."""
        return False

    @property
    def travelling(self) -> dict[str, tuple[int, ...]]:
        """The shape [C, *shape] of every array that each sample brings along, by name."""
        return {}

    @property
    def weights(self) -> np.ndarray | None:
        """Quadrature weights of the values, the same for all samples.

        float64 in the shape of a component; None where all values count alike, and where weights travel with the
        samples.
        """
        return None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a reader of the values must know, as JSON."""

    def named(self, array: str) -> str:
        """The name of one of its arrays: of its points, weights, edges."""
        return f"{self.name}_{array}" if self.name else array

    def __deepcopy__(self, memo: dict) -> Geometry:
        return self  # what builds a mesh may hang on its whole problem


@dataclass(frozen=True)
class Grid(Geometry):
    """A regular grid in a box, the same for all samples.

    Raises:
        ValueError: an argument does not fit the others.
    """

    label = "a grid"

    shape: tuple[int, ...]
    """Points along each axis."""
    extent: tuple[float, ...] = field(default=(), kw_only=True)
    """Length of the domain along each axis, in the problem's unit of length; 1 along each where absent.

    Gradients are per that unit.
    """
    origin: tuple[float, ...] = field(default=(), kw_only=True)
    """Lowest corner of the domain; 0 along each axis where absent."""
    centring: str = field(default="cells", kw_only=True)
    """Where values sit along an axis of n points and length L: "cells", at (i + 1/2) L / n; "vertices", at
    i L / (n - 1), or on a periodic axis at i L / n."""
    periodic: tuple[bool, ...] = field(default=(), kw_only=True)
    """Whether each axis is periodic; True or False for all of them."""
    is_masked: bool = field(default=False, kw_only=True)
    """Whether every sample brings quadrature weights [*grid] along.

    Weight 0 is outside the domain: what a field holds there counts nowhere.
    """
    name: str = field(default="", kw_only=True)

    def __post_init__(self):
        set_ = object.__setattr__  # frozen
        set_(self, "shape", _whole_numbers("shape", self.shape))
        axes = len(self.shape)
        set_(self, "extent", _lengths(self.extent, axes))
        set_(self, "origin", _numbers("origin", self.origin, axes))
        periodic = (self.periodic,) * axes if isinstance(self.periodic, bool) else tuple(self.periodic)
        set_(self, "periodic", tuple(map(bool, periodic)) or (False,) * axes)
        if len(self.periodic) != axes:
            raise ValueError(f"periodic={self.periodic!r} must be True or False for each of {axes} axes")
        if self.centring not in CENTRINGS:
            raise ValueError(f"centring={self.centring!r} must be one of {', '.join(CENTRINGS)}")
        if self.centring == "vertices":
            for axis, (size, repeats) in enumerate(zip(self.shape, self.periodic, strict=True)):
                if size < 2 and not repeats:
                    raise ValueError(f"shape={self.shape}: axis {axis} has one vertex, and a domain has two ends")
        _check_name(self.name)

    @classmethod
    def of_inner_vertices(cls, shape: tuple[int, ...]) -> Grid:
        """The inner vertices of the unit box.

        The box is cut into n + 1 cells along an axis of n points. They are the centres of n cells of that size, which
        leave half a cell free along the boundary.
        """
        sizes = _whole_numbers("shape", shape)
        return cls(sizes, extent=tuple(n / (n + 1) for n in sizes), origin=tuple(0.5 / (n + 1) for n in sizes))

    @property
    def dimension(self) -> int:
        return len(self.shape)

    @property
    def box(self) -> np.ndarray:
        return np.array([self.origin, np.add(self.origin, self.extent)])

    @property
    def travelling(self) -> dict[str, tuple[int, ...]]:
        return {self.named("weights"): (1, *self.shape)} if self.is_masked else {}

    @cached_property
    def weights(self) -> np.ndarray | None:
        """Weights of the trapezoidal rule on vertices; None on cells, which count alike."""
        if self.is_masked or self.centring == "cells" or all(self.periodic):
            return None
        weights = np.ones(self.shape)
        for axis, (size, repeats) in enumerate(zip(self.shape, self.periodic, strict=True)):
            if not repeats:
                ends = np.ones(size)
                ends[[0, -1]] = 0.5
                weights *= ends.reshape([-1 if other == axis else 1 for other in range(self.dimension)])
        return weights * prod(self.extent) / weights.sum()

    def axes(self) -> list[np.ndarray]:
        """The coordinates of the values along each axis, [n] each."""
        coordinates = []
        for size, length, start, repeats in zip(self.shape, self.extent, self.origin, self.periodic, strict=True):
            if self.centring == "cells":
                fractions = (np.arange(size) + 0.5) / size
            else:
                fractions = np.arange(size) / (size if repeats else size - 1)
            coordinates.append(start + length * fractions)
        return coordinates

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "grid",
            "extent": list(self.extent),
            "origin": list(self.origin),
            "centring": self.centring,
            "periodic": list(self.periodic),
        }


@dataclass(frozen=True, eq=False)
class MeshArrays:
    """The arrays of a mesh of simplices."""

    points: np.ndarray
    """Coordinates, float64 [P, d]."""
    cells: np.ndarray
    """Numbers of points, int64 [T, d + 1]."""
    weights: np.ndarray
    """Lumped masses, float64 [P]."""

    def stiffness(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, columns and values of the integrals of ∇φ_i·∇φ_j, to be summed."""
        return stiffness(self.points, self.cells)


@dataclass(frozen=True)
class Mesh(Geometry):
    """Points that are the same for all samples, joined to simplices.

    Those are intervals, triangles or tetrahedra. Values sit at the points, in the order of `build`. Their quadrature
    weights are the lumped masses of P1 elements.
    """

    label = "a mesh"

    num_points: int | None
    """P. With None it is read off the mesh, which is then built at once and not on first use."""
    dimension: int
    """d, 1 to 3."""
    build: Callable[[], tuple[np.ndarray, np.ndarray]] = field(repr=False)
    """Gives the points [P, d] and the cells, numbers of points [T, d + 1]; called on first use, in every process.

    Meshes are the same if this is the same function. The learner calls it too, where neither MPI nor DOLFINx need
    exist: NumPy, or a file, will do.
    """
    name: str = field(default="", kw_only=True)

    def __post_init__(self):
        _check_dimension(self.dimension)
        if not callable(self.build):
            raise ValueError("build must be a function that returns the mesh's points and cells")
        _check_name(self.name)
        num_points = len(self.arrays.points) if self.num_points is None else self.num_points
        object.__setattr__(self, "num_points", _whole_number("num_points", num_points))

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.num_points,)

    @cached_property
    def arrays(self) -> MeshArrays:
        """The mesh, built once per process.

        Raises:
            PenstockError: it is not as promised, or a cell of it is degenerate or inverted.
        """
        what = f"mesh {self.name!r}" if self.name else "mesh"
        try:
            built = self.build()
        except Exception as error:  # of the user's code, or of a file that is not there
            raise PenstockError(f"{what}: build() fails: {describe(error, file_of(self.build))}") from error
        if not isinstance(built, tuple | list) or len(built) != 2:
            raise PenstockError(f"{what}: build() must return points and cells, and gives a {type(built).__name__}")
        try:
            points, cells = checked_cells(*built)
        except Refused as error:
            raise PenstockError(f"{what}: {error}") from error
        promised = (len(points) if self.num_points is None else self.num_points, self.dimension)
        if points.shape != promised:
            raise PenstockError(
                f"{what}: build() gives points {list(points.shape)}, and the geometry says {list(promised)}"
            )
        return MeshArrays(points, cells, lumped_mass(points, cells))

    @property
    def box(self) -> np.ndarray:
        return np.stack([self.arrays.points.min(axis=0), self.arrays.points.max(axis=0)])

    @property
    def weights(self) -> np.ndarray:
        return self.arrays.weights

    def describe(self) -> dict[str, Any]:
        return {"kind": "mesh", "points": self.num_points, "cells": len(self.arrays.cells), "box": self.box.tolist()}


@dataclass(frozen=True)
class Points(Geometry):
    """Points that every sample brings along, in any number up to a largest one.

    With them come quadrature weights, whose sum is the measure of the sample's domain, and edges if there are to be
    any. Where samples stand side by side, shorter ones are padded: points and values with 0, edges with (0, 0). A
    weight of 0 is padding, and nothing else is.

    Raises:
        ValueError: an argument does not fit the others.
    """

    label = "points that vary"

    max_points: int
    """P: a sample with more fails."""
    dimension: int
    """d, 1 to 3."""
    extent: tuple[float, ...] = field(default=(), kw_only=True)
    """Length along each axis of a box that holds all samples; 1 along each where absent. A sample beyond it fails.

    Models see coordinates that are scaled by it, and not by the sample, whose size they would otherwise lose.
    """
    origin: tuple[float, ...] = field(default=(), kw_only=True)
    """Lowest corner of that box; 0 along each axis where absent."""
    max_edges: int = field(default=0, kw_only=True)
    """E: the most edges (i, j), i < j, of a sample; with 0 there are none."""
    name: str = field(default="", kw_only=True)

    def __post_init__(self):
        object.__setattr__(self, "max_points", _whole_number("max_points", self.max_points))
        _check_dimension(self.dimension)
        object.__setattr__(self, "extent", _lengths(self.extent, self.dimension))
        object.__setattr__(self, "origin", _numbers("origin", self.origin, self.dimension))
        object.__setattr__(self, "max_edges", _whole_number("max_edges", self.max_edges, least=0))
        _check_name(self.name)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.max_points,)

    @property
    def is_ragged(self) -> bool:
        return True

    @property
    def box(self) -> np.ndarray:
        return np.array([self.origin, np.add(self.origin, self.extent)])

    @property
    def travelling(self) -> dict[str, tuple[int, ...]]:
        arrays = {"points": (self.dimension, self.max_points), "weights": (1, self.max_points)}
        if self.max_edges:
            arrays["edges"] = (2, self.max_edges)
        return {self.named(array): shape for array, shape in arrays.items()}

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "points",
            "at most": self.max_points,
            "dimension": self.dimension,
            "extent": list(self.extent),
            "origin": list(self.origin),
            "weights": "quadrature weights, whose sum is the domain's measure; 0 is padding",
        }


def _whole_number(what: str, value: int, *, least: int = 1) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{what}={value!r} must be a whole number from {least} on")
    return number


def _whole_numbers(what: str, sizes: Sequence[int]) -> tuple[int, ...]:
    try:
        numbers = tuple(operator.index(size) for size in sizes)
    except TypeError:
        numbers = ()
    if not numbers or any(number < 1 for number in numbers):
        raise ValueError(
            f"{what}={sizes!r} must be whole numbers of points, at least 1 along each axis: (64, 64), or (64,) on one "
            "axis"
        )
    return numbers


def _lengths(extent: Sequence[float], axes: int) -> tuple[float, ...]:
    lengths = _numbers("extent", extent, axes, absent=1.0)
    if not all(length > 0 for length in lengths):
        raise ValueError(f"extent={extent!r} must be the domain's lengths along each of {axes} axes, above 0")
    return lengths


def _numbers(what: str, values: Sequence[float], axes: int, absent: float = 0.0) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, values)) or (absent,) * axes
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != axes or not all(abs(number) < inf for number in numbers):
        raise ValueError(f"{what}={values!r} must be a finite number for each of {axes} axes")
    return numbers


def _check_dimension(dimension: int) -> None:
    if dimension not in (1, 2, 3):
        raise ValueError(f"dimension={dimension!r} must be 1, 2 or 3")


def _check_name(name: str) -> None:
    if not isinstance(name, str) or (name and not name.isidentifier()):
        raise ValueError(f"name={name!r} can't name a geometry: it must be an identifier")
