"""Simplices: measures, masses, stiffness on paper, cells that are refused."""

import numpy as np
import pytest

from penstock.arrays.simplices import checked_cells, lumped_mass, measures, stiffness
from penstock.errors import Refused

CORNERS = {1: [[0], [2]], 2: [[0, 0], [2, 0], [0, 3]], 3: [[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]]}
SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
TWO_TRIANGLES = np.array([[0, 1, 2], [0, 2, 3]])


def dense(points, cells, coefficient=1.0):
    rows, columns, values = stiffness(points, cells, coefficient)
    matrix = np.zeros((len(points),) * 2)
    np.add.at(matrix, (rows, columns), values)
    return matrix


@pytest.mark.parametrize(("dimension", "measure"), [(1, 2), (2, 3), (3, 1)])
def test_measure_and_masses_of_one_cell(dimension, measure):
    points, cells = checked_cells(CORNERS[dimension], [list(range(dimension + 1))])
    assert (points.dtype, cells.dtype) == (np.float64, np.int64)
    np.testing.assert_allclose(measures(points, cells), [measure])
    np.testing.assert_allclose(lumped_mass(points, cells), measure / (dimension + 1))


def test_masses_add_up_at_shared_points():
    np.testing.assert_allclose(lumped_mass(SQUARE, TWO_TRIANGLES), np.array([2, 1, 2, 1]) / 6)


def test_stiffness_of_an_interval_a_triangle_and_a_square():
    points, cells = checked_cells([[0], [0.5], [2]], [[0, 1], [1, 2]])
    np.testing.assert_allclose(dense(points, cells), [[2, -2, 0], [-2, 2 + 2 / 3, -2 / 3], [0, -2 / 3, 2 / 3]])
    right = checked_cells([[0, 0], [1, 0], [0, 1]], [[0, 1, 2]])
    np.testing.assert_allclose(dense(*right), [[1, -0.5, -0.5], [-0.5, 0.5, 0], [-0.5, 0, 0.5]])
    expected = [[1, -0.5, 0, -0.5], [-0.5, 1, -0.5, 0], [0, -0.5, 1, -0.5], [-0.5, 0, -0.5, 1]]
    np.testing.assert_allclose(dense(SQUARE, TWO_TRIANGLES), expected, atol=1e-15)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_energy_of_linear_functions_is_exact_wherever_the_cell_lies(dimension):
    """u = 1 + c·x has ∫ a |∇u|² = a |c|² times the measure; a constant has none."""
    generator = np.random.default_rng(dimension)
    points = np.array(CORNERS[dimension]) @ generator.normal(size=(dimension, dimension)) + 5
    cells = np.arange(dimension + 1)[None]
    slope = generator.normal(size=dimension)
    matrix = dense(points, cells, np.array([2.5]))
    u = 1 + points @ slope
    assert u @ matrix @ u == pytest.approx(2.5 * slope @ slope * measures(points, cells)[0], rel=1e-9)
    np.testing.assert_allclose(matrix @ np.ones(dimension + 1), 0, atol=1e-12 * abs(matrix).max())


def test_a_coefficient_is_that_of_its_cell():
    split = dense(SQUARE, TWO_TRIANGLES[:1], 2.0) + dense(SQUARE, TWO_TRIANGLES[1:], 7.0)
    np.testing.assert_allclose(dense(SQUARE, TWO_TRIANGLES, np.array([2.0, 7.0])), split)


@pytest.mark.parametrize(
    ("points", "cells", "expected"),
    [
        (np.zeros((3, 4)), TWO_TRIANGLES, r"points have shape \(3, 4\)"),
        (np.zeros((0, 2)), TWO_TRIANGLES, r"points have shape \(0, 2\)"),
        ([[0, 0], [1, np.nan], [1, 1], [0, 1]], TWO_TRIANGLES, "point 1 is not finite"),
        (SQUARE, TWO_TRIANGLES[:, :2], r"give integers \[T, 3\], one triangle per row"),
        (SQUARE, TWO_TRIANGLES[:0], r"cells are int64 \(0, 3\)"),
        (SQUARE, TWO_TRIANGLES.astype(float), "cells are float64"),
        (SQUARE, [[0, 1, 2], [0, 2, 4]], r"cell 1 has the points \[0, 2, 4\], and there are 4"),
        (SQUARE, [[0, 1, 2], [0, 2, -1]], r"cell 1 has the points \[0, 2, -1\]"),
        (SQUARE, [[0, 1, 2], [0, 3, 3]], r"cell 1, with the points \[0, 3, 3\], is degenerate"),
        (SQUARE * [1, 1e-12], TWO_TRIANGLES, "cell 0.* is degenerate"),
        (SQUARE, [[0, 1, 2], [0, 3, 2]], r"cell 1, .* is inverted: .*\(1 of 2 cells are\)"),
        ([*SQUARE, [2, 2], [3, 3]], TWO_TRIANGLES, r"point 4 belongs to no cell: .*\(2 of 6 do\)"),
    ],
)
def test_cells_that_are_none_are_refused_by_number(points, cells, expected):
    with pytest.raises(Refused, match=expected):
        checked_cells(points, cells)


def test_tiny_and_huge_meshes_are_no_fault():
    for scale in (1e-9, 1e9):
        checked_cells(scale * SQUARE, TWO_TRIANGLES)
