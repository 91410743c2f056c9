"""Stores of samples: what comes out is what went in, once per epoch, and nothing is solved twice."""

import json
import re
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from penstock.arrays import layout_json
from penstock.arrays.ragged import padded
from penstock.errors import PenstockError
from penstock.geometry import Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout, Sample
from penstock.messages import Lease
from penstock.orchestrator.config.config import load_config
from penstock.registry import build
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import Problem
from penstock.solvers.problems.stored import Stored
from penstock.solvers.stored import samples
from penstock.solvers.stored.samples import SampleStore, SampleWriter
from penstock.solvers.worker import SolverWorker
from tests.support.refusals import refusal

CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
CELLS = np.array([[0, 1, 2], [0, 2, 3]])
PLATE = Mesh(4, 2, lambda: (CORNERS, CELLS), name="plate")
GRID = Grid((3, 2), extent=(2.0, 1.0), centring="vertices", periodic=(True, False), name="channel")
CLOUD = Points(9, 2, extent=(1.0, 2.0), max_edges=8)
MASKED = Grid((2, 2), is_masked=True, name="mask")


class Everything(Problem):
    """Fields on every kind of geometry, two steps, points that vary; x = 1.5 and more fails after the first step."""

    num_steps = 2

    def __init__(self, limit: float = 2.0):
        self.limit = limit
        self.space = ParameterSpace(x=Uniform(0.0, 2.0, "m"))
        self.inputs = (
            FieldSpec(name="x", unit="m"),
            FieldSpec(name="time", unit="s"),
            FieldSpec(name="a", on=CLOUD, components=2),
            FieldSpec(name="m", on=MASKED),
        )
        self.outputs = (
            FieldSpec(name="u", on=CLOUD),
            FieldSpec(name="v", on=PLATE),
            FieldSpec(name="w", on=GRID, components=3),
            FieldSpec(name="drag", components=2),
        )

    def simulate(self, parameters, solve):
        x = parameters["x"]
        random = np.random.default_rng(int(1e6 * x))
        count = 2 + int(3 * x)
        for step in range(2):
            if step == 1 and x >= self.limit:
                raise ValueError("x is too large")
            yield Sample(
                inputs={"x": x, "a": random.random((2, count)), "m": random.random((2, 2))},
                outputs={
                    "u": random.random(count),
                    "v": random.random(4),
                    "w": random.random((3, 3, 2)),
                    "drag": random.random(2),
                },
                geometry={
                    "points": random.random((count, 2)),
                    "weights": random.uniform(0.1, 1, count),
                    "edges": np.stack([np.arange(count - 1), np.arange(1, count)], axis=1),
                    "mask_weights": np.array([[0.25, 0.0], [0.25, 0.1]]),
                },
                step=step,
                time=0.5 * step,
            )


def stream(problem, simulations, design="training", seed=0):
    """The chunks of a lease; these problems solve no systems."""
    solver = LinearSolver(Direct(), rtol=1e-8)
    worker = SolverWorker(problem, {"training": solver}, seed=seed, sort=False)
    return list(worker.stream(Lease(number=0, simulations=tuple(simulations), design=design)))


def rows_of(chunks, layout):
    """Every sample's arrays by (simulation, step), as packed."""
    return {
        (int(chunk.simulations[row]), int(chunk.steps[row])): {
            name: padded(chunk.arrays[name][row : row + 1]) for name in layout.blocks
        }
        for chunk in chunks
        for row in range(len(chunk))
    }


STOP = "training: {stop_after: {steps: 1}}"


def write(path, problem, simulations, per_shard=4, seed=0):
    writer = SampleWriter(path, problem.layout, problem.num_steps, {"seed": seed}, {})
    left = [simulation for simulation in simulations if simulation not in writer.ended]
    for start in range(0, len(left), per_shard):
        for chunk in stream(problem, left[start : start + per_shard]):
            writer.add(chunk)
        writer.flush()
    return left


