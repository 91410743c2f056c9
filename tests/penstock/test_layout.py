"""Layouts: what is packed where, on all geometries, and what is refused."""

import numpy as np
import pytest

from penstock.arrays.ragged import Ragged
from penstock.errors import Refused
from penstock.geometry import Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout, Sample

A = FieldSpec(name="a", on=Grid((2, 3)))
B = FieldSpec(name="b", on=Grid((2, 3)))
K = FieldSpec(name="k")
U = FieldSpec(name="u", on=Grid((2, 3)))

TRIANGLE = Mesh(3, 2, lambda: (np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([[0, 1, 2]])))
CLOUD = Points(5, 2, extent=(2.0, 2.0), max_edges=4)
CLOUD_LAYOUT = Layout((FieldSpec(name="a", on=CLOUD), K), (FieldSpec(name="u", on=CLOUD, components=2),))


def cloud(num_points, **geometry):
    """A sample of points on a line, each joined to the next.

    Arrays of the geometry may be given otherwise.
    """
    numbers = np.arange(num_points)
    usual = {
        "points": np.stack([numbers / 4, 1 - numbers / 4], axis=1),
        "weights": 1.0 + numbers,
        "edges": np.stack([numbers[:-1], numbers[1:]], axis=1),
    }
    return Sample(
        inputs={"a": 10.0 + numbers, "k": 7.0},
        outputs={"u": np.stack([20.0 + numbers, 30.0 + numbers])},
        geometry=usual | geometry,
    )


def pack(layout, **sample):
    return layout.pack([Sample(**{"inputs": {}, "outputs": {}} | sample)])


def test_layout_groups_fields_scalars_and_targets():
    layout = Layout((A, K, B), (U,))
    assert layout.shapes == {"fields": (2, 2, 3), "scalars": (1,), "targets": (1, 2, 3)}
    assert layout.sample_bytes == 4 * (12 + 1 + 6)
    assert "scalars" not in Layout((A,), (U,)).shapes  # an array that a problem lacks is absent


def test_pack_puts_every_quantity_in_its_channel():
    a, b, u = (np.arange(6.0).reshape(2, 3) + offset for offset in (0, 10, 20))
    packed = pack(Layout((A, K, B), (U,)), inputs={"b": b, "k": 5, "a": a}, outputs={"u": u})
    np.testing.assert_array_equal(packed["fields"], [[a, b]])
    np.testing.assert_array_equal(packed["scalars"], [[5]])
    np.testing.assert_array_equal(packed["targets"], [[u]])
    assert all(array.dtype == np.float32 for array in packed.values())


def test_outputs_may_be_scalars_and_quantities_have_components():
    velocity = FieldSpec(name="v", on=Grid((2, 3)), components=2)
    layout = Layout((A, velocity, B), (FieldSpec(name="lift"), FieldSpec(name="force", components=3)))
    assert layout.shapes == {"fields": (4, 2, 3), "target_scalars": (4,)}
    assert layout.blocks["fields"].channels == {"a": 0, "v": slice(1, 3), "b": 3}
    assert layout.blocks["fields"].channel_names == ("a", "v[0]", "v[1]", "b")
    a, v, b = (np.arange(6.0 * n).reshape(*shape, 2, 3) for n, shape in ((1, ()), (2, (2,)), (1, ())))
    packed = pack(layout, inputs={"a": a, "v": 10 + v, "b": 50 + b}, outputs={"lift": 1.5, "force": [2, 3, 4]})
    np.testing.assert_array_equal(packed["fields"], [np.concatenate([[a], 10 + v, [50 + b]])])
    np.testing.assert_array_equal(packed["target_scalars"], [[1.5, 2, 3, 4]])
    with pytest.raises(Refused, match=r"'force' has shape \(2,\), its FieldSpec says \(3,\)"):
        pack(layout, inputs={"a": a, "v": v, "b": b}, outputs={"lift": 1.5, "force": [2, 3]})
    turned = np.moveaxis(v, 0, -1)
    with pytest.raises(Refused, match=r"^'v' has shape \(2, 3, 2\), .* says \(2, 2, 3\): components come first$"):
        pack(layout, inputs={"a": a, "v": turned, "b": b}, outputs={"lift": 1.5, "force": [2, 3, 4]})


