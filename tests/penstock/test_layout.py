"""Layouts, and values that packing refuses."""

import numpy as np
import pytest

from penstock.errors import PenstockError
from penstock.geometry import Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout, Sample
from penstock.ragged import Ragged

GRID = Grid((2, 3))
CLOUD = Points(4, 2, extent=(2.0, 1.0), origin=(-1.0, 0.0), max_edges=3)
A = FieldSpec(name="a", on=GRID)
B = FieldSpec(name="b", on=GRID)
K = FieldSpec(name="k")
U = FieldSpec(name="u", on=GRID)
V = FieldSpec(name="v", on=CLOUD, components=2)
POINTS = np.array([[-1.0, 0.0], [1.0, 0.5], [0.25, 1.0]])
WEIGHTS = np.array([0.5, 0.25, 1.25])
EDGES = np.array([[0, 1], [1, 2]])


def unit_square():
    return np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]), np.array([[0, 1, 2], [0, 2, 3]])


def on_points(**geometry):
    """A sample of v on three points, with some of its geometry changed."""
    outputs = {"v": np.arange(6.0).reshape(2, 3)}
    return Sample(
        inputs={"k": 5}, outputs=outputs, geometry={"points": POINTS, "weights": WEIGHTS, "edges": EDGES} | geometry
    )


def test_layout_groups_fields_scalars_and_targets():
    layout = Layout((A, K, B), (U,))
    assert layout.shapes == {"fields": (2, 2, 3), "scalars": (1,), "targets": (1, 2, 3)}
    assert layout.sample_bytes == 4 * (12 + 1 + 6)
    assert "scalars" not in Layout((A,), (U,)).shapes  # an array that a problem lacks is absent


def test_layout_has_an_array_for_each_geometry_and_what_that_brings_along():
    wall = Points(5, 2, name="wall")
    mesh = Mesh(4, 2, unit_square, name="body")
    masked = Grid((2, 3), is_masked=True, name="sea")
    inputs = (FieldSpec(name="g", on=wall), K, FieldSpec(name="depth", on=masked))
    outputs = (FieldSpec(name="stress", on=mesh, components=3), FieldSpec(name="drag"), U)
    layout = Layout(inputs, outputs)
    assert layout.shapes == {
        "fields_wall": (1, 5),
        "fields_sea": (1, 2, 3),
        "scalars": (1,),
        "wall_points": (2, 5),
        "wall_weights": (1, 5),
        "sea_weights": (1, 2, 3),
        "targets_body": (3, 4),
        "targets": (1, 2, 3),
        "target_scalars": (1,),
    }
    assert layout.blocks["targets_body"].channels == {"stress": slice(0, 3)}


def test_pack_puts_every_quantity_in_its_channel():
    a, b, u = (np.arange(6.0).reshape(2, 3) + offset for offset in (0, 10, 20))
    packed = Layout((A, K, B), (U,)).pack([Sample(inputs={"b": b, "k": 5, "a": a}, outputs={"u": u})])
    np.testing.assert_array_equal(packed["fields"], [[a, b]])
    np.testing.assert_array_equal(packed["scalars"], [[5]])
    np.testing.assert_array_equal(packed["targets"], [[u]])
    assert all(array.dtype == np.float32 for array in packed.values())


def test_points_travel_without_padding_and_edges_as_integers():
    one = Sample(
        inputs={"k": 6},
        outputs={"v": [[7.0], [8.0]]},
        geometry={"points": [[0.0, 0.0]], "weights": [2.0], "edges": np.empty((0, 2), int)},
    )
    packed = Layout((K,), (V,)).pack([on_points(), one])
    assert all(isinstance(packed[name], Ragged) for name in ("points", "weights", "edges", "targets"))
    np.testing.assert_array_equal(packed["points"].row(0), POINTS.T.astype(np.float32))
    np.testing.assert_array_equal(packed["edges"].padded(), [EDGES.T, np.zeros((2, 2))])
    np.testing.assert_array_equal(packed["weights"].padded(), [[WEIGHTS], [[2.0, 0, 0]]])
    np.testing.assert_array_equal(packed["targets"].counts, [3, 1])
    assert packed["edges"].dtype == np.int32 and packed["targets"].dtype == np.float32
    np.testing.assert_array_equal(packed["targets"][1:].padded(), [[[7.0], [8.0]]])


def test_what_a_field_holds_outside_a_masked_domain_is_not_looked_at():
    grid = Grid((2, 3), is_masked=True)
    layout = Layout((), (FieldSpec(name="u", on=grid),))
    weights = np.array([[1.0, 0, 2], [1, 1, 0]])
    values = np.where(weights > 0, 3.0, np.nan)
    packed = layout.pack([Sample(inputs={}, outputs={"u": values}, geometry={"weights": weights})])
    np.testing.assert_array_equal(packed["targets"], [[np.where(weights > 0, 3.0, 0.0)]])
    np.testing.assert_array_equal(packed["weights"], [[weights]])


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ((A, A), (U,), "a name occurs twice"),
        ((A,), (), "there must be an output"),
        ((A,), (U, FieldSpec(name="v", on=Grid((3, 2)))), "two geometries have an array targets: tell them apart"),
        ((FieldSpec(name="b", on=Points(3, 2)),), (V,), "two geometries have an array points, weights: tell"),
        ((FieldSpec(name="points"),), (V,), "points names a quantity and an array of a geometry: rename one"),
        ((FieldSpec(name="step"),), (U,), "'step' can't name a quantity"),
        ((FieldSpec(name="pore pressure"),), (U,), "'pore pressure' can't name a quantity"),
    ],
)
def test_layouts_that_cannot_be(inputs, outputs, expected):
    with pytest.raises(ValueError, match=expected):
        Layout(inputs, outputs)


