"""Validation against NumPy: sliced, of a snapshot, and of every field."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.grids.fourier.fno import FNO
from penstock.learner.normalization import Normalization
from penstock.learner.surrogate import Surrogate
from penstock.learner.validation import validation
from penstock.learner.validation.course import ValidationCourse
from penstock.learner.validation.validation import Validation
from tests.support.statistics import statistics

GRID = (12, 10)
LAYOUT = Layout(
    (FieldSpec(name="a", on=Grid(GRID)), FieldSpec(name="b", on=Grid(GRID))),
    (FieldSpec(name="u", on=Grid(GRID)), FieldSpec(name="v", on=Grid(GRID))),
)


class Scale(nn.Module):
    """targets = factor * fields, in normalised units."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("offset", torch.zeros(()))

    def forward(self, fields):
        return self.factor * fields + self.offset


def held_out(num_samples=37, seed=0):
    """Channels of very different size: v is 1000 times u."""
    random = np.random.default_rng(seed)
    fields = random.normal(size=(num_samples, 2, *GRID)).astype(np.float32)
    noise = random.uniform(0, 0.2, size=(num_samples, 2, 1, 1)) * random.normal(size=fields.shape)
    return {"fields": fields, "targets": (np.array([1, 1000])[:, None, None] * (2 * fields + noise)).astype(np.float32)}


def surrogate_of(arrays):
    std = {"fields": torch.ones(2), "targets": torch.tensor([1.0, 1000.0])}
    zero = {name: torch.zeros(2) for name in arrays}
    return Surrogate(Scale(), Normalization(zero, std), LAYOUT)


def relative_l2(error, target):
    return np.sqrt((error**2).sum(axis=(1, 2, 3)) / (target**2).sum(axis=(1, 2, 3)))


@pytest.mark.parametrize("batch_size", [1, 8, 37, 64])
def test_relative_l2_errors_are_those_of_numpy_in_stds_and_by_field(batch_size):
    arrays = held_out()
    errors = Validation(arrays, LAYOUT, batch_size=batch_size).errors(surrogate_of(arrays)).as_dict()
    stds = np.array([1, 1000])[:, None, None]
    target = arrays["targets"] / stds
    error = 2 * arrays["fields"] - target
    assert errors["relative_l2"] == statistics(relative_l2(error, target))
    assert set(errors["fields"]) == {"u", "v"}
    for channel, name in enumerate(("u", "v")):
        of_field = slice(channel, channel + 1)
        physical = (error * stds)[:, of_field], arrays["targets"][:, of_field]
        assert errors["fields"][name]["relative_l2"] == statistics(relative_l2(*physical))


def test_the_worst_case_is_numpys_and_is_given_once(monkeypatch):
    arrays = held_out()
    stds = np.array([1, 1000])[:, None, None]
    target = arrays["targets"] / stds
    errors = relative_l2(2 * arrays["fields"] - target, target)
    row = int(errors.argmax())
    course = ValidationCourse(Validation(arrays, LAYOUT, batch_size=8), keeps_worst=True)
    course.begin(surrogate_of(arrays), step=7)
    while course.is_running:
        assert course.take_worst() == ()
        course.advance()
    (worst,) = course.take_worst()
    assert (worst.step, worst.row) == (7, row) and course.take_worst() == ()
    for name, values in worst.arrays.items():
        np.testing.assert_array_equal(values, arrays[name][row : row + 1])
        assert not np.shares_memory(values, arrays[name])
    np.testing.assert_allclose(worst.predictions["targets"], 2 * stds * arrays["fields"][row : row + 1], rtol=1e-6)
    for channel, name in enumerate(("u", "v")):
        of_field = slice(channel, channel + 1)
        expected = relative_l2((2 * arrays["fields"] - target)[:, of_field], target[:, of_field])[row]
        assert worst.errors[name] == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr(validation, "MOST_WORST_BYTES", 100)
    course.begin(surrogate_of(arrays), step=8)
    while course.is_running:
        course.advance()
    assert course.step == 8 and course.take_worst() == ()


def test_vrmse_is_numpys_and_counts_every_output_alike():
    arrays = held_out()
    arrays["targets"][:, 1] += 1e5  # an offset hides an error from the relative one, not from this
    errors = Validation(arrays, LAYOUT, batch_size=8).errors(surrogate_of(arrays)).as_dict()
    targets = arrays["targets"].astype(np.float64)
    error = 2 * arrays["fields"] * np.array([1, 1000])[:, None, None] - targets
    expected = np.sqrt((error**2).mean(axis=(0, 2, 3)) / targets.var(axis=(0, 2, 3)))
    assert [errors["fields"][name]["vrmse"] for name in ("u", "v")] == pytest.approx(expected.tolist(), rel=1e-4)
    assert errors["vrmse"] == pytest.approx(np.sqrt(np.mean(expected**2)), rel=1e-4)
    assert errors["fields"]["v"]["relative_l2"]["mean"] == pytest.approx(1, rel=0.1) and expected[1] > 20