def test_fields_on_a_mesh_share_its_weights():
    layout = Layout((FieldSpec(name="a", on=TRIANGLE), K), (FieldSpec(name="u", on=TRIANGLE),))
    packed = pack(layout, inputs={"a": [1.0, 2.0, 3.0], "k": 1.0}, outputs={"u": np.zeros(3)})
    assert {name: array.shape for name, array in packed.items()} == {
        "fields": (1, 1, 3),
        "scalars": (1, 1),
        "targets": (1, 1, 3),
    }
    np.testing.assert_allclose(layout.weights_of(layout.blocks["targets"], packed), 1 / 6)
    assert layout.weights_of(layout.blocks["scalars"], packed) is None
    assert Layout((A,), (U,)).weights_of(Layout((A,), (U,)).blocks["fields"], {}) is None


def test_points_come_back_as_they_were_given():
    samples = [cloud(3), cloud(5), cloud(1)]
    packed = CLOUD_LAYOUT.pack(samples)
    assert list(packed) == list(CLOUD_LAYOUT.shapes) == ["fields", "scalars", "points", "weights", "edges", "targets"]
    assert CLOUD_LAYOUT.shapes["points"] == (2, 5) and CLOUD_LAYOUT.shapes["edges"] == (2, 4)
    for number, sample in enumerate(samples):
        np.testing.assert_array_equal(packed["points"].row(number).T, sample.geometry["points"])
        np.testing.assert_array_equal(packed["weights"].row(number), [sample.geometry["weights"]])
        np.testing.assert_array_equal(packed["edges"].row(number).T, sample.geometry["edges"])
        np.testing.assert_array_equal(packed["fields"].row(number), [sample.inputs["a"]])
        np.testing.assert_array_equal(packed["targets"].row(number), sample.outputs["u"])
    assert packed["edges"].dtype == np.int32 and packed["scalars"].shape == (3, 1)
    np.testing.assert_array_equal(packed["edges"].counts, [2, 4, 0])
    assert CLOUD_LAYOUT.weights_of(CLOUD_LAYOUT.blocks["fields"], packed) is packed["weights"]


def test_no_samples_have_the_kinds_of_arrays_that_samples_have():
    empty, packed = CLOUD_LAYOUT.empty(), CLOUD_LAYOUT.pack([cloud(3)])
    assert list(empty) == list(packed)
    for name, array in empty.items():
        assert (type(array), array.dtype, len(array)) == (type(packed[name]), packed[name].dtype, 0)
    assert CLOUD_LAYOUT.sample_bytes == 4 * (5 + 1 + 10 + 5 + 8 + 10)


