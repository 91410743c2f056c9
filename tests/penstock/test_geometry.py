"""Geometries: where grids have their points and weights, meshes that are checked."""

import pickle
from copy import deepcopy

import numpy as np
import pytest

from penstock.errors import PenstockError
from penstock.geometry import Grid, Mesh, Points

POINTS = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]])
CELLS = np.array([[0, 1, 2], [0, 2, 3]])


def rectangle():
    return POINTS, CELLS


MESH = Mesh(4, 2, rectangle)


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (Grid((4,)), [0.125, 0.375, 0.625, 0.875]),
        (Grid((4,), extent=(2.0,), origin=(-1.0,)), [-0.75, -0.25, 0.25, 0.75]),
        (Grid((5,), centring="vertices"), [0, 0.25, 0.5, 0.75, 1]),
        (Grid((4,), centring="vertices", periodic=True), [0, 0.25, 0.5, 0.75]),
        (Grid((1,), centring="vertices", periodic=True), [0]),
        (Grid.of_inner_vertices((3,)), [0.25, 0.5, 0.75]),
    ],
)
def test_coordinates_along_an_axis(grid, expected):
    np.testing.assert_allclose(grid.axes()[0], expected)


def test_axes_differ():
    grid = Grid((3, 2), extent=(3.0, 4.0), origin=(0.0, 1.0), centring="vertices", periodic=(True, False))
    x, y = grid.axes()
    np.testing.assert_allclose(x, [0, 1, 2])
    np.testing.assert_allclose(y, [1, 5])
    np.testing.assert_array_equal(grid.box, [[0, 1], [3, 5]])
    assert (grid.dimension, grid.is_ragged, grid.travelling) == (2, False, {})


def test_weights_are_equal_but_on_vertices_with_ends():
    """There they are those of the trapezoidal rule."""
    assert Grid((4, 4)).weights is None
    assert Grid((4, 4), centring="vertices", periodic=True).weights is None
    grid = Grid((5, 3), extent=(2.0, 3.0), centring="vertices")
    np.testing.assert_allclose(grid.weights, np.outer([0.25, 0.5, 0.5, 0.5, 0.25], [0.75, 1.5, 0.75]))
    mixed = Grid((4, 3), extent=(2.0, 3.0), centring="vertices", periodic=(True, False))
    np.testing.assert_allclose(mixed.weights, np.outer([0.5] * 4, [0.75, 1.5, 0.75]))


def test_what_travels_is_named_by_the_geometry():
    assert Grid((4, 3), is_masked=True).travelling == {"weights": (1, 4, 3)}
    assert Grid((4, 3), is_masked=True).weights is None
    assert Points(9, 3).travelling == {"points": (3, 9), "weights": (1, 9)}
    wall = Points(9, 2, max_edges=np.int64(7), name="wall")
    assert wall.travelling == {"wall_points": (2, 9), "wall_weights": (1, 9), "wall_edges": (2, 7)}
    assert wall.is_ragged and wall.weights is None and MESH.travelling == {}
    np.testing.assert_array_equal(Points(9, 2, extent=(2, 3), origin=(-1, 0)).box, [[-1, 0], [1, 3]])


def test_a_mesh_is_built_once_and_checked():
    built = []
    mesh = Mesh(4, 2, lambda: built.append(1) or rectangle())
    assert not built
    np.testing.assert_allclose(mesh.weights, [2 / 3, 1 / 3, 2 / 3, 1 / 3])
    np.testing.assert_array_equal(mesh.box, [[0, 0], [2, 1]])
    assert mesh.describe() == {"kind": "mesh", "points": 4, "cells": 2, "box": [[0, 0], [2, 1]]}
    assert built == [1] and mesh.shape == (4,)


def test_the_number_of_points_is_read_off_the_mesh():
    """It is built once for that, and checked."""
    built = []
    mesh = Mesh(None, 2, lambda: built.append(1) or rectangle())
    assert mesh.num_points == 4 and mesh.shape == (4,) and len(mesh.arrays.points) == 4 and built == [1]
    assert Mesh(None, 2, rectangle) == MESH
    with pytest.raises(PenstockError, match=r"build\(\) gives points \[4, 2\], and the geometry says \[4, 3\]"):
        Mesh(None, 3, rectangle)