def test_a_layout_comes_back_from_json():
    layout = Everything().layout
    described = json.loads(json.dumps(layout_json.as_json(layout)))
    again = layout_json.from_json(described, lambda number: PLATE.build)
    assert again == layout
    before = replace(layout.outputs[0], name="before")
    fed = Layout((*layout.inputs, before), layout.outputs, {"before": layout.outputs[0].name})
    again = layout_json.from_json(json.loads(json.dumps(layout_json.as_json(fed))), lambda number: PLATE.build)
    assert again == fed and again.feeds == fed.feeds
    (first, *_), output = layout.inputs, layout.outputs[0]
    more = Layout(layout.inputs, (output, output.derivative("p")), tangents=(first.derivative("p"),))
    again = layout_json.from_json(json.loads(json.dumps(layout_json.as_json(more))), lambda number: PLATE.build)
    assert again == more and again.derivatives == more.derivatives


def test_samples_come_back_bit_for_bit_whatever_they_sit_on(tmp_path):
    problem = Everything()
    write(tmp_path / "store.zarr", problem, range(10))
    stored = build(Stored, {"path": str(tmp_path / "store.zarr"), "held_out": 3}, "problem")
    assert stored.num_steps == 2 and list(stored.layout.blocks) == list(problem.layout.blocks)
    np.testing.assert_array_equal(stored.layout.geometries[1].arrays.cells, CELLS)
    truth = rows_of(stream(problem, range(10)), problem.layout)
    held_out = rows_of(stream(stored, range(3), design="validation"), stored.layout)
    trained = stream(stored, range(7))
    order = [stored.draw_numbered(0, "training", position)["simulation"] for position in range(7)]
    assert sorted(order) == list(range(3, 10))
    read = held_out | {(order[i], step): row for (i, step), row in rows_of(trained, stored.layout).items()}
    assert read.keys() == truth.keys()
    for key, arrays in truth.items():
        for name, values in arrays.items():
            np.testing.assert_array_equal(read[key][name], values, strict=True)


def test_each_epoch_reads_each_simulation_once_in_another_order_and_shard_by_shard(tmp_path):
    write(tmp_path / "store.zarr", Everything(), range(23), per_shard=5)
    stored = Stored(path=str(tmp_path / "store.zarr"), held_out=2)
    epochs = [
        [stored.draw_numbered(0, "training", 21 * epoch + position)["simulation"] for position in range(21)]
        for epoch in range(3)
    ]
    assert all(sorted(epoch) == list(range(2, 23)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    shards = [simulation // 5 for simulation in epochs[0]]
    assert sum(here != there for here, there in pairwise(shards)) == 4
    another = Stored(path=str(tmp_path / "store.zarr"), held_out=2)  # another worker
    assert [another.draw_numbered(0, "training", 21 + i)["simulation"] for i in range(21)] == epochs[1]
    assert another.draw_numbered(1, "training", 0) != another.draw_numbered(0, "training", 0) or (
        another.draw_numbered(1, "training", 1) != another.draw_numbered(0, "training", 1)
    )


def test_a_store_that_grows_gives_a_run_what_it_gave_before(tmp_path):
    """As a run does: it notes the shards when it begins, and what it asks for later does not change."""
    path = tmp_path / "store.zarr"
    write(path, Everything(), range(10))
    (tmp_path / "run.yaml").write_text(f"problem: {{name: store, path: {path}, held_out: 3}}\n{STOP}")
    options = load_config(tmp_path / "run.yaml").problem.options
    assert options["num_shards"] == 3
    before = [Stored(**options).draw_numbered(0, "training", i) for i in range(14)]
    write(path, Everything(), range(20))
    assert [Stored(**options).draw_numbered(0, "training", i) for i in range(14)] == before
    with pytest.raises(ValueError, match="has 6 shards, and 9 are to be read: some are gone"):
        Stored(path=str(path), held_out=3, num_shards=9)


def test_a_second_call_solves_only_what_is_missing(tmp_path):
    path, problem = tmp_path / "store.zarr", Everything(limit=1.5)
    first = write(path, problem, range(6))
    failed = SampleStore(path).failed
    assert first == list(range(6)) and failed and failed < set(first)
    (path / ".shard-000002").mkdir()  # of a writer that was killed
    assert write(path, problem, range(10)) == [6, 7, 8, 9]
    store = SampleStore(path)
    assert store.finished | store.failed == set(range(10)) and not store.finished & store.failed
    rows = [arrays["simulation"] for arrays in map(store.read, store.shards)]
    assert sorted(np.concatenate(rows)) == sorted(2 * list(store.finished))
    assert not write(path, problem, range(10))


def test_a_simulation_that_goes_on_stays_out_of_the_shard_until_it_ends(tmp_path):
    problem = Everything()
    (chunk,) = stream(problem, [0, 1])
    halves = [
        replace(
            chunk,
            arrays={name: rows[part] for name, rows in chunk.arrays.items()},
            simulations=chunk.simulations[part],
            steps=chunk.steps[part],
            finished=finished,
        )
        for part, finished in ((slice(0, 3), (0,)), (slice(3, 4), (1,)))
    ]
    writer = SampleWriter(tmp_path / "store.zarr", problem.layout, 2, {}, {})
    for half in halves:
        writer.add(half)
        writer.flush()
    store = SampleStore(tmp_path / "store.zarr")
    assert [shard["finished"] for shard in store.shards.values()] == [[0], [1]]
    assert [store.read(shard)["simulation"].tolist() for shard in store.shards] == [[0, 0], [1, 1]]


def test_a_shard_is_written_when_it_is_large(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "SHARD_BYTES", 2000)
    writer = SampleWriter(tmp_path / "store.zarr", Everything().layout, 2, {}, {})
    for start in range(0, 12, 2):
        for chunk in stream(Everything(), [start, start + 1]):
            writer.add(chunk)
    assert len(SampleStore(tmp_path / "store.zarr").shards) > 1


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda path: shutil.rmtree(path), "is no store of samples: `penstock generate CONFIG"),
        (lambda path: (path / "zarr.json").write_text("{"), "is no store of samples: `penstock"),
        (lambda path: (path / "zarr.json").write_text('{"attributes": {"by": "me"}}'), "is no store of samples"),
        (lambda path: edit(path / "zarr.json", format=2), "has format 2, and this penstock reads 1"),
        (
            lambda path: edit(path / "zarr.json", layout={"inputs": []}),
            "its metadata can't be used (KeyError",
        ),
        (
            lambda path: (path / "shard-000001" / "zarr.json").unlink(),
            "is damaged: it has no metadata of Zarr",
        ),
        (lambda path: edit(path / "shard-000001" / "zarr.json", finished=[0]), "a simulation is in two shards"),
    ],
)
def test_what_is_no_store_is_refused_in_one_line(tmp_path, change, complaint):
    path = tmp_path / "store.zarr"
    write(path, Everything(), range(8))
    change(path)
    assert complaint in refusal(build, Stored, {"path": str(path), "held_out": 2}, "problem")