@pytest.mark.parametrize(
    ("geometry", "expected"),
    [
        ({"points": np.zeros((3, 3))}, r"'points' has shape \(3, 3\): give rows of 2"),
        ({"points": np.zeros(6)}, r"'points' has shape \(6,\): give rows of 2"),
        ({"points": np.zeros((0, 2))}, "'points' holds 0 points"),
        ({"points": [[0, 0], [1, np.nan], [0, 1]]}, "'points' is not finite at point 1"),
        ({"points": [[0, 0], [1, 1e300], [0, 1]]}, "'points' reaches 1e[+]300, beyond float32's"),
        ({"points": 1e9 + np.eye(3)[:, :2]}, r"'points' varies by .* where float32 has steps of 64"),
        (
            {"points": [[0, 0], [1, 2.1], [0, 1]]},
            r"point 1 at .*, and the box that .* to \[2.0, 2.0\]: give its origin",
        ),
        ({"points": None}, "'points' is None"),
        ({"weights": np.ones(4)}, "'weights' are of 4 points, and there are 3"),
        ({"weights": np.ones((3, 1))}, r"'weights' has shape \(3, 1\): give one number per point"),
        ({"weights": [1, 0, 2]}, "'weights' is 0 at point 1: quadrature weights are above 0"),
        ({"weights": [1, 1, -2]}, "'weights' is -2 at point 2"),
        ({"weights": [1, np.inf, 2]}, "'weights' is not finite at point 1"),
        ({"weights": [1, 1e-60, 2]}, "'weights' is 0 at point 1"),
        ({"edges": [[0, 1], [1, 3]]}, r"'edges' has \[1, 3\] as edge 1: give each edge once as \(i, j\), i < j < 3"),
        ({"edges": [[1, 0]]}, r"'edges' has \[1, 0\] as edge 0"),
        ({"edges": [[1, 1]]}, r"'edges' has \[1, 1\] as edge 0"),
        ({"edges": [[-1, 1]]}, r"'edges' has \[-1, 1\] as edge 0"),
        ({"edges": [[0, 1], [0.5, 2]]}, r"'edges' has \[0.5, 2.0\] as edge 1: give each edge once as"),
        ({"edges": [[0, 2**32 + 1]]}, r"'edges' has \[0, 4294967297\] as edge 0"),
        ({"edges": [[0, 1, 2]]}, r"'edges' has shape \(1, 3\): give rows of 2"),
        ({"edges": [[0, 1]] * 5}, "'edges' holds 5 edges, and the geometry's max_edges is 4"),
    ],
)
def test_points_that_are_none_are_named(geometry, expected):
    with pytest.raises(Refused, match=expected):
        CLOUD_LAYOUT.pack([cloud(3, **geometry)])


def test_more_points_than_there_may_be_are_refused():
    with pytest.raises(Refused, match="'points' holds 6 points, and the geometry's max_points is 5: raise it"):
        CLOUD_LAYOUT.pack([cloud(6)])


def test_a_field_has_a_value_at_every_point():
    sample = cloud(3)
    with pytest.raises(Refused, match=r"'a' has shape \(2,\), its FieldSpec says \(3,\)"):
        CLOUD_LAYOUT.pack([Sample(inputs={"a": [1, 2], "k": 0}, outputs=sample.outputs, geometry=sample.geometry)])
    with pytest.raises(Refused, match="the sample's geometry lacks 'points'"):
        CLOUD_LAYOUT.pack([Sample(inputs=sample.inputs, outputs=sample.outputs)])


def test_a_mask_takes_away_what_is_outside():
    grid = Grid((2, 3), is_masked=True)
    layout = Layout((FieldSpec(name="a", on=grid),), (FieldSpec(name="v", on=grid, components=2),))
    weights = np.array([[0.0, 1.0, 2.0], [0.5, 0.0, 1.0]])
    a = np.where(weights == 0, np.nan, 5.0)
    packed = pack(layout, inputs={"a": a}, outputs={"v": [a, -a]}, geometry={"weights": weights})
    inside = np.where(weights == 0, 0, 5)
    np.testing.assert_array_equal(packed["fields"], [[inside]])
    np.testing.assert_array_equal(packed["targets"], [[inside, -inside]])
    np.testing.assert_array_equal(layout.weights_of(layout.blocks["targets"], packed), [[weights]])
    for wrong, expected in (
        (-weights, r"'weights' is negative at \[0, 1\]"),
        (0 * weights, "'weights' is 0 everywhere"),
        (weights.T, r"'weights' has shape \(3, 2\), and the geometry's is \(2, 3\)"),
    ):
        with pytest.raises(Refused, match=expected):
            pack(layout, inputs={"a": a}, outputs={"v": [a, a]}, geometry={"weights": wrong})


def test_time_is_an_input_by_its_name():
    layout = Layout((K, FieldSpec(name="time")), (U,))
    u = np.zeros((2, 3))
    assert pack(layout, inputs={"k": 1}, outputs={"u": u}, time=0.25)["scalars"].tolist() == [[1, 0.25]]
    assert pack(layout, inputs={"k": 1, "time": 3}, outputs={"u": u})["scalars"].tolist() == [[1, 3]]
    assert pack(Layout((K,), (U,)), inputs={"k": 1}, outputs={"u": u}, time=0.25)["scalars"].tolist() == [[1]]
    with pytest.raises(Refused, match="the sample lacks 'time'"):
        pack(layout, inputs={"k": 1}, outputs={"u": u})