def test_a_prediction_of_the_mean_has_a_vrmse_of_one():
    arrays = held_out()
    surrogate = surrogate_of(arrays)
    surrogate.normalization.targets_mean[:] = torch.tensor(arrays["targets"].mean(axis=(0, 2, 3)))
    with torch.no_grad():
        surrogate.model.factor.fill_(0)
    errors = Validation(arrays, LAYOUT).errors(surrogate)
    assert errors.vrmse == pytest.approx(1) and errors.fields["v"].vrmse == pytest.approx(1)


def test_small_targets_are_measured_by_a_tenth_of_what_is_typical_at_their_step():
    """Step 1 is a thousandth of step 0; at each of them one target is zero, and its error is a tenth of the others'."""
    arrays, steps = held_out(40), np.tile([0, 1], 20)
    sizes = np.where(steps == 0, 1.0, 1e-3)[:, None, None, None]
    arrays["targets"] = (arrays["targets"] * sizes).astype(np.float32)
    arrays["fields"] = (arrays["targets"] / np.array([2, 2000])[:, None, None] * 1.1).astype(np.float32)
    for row in (6, 7):
        arrays["fields"][row] = 0.01 * arrays["fields"][row - 2]
        arrays["targets"][row] = 0
    validation = Validation(arrays, LAYOUT, steps=steps, batch_size=8)
    validation.errors(surrogate_of(arrays))
    errors, _ = validation.sample_errors()
    others = np.setdiff1d(np.arange(40), [6, 7])
    np.testing.assert_allclose(errors[others], 0.1, rtol=1e-3)
    stds = np.array([1, 1000])[:, None, None]
    for row in (6, 7):
        typical = np.sqrt(np.mean((arrays["targets"][steps == steps[row]] / stds).astype(np.float64) ** 2))
        size = np.sqrt(np.mean((2 * arrays["fields"][row].astype(np.float64)) ** 2))
        assert errors[row] == pytest.approx(size / (0.1 * typical), rel=1e-4)


def test_h1_errors_are_the_analytic_ones():
    # target cos(πx) in u and 3 cos(2πy) in v, prediction off by a_i cos(4πx) in v
    x, y = np.meshgrid((np.arange(32) + 0.5) / 32, (np.arange(32) + 0.5) / 32, indexing="ij")
    target = np.broadcast_to(np.stack([np.cos(np.pi * x), 3 * np.cos(2 * np.pi * y)]), (5, 2, 32, 32))
    amplitudes = np.array([0.0, 0.1, 0.4, 0.2, 0.3])
    prediction = target.copy()
    prediction[:, 1] += amplitudes[:, None, None] * np.cos(4 * np.pi * x)
    arrays = {"fields": (prediction / 2).astype(np.float32), "targets": target.astype(np.float32)}
    surrogate = Surrogate(Scale(), Normalization.identity(LAYOUT), LAYOUT)
    errors = Validation(arrays, LAYOUT, batch_size=2).errors(surrogate).as_dict()
    one, two, four = (1 + (np.pi * m) ** 2 for m in (1, 2, 4))
    assert errors["fields"]["v"]["h1"] == statistics(amplitudes * np.sqrt(four) / 3 / np.sqrt(two))
    assert errors["h1"] == statistics(amplitudes * np.sqrt(four / (one + 9 * two)))
    assert errors["fields"]["u"]["h1"]["max"] < 1e-5


def test_slices_measure_the_weights_of_their_beginning_in_as_many_calls_as_batches():
    arrays = held_out()
    surrogate = surrogate_of(arrays)
    validation = Validation(arrays, LAYOUT, batch_size=8)
    expected = validation.errors(surrogate)
    for _ in range(2):  # the second time into the copy that is there
        with torch.no_grad():
            surrogate.model.factor.fill_(2)
            surrogate.model.offset.fill_(0)
        assert not validation.is_running
        validation.begin(surrogate)
        for _ in range(4):
            assert validation.advance() is None and validation.is_running
            with torch.no_grad():  # training goes on
                surrogate.model.factor += 1
                surrogate.model.offset += 1
        assert validation.advance() == expected
    assert surrogate.training and surrogate.model.factor.requires_grad


def test_a_snapshot_reuses_its_memory_and_knows_a_normalisation_that_was_fixed_since():
    arrays = held_out()
    surrogate = surrogate_of(arrays)
    validation = Validation(arrays, LAYOUT)
    validation.begin(surrogate)
    addresses = [tensor.data_ptr() for tensor in validation._snapshot.state_dict().values()]
    surrogate.normalization = Normalization(
        {"fields": torch.tensor([1.0, 2.0]), "targets": torch.zeros(2)},
        {"fields": torch.full((2,), 3.0), "targets": torch.tensor([5.0, 7.0])},
    )
    again = validation.errors(surrogate)
    assert [tensor.data_ptr() for tensor in validation._snapshot.state_dict().values()] == addresses
    assert again == Validation(arrays, LAYOUT).errors(surrogate)


