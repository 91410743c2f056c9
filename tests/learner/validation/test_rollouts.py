"""Rollouts of advection, whose errors are known in closed form, along sets of windows, pairs and samples."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from penstock.geometry import Grid, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.units import Samples, Trajectories
from penstock.learner.buffers.windows import Pairs, Windows
from penstock.learner.normalization import Normalization
from penstock.learner.surrogate import Surrogate
from penstock.learner.validation.rollouts import LARGEST, rollouts_along
from penstock.learner.validation.validation import Validation

NUM_POINTS, NUM_STEPS, NUM_SIMULATIONS = 64, 30, 5
WAY = 0.3  # of the wave in a step, as a phase
GRID = Grid((NUM_POINTS,), centring="vertices", periodic=True)
LAYOUT = Layout(
    (FieldSpec(name="before", on=GRID), FieldSpec(name="speed"), FieldSpec(name="time")),
    (FieldSpec(name="solution", on=GRID),),
    {"before": "solution"},
)


def sines(layout=LAYOUT):
    """Samples of sin(x + φ - t), where a step goes on by WAY times the simulation's speed, from 1 to 2."""
    x = 2 * np.pi * np.arange(NUM_POINTS) / NUM_POINTS
    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, NUM_SIMULATIONS)
    speeds = np.linspace(1, 2, NUM_SIMULATIONS)
    simulations, steps = (
        np.repeat(np.arange(NUM_SIMULATIONS), NUM_STEPS),
        np.tile(np.arange(NUM_STEPS), NUM_SIMULATIONS),
    )

    def state(steps):
        return np.sin(x + (phases[simulations] - WAY * speeds[simulations] * steps)[:, None])[:, None]

    arrays = {
        "fields": state(steps),
        "scalars": np.stack([speeds[simulations], steps + 1.0], axis=1),
        "targets": state(steps + 1),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}, simulations, steps


TIMES = []  # that models were given: an attribute would be copied with its model


class Shift(nn.Module):
    """Moves the last frame that it is given by the way of each of its m steps, and by an error of the phase."""

    def __init__(self, num_outputs=1, stride=1, error=0.0):
        super().__init__()
        self.ways, self.error = [stride * (j + 1) for j in range(num_outputs)], error
        self.weight = nn.Parameter(torch.zeros(()))  # a model has one

    def forward(self, fields, scalars):
        TIMES.append(scalars[:, 1])
        modes = torch.fft.rfft(fields[:, -1:].double())
        turns = torch.arange(modes.shape[-1]) * -1j
        speed = scalars[:, :1, None].double()
        ways = torch.tensor(self.ways).reshape(1, -1, 1)
        moved = modes * torch.exp(turns * ways * (WAY * speed + self.error))
        return torch.fft.irfft(moved, n=NUM_POINTS).float()


def errors_of(unit, model, layout=LAYOUT, batch_size=2):
    arrays, simulations, steps = sines()
    unit = unit.fitted(layout)
    rows, *origins = unit.all_rows(arrays, layout, simulations, steps)
    validation = Validation(
        rows,
        unit.layout(layout),
        steps=origins[1],
        rollouts=rollouts_along(unit, layout, *origins),
        batch_size=batch_size,
    )
    batch_layout = unit.layout(layout)
    return validation.errors(Surrogate(model, Normalization.identity(batch_layout), batch_layout))


UNITS = [
    (Samples(), 1, 1),
    (Windows(NUM_STEPS), 1, 1),
    (Windows(NUM_STEPS, 3, 1), 1, 1),
    (Windows(NUM_STEPS, 1, 4), 4, 1),
    (Windows(NUM_STEPS, 2, 5), 5, 1),
    (Windows(NUM_STEPS, 2, 3, 2), 3, 2),
    (Pairs(NUM_STEPS, 3), 1, 3),
]


@pytest.mark.parametrize(("unit", "num_outputs", "stride"), UNITS, ids=lambda value: repr(value))
def test_the_forecast_that_nothing_changes_has_the_error_of_the_chord(unit, num_outputs, stride):
    """‖sin(x - a) - sin(x)‖ / ‖sin(x)‖ = 2 sin(a / 2), after each of the steps of a row."""
    ways = WAY * np.linspace(1, 2, NUM_SIMULATIONS)[:, None] * stride * np.arange(1, num_outputs + 1)
    chords = 2 * np.sin(ways / 2)
    expected = np.sqrt((chords**2).mean(axis=1)).mean()  # of all states that a row leads to, then of the rows
    assert errors_of(unit, Shift(num_outputs, stride)).persistence == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("unit", "num_outputs", "stride"), UNITS, ids=lambda value: repr(value))
def test_a_model_that_shifts_exactly_has_no_error_at_any_time(unit, num_outputs, stride):
    rollout = errors_of(unit, Shift(num_outputs, stride)).rollout
    k = getattr(unit, "inputs", 1)
    frames_after = (NUM_STEPS - (k - 1) * stride) // stride
    num = frames_after // num_outputs * num_outputs  # the last frames may be fewer than a window predicts
    assert rollout.steps == [stride * (n + 1) for n in range(num)]
    np.testing.assert_allclose(rollout.relative_l2, 0, atol=2e-5)
    np.testing.assert_allclose(rollout.correlation, 1, atol=1e-6)
    assert rollout.correlation_time == rollout.steps[-1] and rollout.lost == 0


