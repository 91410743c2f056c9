"""Validation on meshes, on points that vary and of scalars, against NumPy on values without padding."""

import numpy as np
import pytest
import torch
from torch import nn

from penstock.geometry import Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.normalization import Normalization
from penstock.learner.surrogate import Surrogate
from penstock.learner.validation.validation import Validation
from tests.support.statistics import statistics

CLOUD = Points(20, 2)
STDS = np.array([1.0, 10.0, 1000.0])
ON_POINTS = Layout(
    (FieldSpec(name="a", on=CLOUD, components=3),),
    (FieldSpec(name="u", on=CLOUD, components=2), FieldSpec(name="p", on=CLOUD)),
)


class Twice(nn.Module):
    """Of each input array, in the outputs' order."""

    def __init__(self, layout):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))
        self.pairs = list(zip(layout.output_blocks, layout.input_blocks, strict=True))

    def forward(self, **arrays):
        return {output.name: self.factor * arrays[given.name] for output, given in self.pairs}


def surrogate_of(layout, stds):
    """Inputs are as they come; outputs have these deviations."""
    ones = {block.name: torch.ones(block.shape[0]) for block in layout.input_blocks}
    std = ones | {name: torch.tensor(values, dtype=torch.float32) for name, values in stds.items()}
    return Surrogate(Twice(layout), Normalization({name: torch.zeros_like(v) for name, v in std.items()}, std), layout)


def noisy(random, shape):
    """Inputs, and what is about twice of them, by channels of different sizes."""
    given = random.normal(size=shape)
    noise = random.uniform(0.05, 0.2, size=(shape[0], *[1] * (len(shape) - 1))) * random.normal(size=shape)
    return given, STDS[: shape[1]].reshape(-1, *[1] * (len(shape) - 2)) * (2 * given + noise)


def float32(arrays):
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def on_points(num_samples=30, garbage=0.0):
    random = np.random.default_rng(0)
    counts = random.integers(5, 21, num_samples)
    is_there = np.arange(20) < counts[:, None, None]
    fields, targets = noisy(random, (num_samples, 3, 20))
    return float32(
        {
            "fields": np.where(is_there, fields, garbage),
            "points": np.where(is_there, random.random((num_samples, 2, 20)), 0),
            "weights": np.where(is_there, random.uniform(0.1, 2, (num_samples, 1, 20)), 0),
            "targets": np.where(is_there, targets, garbage),
        }
    )


@pytest.mark.parametrize("garbage", [0.0, 1e6])
@pytest.mark.parametrize("batch_size", [7, 64])
def test_errors_on_points_are_those_of_numpy_without_padding(batch_size, garbage):
    arrays = on_points(garbage=garbage)
    errors = Validation(arrays, ON_POINTS, batch_size=batch_size).errors(surrogate_of(ON_POINTS, {"targets": STDS}))
    squares, sizes, shares = [], [], []
    values = (arrays[name].astype(np.float64) for name in ("fields", "targets", "weights"))
    for field, target, weight in zip(*values, strict=True):
        share = weight[0] / weight.sum()
        shares.append(share)
        squares.append((2 * field - target / STDS[:, None]) ** 2 @ share)
        sizes.append((target / STDS[:, None]) ** 2 @ share)
    squares, sizes = np.array(squares), np.array(sizes)
    assert errors.as_dict()["relative_l2"] == statistics(np.sqrt(squares.sum(axis=1) / sizes.sum(axis=1)))
    assert errors.h1 is None and all(of_field.h1 is None for of_field in errors.fields.values())
    targets = np.swapaxes(arrays["targets"], 1, 2)[arrays["weights"][:, 0] > 0].astype(np.float64)
    weights = np.concatenate([share[share > 0] for share in shares]) / len(shares)
    variances = weights @ (targets - weights @ targets) ** 2 / STDS**2
    vrmse = np.sqrt(squares.mean(axis=0) / variances)
    for name, channels in (("u", slice(0, 2)), ("p", slice(2, 3))):
        of_field = errors.fields[name]
        own = np.sqrt(squares[:, channels].sum(axis=1) / sizes[:, channels].sum(axis=1))
        assert vars(of_field.relative_l2) == statistics(own)
        assert of_field.vrmse == pytest.approx(np.sqrt(np.mean(vrmse[channels] ** 2)), rel=1e-4)
    assert errors.vrmse == pytest.approx(np.sqrt(np.mean(vrmse**2)), rel=1e-4)


def square_mesh():
    """Of the unit square with a point in its middle."""
    points = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5]])
    return points, np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])


BODY = Mesh(5, 2, square_mesh)
ON_MESH = Layout(
    (FieldSpec(name="a", on=BODY, components=2), FieldSpec(name="k")),
    (FieldSpec(name="u", on=BODY, components=2), FieldSpec(name="drag")),
)


