"""Windows of simulations whose values say which frame they are, from a set and from a buffer."""

import numpy as np
import pytest

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import Reservoir
from penstock.learner.buffers.units import Samples, Trajectories
from penstock.learner.buffers.windows import Pairs, Windows
from penstock.learner.checkpoints.rows import Rows
from penstock.learner.normalization import Normalization, RunningMoments

GRID = Grid((3,))
STATE, TIME = FieldSpec(name="before", on=GRID), FieldSpec(name="time")
FED = Layout((STATE, TIME), (FieldSpec(name="solution", on=GRID),), {"before": "solution"})
SHARED = Layout(  # the state is a vector that shares its array with a force, and not all outputs are fed
    (FieldSpec(name="force", on=GRID), FieldSpec(name="before", on=GRID, components=2), TIME),
    (FieldSpec(name="pressure", on=GRID), FieldSpec(name="solution", on=GRID, components=2)),
    {"before": "solution"},
)


def simulation(layout, number, num_steps):
    """Frame j of simulation i has the value 100 i + j, and a time that differs from it by 1/2."""
    frames = 100 * number + np.arange(num_steps + 1)
    values = {
        "before": frames[:-1],
        "solution": frames[1:],
        "time": frames[:-1] + 0.5,
        "force": -frames[:-1],
        "pressure": -1000 - frames[1:],
    }
    ones = {name: np.ones((num_steps, *block.shape), np.float32) for name, block in layout.blocks.items()}
    for name, block in layout.blocks.items():
        for quantity, channel in block.channels.items():
            value = values[quantity].reshape(-1, *[1] * (ones[name][:, channel].ndim - 1))
            ones[name][:, channel] *= value
    return ones


def by_name(arrays, layout):
    """One number per row and quantity, after it was seen that there are no others."""
    named = {}
    for name, block in layout.blocks.items():
        for quantity, values in block.by_name(np.asarray(arrays[name])).items():
            flat = values.reshape(len(values), -1)
            np.testing.assert_array_equal(flat, np.broadcast_to(flat[:, :1], flat.shape))
            named[quantity] = flat[:, 0]
    return named


def rows_of(unit, layout, numbers, num_steps):
    arrays = [simulation(layout, number, num_steps) for number in numbers]
    joined = {name: np.concatenate([each[name] for each in arrays]) for name in layout.blocks}
    simulations, steps = np.repeat(numbers, num_steps), np.tile(np.arange(num_steps), len(numbers))
    rows, *_ = unit.all_rows(joined, layout, simulations, steps)
    return by_name(rows, unit.layout(layout))


def test_windows_of_one_frame_and_one_after_it_are_the_samples_of_a_problem_that_is_fed():
    unit = Windows(5).fitted(FED)
    assert set(unit.layout(FED).inputs) == set(FED.inputs) and unit.layout(FED).outputs == FED.outputs
    windows, samples = rows_of(unit, FED, [3, 5], 5), rows_of(Samples(), FED, [3, 5], 5)
    assert windows.keys() == samples.keys()
    for name, values in samples.items():
        np.testing.assert_array_equal(windows[name], values)


@pytest.mark.parametrize("layout", [FED, SHARED], ids=["alone", "beside a force"])
@pytest.mark.parametrize(("k", "m", "stride"), [(1, 1, 1), (2, 3, 1), (3, 1, 1), (1, 2, 2), (2, 2, 2), (4, 4, 1)])
def test_a_window_is_frames_and_those_after_them(layout, k, m, stride):
    """Every frame of a simulation of 7 steps is 1 more than the one before, whatever array it came in."""
    unit = Windows(7, k, m, stride).fitted(layout)
    rows = rows_of(unit, layout, [3, 5], 7)
    num = 8 - (k + m - 1) * stride
    start = np.concatenate([100 * i + np.arange(num) for i in (3, 5)])
    for i in range(k):
        np.testing.assert_array_equal(rows["before" if k == 1 else f"before_{i}"], start + i * stride)
    last = start + (k - 1) * stride
    for j in range(m):
        suffix = "" if m == 1 else f"_{j}"
        np.testing.assert_array_equal(rows["solution" + suffix], last + (j + 1) * stride)
        if layout is SHARED:
            np.testing.assert_array_equal(rows["pressure" + suffix], -1000 - last - (j + 1) * stride)
    np.testing.assert_array_equal(rows["time"], last + 0.5)  # of the step that leads away from the last frame
    if layout is SHARED:
        np.testing.assert_array_equal(rows["force"], -last)