def test_a_domain_has_a_length_along_each_axis_and_one_of_1_where_nothing_is_said():
    assert GRID.extent == (1.0, 1.0)
    assert Grid((2, 3), extent=np.array([1e-3, 40])).extent == (1e-3, 40.0)
    for extent in ((1.0,), (1.0, 2.0, 3.0), (1.0, 0.0), (1.0, -2.0), (1.0, np.nan), (1.0, np.inf), ("a", 1), 2.0):
        with pytest.raises(ValueError, match=r"extent=.* must be .* for each of 2 axes|along each of 2 axes"):
            Grid((2, 3), extent=extent)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "the sample lacks 'a'"),
        ({"a": np.zeros((3, 2))}, r"'a' has shape \(3, 2\)"),
        ({"a": np.full((2, 3), np.nan)}, "'a' holds values that are not finite"),
    ],
)
def test_samples_that_do_not_fit_are_named(values, expected):
    with pytest.raises(ValueError, match=expected):
        Layout((A,), (U,)).pack([Sample(inputs=values, outputs={"u": np.zeros((2, 3))})])


@pytest.mark.parametrize(
    ("geometry", "expected"),
    [
        ({"points": POINTS.T}, r"'points' has shape \(2, 3\): give rows of 2"),
        ({"points": np.zeros((5, 2))}, "'points' holds 5 points, and the geometry's max_points is 4: raise it"),
        ({"points": np.zeros((0, 2))}, "'points' holds 0 points"),
        ({"points": np.add(POINTS, [2.0, 0])}, r"has point 1 at \[3.0, 0.5\], .* from \[-1.0, 0.0\] to \[1.0, 1.0\]"),
        ({"points": np.where(POINTS == 0.5, np.nan, POINTS)}, "'points' is not finite at point 1"),
        ({"weights": WEIGHTS[:2]}, "'weights' are of 2 points, and there are 3"),
        ({"weights": WEIGHTS * [1, 0, 1]}, "'weights' is 0 at point 1: quadrature weights are above 0"),
        ({"edges": np.zeros((4, 2), int)}, "'edges' holds 4 edges, and the geometry's max_edges is 3: raise it"),
        ({"edges": [[1, 0]]}, r"'edges' has \[1, 0\] as edge 0: give each edge once as \(i, j\), i < j < 3"),
        ({"edges": [[0, 1], [1, 3]]}, r"'edges' has \[1, 3\] as edge 1"),
        ({"edges": [[0, 1.5]]}, r"'edges' has \[0.0, 1.5\] as edge 0"),
    ],
)
def test_points_that_are_none_are_named(geometry, expected):
    with pytest.raises(ValueError, match=expected):
        Layout((K,), (V,)).pack([on_points(**geometry)])


def test_masks_that_are_none_are_named():
    layout = Layout((), (FieldSpec(name="u", on=Grid((2, 2), is_masked=True)),))
    for weights, expected in (
        ([[1.0, 1], [1, -1]], r"'weights' is negative at \[1, 1\]"),
        (np.zeros((2, 2)), "'weights' is 0 everywhere"),
        (np.ones(4), r"'weights' has shape \(4,\), and the geometry's is \(2, 2\)"),
    ):
        with pytest.raises(ValueError, match=expected):
            layout.pack([Sample(inputs={}, outputs={"u": np.zeros((2, 2))}, geometry={"weights": weights})])


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([[0, 1, 2], [0, 3, 2]], r"mesh 'body': cell 1, with the points \[0, 3, 2\], is inverted: exchange two"),
        ([[0, 1, 2], [0, 2, 2]], r"mesh 'body': cell 1, with the points \[0, 2, 2\], is degenerate"),
        ([[0, 1, 2], [0, 2, 4]], r"mesh 'body': cell 1 has the points \[0, 2, 4\], and there are 4"),
        ([[0, 1, 2]], "mesh 'body': point 3 belongs to no cell"),
    ],
)
def test_meshes_that_are_none_are_named(cells, expected):
    with pytest.raises(PenstockError, match=expected) as refusal:
        Mesh(4, 2, lambda: (unit_square()[0], np.array(cells)), name="body").arrays  # noqa: B018  built on first use
    assert "\n" not in str(refusal.value)
    with pytest.raises(PenstockError, match=r"gives points \[4, 2\], and the geometry says \[5, 2\]"):
        Mesh(5, 2, unit_square).arrays  # noqa: B018  built on first use