def test_errors_on_a_mesh_and_of_scalars_are_those_of_numpy():
    """The H1 norm by element gradients written out: each of the four triangles is a corner's."""
    random = np.random.default_rng(0)
    arrays = dict(zip(("fields", "targets"), noisy(random, (25, 2, 5)), strict=True))
    arrays |= dict(zip(("scalars", "target_scalars"), noisy(random, (25, 1)), strict=True))
    arrays = float32(arrays)
    surrogate = surrogate_of(ON_MESH, {"targets": STDS[:2], "target_scalars": STDS[:1]})
    errors = Validation(arrays, ON_MESH, batch_size=8).errors(surrogate)
    weights = np.array([1 / 6, 1 / 6, 1 / 6, 1 / 6, 1 / 3])

    def squares(values, with_gradients):
        """[N, 2] of fields: Σ w u², and with gradients Σ_triangles |∇u|² / 4."""
        total = values**2 @ weights
        for a, b in ((0, 1), (1, 2), (2, 3), (3, 0)) if with_gradients else ():
            along = values[..., b] - values[..., a]  # the edge has length 1, the middle is 1/2 from its midpoint
            inwards = 2 * (values[..., 4] - (values[..., a] + values[..., b]) / 2)
            total = total + (along**2 + inwards**2) / 4
        return total

    field, target = arrays["fields"].astype(np.float64), arrays["targets"] / STDS[:2, None]
    scalar, truth = arrays["scalars"].astype(np.float64), arrays["target_scalars"].astype(np.float64)
    for norm in ("relative_l2", "h1"):
        of_error, of_target = (squares(each, norm == "h1") for each in (2 * field - target, target))
        whole = np.sqrt(((2 * scalar - truth) ** 2).sum(1) + of_error.sum(1)) / np.sqrt(
            (truth**2).sum(1) + of_target.sum(1)
        )
        assert errors.as_dict()[norm] == statistics(whole)
        assert vars(getattr(errors.fields["u"], norm)) == statistics(np.sqrt(of_error.sum(1) / of_target.sum(1)))
    smallest = 0.1 * np.sqrt(np.mean(truth**2))
    own = np.abs(2 * scalar - truth)[:, 0] / np.maximum(np.abs(truth)[:, 0], smallest)
    assert vars(errors.fields["drag"].relative_l2) == vars(errors.fields["drag"].h1) == statistics(own)
    assert errors.fields["drag"].vrmse == pytest.approx(
        np.sqrt(np.mean((2 * scalar - truth) ** 2) / truth.var()), rel=1e-4
    )


def test_constant_components_count_nowhere_and_are_named_one_by_one():
    arrays = on_points()
    arrays["targets"][:, 1] = 7
    arrays["targets"][:, 2] = -3
    surrogate = surrogate_of(ON_POINTS, {"targets": np.array([1.0, 0, 0])})
    surrogate.normalization.targets_mean[:] = torch.tensor([0.0, 7, -3])
    errors = Validation(arrays, ON_POINTS).errors(surrogate)
    assert errors.constants == {"u[1]": 7.0, "p": -3.0} and errors.fields.keys() == {"u"}
    assert vars(errors.relative_l2) == pytest.approx(vars(errors.fields["u"].relative_l2))
    assert errors.vrmse == errors.fields["u"].vrmse and errors.relative_l2.max < 0.5


def test_outputs_on_a_masked_grid_have_no_h1_error_and_are_measured_inside():
    grid = Grid((6, 5), is_masked=True)
    layout = Layout((FieldSpec(name="a", on=grid),), (FieldSpec(name="u", on=grid),))
    random = np.random.default_rng(0)
    fields, targets = noisy(random, (12, 1, 6, 5))
    weights = random.uniform(1, 2, (12, 1, 6, 5)) * (random.random((12, 1, 6, 5)) < 0.7)
    arrays = float32({"fields": fields, "targets": targets, "weights": weights})
    errors = Validation(arrays, layout, batch_size=5).errors(surrogate_of(layout, {"targets": STDS[:1]}))
    square = weights * (2 * fields - targets) ** 2
    expected = np.sqrt(square.sum(axis=(1, 2, 3)) / (weights * targets**2).sum(axis=(1, 2, 3)))
    assert vars(errors.relative_l2) == statistics(expected) and errors.h1 is None


def test_small_targets_on_points_are_measured_by_what_is_typical_at_their_step():
    """The second step is a thousandth of the first; at each of them one target is 0."""
    arrays, steps = on_points(20), np.tile([0, 1], 10)
    scale = np.where(steps == 0, 1.0, 1e-3)[:, None, None]
    arrays["targets"] = (arrays["targets"] * scale).astype(np.float32)
    arrays["fields"] = (0.55 * arrays["targets"] / STDS[:, None]).astype(np.float32)
    arrays["targets"][6:8] = 0
    surrogate = surrogate_of(ON_POINTS, {"targets": STDS})
    validation = Validation(arrays, ON_POINTS, steps=steps, batch_size=8)
    validation.errors(surrogate)
    errors, _ = validation.sample_errors()
    np.testing.assert_allclose(np.delete(errors, [6, 7]), 0.1, rtol=1e-4)
    share = arrays["weights"][:, 0].astype(np.float64)
    share /= share.sum(axis=1, keepdims=True)
    for row in (6, 7):
        in_stds = arrays["targets"][steps == steps[row]].astype(np.float64) / STDS[:, None]
        typical = np.sqrt(np.einsum("ncp,np->", in_stds**2, share[steps == steps[row]]) / 30)
        size = np.sqrt(np.mean((2 * arrays["fields"][row].astype(np.float64)) ** 2 @ share[row]))
        assert errors[row] == pytest.approx(size / (0.1 * typical), rel=1e-4)
