"""A learner on points that vary and on a mesh, from chunks to a resumed training that is the uninterrupted one."""

import itertools
from contextlib import closing

import numpy as np
import pytest
import torch

from penstock.arrays.ragged import Ragged, padded
from penstock.geometry import Mesh, Points
from penstock.layout import FieldSpec, Layout, Sample
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import Fifo, Reservoir
from penstock.learner.buffers.units import Samples, Trajectories
from penstock.learner.buffers.windows import Pairs
from penstock.learner.checkpoints.store import PlainStore
from penstock.learner.feed.feed import Feed
from penstock.learner.ladder.samples import chunks, full_reservoir
from penstock.learner.learner import Learner
from penstock.learner.losses.losses import RelativeL2, TotalLoss
from penstock.learner.models.points.pooled.branch_trunk import BranchTrunk
from penstock.learner.normalization import Normalization
from penstock.learner.optimization import Optimization
from penstock.learner.settings import Settings, StopAfter
from penstock.learner.stream.ingest import Ingest
from penstock.learner.stream.order import Deterministic
from penstock.learner.stream.stream import InProcessStream
from penstock.learner.surrogate import Surrogate
from penstock.learner.validation.collect import Collected, Collector
from penstock.messages import Chunk, Lease
from penstock.orchestrator.ledger.designs import InOrder
from penstock.orchestrator.ledger.ledger import Ledger
from penstock.status import Ended
from tests.support.learners import NoStream, StopsAt

NUM_STEPS, WINDOW, NUM_LANES, NUM_SIMULATIONS = 2, 5, 2, 40
DETERMINISTIC = Deterministic(num_lanes=NUM_LANES, window=WINDOW, limit=NUM_SIMULATIONS)
POINTS = Points(200, 2, max_edges=20, name="cloud")
AXIS = np.linspace(0, 1, 12)
MESH = Mesh(12, 1, lambda: (AXIS[:, None], np.stack([np.arange(11), np.arange(1, 12)], axis=1)))


def layout_on(geometry):
    return Layout((FieldSpec(name="a", on=geometry), FieldSpec(name="k")), (FieldSpec(name="u", on=geometry),))


def sample(geometry, simulation, step):
    """u = (step + 1) k a, on 100 to 200 points that are the simulation's, or on the mesh."""
    random = np.random.default_rng(simulation)
    count = random.integers(100, 201) if isinstance(geometry, Points) else geometry.num_points
    k, a = random.uniform(1, 2), random.normal(size=count)
    around = {
        "cloud_points": random.random((count, 2)),
        "cloud_weights": random.uniform(0.5, 1, count) / count,
        "cloud_edges": np.sort(random.permutation(count)[: count - count % 2].reshape(-1, 2), axis=1)[
            : simulation % 20
        ],
    }
    return Sample(
        inputs={"a": a, "k": k},
        outputs={"u": (step + 1) * k * a},
        geometry=around if isinstance(geometry, Points) else {},
        step=step,
    )


class Multiplying:
    """A chunk a simulation, of all its steps; number 7 fails."""

    def __init__(self, geometry):
        self.geometry = geometry

    def stream(self, lease):
        for simulation in lease.simulations:
            if simulation == 7:
                yield chunk(self.geometry, (), failed={7: "it is seven"})
            else:
                rows = [(simulation, step) for step in range(NUM_STEPS)]
                yield chunk(self.geometry, rows, design=lease.design, finished=(simulation,))


def chunk(geometry, rows, **header):
    """rows: (simulation, step)."""
    layout = layout_on(geometry)
    simulations, steps = np.array(rows, np.int64).reshape(-1, 2).T
    arrays = layout.pack([sample(geometry, *row) for row in rows]) if rows else layout.empty()
    quantiles = np.zeros((len(simulations), 1), np.float32)
    return Chunk(arrays=arrays, simulations=simulations, steps=steps, quantiles=quantiles, **header)


def expected(geometry, rows):
    """The arrays of these samples, padded by NumPy to `max_points`."""
    packed = {
        name: padded(array) for name, array in layout_on(geometry).pack([sample(geometry, *r) for r in rows]).items()
    }
    lengths = {name: shape[-1] for name, shape in layout_on(geometry).shapes.items()}
    return {
        name: np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, lengths[name] - array.shape[-1])])
        for name, array in packed.items()
    }


