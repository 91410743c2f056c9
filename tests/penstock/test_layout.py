"""Layouts, and values that packing refuses."""

import numpy as np
import pytest

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout, Sample

A = FieldSpec(name="a", on=Grid((2, 3)))
B = FieldSpec(name="b", on=Grid((2, 3)))
K = FieldSpec(name="k")
U = FieldSpec(name="u", on=Grid((2, 3)))


def test_layout_groups_fields_scalars_and_targets():
    layout = Layout((A, K, B), (U,))
    assert layout.shapes == {"fields": (2, 2, 3), "scalars": (1,), "targets": (1, 2, 3)}
    assert layout.sample_bytes == 4 * (12 + 1 + 6)
    assert "scalars" not in Layout((A,), (U,)).shapes  # an array that a problem lacks is absent


def test_pack_puts_every_quantity_in_its_channel():
    a, b, u = (np.arange(6.0).reshape(2, 3) + offset for offset in (0, 10, 20))
    packed = Layout((A, K, B), (U,)).pack([Sample(inputs={"b": b, "k": 5, "a": a}, outputs={"u": u})])
    np.testing.assert_array_equal(packed["fields"], [[a, b]])
    np.testing.assert_array_equal(packed["scalars"], [[5]])
    np.testing.assert_array_equal(packed["targets"], [[u]])
    assert all(array.dtype == np.float32 for array in packed.values())


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ((A, A), (U,), "a name occurs twice"),
        ((A,), (), "every output must be a field"),
        ((A,), (FieldSpec(name="u"),), "every output must be a field"),
        ((A,), (FieldSpec(name="u", on=Grid((3, 2))),), "one grid"),
        (
            (A,),
            (FieldSpec(name="u", on=Grid((2, 3), extent=(1, 2)), extent=(1, 2)),),
            "one grid: one shape and one extent",
        ),
        ((FieldSpec(name="step"),), (U,), "'step' can't name a quantity"),
        ((FieldSpec(name="pore pressure"),), (U,), "'pore pressure' can't name a quantity"),
    ],
)
def test_layouts_that_cannot_be(inputs, outputs, expected):
    with pytest.raises(ValueError, match=expected):
        Layout(inputs, outputs)


def test_a_domain_has_a_length_along_each_axis_and_one_of_1_where_nothing_is_said():
    assert (A.extent, K.extent) == ((1.0, 1.0), ())
    assert FieldSpec(name="a", on=Grid((2, 3), extent=np.array([1e-3, 40])), extent=np.array([1e-3, 40])).extent == (
        1e-3,
        40.0,
    )
    for extent in ((1.0,), (1.0, 2.0, 3.0), (1.0, 0.0), (1.0, -2.0), (1.0, np.nan), (1.0, np.inf), ("a", 1), 2.0):
        with pytest.raises(ValueError, match=r"'a': extent=.* must be the domain's lengths along each of 2 axes"):
            FieldSpec(name="a", on=Grid((2, 3), extent=extent), extent=extent)
    with pytest.raises(ValueError, match="each of 0 axes"):
        FieldSpec(name="k", extent=(1.0,))


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