def test_arrays_of_two_geometries_carry_the_second_ones_name():
    wall = Points(4, 2, name="wall")
    layout = Layout(
        (FieldSpec(name="a", on=CLOUD), FieldSpec(name="g", on=wall), FieldSpec(name="h", on=wall)),
        (FieldSpec(name="u", on=CLOUD),),
    )
    assert layout.geometries == (CLOUD, wall)
    assert list(layout.blocks) == [
        "fields",
        "fields_wall",
        "points",
        "weights",
        "edges",
        "wall_points",
        "wall_weights",
        "targets",
    ]
    sample = cloud(3)
    packed = pack(
        layout,
        inputs={"a": sample.inputs["a"], "g": [1.0, 2.0], "h": [3.0, 4.0]},
        outputs={"u": np.zeros(3)},
        geometry=sample.geometry | {"wall_points": np.eye(2), "wall_weights": [1, 1]},
    )
    np.testing.assert_array_equal(packed["fields_wall"].padded(), [[[1, 2], [3, 4]]])
    assert layout.weights_of(layout.blocks["fields_wall"], packed) is packed["wall_weights"]
    assert isinstance(packed["wall_points"], Ragged)


def test_from_a_grid_to_another_needs_no_names():
    """One of each role: the arrays are told apart by that."""
    layout = Layout((A,), (FieldSpec(name="u", on=TRIANGLE),))
    assert layout.shapes == {"fields": (1, 2, 3), "targets": (1, 3)}
    assert layout.geometries == (TRIANGLE, Grid((2, 3)))


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ((A, K), (U, A), "'a' occurs twice among the FieldSpecs"),
        ((A,), (), "there must be an output"),
        (A, (U,), r"inputs must be a tuple of FieldSpecs: \(FieldSpec\(...\), \), with the comma"),
        ((A, FieldSpec(name="c", on=Grid((3, 2)))), (U,), "two geometries have an array fields: tell them apart"),
        (
            (FieldSpec(name="a", on=Points(5, 2)),),
            (FieldSpec(name="u", on=Points(6, 2)),),
            "two geometries have an array points, weights",
        ),
        ((FieldSpec(name="points"),), (FieldSpec(name="u", on=CLOUD),), "points names a quantity and an array"),
        ((FieldSpec(name="step"),), (U,), "'step' can't name a quantity"),
        ((FieldSpec(name="pore pressure"),), (U,), "'pore pressure' can't name a quantity"),
    ],
)
def test_layouts_that_cannot_be(inputs, outputs, expected):
    with pytest.raises(ValueError, match=expected):
        Layout(inputs, outputs)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"on": (2, 3)}, r"'a': on=\(2, 3\) must be a Grid, a Mesh or Points, or None"),
        ({"components": 0}, "'a': components=0 must be a whole number from 1 on"),
        ({"components": 1.5}, "'a': components=1.5"),
        ({"unit": 1}, "'a': unit=1 must be text"),
    ],
)
def test_specs_that_cannot_be(arguments, expected):
    with pytest.raises(ValueError, match=expected):
        FieldSpec(name="a", **arguments)


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


@pytest.mark.parametrize("step", [-1, 0.5, None, 2**63])
def test_steps_are_counted(step):
    with pytest.raises(ValueError, match="must be an integer from 0 on"):
        Sample(inputs={}, outputs={}, step=step)


def test_two_geometries_of_one_name_are_refused_and_two_plain_grids_are_not():
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    again = Mesh(3, 2, lambda: (corners, np.array([[0, 1, 2]])))
    for first, second in ((TRIANGLE, again), (TRIANGLE, CLOUD), (CLOUD, TRIANGLE)):
        with pytest.raises(ValueError, match="two geometries have the same name, or none: tell them apart"):
            Layout((FieldSpec(name="a", on=first),), (FieldSpec(name="u", on=second),))
    layout = Layout((FieldSpec(name="a", on=Grid((2, 3))),), (FieldSpec(name="u", on=Grid((4, 6))),))
    assert layout.shapes == {"fields": (1, 2, 3), "targets": (1, 4, 6)}