def test_what_a_window_is_given_next_is_in_it():
    """Along the feeds of its layout a row leads to the inputs of the row that begins m frames later."""
    for k, m in [(1, 1), (1, 3), (3, 1), (2, 2), (3, 5), (5, 3)]:
        unit = Windows(12, k, m).fitted(FED)
        layout, rows = unit.layout(FED), rows_of(unit, FED, [0], 12)
        assert unit.frames(FED).advance == m
        assert layout.feeds.keys() == {spec.name for spec in layout.inputs} - {"time"}
        for name, source in layout.feeds.items():
            np.testing.assert_array_equal(rows[source][:-m], rows[name][m:])


def test_without_feeds_all_outputs_are_frames():
    plain = Layout(FED.inputs, FED.outputs)
    unit = Windows(7, 2, 2).fitted(plain)
    rows = rows_of(unit, plain, [3], 7)
    first = 301 + np.arange(4)  # the first output is frame 1
    assert [spec.name for spec in unit.layout(plain).inputs] == [
        "before",
        "time",
        *(f"solution_before_{i}" for i in (0, 1)),
    ]
    for i, name in enumerate(["solution_before_0", "solution_before_1", "solution_0", "solution_1"]):
        np.testing.assert_array_equal(rows[name], first + i)
    np.testing.assert_array_equal(rows["before"], first)  # of the step of the last frame that is given
    pairs, windows = rows_of(Pairs(7, 2), plain, [3], 7), rows_of(Windows(7, 1, 1, 2), plain, [3], 7)
    assert all(np.array_equal(pairs[name], windows[name]) for name in pairs.keys() | windows.keys())


def test_a_frame_is_stored_once():
    unit = Windows(7, 2, 3).fitted(FED)
    assert {name: unit.num_kept(block) for name, block in FED.blocks.items()} == {
        "fields": 1,
        "scalars": 7,
        "targets": 7,
    }


@pytest.mark.parametrize("layout", [FED, SHARED], ids=["alone", "beside a force"])
@pytest.mark.parametrize("num_unrolled", [1, 3])
def test_a_buffer_draws_every_window_and_those_that_follow_it(layout, num_unrolled):
    unit = Windows(9, 2, 2).fitted(layout).unrolled(num_unrolled)
    buffer = Buffer(layout, Reservoir(), capacity=4 * 9, watermark=9, seed=0, unit=unit)
    for number in range(4):
        order = np.random.default_rng(number).permutation(9)  # steps may come in any order
        arrays = {name: values[order] for name, values in simulation(layout, number, 9).items()}
        assert buffer.put_now(arrays, np.full(9, number), order) == 9
    seen = set()
    for _ in range(40):
        batch = buffer.draw(3, 0.0)
        rows = by_name(batch.arrays, buffer.layout)
        first = 100 * batch.simulations + batch.steps
        starts = np.concatenate([first + 2 * n for n in range(num_unrolled)])
        for name, after in {"before_0": 0, "before_1": 1, "time": 1.5, "solution_0": 2, "solution_1": 3}.items():
            np.testing.assert_array_equal(rows[name], starts + after)
        seen |= set(first.tolist())
        assert len(batch) == 3
    num_choices = 10 - 3 - 2 * (num_unrolled - 1)
    assert seen == {100 * i + j for i in range(4) for j in range(num_choices)}


