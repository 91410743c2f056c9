"""Normalisation and the statistics behind it, gathered chunk by chunk, against NumPy on all samples at once."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.normalization import Normalization, RunningMoments
from penstock.learner.surrogate import Surrogate

ON_A_LINE = Layout(
    (FieldSpec(name="a", on=Grid((4,))),), (FieldSpec(name="u", on=Grid((4,))), FieldSpec(name="v", on=Grid((4,))))
)


def moments_of(arrays, cuts=()):
    moments = RunningMoments()
    edges = [0, *cuts, len(next(iter(arrays.values())))]
    for start, end in itertools.pairwise(edges):
        moments.update({name: array[start:end] for name, array in arrays.items()})
    return moments


def numpy_moments(array):
    axes = tuple(axis for axis in range(array.ndim) if axis != 1)
    array = array.astype(np.longdouble)
    return array.mean(axes), array.std(axes)


@settings(max_examples=50)
@given(
    cuts=st.lists(st.integers(0, 40), max_size=12).map(sorted),
    mean=st.sampled_from([0.0, -3.0, 1e8, 1e-30]),
    spread=st.sampled_from([1.0, 1e-3, 1e4]),
    seed=st.integers(0, 2**32 - 1),
)
def test_moments_chunk_by_chunk_are_those_of_all_samples(cuts, mean, spread, seed):
    random = np.random.default_rng(seed)
    arrays = {
        "fields": mean + spread * random.normal(size=(40, 2, 5, 3)),
        "scalars": mean + spread * random.normal(size=(40, 3)),
        "targets": mean + spread * random.normal(size=(40, 1, 7)),
    }
    moments = moments_of(arrays, cuts)
    for name, array in arrays.items():
        expected_mean, expected_std = numpy_moments(array)
        assert (np.abs(moments.mean[name] - expected_mean) <= 1e-12 * (np.abs(expected_mean) + spread)).all()
        assert (np.abs(moments.std[name] / expected_std - 1) <= 1e-12).all()


def test_a_spread_of_one_on_a_mean_of_1e8_is_exact_to_1e_12_over_many_chunks():
    values = 1e8 + np.random.default_rng(0).normal(size=(4000, 1, 50))
    moments = moments_of({"targets": values}, range(7, 4000, 7))
    mean, std = numpy_moments(values)
    assert abs(moments.mean["targets"] / mean - 1) < 1e-12 and abs(moments.std["targets"] / std - 1) < 1e-12


def test_float32_samples_are_summed_in_float64():
    values = np.random.default_rng(0).normal(1e4, 1, size=(64, 1, 64, 64)).astype(np.float32)
    moments = moments_of({"fields": values}, range(5, 64, 5))
    mean, std = numpy_moments(values)
    assert abs(moments.mean["fields"] / mean - 1) < 1e-12 and abs(moments.std["fields"] / std - 1) < 1e-12


def test_a_state_goes_through_json_and_continues_bit_for_bit():
    arrays = {"fields": np.random.default_rng(0).normal(3, 0.1, size=(30, 2, 4, 4)).astype(np.float32)}
    whole, first = moments_of(arrays, [10, 20]), moments_of({"fields": arrays["fields"][:20]}, [10])
    second = RunningMoments()
    second.load_state(json.loads(json.dumps(first.state())))
    second.update({"fields": arrays["fields"][20:]})
    assert np.array_equal(whole.mean["fields"], second.mean["fields"])
    assert np.array_equal(whole.std["fields"], second.std["fields"])


def test_normalization_is_that_of_numpy():
    grid = Grid((6, 7))
    inputs = (FieldSpec(name="a", on=grid, components=2), FieldSpec(name="k", components=3))
    layout = Layout(inputs, (FieldSpec(name="u", on=grid),))
    random = np.random.default_rng(0)
    arrays = {
        "fields": random.normal(5, 3, size=(20, 2, 6, 7)),
        "scalars": random.normal(-1, 0.1, size=(20, 3)),
        "targets": 1e5 + random.normal(size=(20, 1, 6, 7)),  # float32 squares would lose this spread
    }
    tensors = {name: torch.tensor(array) for name, array in arrays.items()}
    normalization = Normalization.from_moments(moments_of(arrays, [3, 11]), layout)
    for name, array in arrays.items():
        mean, std = (values.astype(float).reshape([1, -1] + [1] * (array.ndim - 2)) for values in numpy_moments(array))
        encoded = normalization.encode(name, tensors[name])
        np.testing.assert_allclose(encoded, (array - mean) / std, atol=1e-2 if name == "targets" else 1e-5)
        np.testing.assert_allclose(normalization.in_stds(name, tensors[name]), array / std, rtol=1e-5)
        np.testing.assert_allclose(normalization.decode_in_stds(name, encoded), array / std, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(normalization.decode(name, encoded), tensors[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("constant", [0.1, 0.0, -101325.0, 1e9])
def test_a_constant_target_is_decoded_exactly_and_is_nothing_in_stds(constant):
    values = np.stack([np.full((10, 4), constant), np.random.default_rng(0).normal(3, 1, size=(10, 4))], axis=1)
    values[:, 0] *= 1 + 1e-9 * np.random.default_rng(1).normal(size=(10, 4))  # float32 knows no such difference
    normalization = Normalization.from_moments(
        moments_of({"fields": np.random.default_rng(2).normal(size=(10, 1, 4)), "targets": values}, [4]), ON_A_LINE
    )
    assert normalization.varies("targets").tolist() == [False, True]
    normalised = torch.randn(10, 2, 4)
    decoded, in_stds = (of("targets", normalised) for of in (normalization.decode, normalization.decode_in_stds))
    np.testing.assert_allclose(decoded[:, 0], np.float32(constant), rtol=1e-7)
    assert not in_stds[:, 0].any() and not normalization.in_stds("targets", decoded)[:, 0].any()
    mean, std = values[:, 1].mean(), values[:, 1].std()
    np.testing.assert_allclose(normalization.typical("targets"), [0, np.hypot(mean, std) / std], rtol=1e-6)


@pytest.mark.parametrize("constant", [0.1, 0.0, -101325.0, 1e9])
def test_a_constant_input_is_about_0_and_so_is_its_rounding(constant):
    values = constant * (1 + 1e-7 * np.random.default_rng(0).normal(size=(10, 1, 4)))
    normalization = Normalization.from_moments(
        moments_of({"fields": values, "targets": np.hstack([values] * 2)}), ON_A_LINE
    )
    assert normalization.encode("fields", torch.tensor(values, dtype=torch.float32)).abs().max() < 1e-6


def test_moments_by_step_are_those_of_each_steps_samples():
    """Chunks cut anywhere, steps in any order, a step that never comes."""
    random = np.random.default_rng(0)
    steps = random.permutation(np.repeat([0, 1, 3], 20))
    values = (1e3 * (1 + steps) + 10.0**-steps * random.normal(size=60))[:, None, None] + np.zeros((60, 2, 5))
    values[:, 1] *= -2
    moments = RunningMoments(num_steps=4)
    for start, end in itertools.pairwise([0, 1, 9, 40, 60]):
        moments.update({"targets": values[start:end]}, steps[start:end])
    for of_steps in (slice(0, 1), slice(1, 2), slice(3, 4), slice(0, 2), slice(1, 4), slice(None)):
        mean, std = moments.over("targets", of_steps)
        expected = numpy_moments(values[np.isin(steps, np.arange(4)[of_steps])])
        np.testing.assert_allclose(mean, np.float64(expected[0]), rtol=1e-12)
        np.testing.assert_allclose(std, np.float64(expected[1]), rtol=1e-9)


def test_moments_that_an_earlier_penstock_saved_are_the_same_at_every_step():
    old = {"fields": {"count": 40, "origin": [3.0], "mean": [0.5], "squares": [10.0]}}
    for num_steps in (1, 4):
        moments = RunningMoments(num_steps)
        moments.load_state(old)
        for steps in (slice(None), slice(0, 1), slice(num_steps - 1, num_steps)):
            assert moments.over("fields", steps) == (3.5, 0.5)


class Double(nn.Module):
    """targets = 2 fields, in normalised units."""

    def forward(self, fields):
        return 2 * fields


def test_the_surrogate_by_name_is_the_surrogate_by_array_and_in_physical_units():
    layout = Layout(
        (FieldSpec(name="a", on=Grid((4, 5))), FieldSpec(name="b", on=Grid((4, 5)))),
        (FieldSpec(name="u", on=Grid((4, 5))), FieldSpec(name="v", on=Grid((4, 5)))),
    )
    torch.manual_seed(0)
    arrays = {"fields": 3 + 2 * torch.randn(6, 2, 4, 5), "targets": 10 + torch.randn(6, 2, 4, 5)}
    moments = moments_of({name: array.numpy() for name, array in arrays.items()})
    surrogate = Surrogate(Double(), Normalization.from_moments(moments, layout), layout)
    outputs = surrogate(b=arrays["fields"][:, 1], a=arrays["fields"][:, 0])
    targets = surrogate.predict(arrays)["targets"]
    torch.testing.assert_close(torch.stack([outputs["u"], outputs["v"]], 1), targets)
    # the model doubles normalised values, so the outputs' spread is twice that of the targets
    torch.testing.assert_close(targets.std((0, 2, 3)), 2 * arrays["targets"].std((0, 2, 3)))
    torch.testing.assert_close(targets.mean((0, 2, 3)), arrays["targets"].mean((0, 2, 3)))


def test_the_identity_changes_nothing():
    layout = Layout((FieldSpec(name="a", on=Grid((4,))),), (FieldSpec(name="u", on=Grid((4,))),))
    values = torch.randn(3, 1, 4)
    normalization = Normalization.identity(layout)
    assert torch.equal(normalization.encode("fields", values), values)
    assert torch.equal(normalization.decode("targets", values), values)
    with pytest.raises(AttributeError):
        normalization.encode("scalars", values)
