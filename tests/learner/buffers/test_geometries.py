"""Samples on meshes, on points that vary and on two geometries, in and out of a buffer, against plain NumPy."""

import itertools

import numpy as np
import pytest
import torch

from penstock.arrays.ragged import Ragged, padded
from penstock.errors import PenstockError
from penstock.geometry import Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout, Sample
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import Fifo, Reservoir
from penstock.learner.buffers.storage import TRIM, Storage
from penstock.learner.buffers.units import Samples, Trajectories
from penstock.learner.buffers.windows import Pairs
from penstock.learner.checkpoints.rows import Rows

pytestmark = pytest.mark.usefixtures("watermark_of_samples")

MAX_POINTS, MAX_EDGES = 300, 290  # both above TRIM, so that batches are cut
CLOUD = Points(MAX_POINTS, 2, max_edges=MAX_EDGES)
PLAIN = Grid((4, 3), name="plain")
BODY = Mesh(3, 2, lambda: (np.array([[0.0, 0], [1, 0], [0, 1]]), np.array([[0, 1, 2]])), name="body")
ON_POINTS = Layout(
    (FieldSpec(name="a", on=CLOUD), FieldSpec(name="k")),
    (FieldSpec(name="u", on=CLOUD, components=2), FieldSpec(name="drag")),
)
ON_TWO = Layout(
    (FieldSpec(name="g", on=PLAIN), FieldSpec(name="k")), (FieldSpec(name="u", on=BODY), FieldSpec(name="force"))
)


def points_sample(number, step=0):
    """Of 1 to MAX_POINTS points and 0 to MAX_EDGES edges, which stay within a simulation; the values are the step's."""
    random = np.random.default_rng(number)
    count = random.integers(1, MAX_POINTS + 1)
    first = random.choice(count - 1, random.integers(0, min(count - 1, MAX_EDGES) + 1), replace=False)
    geometry = {
        "points": random.random((count, 2)),
        "weights": random.uniform(0.1, 1, count),
        "edges": np.stack([first, first + 1], axis=1),
    }
    values = np.random.default_rng((number, step))
    return Sample(
        inputs={"a": values.normal(size=count), "k": number},
        outputs={"u": values.normal(size=(2, count)), "drag": step},
        geometry=geometry,
        step=step,
    )


def grid_to_mesh_sample(number, step=0):
    random = np.random.default_rng((number, step))
    return Sample(
        inputs={"g": random.normal(size=(4, 3)), "k": number},
        outputs={"u": random.normal(size=3), "force": step},
        step=step,
    )


def filled(array, length):
    return np.pad(array, [(0, 0), (0, length - array.shape[-1])])


def expected_row(sample, length, num_edges):
    """The arrays of one sample on points, padded with 0, by the layout's definition."""
    geometry = sample.geometry
    return {
        "fields": filled(sample.inputs["a"][None], length),
        "scalars": np.array([sample.inputs["k"]]),
        "points": filled(geometry["points"].T, length),
        "weights": filled(geometry["weights"][None], length),
        "edges": filled(geometry["edges"].T, num_edges),
        "targets": filled(sample.outputs["u"], length),
        "target_scalars": np.array([sample.outputs["drag"]]),
    }