def test_what_a_sample_brings_along_unasked_is_refused():
    with pytest.raises(Refused, match=r"the sample's geometry has \['cells'\], .* take points, weights, edges"):
        CLOUD_LAYOUT.pack([cloud(3, cells=np.zeros((1, 3)))])
    with pytest.raises(Refused, match=r"has \['weights'\], and its fields' geometries take none"):
        pack(Layout((), (U,)), outputs={"u": np.ones((2, 3))}, geometry={"weights": np.ones((2, 3))})
    with pytest.raises(ValueError, match="geometry=NoneType must be a dict of arrays by name"):
        Sample(inputs={}, outputs={}, geometry=None)
    with pytest.raises(Refused, match="the sample lacks 'k', and has 'K', which no FieldSpec names"):
        pack(Layout((K,), (U,)), inputs={"K": 1.0}, outputs={"u": np.ones((2, 3))})
    with pytest.raises(Refused, match="the sample has 'c', 'v', which no FieldSpec names"):
        pack(Layout((K,), (U,)), inputs={"k": 1.0, "c": 1.0}, outputs={"u": np.ones((2, 3)), "v": 0.0})


def test_an_edge_that_comes_twice_is_refused_by_its_ends():
    with pytest.raises(Refused, match=r"'edges' has \[0, 1\] more than once"):
        CLOUD_LAYOUT.pack([cloud(3, edges=np.array([[0, 1], [1, 2], [0, 1]]))])


def test_variation_inside_a_mask_must_be_kept():
    """Zeros outside would hide that float32 loses it."""
    masked = Layout((), (FieldSpec(name="u", on=Grid((8, 8), is_masked=True)),))
    mask = np.ones((8, 8))
    mask[0] = 0
    values = 1e6 + 0.01 * np.random.default_rng(0).normal(size=(8, 8))
    with pytest.raises(Refused, match=r"'u' varies by .* where float32 has steps"):
        pack(masked, outputs={"u": values}, geometry={"weights": mask})


def test_a_value_that_is_not_finite_is_named_with_its_place():
    values = np.ones((2, 3))
    values[1, 2] = np.nan
    with pytest.raises(Refused, match=r"'u' holds values that are not finite: 1 of 6, first at \[1, 2\]"):
        pack(Layout((), (U,)), outputs={"u": values})


def test_derivatives_along_tangents_are_outputs_that_the_network_does_not_predict():
    layout = Layout((A, K), (U, U.derivative("p"), U.derivative("q")), tangents=(A.derivative("p"), K.derivative("p")))
    assert [spec.name for spec in layout.derivatives] == ["u_by_p"]  # by q there is no tangent: it is predicted
    assert layout.of_model == Layout((A, K), (U, U.derivative("q")))
    shapes = {
        "fields": (1, 2, 3),
        "scalars": (1,),
        "targets": (3, 2, 3),
        "tangents": (1, 2, 3),
        "scalar_tangents": (1,),
    }
    assert layout.shapes == shapes and [block.role for block in layout.tangent_blocks] == ["tangent"] * 2
    a, a_by_p, u, *others = np.arange(30.0).reshape(5, 2, 3)
    inputs = {"a": a, "k": 5, "a_by_p": a_by_p, "k_by_p": 6}
    packed = pack(layout, inputs=inputs, outputs={"u": u, "u_by_p": others[0], "u_by_q": others[1]})
    np.testing.assert_array_equal(packed["tangents"], [[a_by_p]])
    np.testing.assert_array_equal(packed["scalar_tangents"], [[6]])
    np.testing.assert_array_equal(packed["targets"], [[u, *others]])
    plain = Layout((A,), (U, U.derivative("p")))
    assert plain.of_model is plain and plain.derivatives == ()


@pytest.mark.parametrize("tangent", [B.derivative("p"), U.derivative("p"), FieldSpec(name="a_by_p", on=A.on)])
def test_tangents_are_derivatives_of_inputs(tangent):
    with pytest.raises(ValueError, match=f"{tangent.name!r} must be the derivative of a quantity beside it"):
        Layout((A, K), (U,), tangents=(tangent,))