@pytest.mark.usefixtures("watermark_of_samples")
def test_ragged_chunks_come_into_the_buffer_once_whatever_comes_twice():
    """Rows of a chunk that are known already are left out; what has no slot is put later."""
    layout = layout_on(POINTS)
    buffer = Buffer(layout, Fifo(), capacity=6, watermark=1, seed=0)
    ingest = Ingest(NoStream(), buffer, layout)
    ingest.take(chunk(POINTS, [(0, 0), (1, 0), (2, 0)]))
    arrival = ingest.begin(chunk(POINTS, [(1, 0), (3, 0), (0, 0), (4, 0), (5, 0), (6, 0), (8, 0)]))
    assert arrival.rows.tolist() == [1, 3, 4, 5, 6] and not ingest.put_now(arrival)
    drawn = [buffer.draw(3, 0.0).arrays]
    assert ingest.put_now(arrival)
    drawn += [buffer.draw(3, 0.0).arrays, buffer.draw(2, 0.0).arrays]
    together = expected(POINTS, [(n, 0) for n in (0, 1, 2, 3, 4, 5, 6, 8)])
    for name, array in together.items():
        parts = [padded_to(batch[name].numpy(), array.shape[-1]) for batch in drawn]
        np.testing.assert_array_equal(np.concatenate(parts), array, err_msg=name)
    assert ingest.counts.unique == 8 and ingest.counts.dropped == 2


def padded_to(array, length):
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, length - array.shape[-1])])