def edit(file, **attributes):
    metadata = json.loads(file.read_text())
    file.write_text(json.dumps(metadata | {"attributes": metadata["attributes"] | attributes}))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"held_out": 8}, "held_out = 8 of the 8 simulations in .* leaves none to train on"),
        ({"held_out": 0}, "held_out = 0 is too small"),
        ({"helt_out": 2}, "unknown key; did you mean 'held_out'"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, complaint):
    path = tmp_path / "store.zarr"
    write(path, Everything(), range(8))
    assert re.search(complaint, refusal(build, Stored, {"path": str(path), **options}, "problem"))


def test_a_damaged_shard_and_a_validation_set_that_is_too_large_fail_simulations_with_the_reason(tmp_path):
    path = tmp_path / "store.zarr"
    write(path, Everything(), range(8))
    stored = Stored(path=str(path), held_out=4)  # all of the first shard
    file = next(file for file in (path / "shard-000001" / "u").rglob("*") if file.is_file() and file.suffix != ".json")
    file.write_bytes(file.read_bytes()[:-3])
    (chunk,) = stream(stored, [0])
    assert re.match(r"\S+shard-000001 is damaged: .*; remove this shard, and `penstock generate`", chunk.failed[0])
    (chunk,) = stream(stored, [4], design="validation")
    assert "held_out = 4: hold out more, or give fewer validation.simulations" in chunk.failed[4]


def test_a_store_of_another_configuration_is_not_written_to(tmp_path):
    write(tmp_path / "store.zarr", Everything(), range(2))
    with pytest.raises(PenstockError, match=r"was generated with another seed \(0, not 1\): give another --output"):
        write(tmp_path / "store.zarr", Everything(), range(2), seed=1)
