"""Trajectories from rollouts: frames by name and in order, of sets whose rows come in any order."""

import numpy as np
import pytest
import torch
from torch import nn

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.units import Samples, Trajectories
from penstock.learner.buffers.windows import Pairs, Windows
from penstock.learner.normalization import Normalization
from penstock.learner.rollout.trajectories import trajectories
from penstock.learner.surrogate import Surrogate

GRID = Grid((4,))
FED = Layout(
    (FieldSpec(name="before", on=GRID, components=2), FieldSpec(name="gain")),
    (FieldSpec(name="pressure", on=GRID), FieldSpec(name="solution", on=GRID, components=2)),
    {"before": "solution"},
)
NUM_STEPS = 7


def samples(numbers):
    """State j of simulation i is 100 i + j and, in its second component, 1000 more; the pressure is its negative."""
    simulations, steps = np.repeat(numbers, NUM_STEPS), np.tile(np.arange(NUM_STEPS), len(numbers))
    state = (100.0 * simulations + steps)[:, None, None] + np.array([0, 1000])[:, None] + np.zeros(4)
    arrays = {
        "fields": state,
        "scalars": np.full((len(steps), 1), 0.5),
        "targets": np.concatenate([-state[:, :1] - 1, state + 1], axis=1),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}, simulations, steps


class PlusGain(nn.Module):
    """Adds the gain, half of the true step, to the last state that it is given, for each of its m states."""

    def __init__(self, num_outputs=1, num_steps=1):
        super().__init__()
        self.num_outputs, self.num_steps = num_outputs, num_steps
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, fields, scalars):
        last, states = fields[:, -2:], []
        for number in range(self.num_outputs):
            state = last + self.num_steps * (number + 1) * scalars[..., None]
            states += [-state[:, :1], state]
        return torch.cat(states, dim=1)


@pytest.mark.parametrize(
    ("unit", "given", "num_outputs", "stride"),
    [
        (Samples(), 1, 1, 1),
        (Windows(NUM_STEPS, 1, 2), 1, 2, 1),
        (Windows(NUM_STEPS, 3, 2), 3, 2, 1),
        (Pairs(NUM_STEPS, 2), 1, 1, 2),
        (Trajectories(NUM_STEPS), 1, NUM_STEPS, 1),
    ],
    ids=repr,
)
def test_frames_are_true_and_predicted_ones_from_the_start_of_each_simulation(unit, given, num_outputs, stride):
    unit = unit.fitted(FED)
    rows, *origins = unit.all_rows(samples([3, 5])[0], FED, *samples([3, 5])[1:])
    order = np.random.default_rng(0).permutation(len(origins[0]))
    rows, origins = {name: array[order] for name, array in rows.items()}, [each[order] for each in origins]
    layout = unit.layout(FED)
    surrogate = Surrogate(PlusGain(num_outputs, stride), Normalization.identity(layout), layout)
    rolled = trajectories(surrogate, unit, FED, rows, *origins)
    num = (NUM_STEPS + 1 - given * stride + stride - 1) // stride // num_outputs * num_outputs
    steps = stride * (1 + np.arange(num))
    assert rolled.steps == steps.tolist() and rolled.simulations.tolist() == [3, 5]
    np.testing.assert_array_equal(origins[1][rolled.first_rows], 0)
    start = np.array([[300], [500]]) + (given - 1) * stride  # the last state that is given
    assert rolled.given.keys() == {"solution"}
    np.testing.assert_array_equal(rolled.given["solution"][:, 1, 2:3], start + 1000)
    assert rolled.true["solution"].shape == (2, num, 2, 4) and rolled.true["pressure"].shape == (2, num, 4)
    np.testing.assert_array_equal(rolled.true["solution"][:, :, 0, 0], start + steps)
    np.testing.assert_array_equal(rolled.true["solution"][:, :, 1, 3], start + steps + 1000)
    np.testing.assert_array_equal(rolled.predicted["solution"][:, :, 1, 3], start + 0.5 * steps + 1000)
    np.testing.assert_array_equal(rolled.predicted["pressure"][:, :, 0], -(start + 0.5 * steps))


def test_one_state_alone_is_no_trajectory():
    layout = Layout(FED.inputs, FED.outputs)
    surrogate = Surrogate(PlusGain(), Normalization.identity(layout), layout)
    arrays, *origins = samples([3, 5])
    assert trajectories(surrogate, Samples(), layout, arrays, *origins) is None
    firsts = origins[1] == 0
    surrogate.layout = FED
    one_step = {name: array[firsts] for name, array in arrays.items()}
    assert trajectories(surrogate, Samples(), FED, one_step, *(each[firsts] for each in origins)) is None