@pytest.mark.usefixtures("watermark_of_samples")
def test_statistics_are_those_of_the_points_that_came():
    layout = layout_on(POINTS)
    ingest = Ingest(NoStream(), Buffer(layout, Reservoir(), capacity=20, watermark=20, seed=0), layout)
    rows = [(n, 0) for n in range(20)]
    for part in itertools.batched(rows, 3):
        ingest.take(chunk(POINTS, list(part)))
    values = [sample(POINTS, *row) for row in rows]
    weights = [each.geometry["cloud_weights"] for each in values]
    shares = np.concatenate([weight / weight.sum() for weight in weights]) / 20
    for name, of_sample in (("fields", lambda s: s.inputs["a"]), ("targets", lambda s: s.outputs["u"])):
        joined = np.concatenate([of_sample(each) for each in values])
        mean = shares @ joined
        np.testing.assert_allclose(ingest.moments.mean[name], [mean], rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(ingest.moments.std[name], [np.sqrt(shares @ (joined - mean) ** 2)], rtol=1e-5)
    assert ingest.moments.mean.keys() == {"fields", "scalars", "targets"}  # no place has statistics


class Items(NoStream):
    """A stream of these."""

    def __init__(self, *items):
        self.items = list(items)

    def next(self, timeout_s, lane=None):
        return self.items.pop(0) if self.items else None


def test_a_validation_set_of_points_is_collected_in_order_and_padded_to_its_longest():
    items = [
        chunk(POINTS, [(2, 0), (0, 1)], design="validation"),
        chunk(POINTS, [(2, 1), (0, 0), (2, 0)], design="validation", finished=(0, 2)),
        chunk(POINTS, [(1, 0)], design="validation"),
        chunk(POINTS, (), design="validation", failed={1: "it broke"}),
    ]
    collected = Collector(Items(*items), layout_on(POINTS), 3).run(lambda: False)
    rows = [(0, 0), (0, 1), (2, 0), (2, 1)]
    assert list(zip(collected.simulations, collected.steps, strict=True)) == rows
    longest = max(len(sample(POINTS, *row).inputs["a"]) for row in rows)
    assert collected.arrays["targets"].shape == (4, 1, longest)
    for name, array in expected(POINTS, rows).items():
        np.testing.assert_array_equal(padded_to(collected.arrays[name], array.shape[-1]), array)
    validation = collected.validation(Pairs(NUM_STEPS), layout_on(POINTS), batch_size=2, device="cpu")
    assert len(validation) == 2 and validation.arrays["fields"].shape == (2, 2, longest)


def learner(stream, geometry, draws, store, **settings):
    torch.manual_seed(0)
    layout = layout_on(geometry)
    batches = draws.layout(layout)
    surrogate = Surrogate(BranchTrunk(batches, width=16, latent=8, layers=1), Normalization.identity(batches), batches)
    return Learner(
        Optimization(surrogate, loss=TotalLoss(batches, RelativeL2), learning_rate=5e-3, ema_decay=0.9),
        Buffer(layout, Reservoir(), capacity=32, watermark=24, seed=0, unit=draws),
        stream,
        layout,
        Settings(batch_size=4, batches_per_simulation=2.0, **settings),
        store=store,
        order=DETERMINISTIC,
        quantile_names=("x",),
    )


def validation_set(geometry):
    rows = [(simulation, step) for simulation in range(100, 106) for step in range(NUM_STEPS)]
    packed = chunk(geometry, rows)
    arrays = {name: padded(array) for name, array in packed.arrays.items()}
    return Collected(arrays, packed.simulations, packed.steps, Ended([[0, 6]]))


@pytest.mark.parametrize("draws", [Samples(), Trajectories(NUM_STEPS), Pairs(NUM_STEPS)], ids=repr)
@pytest.mark.parametrize("geometry", [POINTS, MESH], ids=["points", "mesh"])
def test_a_resumed_training_is_the_uninterrupted_one_bit_for_bit(tmp_path, geometry, draws):
    def run(store, stop_at=None):
        with closing(InProcessStream()) as stream:
            settings = {"validation_simulations": 6, "stop_after": StopAfter(simulations=NUM_SIMULATIONS)}
            trained = learner(stream, geometry, draws, store, **settings)
            ledger, numbers = (
                Ledger(InOrder("training"), NUM_SIMULATIONS, trained.account.training),
                itertools.count(),
            )
            blocks = DETERMINISTIC.blocks(NUM_SIMULATIONS)
            for lane in range(NUM_LANES):
                while (lease := ledger.lease_block(next(numbers), blocks, lane)) is not None:
                    stream.submit(lease, Multiplying(geometry))
            if stop_at is not None:
                trained.trainer._step = StopsAt(trained.trainer._step, stop_at, trained)
            cause = trained.run()
        return trained, cause

    whole, cause = run(PlainStore(tmp_path / "whole", validation_set(geometry)))
    assert cause == "stream ended" and whole.ingest.deliveries.ended == Ended([[0, 7], [8, 40]], {7: "it is seven"})
    store = PlainStore(tmp_path / "stopped", validation_set(geometry))
    for stop_at in (7, 30, None):
        resumed, cause = run(store, stop_at)
        assert cause == ("stream ended" if stop_at is None else "stopped")
    assert resumed.trainer.step == whole.trainer.step > 40
    for name, value in whole.trainer.surrogate.state_dict().items():
        assert torch.equal(value, resumed.trainer.surrogate.state_dict()[name]), name
    assert resumed.account.training == whole.account.training and resumed.account.unique == whole.account.unique
    errors = resumed.trainer.validation_errors
    assert errors == whole.trainer.validation_errors and 0 < errors["relative_l2"]["mean"] < 0.9
    assert (errors["h1"] is None) == (geometry is POINTS)


def test_a_free_running_learner_solves_its_validation_set_on_points_too():
    with closing(InProcessStream()) as stream:
        worker = Multiplying(POINTS)
        stream.submit(Lease(number=0, simulations=tuple(range(6)), design="validation"), worker)
        stream.submit(Lease(number=1, simulations=tuple(range(8, 60))), worker)
        layout = layout_on(POINTS)
        torch.manual_seed(0)
        surrogate = Surrogate(BranchTrunk(layout, width=16, latent=8), Normalization.identity(layout), layout)
        step = Optimization(surrogate, loss=TotalLoss(layout, RelativeL2), learning_rate=5e-3)
        settings = Settings(
            batch_size=4,
            batches_per_simulation=4.0,
            stop_after=StopAfter(simulations=52),
            validation_simulations=6,
        )
        buffer = Buffer(layout, Reservoir(), capacity=40, watermark=24, seed=0)
        trained = Learner(step, buffer, stream, layout, settings, quantile_names=("x",))
        assert trained.run() == "stream ended"
    assert trained.status().training.validation["relative_l2"]["mean"] < 0.9


def test_free_chunks_fill_a_reservoir_and_are_trained_on_as_the_ladder_does():
    layout = layout_on(Points(50, 2, max_edges=30))
    stream = chunks(layout)
    first = next(stream)
    assert all(isinstance(first.arrays[name], Ragged) for name in ("points", "weights", "edges", "targets"))
    assert not first.arrays["points"].values.flags.writeable and first.arrays["points"].counts.min() >= 40
    buffer = full_reservoir(layout, 64)
    batch = Feed(buffer, "cpu", 8).next(lambda: False)
    assert batch.arrays["targets"].shape == (8, 1, 50) and batch.arrays["edges"].dtype == torch.int32