@pytest.mark.parametrize(
    ("mesh", "expected"),
    [
        (Mesh(5, 2, rectangle), r"mesh: build\(\) gives points \[4, 2\], and the geometry says \[5, 2\]"),
        (Mesh(4, 3, rectangle, name="wall"), "mesh 'wall': build"),
        (Mesh(4, 2, lambda: (POINTS, CELLS[:, ::-1])), "mesh: cell 0, .* is inverted"),
        (Mesh(4, 2, lambda: (POINTS, CELLS[:1]), name="wall"), "mesh 'wall': point 3 belongs to no cell"),
    ],
)
def test_a_mesh_that_is_not_as_promised_is_named(mesh, expected):
    with pytest.raises(PenstockError, match=expected):
        mesh.arrays  # noqa: B018  built on use


@pytest.mark.parametrize("geometry", [Grid((3, 4), extent=(2, 1), periodic=True), MESH, Points(9, 2, max_edges=4)])
def test_geometries_cross_processes_and_stay_equal(geometry):
    copy = pickle.loads(pickle.dumps(geometry))
    assert copy == geometry and hash(copy) == hash(geometry)
    assert deepcopy(geometry) is geometry


def test_geometries_differ_by_what_they_say():
    assert Grid((3, 4)) == Grid([3, 4], extent=np.array([1, 1]), periodic=False) != Grid((3, 4), centring="vertices")
    assert Points(9, 2) != Points(9, 2, name="wall")
    assert Mesh(4, 2, rectangle, name="wall") != MESH


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Grid(4), "shape=4 must be whole numbers of points"),
        (lambda: Grid((4, 0)), r"shape=\(4, 0\)"),
        (lambda: Grid(()), r"shape=\(\)"),
        (lambda: Grid((4, 4), extent=(1.0,)), r"extent=\(1.0,\) must be a finite number for each of 2 axes"),
        (lambda: Grid((4, 4), extent=2.0), "extent=2.0"),
        (lambda: Grid((4, 4), extent=(1.0, 0.0)), "lengths along each of 2 axes, above 0"),
        (lambda: Grid((4, 4), extent=(1.0, np.nan)), "extent"),
        (lambda: Grid((4, 4), origin=(np.inf, 0)), "origin"),
        (lambda: Grid((4, 4), periodic=(True,)), r"periodic=\(True,\) must be True or False for each of 2 axes"),
        (lambda: Grid((4, 4), centring="corners"), "centring='corners' must be one of cells, vertices"),
        (lambda: Grid((4, 1), centring="vertices"), "axis 1 has one vertex"),
        (lambda: Grid((4,), name="the wall"), "name='the wall' can't name a geometry"),
        (lambda: Mesh(0, 2, rectangle), "num_points=0 must be a whole number from 1 on"),
        (lambda: Mesh(4, 4, rectangle), "dimension=4 must be 1, 2 or 3"),
        (lambda: Mesh(4, 2, rectangle()), "build must be a function"),
        (lambda: Points(2.5, 2), "max_points=2.5 must be a whole number from 1 on"),
        (lambda: Points(9, 0), "dimension=0"),
        (lambda: Points(9, 2, extent=(1.0,)), "extent"),
        (lambda: Points(9, 2, max_edges=-1), "max_edges=-1 must be a whole number from 0 on"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(make, expected):
    with pytest.raises(ValueError, match=expected):
        make()


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        (None, "mesh 'wall': build.* must return points and cells, and gives a NoneType"),
        (np.zeros((3, 2)), "mesh 'wall': build.* must return points and cells, and gives a ndarray"),
        (FileNotFoundError("plate.msh"), "mesh 'wall': build.* fails: FileNotFoundError: plate.msh"),
    ],
)
def test_a_build_that_gives_no_mesh_is_one_line_with_its_name(built, expected):
    def build():
        if isinstance(built, Exception):
            raise built
        return built

    with pytest.raises(PenstockError, match=expected):
        Mesh(3, 2, build, name="wall").arrays  # noqa: B018