def trimmed(counts, most):
    return min(most, max(1, -(-max(counts) // TRIM)) * TRIM)


def assert_rows(arrays, samples):
    """The batch is these samples, padded to a multiple of TRIM that holds the longest of them, or to the most."""
    length = trimmed([len(each.geometry["weights"]) for each in samples], MAX_POINTS)
    num_edges = trimmed([len(each.geometry["edges"]) for each in samples], MAX_EDGES)
    rows = [expected_row(sample, length, num_edges) for sample in samples]
    for name, array in arrays.items():
        expected = np.stack([row[name] for row in rows])
        np.testing.assert_array_equal(array, expected.astype(np.int32 if name == "edges" else np.float32), err_msg=name)
        assert array.dtype == (torch.int32 if name == "edges" else torch.float32)


def test_ragged_rows_are_indexed_as_an_array_would_be():
    random = np.random.default_rng(0)
    rows = [random.normal(size=(2, count)).astype(np.float32) for count in (3, 1, 5, 0, 2)]
    ragged = Ragged.of(rows)
    dense = np.stack([filled(row, 5) for row in rows])
    np.testing.assert_array_equal(padded(ragged), dense)
    for index in (slice(1, 4), slice(0, 0), slice(None, None, 2), np.array([4, 0]), np.array([1, 0, 0, 1, 1], bool)):
        picked = ragged[index]
        assert len(picked) == len(dense[index]) and picked.nbytes == 8 * picked.counts.sum()
        np.testing.assert_array_equal(picked.padded(5), dense[index])
    assert np.shares_memory(ragged[1:4].values, ragged.values)


def test_batches_of_points_are_numpys_padding_and_nothing_of_an_earlier_sample_stays_behind():
    """Places are written again and again, by longer and shorter samples, at most as many at a time as there are."""
    storage = Storage(ON_POINTS, 8, Samples(), "cpu", False)
    kept, random = {}, np.random.default_rng(0)
    for first in range(0, 200, 5):
        samples = [points_sample(number) for number in range(first, first + 5)]
        units = random.permutation(8)[:5]
        storage.write(units, np.zeros(5, np.int64), ON_POINTS.pack(samples))
        kept |= dict(zip(units.tolist(), samples, strict=True))
        picked = random.permutation(list(kept))[:4]
        batch = storage.gather(picked, np.zeros(4, np.int64), None)
        assert_rows(batch, [kept[unit] for unit in picked.tolist()])


def test_a_batch_fills_the_front_of_memory_that_it_is_given():
    storage = Storage(ON_POINTS, 4, Samples(), "cpu", False)
    samples = [points_sample(number) for number in range(4)]
    storage.write(np.arange(4), np.zeros(4, np.int64), ON_POINTS.pack(samples))
    short = int(np.argmin([len(sample.geometry["weights"]) for sample in samples]))
    out = {
        name: torch.full((2, *block.shape), 7, dtype=getattr(torch, block.dtype.name))
        for name, block in ON_POINTS.blocks.items()
    }
    batch = storage.gather(np.array([short, short]), np.zeros(2, np.int64), out)
    assert_rows(batch, [samples[short]] * 2)
    assert all(array.is_contiguous() and array.data_ptr() == out[name].data_ptr() for name, array in batch.items())


@pytest.mark.parametrize("chunk_rows", [1, 4, 7])
def test_trajectories_on_points_share_the_geometry_of_their_first_step(chunk_rows):
    num_steps, numbers = 3, range(5)
    draws = Trajectories(num_steps)
    rows = [(number, step) for number in numbers for step in range(num_steps)]
    storage = Storage(ON_POINTS, 5, draws, "cpu", False)
    for part in itertools.batched(rows, chunk_rows):
        units, steps = np.array(part).T
        storage.write(units, steps, ON_POINTS.pack([points_sample(*row) for row in part]))
    order = np.array([3, 0, 4])
    batch = storage.gather(order, np.zeros(3, np.int64), None)
    firsts = [points_sample(number) for number in order.tolist()]
    assert_rows({name: batch[name] for name in ("fields", "scalars", "edges", "points", "weights")}, firsts)
    length = batch["targets"].shape[-1]
    outputs = [[points_sample(number, step).outputs for step in range(num_steps)] for number in order.tolist()]
    targets = np.stack([np.concatenate([filled(each["u"], length) for each in steps]) for steps in outputs])
    np.testing.assert_array_equal(batch["targets"], targets.astype(np.float32))
    np.testing.assert_array_equal(batch["target_scalars"], [[0, 1, 2]] * 3)
    assert draws.layout(ON_POINTS).blocks["targets"].channels["u_1"] == slice(2, 4)


def test_pairs_on_points_are_from_values_to_later_ones_on_the_same_points():
    num_steps, stride = 4, 2
    draws = Pairs(num_steps, stride)
    units, steps = np.divmod(np.arange(5 * num_steps), num_steps)
    storage = Storage(ON_POINTS, 5, draws, "cpu", False)
    samples = [points_sample(*row) for row in zip(units.tolist(), steps.tolist(), strict=True)]
    storage.write(units, steps, ON_POINTS.pack(samples))
    picked, choices = np.array([4, 1, 1]), np.array([1, 0, 1])
    batch = storage.gather(picked, choices, None)
    before = [points_sample(*row) for row in zip(picked.tolist(), choices.tolist(), strict=True)]
    after = [points_sample(*row) for row in zip(picked.tolist(), (choices + stride).tolist(), strict=True)]
    length = batch["weights"].shape[-1]
    fields = [np.concatenate([sample.inputs["a"][None], sample.outputs["u"]]) for sample in before]
    np.testing.assert_array_equal(batch["fields"], np.stack([filled(f, length) for f in fields]).astype(np.float32))
    np.testing.assert_array_equal(batch["scalars"], [[4, 1], [1, 0], [1, 1]])  # k, and the drag before
    names = ("points", "weights", "edges", "targets", "target_scalars")
    assert_rows({name: batch[name] for name in names}, after)


@pytest.mark.parametrize("draws", [Samples(), Trajectories(3), Pairs(3)], ids=repr)
def test_inputs_on_a_grid_and_outputs_on_a_mesh_are_arrays_of_their_own(draws):
    units, steps = np.divmod(np.arange(12), 3) if draws.num_steps > 1 else (np.arange(12), np.zeros(12, np.int64))
    samples = [grid_to_mesh_sample(*row) for row in zip(units.tolist(), steps.tolist(), strict=True)]
    packed = ON_TWO.pack(samples)
    storage = Storage(ON_TWO, 12, draws, "cpu", False)
    storage.write(units, steps, packed)
    batch = storage.gather(np.array([2, 0]), np.zeros(2, np.int64), None)
    first = [2 * draws.num_steps, 0]
    if isinstance(draws, Pairs):
        assert batch.keys() == {"fields_plain", "fields_body", "scalars", "targets", "target_scalars"}
        np.testing.assert_array_equal(batch["fields_plain"], packed["fields"][first])
        np.testing.assert_array_equal(batch["fields_body"], packed["targets"][first])
        np.testing.assert_array_equal(batch["targets"], packed["targets"][[7, 1]])
        np.testing.assert_array_equal(batch["scalars"], [[2, 0], [0, 0]])
    else:
        targets = packed["targets"].reshape(-1, draws.num_steps, 3)
        np.testing.assert_array_equal(batch["fields"], packed["fields"][first])
        np.testing.assert_array_equal(batch["targets"], targets[[2, 0]])
    rows, *_ = draws.all_rows(packed, ON_TWO, units, steps)
    assert {name: array.shape[1:] for name, array in rows.items()} == draws.layout(ON_TWO).shapes
    for name, array in batch.items():
        np.testing.assert_array_equal(rows[name][[2 * draws.num_choices, 0]], array)


@pytest.mark.parametrize("kind", [Fifo, Reservoir])
@pytest.mark.parametrize("draws", [Samples(), Trajectories(3), Pairs(3)], ids=repr)
def test_a_restored_buffer_of_points_draws_what_the_saved_one_does(kind, draws):
    """Its counts of points too: batches are trimmed alike."""

    def new_buffer():
        return Buffer(ON_POINTS, kind(), capacity=36, watermark=12, seed=0, unit=draws)

    def put(buffer, numbers):
        rows = [(number, step) for number in numbers for step in range(draws.num_steps)]
        simulations, steps = np.array(rows).T
        assert buffer.put_now(ON_POINTS.pack([points_sample(*row) for row in rows]), simulations, steps) == len(rows)

    first, second = new_buffer(), new_buffer()
    put(first, range(12))
    first.draw(4, 0.0)
    state = first.state()
    second.load_state({name: written(value) for name, value in state.items()})
    for _ in range(2):
        drawn, expected = (buffer.draw(4, 0.0).arrays for buffer in (second, first))
        assert drawn.keys() == expected.keys()
        assert all(torch.equal(drawn[name], expected[name]) for name in expected)
    if kind is Reservoir:
        for buffer in (first, second):
            put(buffer, range(20, 22))  # in the places of others
        drawn, expected = (buffer.draw(4, 0.0).arrays for buffer in (second, first))
        assert all(torch.equal(drawn[name], expected[name]) for name in expected)


def written(value):
    """What a checkpoint makes of the rows that it is given."""
    return (
        value.tensor[slice(None) if value.index is None else value.index].clone() if isinstance(value, Rows) else value
    )


def test_a_validation_set_of_points_is_as_long_as_its_longest_sample():
    samples = sorted((points_sample(n) for n in range(6)), key=lambda sample: len(sample.geometry["weights"]))[:3]
    packed = {name: padded(rows) for name, rows in ON_POINTS.pack(samples).items()}
    rows, *_ = Samples().all_rows(packed, ON_POINTS, np.arange(3), np.zeros(3, np.int64))
    assert rows["targets"].shape == (3, 2, len(samples[-1].geometry["weights"]))
    for name, array in rows.items():
        np.testing.assert_array_equal(array, packed[name])
        assert array.dtype == packed[name].dtype


@pytest.mark.parametrize("draws", [Trajectories(2), Pairs(2)], ids=repr)
def test_points_that_move_from_step_to_step_are_refused_where_those_of_step_0_stand_for_all(draws):
    """The same number of them, of which one has moved a little."""
    samples = [points_sample(number, step) for number in (4, 9) for step in range(2)]
    simulations, steps = np.array([4, 4, 9, 9]), np.array([0, 1, 0, 1])
    packed = {name: padded(rows) for name, rows in ON_POINTS.pack(samples).items()}
    draws.all_rows(packed, ON_POINTS, simulations, steps)
    packed["points"][3, 0, 0] += 1e-3
    with pytest.raises(
        PenstockError, match=r"^buffer\.draw: points of simulation 9 change from step to step, .*: take "
    ):
        draws.all_rows(packed, ON_POINTS, simulations, steps)
    Samples().all_rows(packed, ON_POINTS, simulations, steps)