@pytest.mark.parametrize("layout", [FED, SHARED], ids=["alone", "beside a force"])
def test_statistics_are_those_of_all_windows(layout):
    """Against NumPy on the rows themselves, of a field that decays from frame to frame."""
    random = np.random.default_rng(0)
    frames = 10.0 ** -np.arange(6) * random.normal(size=(10, 3, 2, 6)) + 0.3
    simulations, steps = np.repeat(np.arange(10), 5), np.tile(np.arange(5), 10)
    arrays = {name: random.normal(size=(50, *shape)).astype(np.float32) for name, shape in layout.shapes.items()}
    for i in range(10):
        for j in range(5):
            for name, after in (("before", 0), ("solution", 1)):
                (block,) = (b for b in layout.blocks.values() if name in b.channels)
                channel = block.channels[name]
                values = frames[i, ..., j + after].T  # [2, 3]
                arrays[block.name][5 * i + j, channel] = values if isinstance(channel, slice) else values[0]
    unit = Windows(5, 2, 2).fitted(layout)
    moments = RunningMoments(5)
    moments.update(arrays, steps)
    normalization = Normalization.from_moments(moments, unit.layout(layout), unit.sources(layout))
    rows, *_ = unit.all_rows(arrays, layout, simulations, steps)
    for name, values in rows.items():
        axes, values = (0, *range(2, values.ndim)), values.astype(np.float64)
        np.testing.assert_allclose(getattr(normalization, f"{name}_mean"), values.mean(axes), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(getattr(normalization, f"{name}_std"), values.std(axes), rtol=1e-5)


def test_a_restored_buffer_has_the_first_frame():
    unit = Windows(4).fitted(FED)
    first, second = (Buffer(FED, Reservoir(), capacity=4, watermark=4, seed=0, unit=unit) for _ in range(2))
    first.put_now(simulation(FED, 1, 4), np.ones(4, np.int64), np.arange(4))
    second.load_state({name: written(value) for name, value in first.state().items()})
    drawn = [sorted(float(b.draw(1, 0.0).arrays["fields"][0, 0, 0]) for _ in range(4)) for b in (first, second)]
    assert drawn == [[100, 101, 102, 103]] * 2


def written(value):
    """What a checkpoint makes of the rows that it is given."""
    return value.tensor[value.index].clone() if isinstance(value, Rows) else value


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Windows(1), "windows need a problem whose num_steps is above 1, not 1"),
        (lambda: Windows(4, inputs=0), "inputs of windows must be at least 1, not 0"),
        (lambda: Windows(4, 3, 3).fitted(FED), "6 frames 1 apart are more than a simulation has, which is 5"),
        (lambda: Windows(4, 1, 2, 2).fitted(Layout(FED.inputs, FED.outputs)), "3 frames 2 apart .* which is 4"),
        (lambda: Windows(4).fitted(FED).unrolled(5), "6 frames 1 apart are more than a simulation has, which is 5"),
        (lambda: Samples().unrolled(2), "it takes several steps of a simulation: draw windows or pairs"),
        (lambda: Trajectories(4).unrolled(2), "it takes several steps of a simulation: draw windows or pairs"),
        (
            lambda: Layout(FED.inputs, FED.outputs, {"befor": "solution"}),
            r"^feeds\['befor'\]: there is no input of that name: did you mean 'before'\?$",
        ),
        (
            lambda: Layout(FED.inputs, FED.outputs, {"before": "solutoin"}),
            r"^feeds\['before'\]: there is no output 'solutoin': did you mean 'solution'\?$",
        ),
        (lambda: Layout(FED.inputs, FED.outputs, {"time": "solution"}), "'time' can't hold 'solution'"),
    ],
)
def test_windows_that_cannot_be(make, expected):
    with pytest.raises(ValueError, match=expected):
        make()
