"""What units become in batches and, as a whole, in a validation set."""

import itertools

import numpy as np
import pytest

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.units import Samples, Trajectories
from penstock.learner.buffers.windows import Pairs
from penstock.learner.normalization import Normalization, RunningMoments

GRID = (2, 2)
LAYOUT = Layout(
    (FieldSpec(name="a", on=Grid(GRID), unit="m"), FieldSpec(name="k")),
    (FieldSpec(name="p", on=Grid(GRID), unit="Pa"), FieldSpec(name="q", on=Grid(GRID))),
)


def simulation(number, num_steps):
    """Arrays of all steps: a = number, k = step, p = 10 number + step, q = -p."""
    steps = np.arange(num_steps)
    ones = np.ones((num_steps, 1, *GRID), np.float32)
    p = (10 * number + steps).reshape(-1, 1, 1, 1) * ones
    arrays = {"fields": number * ones, "scalars": steps[:, None].astype(np.float32), "targets": np.hstack([p, -p])}
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def all_rows(draw, numbers, num_steps, layout=LAYOUT):
    """Simulations one after another, their rows then shuffled."""
    arrays = [simulation(number, num_steps) for number in numbers]
    order = np.random.default_rng(0).permutation(len(numbers) * num_steps)
    joined = {name: np.concatenate([each[name] for each in arrays])[order] for name in layout.shapes}
    simulations, steps = np.repeat(numbers, num_steps)[order], np.tile(np.arange(num_steps), len(numbers))[order]
    rows, row_simulations, row_steps = draw.all_rows(joined, layout, simulations, steps)
    assert {name: array.shape[1:] for name, array in rows.items()} == draw.layout(layout).shapes
    np.testing.assert_array_equal(row_steps, rows["scalars"][:, 0])  # a sample's inputs are its simulation and step
    if "fields" in layout.shapes:
        np.testing.assert_array_equal(row_simulations, rows["fields"][:, 0, 0, 0])
    return {name: array if name == "scalars" else array[..., 0, 0] for name, array in rows.items()}


def test_samples_are_as_they_come():
    assert Samples().layout(LAYOUT) == LAYOUT
    rows = all_rows(Samples(), [3, 5], 2)
    assert sorted(zip(rows["fields"][:, 0], rows["scalars"][:, 0], rows["targets"][:, 1], strict=True)) == [
        (3, 0, -30),
        (3, 1, -31),
        (5, 0, -50),
        (5, 1, -51),
    ]


def test_a_trajectory_is_from_the_first_inputs_to_all_outputs():
    layout = Trajectories(3).layout(LAYOUT)
    assert layout.inputs == LAYOUT.inputs
    assert [spec.name for spec in layout.outputs] == ["p_0", "q_0", "p_1", "q_1", "p_2", "q_2"]
    assert layout.outputs[2].unit == "Pa"
    rows = all_rows(Trajectories(3), [3, 5], 3)
    np.testing.assert_array_equal(rows["fields"], [[3], [5]])
    np.testing.assert_array_equal(rows["scalars"], [[0], [0]])
    np.testing.assert_array_equal(rows["targets"], [[30, -30, 31, -31, 32, -32], [50, -50, 51, -51, 52, -52]])


def test_a_pair_is_from_inputs_and_outputs_to_later_outputs():
    layout = Pairs(4, 2).layout(LAYOUT)
    assert [spec.name for spec in layout.inputs] == ["a", "k", "p_before", "q_before"]
    assert layout.outputs == LAYOUT.outputs
    rows = all_rows(Pairs(4, 2), [3, 5], 4)
    np.testing.assert_array_equal(rows["fields"], [[3, 30, -30], [3, 31, -31], [5, 50, -50], [5, 51, -51]])
    np.testing.assert_array_equal(rows["scalars"], [[0], [1], [0], [1]])
    np.testing.assert_array_equal(rows["targets"], [[32, -32], [33, -33], [52, -52], [53, -53]])


def test_pairs_of_a_problem_without_input_fields_have_the_outputs_before():
    layout = Layout(LAYOUT.inputs[1:], LAYOUT.outputs)
    rows = all_rows(Pairs(2), [3], 2, layout)
    np.testing.assert_array_equal(rows["fields"], [[30, -30]])
    np.testing.assert_array_equal(rows["targets"], [[31, -31]])


@pytest.mark.parametrize("draw", [Samples(), Trajectories(4), Pairs(4), Pairs(4, 2)], ids=repr)
def test_statistics_of_a_batchs_channels_are_those_of_all_rows_that_could_be_drawn(draw):
    """Against NumPy on the rows themselves: a field that decays from step to step, chunks cut anywhere."""
    random = np.random.default_rng(0)
    simulations, steps = np.repeat(np.arange(12), 4), np.tile(np.arange(4), 12)
    decay = 10.0 ** -steps[:, None, None, None]
    arrays = {
        "fields": (5 + decay * random.normal(size=(48, 1, *GRID))).astype(np.float32),
        "scalars": (steps[:, None] + random.normal(size=(48, 1))).astype(np.float32),
        "targets": (decay * (1 + random.normal(size=(48, 2, *GRID)))).astype(np.float32),
    }
    moments = RunningMoments(draw.num_steps)
    for start, end in itertools.pairwise([0, 1, 7, 30, 48]):
        moments.update({name: array[start:end] for name, array in arrays.items()}, steps[start:end])
    normalization = Normalization.from_moments(moments, draw.layout(LAYOUT), draw.sources(LAYOUT))
    rows, *_ = draw.all_rows(arrays, LAYOUT, simulations, steps)
    assert set(rows) == set(draw.layout(LAYOUT).shapes)
    for name, values in rows.items():
        axes = (0, *range(2, values.ndim))
        values = values.astype(np.float64)
        np.testing.assert_allclose(getattr(normalization, f"{name}_mean"), values.mean(axes), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(getattr(normalization, f"{name}_std"), values.std(axes), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Trajectories(1), "trajectories need a problem whose num_steps is above 1, not 1"),
        (lambda: Pairs(1), "pairs need a problem whose num_steps is above 1, not 1"),
        (lambda: Pairs(4, 4), "stride of pairs must be between 1 and 3, not 4"),
        (lambda: Pairs(4, 0), "stride of pairs must be between 1 and 3, not 0"),
    ],
)
def test_draws_that_cannot_be(make, expected):
    with pytest.raises(ValueError, match=expected):
        make()


@pytest.mark.parametrize(("simulations", "steps"), [([0, 0, 1], [0, 1, 0]), ([0, 0, 1, 1], [0, 1, 0, 2])])
def test_a_set_with_steps_missing_is_refused(simulations, steps):
    arrays = {name: np.zeros((len(steps), *shape), np.float32) for name, shape in LAYOUT.shapes.items()}
    with pytest.raises(ValueError, match="must have steps 0 to 1"):
        Pairs(2).all_rows(arrays, LAYOUT, np.array(simulations), np.array(steps))
