"""Losses, normalisation and validation against NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from penstock.learner.losses import LOSSES, mse, relative_l2
from penstock.learner.normalization import Normalization
from penstock.learner.surrogate import Surrogate
from penstock.learner.validation import Validation
from penstock.sample import FieldSpec, Layout


class Double(nn.Module):
    """targets = 2 fields, in normalised units; the parameter only says which device it is on."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, fields):
        return self.factor * fields


def test_relative_l2_and_mse_are_those_of_numpy():
    random = np.random.default_rng(0)
    prediction, target = random.normal(size=(2, 5, 3, 8, 9)).astype(np.float32)
    errors = [np.linalg.norm(p - t) / np.linalg.norm(t) for p, t in zip(prediction, target, strict=True)]
    np.testing.assert_allclose(relative_l2(torch.tensor(prediction), torch.tensor(target)), errors, rtol=1e-5)
    squares = ((prediction - target) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(mse(torch.tensor(prediction), torch.tensor(target)), squares, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES.values())
def test_losses_have_finite_gradients_at_a_perfect_prediction_and_a_zero_target(loss):
    prediction = torch.zeros(2, 1, 4, 4, requires_grad=True)
    loss(prediction, torch.zeros(2, 1, 4, 4)).mean().backward()
    assert prediction.grad.isfinite().all()


def test_normalization_is_that_of_numpy():
    random = np.random.default_rng(0)
    arrays = {
        "fields": random.normal(5, 3, size=(20, 2, 6, 7)),
        "scalars": random.normal(-1, 0.1, size=(20, 3)),
        "targets": 1e5 + random.normal(size=(20, 1, 6, 7)),  # float32 squares would lose this spread
    }
    tensors = {name: torch.tensor(array) for name, array in arrays.items()}
    normalization = Normalization.from_arrays(tensors)
    for name, array in arrays.items():
        axes = tuple(axis for axis in range(array.ndim) if axis != 1)
        shape = [1, -1] + [1] * (array.ndim - 2)
        expected = (array - array.mean(axes).reshape(shape)) / array.std(axes).reshape(shape)
        encoded = normalization.encode(name, tensors[name])
        np.testing.assert_allclose(encoded, expected, atol=1e-2 if name == "targets" else 1e-5)
        torch.testing.assert_close(normalization.decode(name, encoded), tensors[name], rtol=1e-6, atol=1e-6)


def test_a_constant_channel_gets_std_one():
    values = torch.stack([torch.full((10, 4), 0.1), torch.randn(10, 4)], dim=1)
    normalization = Normalization.from_arrays({"fields": values})
    assert normalization.fields_std[0] == 1
    assert normalization.encode("fields", values)[:, 0].abs().max() < 1e-6


def test_the_surrogate_by_name_is_the_surrogate_by_array_and_in_physical_units():
    layout = Layout(
        (FieldSpec(name="a", shape=(4, 5)), FieldSpec(name="b", shape=(4, 5))),
        (FieldSpec(name="u", shape=(4, 5)), FieldSpec(name="v", shape=(4, 5))),
    )
    arrays = {"fields": 3 + 2 * torch.randn(6, 2, 4, 5), "targets": 10 + torch.randn(6, 2, 4, 5)}
    surrogate = Surrogate(Double(), Normalization.from_arrays(arrays), layout)
    outputs = surrogate(b=arrays["fields"][:, 1], a=arrays["fields"][:, 0])
    targets = surrogate.predict(arrays)
    torch.testing.assert_close(torch.stack([outputs["u"], outputs["v"]], 1), targets)
    # the model doubles normalised values, so the outputs' spread is twice that of the targets
    torch.testing.assert_close(targets.std((0, 2, 3)), 2 * arrays["targets"].std((0, 2, 3)))
    torch.testing.assert_close(targets.mean((0, 2, 3)), arrays["targets"].mean((0, 2, 3)))


def test_validation_errors_are_those_of_numpy_and_can_be_interrupted():
    layout = Layout((FieldSpec(name="a", shape=(6, 6)),), (FieldSpec(name="u", shape=(6, 6)),))
    random = np.random.default_rng(0)
    fields = random.normal(size=(37, 1, 6, 6)).astype(np.float32)
    targets = (2 * fields + 0.1 * random.normal(size=fields.shape)).astype(np.float32)
    surrogate = Surrogate(Double(), Normalization.identity(layout), layout)
    validation = Validation({"fields": fields, "targets": targets}, batch_size=8)
    errors = [np.linalg.norm(2 * f - t) / np.linalg.norm(t) for f, t in zip(fields, targets, strict=True)]
    expected = {
        "mean": np.mean(errors),
        "median": np.median(errors),
        "p99": np.quantile(errors, 0.99),
        "max": np.max(errors),
    }
    assert validation.errors(surrogate) == pytest.approx(expected, rel=1e-5)
    assert validation.errors(surrogate, lambda: True) is None
    assert surrogate.training