def test_begin_and_finish_at_any_slice():
    arrays = held_out()
    surrogate = surrogate_of(arrays)
    validation = Validation(arrays, LAYOUT, batch_size=8)
    expected = validation.errors(surrogate)
    validation.begin(surrogate)
    validation.advance()
    assert validation.finish() == expected
    validation.begin(surrogate)
    validation.advance()
    assert validation.errors(surrogate) == expected  # the begun one is given up
    other = surrogate_of(arrays)
    with torch.no_grad():
        other.model.factor.fill_(1)
    assert validation.errors(other).relative_l2.mean > 0.4
    assert validation.errors(surrogate) == expected


def test_predictions_that_are_not_finite_have_an_infinite_error():
    arrays = held_out()
    arrays["fields"][3, 0, 0, 0] = np.nan
    arrays["fields"][4, 1, 0, 0] = np.inf
    errors = Validation(arrays, LAYOUT, batch_size=8).errors(surrogate_of(arrays)).as_dict()
    for group in (errors["relative_l2"], errors["h1"]):
        assert math.isfinite(group["median"])
        assert group["mean"] == group["p99"] == group["max"] == math.inf
    assert errors["fields"]["u"]["relative_l2"]["max"] == math.inf
    arrays["fields"][:] = np.nan
    errors = Validation(arrays, LAYOUT).errors(surrogate_of(arrays)).as_dict()
    assert set(errors["h1"].values()) == {math.inf}


def test_sample_errors_are_in_the_samples_order():
    arrays = held_out()
    validation = Validation(arrays, LAYOUT, batch_size=8)
    validation.errors(surrogate_of(arrays))
    errors, of_outputs = validation.sample_errors()
    stds = np.array([1, 1000])[:, None, None]
    target = arrays["targets"] / stds
    assert errors.dtype == np.float64
    difference = 2 * arrays["fields"] - target
    np.testing.assert_allclose(errors, relative_l2(difference, target), rtol=1e-5)
    assert list(of_outputs) == ["u", "v"]
    for channel, own in enumerate(of_outputs.values()):
        np.testing.assert_allclose(own, relative_l2(difference[:, [channel]], target[:, [channel]]), rtol=1e-5)


def test_models_that_behave_otherwise_in_training_are_measured_as_in_use():
    class Dropped(Scale):
        def forward(self, fields):
            return nn.functional.dropout(super().forward(fields), 0.5, self.training)

    arrays = held_out()
    surrogate = Surrogate(Dropped(), surrogate_of(arrays).normalization, LAYOUT)
    random = torch.get_rng_state()
    assert Validation(arrays, LAYOUT).errors(surrogate) == Validation(arrays, LAYOUT).errors(surrogate_of(arrays))
    assert surrogate.training and torch.equal(torch.get_rng_state(), random)  # so that resuming is exact


@pytest.mark.gpu
def test_no_slice_but_the_last_waits_for_the_device():
    arrays = held_out()
    surrogate = Surrogate(FNO(LAYOUT, width=8, modes=4), surrogate_of(arrays).normalization, LAYOUT).to("cuda")
    validation = Validation(arrays, LAYOUT, batch_size=8, device="cuda")
    expected = validation.errors(surrogate)  # the first use makes the copy and the norms' matrices
    torch.cuda.set_sync_debug_mode("error")
    try:
        validation.begin(surrogate)
        for _ in range(4):
            assert validation.advance() is None
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert validation.advance().as_dict() == expected.as_dict()


def test_an_empty_slice_is_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        Validation(held_out(), LAYOUT, batch_size=0)


def test_the_h1_error_is_of_the_domain_that_the_layout_has():
    """Targets are 1 and errors a wave along the longer axis: relative H1 errors are (1 + (π / 5)²)^(1/2) of L2 ones."""
    specs = [FieldSpec(name=name, on=Grid(GRID, extent=(5.0, 0.1))) for name in "abuv"]
    layout = Layout(tuple(specs[:2]), tuple(specs[2:]))
    wave = np.cos(np.pi * (np.arange(GRID[0]) + 0.5) / GRID[0])[:, None] * np.ones(GRID)
    fields = np.ones((3, 2, *GRID), np.float32)
    targets = (np.array([1, 1000])[:, None, None] * (2 * fields)).astype(np.float32)
    arrays = {"fields": (fields + 0.1 * wave).astype(np.float32), "targets": targets}
    surrogate = surrogate_of(arrays)
    errors = Validation(arrays, layout).errors(Surrogate(surrogate.model, surrogate.normalization, layout))
    assert errors.h1.mean / errors.relative_l2.mean == pytest.approx(math.sqrt(1 + (math.pi / 5) ** 2), rel=1e-4)
