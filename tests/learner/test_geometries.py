"""Statistics and surrogates on meshes and on points that vary, against NumPy on values without padding."""

import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn

from penstock.geometry import Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.normalization import Normalization, RunningMoments
from penstock.learner.rehearsal.free_samples import free_samples
from penstock.learner.surrogate import Surrogate, geometry_arguments

CLOUD = Points(7, 2, extent=(4.0, 2.0), origin=(-1.0, 3.0), max_edges=5)
MASKED = Grid((3, 4), is_masked=True, extent=(6.0, 2.0), name="sea")
CORNERS = np.array([[1.0, 0], [5, 0], [5, 2], [1, 2]])
BODY = Mesh(4, 2, lambda: (CORNERS, np.array([[0, 1, 2], [0, 2, 3]])), name="body")
ON_POINTS = Layout(
    (FieldSpec(name="a", on=CLOUD), FieldSpec(name="k")),
    (FieldSpec(name="u", on=CLOUD, components=2), FieldSpec(name="drag"), FieldSpec(name="p", on=CLOUD)),
)


# Statistics


def ragged_rows(count, seed=0):
    """Values [2, n] and weights [n] of samples of 1 to 7 points."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 8, count)
    return [(random.normal(3, 2, size=(2, n)), random.uniform(0.1, 2, n)) for n in sizes]


def in_arrays(rows, garbage=0.0, length=7):
    values = np.full((len(rows), 2, length), garbage)
    weights = np.zeros((len(rows), 1, length))
    for row, (value, weight) in enumerate(rows):
        values[row, :, : len(weight)] = value
        weights[row, 0, : len(weight)] = weight
    return values, weights


def numpy_statistics(rows):
    """Each sample counts as much as any other, its points by their weights."""
    values = np.concatenate([value for value, _ in rows], axis=1)
    shares = np.concatenate([weight / weight.sum() for _, weight in rows]) / len(rows)
    mean = values @ shares
    return mean, np.sqrt((values - mean[:, None]) ** 2 @ shares)


def moments_of(values, weights, cuts, steps=None, num_steps=1):
    moments = RunningMoments(num_steps)
    for start, end in itertools.pairwise([0, *cuts, len(values)]):
        part = slice(start, end)
        own = weights if weights.ndim == 1 else weights[part]
        moments.update({"u": values[part]}, None if steps is None else steps[part], {"u": own})
    return moments


@pytest.mark.parametrize("garbage", [0.0, 1e9])
@pytest.mark.parametrize("cuts", [(), (1, 2, 20), (13,)])
def test_moments_of_points_are_numpys_over_the_values_without_padding(cuts, garbage):
    rows = ragged_rows(30)
    moments = moments_of(*in_arrays(rows, garbage), cuts)
    mean, std = numpy_statistics(rows)
    # what lies beside the points is no more than the origin that the sums are taken from
    np.testing.assert_allclose(moments.mean["u"], mean, rtol=1e-12 if garbage == 0 else 1e-6)
    np.testing.assert_allclose(moments.std["u"], std, rtol=1e-12 if garbage == 0 else 1e-6)


def test_moments_of_points_step_by_step_go_through_json():
    rows, steps = ragged_rows(30), np.random.default_rng(1).permutation(np.repeat([0, 1, 3], 10))
    values, weights = in_arrays(rows)
    first = moments_of(values[:11], weights[:11], (5,), steps[:11], num_steps=4)
    second = RunningMoments(4)
    second.load_state(json.loads(json.dumps(first.state())))
    second.update({"u": values[11:]}, steps[11:], {"u": weights[11:]})
    for of_steps in (slice(0, 1), slice(3, 4), slice(0, 2), slice(None)):
        expected = numpy_statistics([rows[i] for i in np.flatnonzero(np.isin(steps, np.arange(4)[of_steps]))])
        np.testing.assert_allclose(second.over("u", of_steps), expected, rtol=1e-12)


def test_a_mesh_of_points_that_lie_twice_with_half_the_weight_has_the_same_statistics():
    random = np.random.default_rng(0)
    values, weights = random.normal(5, 1, size=(20, 3, 6)), random.uniform(0.1, 1, 6)
    once = moments_of(values, weights, (7,))
    twice = moments_of(np.repeat(values, 2, axis=2), np.repeat(weights, 2) / 2, (12,))
    share = weights / weights.sum() / 20
    mean = np.einsum("ncp,p->c", values, share)
    std = np.sqrt(np.einsum("ncp,p->c", (values - mean[:, None]) ** 2, share))
    for moments in (once, twice):
        np.testing.assert_allclose(moments.mean["u"], mean, rtol=1e-12)
        np.testing.assert_allclose(moments.std["u"], std, rtol=1e-12)


def test_moments_on_a_masked_grid_are_those_inside_each_samples_domain():
    random = np.random.default_rng(0)
    weights = random.uniform(0.1, 1, (15, 1, 3, 4)) * (random.random((15, 1, 3, 4)) < 0.6)
    weights[:, 0, 0, 0] = 1
    values = np.where(weights > 0, random.normal(5, 2, (15, 2, 3, 4)), 0)
    moments = moments_of(values, weights, (4, 5))
    inside = [
        (value[:, weight[0] > 0], weight[0][weight[0] > 0]) for value, weight in zip(values, weights, strict=True)
    ]
    for found, expected in zip((moments.mean["u"], moments.std["u"]), numpy_statistics(inside), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_equal_weights_are_as_none():
    values = np.random.default_rng(0).normal(1e3, 1, size=(12, 2, 5, 4))
    plain, weighted = RunningMoments(), moments_of(values, np.full((12, 1, 5, 4), 0.3), (5,))
    plain.update({"u": values})
    np.testing.assert_allclose(weighted.mean["u"], plain.mean["u"], rtol=1e-14)
    np.testing.assert_allclose(weighted.std["u"], plain.std["u"], rtol=1e-10)


# Surrogates


class Notes(nn.Module):
    """Keeps what it is called with; half of it, as far as outputs go."""

    def forward(self, fields, scalars, points, weights, edges):
        self.given = {"points": points, "weights": weights, "edges": edges}
        return {"targets": fields.expand(-1, 3, -1) / 2, "target_scalars": scalars / 2}


def batch(num=3):
    arrays = free_samples(ON_POINTS, num, torch.device("cpu"))
    padding = arrays["weights"] == 0
    return arrays | {name: arrays[name].masked_fill(padding, 0.0) for name in ("fields", "targets")}


def surrogate_of(model, layout):
    random = torch.Generator().manual_seed(0)
    blocks = (*layout.input_blocks, *layout.output_blocks)
    mean, std = ({b.name: 1 + torch.rand(b.shape[0], generator=random) for b in blocks} for _ in range(2))
    return Surrogate(model, Normalization(mean, std), layout)


def test_a_model_sees_points_in_the_unit_of_the_boxs_longest_edge():
    arrays, model = batch(), Notes()
    surrogate_of(model, ON_POINTS).predict(arrays)
    points = (arrays["points"].numpy() - np.array([[-1.0], [3.0]])) / 4
    np.testing.assert_allclose(model.given["points"], points.transpose(0, 2, 1), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(model.given["weights"], arrays["weights"].numpy()[:, 0] / 16, rtol=1e-6)
    assert torch.equal(model.given["edges"], arrays["edges"].long().transpose(1, 2))
    assert model.given["edges"].dtype == torch.int64


def test_outputs_by_name_are_those_by_array_and_so_are_losses_inputs():
    arrays, surrogate = batch(), surrogate_of(Notes(), ON_POINTS)
    inputs = {"a": arrays["fields"][:, 0], "k": arrays["scalars"][:, 0]}
    inputs |= {"points": arrays["points"].mT, "weights": arrays["weights"][:, 0], "edges": arrays["edges"].mT}
    outputs, predicted = surrogate(**inputs), surrogate.predict(arrays)
    assert {name: tuple(array.shape) for name, array in outputs.items()} == {"u": (3, 2, 7), "p": (3, 7), "drag": (3,)}
    assert torch.equal(torch.cat([outputs["u"], outputs["p"][:, None]], 1), predicted["targets"])
    assert torch.equal(outputs["drag"][:, None], predicted["target_scalars"])
    mean, std = (surrogate.normalization.get_buffer(f"target_scalars_{of}") for of in ("mean", "std"))
    encoded = surrogate.normalization.encode("scalars", arrays["scalars"]) / 2
    torch.testing.assert_close(predicted["target_scalars"], encoded * std + mean)
    in_stds = surrogate.predict_in_stds(arrays)["targets"]
    torch.testing.assert_close(in_stds * surrogate.normalization.targets_std[:, None], predicted["targets"])


class OnMesh(nn.Module):
    def forward(self, scalars, points, weights):
        self.given = points, weights
        return (scalars * weights)[:, None]


def test_a_mesh_is_the_models_constant_and_in_no_checkpoint():
    layout = Layout((FieldSpec(name="k"),), (FieldSpec(name="u", on=BODY),))
    model = OnMesh()
    surrogate = surrogate_of(model, layout)
    outputs = surrogate(k=torch.rand(3))
    assert outputs["u"].shape == (3, 4)
    points, weights = model.given
    np.testing.assert_allclose(points, np.tile((CORNERS - [1, 0]) / 4, (3, 1, 1)), rtol=1e-6)
    np.testing.assert_allclose(weights, np.tile(np.array([8, 4, 8, 4]) / 3 / 16, (3, 1)), rtol=1e-6)
    assert not any("points" in name or "weights" in name for name in surrogate.state_dict())
    assert all(buffer.device.type == "meta" for buffer in surrogate.to("meta").buffers())


class OnMask(nn.Module):
    def forward(self, weights):
        self.given = weights
        return weights[:, None]


def test_a_mask_is_seen_in_the_unit_of_the_domains_longest_edge():
    layout = Layout((), (FieldSpec(name="depth", on=MASKED),))
    model = OnMask()
    weights = torch.rand(2, 1, 3, 4)
    assert surrogate_of(model, layout).predict({"sea_weights": weights})["targets"].shape == (2, 1, 3, 4)
    torch.testing.assert_close(model.given, weights[:, 0] / 36)


class Whole(nn.Module):
    """Adds to each value the sum of all, and depends on no weights."""

    def forward(self, fields):
        return (fields + fields.flatten(2).sum(dim=2)[:, :, None, None]).sum(dim=1, keepdim=True)


def test_what_fields_hold_outside_a_mask_counts_nowhere_and_outputs_are_0_there():
    layout = Layout((FieldSpec(name="a", on=MASKED, components=2),), (FieldSpec(name="depth", on=MASKED),))
    surrogate = surrogate_of(Whole(), layout)
    random = np.random.default_rng(0)
    is_inside = random.random((5, 3, 4)) < 0.6
    a, weights = random.normal(300, 1, (5, 2, 3, 4)), np.where(is_inside, random.uniform(0.1, 1, (5, 3, 4)), 0)
    a[~np.broadcast_to(is_inside[:, None], a.shape)] = np.nan
    arrays = {"a": torch.tensor(a, dtype=torch.float32), "sea_weights": torch.tensor(weights, dtype=torch.float32)}
    outputs = surrogate(**arrays)["depth"].numpy()
    (of_a, of_depth) = (
        [surrogate.normalization.get_buffer(f"{name}_{of}").double().numpy() for of in ("mean", "std")]
        for name in ("fields", "targets")
    )
    for row, inside in enumerate(is_inside):
        seen = (a[row][:, inside] - of_a[0][:, None]) / of_a[1][:, None]
        expected = (seen.sum(axis=0) + seen.sum()) * of_depth[1] + of_depth[0]
        np.testing.assert_allclose(outputs[row][inside], expected, rtol=1e-4)
    assert (outputs[~is_inside] == 0).all() and (outputs[is_inside] != 0).all()


def test_outputs_at_padding_are_0():
    arrays = batch(20)
    outputs = surrogate_of(Notes(), ON_POINTS).predict(arrays)["targets"]
    is_there = (arrays["weights"] > 0).expand_as(outputs)
    assert not is_there.all() and (outputs[is_there] != 0).all() and not outputs[~is_there].any()


def test_a_model_gets_what_its_forward_names_of_the_geometries():
    class Any(nn.Module):
        def forward(self, **arrays):
            return arrays

    class Plain(nn.Module):
        def forward(self, fields, scalars, weights):
            return fields

    layout = Layout((FieldSpec(name="b", on=BODY), *ON_POINTS.inputs[:1]), (FieldSpec(name="depth", on=MASKED),))
    every = {"points", "weights", "edges", "body_points", "body_weights", "sea_weights"}
    assert geometry_arguments(Any(), layout) == every
    assert geometry_arguments(Plain(), layout) == {"weights"}
    assert geometry_arguments(OnMesh(), layout) == {"points", "weights"}  # of the one without a name
    assert geometry_arguments(OnMesh(), Layout((), (FieldSpec(name="u", on=BODY),))) == {"points", "weights"}
    assert geometry_arguments(Plain(), Layout((), (FieldSpec(name="u", on=Grid((3,))),))) == set()


@pytest.mark.gpu
def test_a_forward_pass_on_points_never_waits_for_the_gpu():
    surrogate = surrogate_of(Notes(), ON_POINTS).cuda()
    arrays = {name: array.cuda() for name, array in batch().items()}
    expected = surrogate.predict(arrays)
    torch.cuda.set_sync_debug_mode("error")
    try:
        outputs = surrogate.predict(arrays)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(outputs[name], expected[name]) for name in expected)


# Samples that a model is tried with


@pytest.mark.parametrize("num", [1, 2, 20])
def test_free_samples_are_valid_and_the_same_each_time(num):
    """As `pack` would have made them of real ones: unpadded and packed again they are the same."""
    inputs = (*ON_POINTS.inputs, FieldSpec(name="b", on=BODY))
    layout = Layout(inputs, (*ON_POINTS.outputs, FieldSpec(name="depth", on=MASKED)))
    arrays = free_samples(layout, num, torch.device("cpu"))
    again = free_samples(layout, num, torch.device("cpu"))
    assert {name: tuple(array.shape[1:]) for name, array in arrays.items()} == layout.shapes
    assert all(torch.equal(array, again[name]) for name, array in arrays.items())
    counts = np.count_nonzero(arrays["weights"][:, 0], axis=1)
    assert counts[0] == 7 and counts.min() >= 5
    for row, count in enumerate(counts):
        points, weights, edges = (arrays[name][row].numpy() for name in ("points", "weights", "edges"))
        assert (weights[0, :count] > 0).all() and not weights[0, count:].any() and not points[:, count:].any()
        assert (points[:, :count] >= [[-1], [3]]).all() and (points[:, :count] <= [[3], [5]]).all()
        assert ((edges[0] >= 0) & (edges[0] < edges[1]) & (edges[1] < count)).all()
        assert (arrays["sea_weights"][row] >= 0).all() and arrays["sea_weights"][row].any()
    assert arrays["edges"].dtype == torch.int32