@pytest.mark.parametrize(("unit", "num_outputs", "stride"), UNITS, ids=lambda value: repr(value))
def test_a_phase_error_grows_as_the_chord_and_the_correlation_falls_as_the_cosine(unit, num_outputs, stride):
    """||sin(x + nδ) - sin x|| / ||sin x|| = 2 sin(nδ / 2), and the correlation of both is cos(nδ)."""
    error = 0.07
    rollout = errors_of(unit, Shift(num_outputs, stride, error)).rollout
    phases = error * np.array(rollout.steps)
    np.testing.assert_allclose(rollout.relative_l2, 2 * np.sin(phases / 2), atol=2e-5)
    np.testing.assert_allclose(rollout.correlation, np.cos(phases), atol=2e-5)
    first = math.floor(math.acos(0.8) / error) + 1  # 10, where nδ passes 0.6435
    assert rollout.correlation_time == stride * math.ceil(first / stride) and rollout.lost == 1


def test_a_rollout_is_given_the_true_inputs_that_are_not_fed():
    rollout = errors_of(Windows(NUM_STEPS, 1, 4), Shift(4), batch_size=NUM_SIMULATIONS).rollout
    given = torch.stack(TIMES[-(NUM_STEPS // 4) :])
    np.testing.assert_array_equal(given, np.repeat(1 + 4 * np.arange(NUM_STEPS // 4), NUM_SIMULATIONS).reshape(-1, 5))
    assert max(rollout.relative_l2) < 2e-5


class Fixed(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make, self.weight = make, nn.Parameter(torch.zeros(()))

    def forward(self, fields, scalars):
        return self.make(fields)


def test_a_rollout_that_blows_up_leaves_numbers():
    rollout = errors_of(Samples(), Fixed(lambda fields: 1e4 * fields)).rollout
    assert rollout.relative_l2[0] < 1e5 and rollout.relative_l2[-1] == LARGEST
    assert rollout.correlation[-1] == 0 and rollout.lost == 1


def test_a_constant_prediction_is_lost_at_once():
    rollout = errors_of(Samples(), Fixed(torch.zeros_like)).rollout
    np.testing.assert_allclose(rollout.relative_l2, 1, rtol=1e-5)
    assert set(rollout.correlation) == {0.0} and rollout.correlation_time == 1


def test_trajectories_have_errors_over_time_without_being_repeated():
    rollout = errors_of(Trajectories(NUM_STEPS), Shift(NUM_STEPS, error=0.05)).rollout
    assert rollout.steps == list(range(1, NUM_STEPS + 1))
    np.testing.assert_allclose(rollout.correlation, np.cos(0.05 * np.array(rollout.steps)), atol=2e-5)


def test_without_feeds_samples_have_no_rollouts():
    assert errors_of(Samples(), Shift(), layout=Layout(LAYOUT.inputs, LAYOUT.outputs)).rollout is None


def test_correlations_are_those_of_numpy_by_the_weights_of_points_that_vary():
    """The components of a vector count alike, a scalar not at all; in the padding there may be anything."""
    points = Points(9, 2)
    layout = Layout(
        (FieldSpec(name="before", on=points, components=2),),
        (FieldSpec(name="u", on=points, components=2), FieldSpec(name="drag")),
        {"before": "u"},
    )
    random = np.random.default_rng(0)
    arrays = {name: random.normal(size=(6, *block.shape)).astype(np.float32) for name, block in layout.blocks.items()}
    arrays["weights"] = np.abs(arrays["weights"])
    arrays["weights"][:, :, 7:] = 0
    noise = random.normal(size=(6, 2, 9)).astype(np.float32)
    simulations, steps = np.repeat([0, 1], 3), np.tile(np.arange(3), 2)

    class Noisy(nn.Module):
        num_calls = 0

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, fields, weights):
            Noisy.num_calls += 1
            number = Noisy.num_calls - 4  # after three slices of two rows
            rows = [max(0, number), max(0, number) + 3]
            u = torch.from_numpy(arrays["targets"][rows] + noise[rows])
            u[..., 7:] = torch.nan
            return {"targets": u, "target_scalars": torch.zeros(2, 1)}

    rollouts = rollouts_along(Samples(), layout, simulations, steps)
    validation = Validation(arrays, layout, steps=steps, rollouts=rollouts, batch_size=2)
    rollout = validation.errors(Surrogate(Noisy(), Normalization.identity(layout), layout)).rollout
    expected = np.zeros(3)
    for step in range(3):
        of_channels = []
        for row in (step, step + 3):
            w = arrays["weights"][row, 0, :7]
            for channel in range(2):
                true = arrays["targets"][row, channel, :7]
                c = np.cov(np.stack([true, true + noise[row, channel, :7]]), aweights=w, ddof=0)
                of_channels.append(c[0, 1] / math.sqrt(c[0, 0] * c[1, 1]))
        expected[step] = np.mean(of_channels)
    np.testing.assert_allclose(rollout.correlation, expected, rtol=1e-4)


def test_of_a_long_rollout_few_times_are_recorded(monkeypatch):
    """And the correlation time is that of all times."""
    monkeypatch.setattr("penstock.learner.validation.rollouts.MOST_TIMES", 4)
    rollout = errors_of(Windows(NUM_STEPS, 1, 5), Shift(5, error=0.07), batch_size=NUM_SIMULATIONS).rollout
    assert rollout.steps == [1, 11, 20, 30]  # of 30
    phases = 0.07 * np.array(rollout.steps)
    np.testing.assert_allclose(rollout.relative_l2, 2 * np.sin(phases / 2), atol=2e-5)
    np.testing.assert_allclose(rollout.correlation, np.cos(phases), atol=2e-5)
    assert (rollout.correlation_time, rollout.lost) == (10.0, 1.0)
