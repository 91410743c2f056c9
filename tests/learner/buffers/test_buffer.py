"""The buffers' promises: bounded, nothing lost, nothing unseen evicted, draws uniform, no row torn."""

import sys
import threading
import time
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers import watermark
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import POLICIES, Fifo, Firo, Reservoir
from penstock.learner.buffers.slots import FEW, SlotSet
from penstock.learner.buffers.units import Samples, Trajectories
from penstock.learner.buffers.windows import Pairs
from penstock.learner.checkpoints import checkpoint
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("watermark_of_samples")

LAYOUT = Layout((FieldSpec(name="a", on=Grid((3,))), FieldSpec(name="t")), (FieldSpec(name="u", on=Grid((3,))),))


def rows(first, count):
    """Samples whose every value is their simulation id."""
    simulations = np.arange(first, first + count)
    arrays = {
        name: np.broadcast_to(simulations.reshape([-1] + [1] * len(shape)), (count, *shape)).astype(np.float32)
        for name, shape in LAYOUT.shapes.items()
    }
    return arrays, simulations, np.zeros(count, np.int64)


def put(buffer, first, count):
    return buffer.put_now(*rows(first, count))


def put_all(buffer, first, count, should_stop=None):
    """Waits for slots as Ingest does; fewer than `count` when should_stop() or close() came first."""
    taken = put(buffer, first, count)
    while taken < count and buffer.wait_for_slot(should_stop):
        taken += put(buffer, first + taken, count - taken)
    return taken


def drain(buffer, batch_size):
    """Simulation ids of all batches until the buffer is exhausted."""
    batches = []
    while not buffer.exhausted:
        batches.append(buffer.draw(batch_size, 1.0).simulations.tolist())
    return batches


class StreamOfSimulations:
    """Rows as workers send them: simulations of several interleave, and some fail half way."""

    def __init__(self, num_workers, num_steps):
        self.num_steps = num_steps
        self.at = [(worker, 0) for worker in range(num_workers)]
        self.next_simulation = num_workers
        self.pending = []
        self.failed = set()

    def solve(self, worker):
        simulation, step = self.at[worker]
        self.pending.append((simulation, step))
        self.at[worker] = (simulation, step + 1)
        if step + 1 == self.num_steps:
            self.begin(worker)

    def begin(self, worker):
        self.at[worker] = (self.next_simulation, 0)
        self.next_simulation += 1

    def fail(self, worker):
        """As ingest does: what is under way of the simulation is put, then forgotten."""
        simulation, _ = self.at[worker]
        self.pending = [row for row in self.pending if row[0] != simulation]
        self.failed.add(simulation)
        self.begin(worker)
        return simulation

    def put(self, buffer):
        keys = np.array(self.pending, np.int64).reshape(-1, 2)
        count = buffer.put_now(*samples(keys[:, 0], keys[:, 1]))
        taken, self.pending = self.pending[:count], self.pending[count:]
        return taken


def samples(simulations, steps):
    """Samples whose input is their simulation, and whose output tells simulation and step."""
    count = len(simulations)
    ones = np.ones((count, 1, 3), np.float32)
    arrays = {
        "fields": simulations[:, None, None] * ones,
        "scalars": steps[:, None].astype(np.float32),
        "targets": (16 * simulations + steps)[:, None, None] * ones,
    }
    return arrays, simulations, steps


def check(batch, draw):
    """Every row holds what its simulation and step say, to the last value."""
    simulations, steps = (torch.from_numpy(keys).float()[:, None, None] for keys in (batch.simulations, batch.steps))
    ones = torch.ones(1, 1, 3)
    if isinstance(draw, Trajectories):
        fields, targets = simulations, 16 * simulations + torch.arange(draw.num_steps)[None, :, None]
    elif isinstance(draw, Pairs):
        fields = torch.cat([simulations, 16 * simulations + steps], dim=1)
        targets = 16 * simulations + steps + draw.stride
    else:
        fields, targets = simulations, 16 * simulations + steps
    assert torch.equal(batch.arrays["fields"], fields * ones)
    assert torch.equal(batch.arrays["scalars"], steps[:, 0])
    assert torch.equal(batch.arrays["targets"], targets * ones)


@settings(max_examples=300)
@given(
    kind=st.sampled_from(sorted(POLICIES)),
    draw=st.sampled_from([Samples(), Trajectories(3), Pairs(3, 1), Pairs(4, 2)]),
    sizes=st.data(),
    actions=st.lists(
        st.tuples(st.sampled_from(["solve", "solve", "solve", "put", "draw", "draw", "fail"]), st.integers(0, 2)),
        max_size=150,
    ),
)
def test_any_history_is_bounded_and_loses_nothing(kind, draw, sizes, actions):
    """Three workers' simulations interleave, chunks cut them anywhere, some fail half way: against a list of rows."""
    num_steps = draw.num_steps
    stream = StreamOfSimulations(3, max(3, num_steps))
    num_units = sizes.draw(st.integers(4, 12))
    capacity = num_units * num_steps + sizes.draw(st.integers(0, num_steps - 1))
    watermark = sizes.draw(st.integers(1, capacity))
    # with three simulations under way there must be slots for a batch: a draw is then always possible in the end
    batch_size = sizes.draw(st.integers(1, num_units - 3))
    buffer = Buffer(LAYOUT, POLICIES[kind](), capacity=capacity, watermark=watermark, seed=0, unit=draw)
    arrived, drawn = [], Counter()

    def count_rows(batch):
        """A unit has one row of a batch to give, or as many as it has pairs."""
        check(batch, draw)
        rows = list(zip(batch.simulations.tolist(), batch.steps.tolist(), strict=True))
        units = rows if num_steps == 1 else batch.simulations.tolist()
        assert len(set(units)) == len(units) <= batch_size  # the units of a batch are distinct
        drawn.update(rows)

    for action, worker in actions:
        unseen = buffer.num_unseen
        if action == "solve":
            stream.solve(worker)
        elif action == "fail":
            if num_steps > 1:
                simulation = stream.fail(worker)
                num_arrived = len(arrived)
                arrived = [row for row in arrived if row[0] != simulation]
                buffer.forget(simulation)
                unseen -= num_arrived - len(arrived)
            assert buffer.num_unseen == unseen
        elif action == "put":
            arrived += stream.put(buffer)
            assert buffer.num_unseen >= unseen  # an arrival never evicts what was not seen
        else:
            batch = buffer.draw(batch_size, 0.0)
            if batch is not None:
                assert len(batch) == batch_size
                count_rows(batch)
        assert len(buffer) <= capacity
    while stream.pending:  # neither side can be stuck: where no row has a slot a batch can be drawn
        taken = stream.put(buffer)
        arrived += taken
        if not taken:
            count_rows(buffer.draw(batch_size, 0.0))
    assert len(set(arrived)) == len(arrived)
    buffer.end_of_stream()
    while not buffer.exhausted:
        count_rows(buffer.draw(batch_size, 1.0))
    counts = Counter(simulation for simulation, _ in arrived)
    whole = {simulation for simulation, count in counts.items() if count == num_steps}
    if num_steps == 1:
        expected = set(arrived)
    elif isinstance(draw, Trajectories):
        expected = {(simulation, 0) for simulation in whole}
    else:
        expected = {(simulation, step) for simulation in whole for step in range(draw.num_choices)}
    if kind == "reservoir":  # every unit was drawn at least once, and nothing else
        assert set(drawn) <= expected
        assert drawn.keys() == expected if num_steps == 1 else {simulation for simulation, _ in drawn} == whole
    else:
        assert drawn == Counter(expected)
    assert buffer.num_drawn == drawn.total() * draw.samples_per_row
    assert buffer.draw(1, 0.0) is None
    num_left = 0 if num_steps == 1 else len(arrived) - num_steps * len(whole)  # of what never gets whole
    assert buffer.num_unseen == len(buffer) == num_left


def test_fifo_keeps_the_order_of_the_stream():
    buffer = Buffer(LAYOUT, Fifo(), capacity=5, watermark=1, seed=0)
    drawn = []
    for first in range(0, 30, 3):
        assert put(buffer, first, 3) == 3
        drawn += buffer.draw(3, 0.0).simulations.tolist()
    assert drawn == list(range(30))


def test_firo_draws_only_at_the_watermark_and_in_random_order():
    buffer = Buffer(LAYOUT, Firo(), capacity=100, watermark=60, seed=0)
    put(buffer, 0, 59)
    assert buffer.draw(4, 0.0) is None
    put(buffer, 59, 41)
    drawn = []
    while (batch := buffer.draw(4, 0.0)) is not None:
        drawn += batch.simulations.tolist()
    assert len(buffer) == 56 and len(set(drawn)) == 44
    assert drawn != sorted(drawn)


@pytest.mark.parametrize("kind", [Firo, Reservoir])
@pytest.mark.parametrize("draw", [Samples(), Trajectories(3), Pairs(4, 2)])
def test_draws_are_uniform(kind, draw):
    """Chi-square over which of 20 units, and which of their pairs, the first batch of 4 holds."""
    counts = np.zeros((20, draw.num_choices))
    simulations, steps = np.divmod(np.arange(20 * draw.num_steps), draw.num_steps)
    arrays, *_ = samples(simulations, steps)
    for seed in range(1000):
        buffer = Buffer(LAYOUT, kind(), capacity=len(simulations), watermark=1, seed=seed, unit=draw)
        buffer.put_now(arrays, simulations, steps)
        batch = buffer.draw(4, 0.0)
        counts[batch.simulations, batch.steps] += 1
    assert scipy.stats.chisquare(counts.ravel()).pvalue > 1e-3


@pytest.mark.parametrize("count", [3, FEW + 1, 90])
def test_slots_are_taken_uniformly_one_by_one_and_many_at_once(count):
    """What was taken goes back at the end; nothing is lost, nothing is in twice."""
    slots, random, counts = SlotSet(100), np.random.default_rng(0), np.zeros(100)
    slots.add(np.arange(100))
    for _ in range(12_000 // count):
        taken = slots.take_random(count, random)
        assert sorted([*taken, *slots.slots]) == list(range(100)) and len(taken) == count
        counts[taken] += 1
        slots.add(taken)
    # without replacement the counts vary less than by chance: their sum of squares is scaled to what it should be
    spread = ((counts - counts.mean()) ** 2).sum() / counts.mean() / (1 - count / 100) * 99 / 100
    assert scipy.stats.chi2(99).cdf(spread) == pytest.approx(0.5, abs=0.499)
    assert len(slots.take_random(200, random)) == 100 and not len(slots)


def test_later_draws_of_a_reservoir_are_uniform_too():
    buffer = Buffer(LAYOUT, Reservoir(), capacity=20, watermark=1, seed=0)
    put(buffer, 0, 20)
    counts = np.bincount(np.concatenate([buffer.draw(4, 0.0).simulations for _ in range(3000)]))
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_reservoir_replaces_seen_samples_uniformly():
    """Half of 20 samples are seen; the slot that an arrival takes is any of those 10. 27.9: 99.9 % at 9 degrees."""
    counts = np.zeros(10)
    for seed in range(400):
        buffer = Buffer(LAYOUT, Reservoir(), capacity=20, watermark=1, seed=seed)
        put(buffer, 0, 20)
        batch = buffer.draw(10, 0.0)
        assert put(buffer, 100, 1) == 1
        buffer.end_of_stream()
        (gone,) = set(range(20)) - {simulation for b in drain(buffer, 20) for simulation in b}
        counts[sorted(batch.simulations.tolist()).index(gone)] += 1
    assert ((counts - 40) ** 2 / 40).sum() < 27.9


def test_put_blocks_until_a_sample_was_seen():
    buffer = Buffer(LAYOUT, Reservoir(), capacity=8, watermark=8, seed=0)
    assert put(buffer, 0, 12) == 8
    counts = []
    thread = threading.Thread(target=lambda: counts.append(put_all(buffer, 8, 4)))
    thread.start()
    wait_until(lambda: buffer.put_is_waiting)
    time.sleep(0.1)
    assert thread.is_alive() and buffer.put_is_waiting and buffer.num_put == 8
    assert buffer.draw(4, 1.0) is not None
    thread.join(60)
    assert counts == [4] and buffer.num_unseen == 8 and len(buffer) == 8
    assert not buffer.put_is_waiting


def test_a_blocked_put_ends_by_should_stop_and_by_close():
    for end in ("should_stop", "close"):
        buffer = Buffer(LAYOUT, Fifo(), capacity=2, watermark=1, seed=0)
        stop, counts = threading.Event(), []
        thread = threading.Thread(target=lambda b=buffer, s=stop, c=counts: c.append(put_all(b, 0, 5, s.is_set)))
        thread.start()
        wait_until(lambda b=buffer: b.put_is_waiting)
        stop.set() if end == "should_stop" else buffer.close()
        thread.join(60)
        assert counts == [2]


def test_draw_times_out_wakes_on_arrival_and_tells_exhaustion():
    buffer = Buffer(LAYOUT, Fifo(), capacity=8, watermark=2, seed=0)
    before = time.monotonic()
    assert buffer.draw(2, 0.1) is None and not buffer.exhausted
    assert time.monotonic() - before >= 0.1
    batches = []
    thread = threading.Thread(target=lambda: batches.append(buffer.draw(2, 600.0)))
    thread.start()
    wait_until(lambda: buffer.draw_is_waiting)
    put(buffer, 0, 3)
    thread.join(60)
    assert len(batches[0]) == 2
    buffer.end_of_stream()
    assert len(buffer.draw(2, 0.0)) == 1 and buffer.exhausted
    thread = threading.Thread(target=lambda: batches.append(buffer.draw(2, 600.0)))
    thread.start()
    thread.join(60)
    assert batches[1:] == [None]


def test_close_wakes_a_waiting_draw():
    buffer = Buffer(LAYOUT, Reservoir(), capacity=8, watermark=2, seed=0)
    batches = []
    thread = threading.Thread(target=lambda: batches.append(buffer.draw(2, 600.0)))
    thread.start()
    wait_until(lambda: buffer.draw_is_waiting)
    buffer.close()
    thread.join(60)
    assert batches == [None] and buffer.exhausted and put(buffer, 0, 1) == 0


@pytest.fixture
def restless_threads():
    """Python then changes threads every few instructions rather than 200 times a second."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless_threads")
@pytest.mark.parametrize(
    ("kind", "draw"),
    [
        (Reservoir, Samples()),
        (Fifo, Samples()),
        (Firo, Samples()),
        (Reservoir, Trajectories(4)),
        (Reservoir, Pairs(4)),
    ],
)
def test_no_row_is_torn_under_concurrency(kind, draw):
    """One thread puts, one draws, both at full speed. Every value of a sample is its simulation's number.

    With four slots, of which a batch reads two, an arrival wants what was just drawn. Faults that were put in on
    purpose: with slots given back before they are gathered, or shown before they are written, each case failed in
    every trial, after 50 to 1000 batches; with their simulations asked for too late, two cases of three did.
    """
    shape, units = (64, 64), 2  # 16 KB a row: a copy lasts long enough to be interrupted
    layout = Layout((FieldSpec(name="a", on=Grid(shape)),), (FieldSpec(name="u", on=Grid(shape)),))
    num_rows = units * draw.num_steps
    buffer = Buffer(layout, kind(), capacity=2 * num_rows, watermark=num_rows, seed=0, unit=draw)
    simulations, steps = np.divmod(np.arange(512), draw.num_steps)
    pool = np.broadcast_to(simulations.astype(np.float32).reshape(-1, 1, 1, 1), (512, 1, *shape)).copy()
    stop = threading.Event()

    def arrive():
        first = 0
        while not stop.is_set():
            at = slice(first, first + num_rows)
            count = buffer.put_now({"fields": pool[at], "targets": pool[at]}, simulations[at], steps[at])
            first = (first + count) % 512
            if not count:
                buffer.wait_for_slot(stop.is_set)

    thread = threading.Thread(target=arrive)
    thread.start()
    num_batches, num_torn = 0, 0
    while num_batches < 2000 and not num_torn:
        batch = buffer.draw(units, 60)
        numbers = torch.from_numpy(batch.simulations).reshape(-1, 1, 1, 1)
        num_torn += sum(int((array != numbers).sum()) for array in batch.arrays.values())
        num_batches += 1
    stop.set()
    thread.join(60)
    assert num_torn == 0 and buffer.num_put > buffer.capacity


def saved(buffer, folder):
    """The buffer's state as a checkpoint gives it back."""
    checkpoint.save(folder, 0, weights={}, optimizer={}, buffer=buffer.state(), meta={}, keep=1)
    return checkpoint.load(folder).buffer


@pytest.mark.parametrize("kind", sorted(POLICIES))
@pytest.mark.parametrize("draw", [Samples(), Trajectories(3), Pairs(3)])
@pytest.mark.parametrize("count", [17, 36])
def test_a_restored_buffer_goes_on_as_the_saved_one(kind, draw, count, tmp_path):
    """With simulations under way, and with all slots taken."""

    def new():
        return Buffer(LAYOUT, POLICIES[kind](), capacity=24, watermark=6, seed=3, unit=draw)

    simulations, steps = np.divmod(np.arange(60), 3)
    arrays, *_ = samples(simulations, steps)
    quantiles = np.random.default_rng(0).random((60, 2), np.float32)

    def put_rows(buffer, at):
        rows = {name: array[at] for name, array in arrays.items()}
        return buffer.put_now(rows, simulations[at], steps[at], quantiles=quantiles[at])

    buffer, other = new(), new()
    taken = put_rows(buffer, slice(0, 16))
    buffer.draw(4, 0.0)
    taken += put_rows(buffer, slice(taken, count))
    other.load_state(saved(buffer, tmp_path))
    for name in ("num_put", "num_drawn", "num_unseen", "reached_watermark", "capacity"):
        assert getattr(other, name) == getattr(buffer, name)
    assert len(other) == len(buffer)
    np.testing.assert_array_equal(other.contents().quantiles, buffer.contents().quantiles)
    np.testing.assert_array_equal(other.contents().ages, buffer.contents().ages)
    for each in (buffer, other):
        put_rows(each, slice(taken, 40))
    for _ in range(6):
        first, second = (each.draw(2, 0.0) for each in (buffer, other))
        check(first, draw)
        np.testing.assert_array_equal(first.simulations, second.simulations)
        np.testing.assert_array_equal(first.steps, second.steps)
        torch.testing.assert_close(first.arrays, second.arrays, rtol=0, atol=0)
        for each in (buffer, other):
            put_rows(each, slice(each.num_put, 60))
    first, second = saved(buffer, tmp_path / "first"), saved(other, tmp_path / "second")
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name]


def test_a_state_of_another_buffer_is_refused(tmp_path):
    state = saved(Buffer(LAYOUT, Fifo(), capacity=4, watermark=1, seed=0), tmp_path)
    with pytest.raises(ValueError, match="capacity of 4"):
        Buffer(LAYOUT, Fifo(), capacity=5, watermark=1, seed=0).load_state(state)
    with pytest.raises(ValueError, match=r"drawn from by Samples\(\), this one by Trajectories\(num_steps=2\)"):
        Buffer(LAYOUT, Fifo(), capacity=4, watermark=1, seed=0, unit=Trajectories(2)).load_state(state)


@pytest.mark.parametrize("kind", POLICIES)
def test_a_drained_buffer_whose_stream_goes_on_fills_to_its_watermark_once_more(kind, tmp_path):
    """A run that had ended, and is resumed with a later limit, must not train on the first few arrivals alone."""
    buffer, other = (Buffer(LAYOUT, POLICIES[kind](), capacity=40, watermark=20, seed=0) for _ in range(2))
    put(buffer, 0, 30)
    buffer.end_of_stream()
    drain(buffer, 8)
    other.load_state(saved(buffer, tmp_path))
    put(other, 30, 19)
    assert other.draw(8, 0.0) is None
    put(other, 49, 1)
    assert len(other.draw(8, 0.0)) == 8
    other.end_of_stream()
    assert len({simulation for batch in drain(other, 8) for simulation in batch}) >= 12


def test_a_saved_state_is_not_changed_by_later_draws(tmp_path):
    """While a checkpoint is written no sample comes in, but training goes on."""
    buffer, other = (Buffer(LAYOUT, Reservoir(), capacity=8, watermark=1, seed=0) for _ in range(2))
    put(buffer, 0, 8)
    buffer.draw(4, 0.0)
    state = buffer.state()
    expected = [buffer.draw(4, 0.0).simulations.tolist() for _ in range(3)]
    checkpoint.save(tmp_path, 0, weights={}, optimizer={}, buffer=state, meta={}, keep=1)
    other.load_state(checkpoint.load(tmp_path).buffer)
    assert [other.draw(4, 0.0).simulations.tolist() for _ in range(3)] == expected


def test_a_state_waits_for_the_batch_that_is_being_gathered(monkeypatch):
    """Its units are neither seen nor unseen meanwhile, and would be lost."""
    gathering, go_on, states = threading.Event(), threading.Event(), []

    buffer = Buffer(LAYOUT, Reservoir(), capacity=8, watermark=1, seed=0)
    gather = buffer.storage.gather

    def slow_gather(*arguments):
        gathering.set()
        go_on.wait(60)
        return gather(*arguments)

    monkeypatch.setattr(buffer.storage, "gather", slow_gather)
    put(buffer, 0, 8)
    threads = [threading.Thread(target=lambda: buffer.draw(4, 0.0))]
    threads[0].start()
    assert gathering.wait(60)
    threads.append(threading.Thread(target=lambda: states.append(buffer.state())))
    threads[1].start()
    time.sleep(0.1)
    assert not states
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert len(states[0]["seen"]) == len(states[0]["unseen"]) == 4


def test_a_batch_is_gathered_into_given_tensors():
    buffer = Buffer(LAYOUT, Fifo(), capacity=10, watermark=1, seed=0)
    put(buffer, 0, 6)
    out = {name: torch.full((4, *shape), -1.0) for name, shape in buffer.layout.shapes.items()}
    batch = buffer.draw(4, 0.0, out=out)
    assert all(batch.arrays[name].data_ptr() == out[name].data_ptr() for name in out)
    assert out["targets"][:, 0, 0].tolist() == [0, 1, 2, 3]
    buffer.end_of_stream()
    batch = buffer.draw(4, 0.0, out=out)  # what is left fills the first rows
    assert batch.arrays["targets"][:, 0, 0].tolist() == [4, 5]
    assert out["targets"][:, 0, 0].tolist() == [4, 5, 2, 3]


def test_rows_of_a_shared_object_store_are_taken_without_a_warning():
    """They are read-only, and torch warns of that."""
    arrays, simulations, steps = rows(0, 4)
    for array in arrays.values():
        array.flags.writeable = False
    buffer = Buffer(LAYOUT, Reservoir(), capacity=4, watermark=1, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert buffer.put_now(arrays, simulations, steps) == 4
        buffer.draw(2, 0.0)
        assert put(buffer, 4, 4) == 2


def test_contents_tell_ages_draws_and_parameters():
    buffer = Buffer(LAYOUT, Fifo(), capacity=4, watermark=1, seed=0)
    quantiles = np.arange(12, dtype=np.float32).reshape(6, 2) / 12
    for start, stop in ((0, 3), (3, 4)):
        buffer.put_now(*rows(start, stop - start), quantiles=quantiles[start:stop])
    buffer.draw(2, 0.0)
    buffer.put_now(*rows(4, 2), quantiles=quantiles[4:])
    contents = buffer.contents()
    order = np.argsort(contents.simulations)
    assert contents.simulations[order].tolist() == [2, 3, 4, 5] == buffer.simulations_in().tolist()
    assert contents.ages[order].tolist() == [3, 2, 1, 0]
    assert contents.num_seen.tolist() == [0, 0, 0, 0]
    np.testing.assert_array_equal(contents.quantiles[order], quantiles[2:])


def test_a_simulation_that_fails_half_way_frees_its_slot():
    buffer = Buffer(LAYOUT, Fifo(), capacity=7, watermark=1, seed=0, unit=Trajectories(3))
    steps = np.arange(3)
    for simulation in (0, 1):
        assert buffer.put_now(*samples(np.full(2, simulation), steps[:2])) == 2
    assert buffer.put_now(*samples(np.full(3, 2), steps)) == 0 and len(buffer) == 4
    buffer.forget(0)
    assert buffer.put_now(*samples(np.full(3, 2), steps)) == 3
    buffer.forget(2)  # it is whole: nothing to forget
    assert buffer.draw(1, 0.0).simulations.tolist() == [2]
    buffer.end_of_stream()  # what is under way now never gets whole
    assert buffer.exhausted


@pytest.mark.parametrize("kind", sorted(POLICIES))
def test_simulations_left_half_way_by_dead_workers_do_not_stop_the_draws(kind):
    """Slots for a batch of 2 and a worker, of which two died: what is whole is drawn, and the rest finds room."""
    buffer = Buffer(LAYOUT, POLICIES[kind](), capacity=9, watermark=9, seed=0, unit=Trajectories(3))
    steps = np.arange(3)
    buffer.put_now(*samples(np.full(3, 9), steps))
    for simulation in (0, 1):
        assert buffer.put_now(*samples(np.full(1, simulation), steps[:1])) == 1
    assert buffer.put_now(*samples(np.full(3, 2), steps)) == 0
    assert buffer.num_unseen == 5
    assert buffer.draw(2, 0.0).simulations.tolist() == [9]
    assert buffer.put_now(*samples(np.full(3, 2), steps)) == 3
    for simulation in (0, 1):  # solved again: the steps that were in are dropped before
        assert buffer.put_now(*samples(np.full(2, simulation), steps[1:])) == 2
    assert len(buffer.draw(2, 0.0)) == 2


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"watermark": 5}, "watermark must be between 1 and the capacity 4, not 5"),
        ({"unit": Trajectories(5)}, "a capacity of 4 samples holds no simulation of 5 steps"),
    ],
)
def test_buffers_that_cannot_be(options, expected):
    with pytest.raises(ValueError, match=expected):
        Buffer(LAYOUT, Fifo(), **{"capacity": 4, "watermark": 1, "seed": 0, **options})


def test_batches_and_steps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="capacity of 4 samples is below the batch size 5"):
        Buffer(LAYOUT, Fifo(), capacity=4, watermark=1, seed=0).draw(5, 0.0)
    buffer = Buffer(LAYOUT, Fifo(), capacity=10, watermark=1, seed=0, unit=Pairs(3))
    with pytest.raises(ValueError, match="capacity of 3 simulations of 3 steps is below the batch size 4"):
        buffer.draw(4, 0.0)
    with pytest.raises(ValueError, match="steps 2 to 3 arrived, but a simulation has 0 to 2"):
        buffer.put_now(*samples(np.zeros(2, np.int64), np.array([2, 3])))


def test_numbers():
    buffer = Buffer(LAYOUT, Reservoir(), capacity=10, watermark=3, seed=0)
    assert buffer.storage.num_bytes == 10 * LAYOUT.sample_bytes
    put(buffer, 0, 2)
    assert not buffer.reached_watermark and buffer.draw(1, 0.0) is None
    put(buffer, 2, 2)
    buffer.draw(3, 0.0)
    assert buffer.reached_watermark and (len(buffer), buffer.num_unseen) == (4, 1)
    assert sorted(buffer.contents().num_seen.tolist()) == [0, 1, 1, 1]
    trajectories = Buffer(LAYOUT, Fifo(), capacity=10, watermark=1, seed=0, unit=Trajectories(3))
    assert trajectories.num_units == 3
    assert trajectories.storage.num_bytes == 4 * 3 * (3 + 1 + 3 * 3)  # of the inputs only step 0 is kept


@pytest.mark.gpu
@pytest.mark.parametrize("draw", [Samples(), Trajectories(3), Pairs(4, 2)])
def test_on_a_device_a_slot_is_not_overwritten_before_its_gather_is_done(draw):
    """Gathers are queued behind a long kernel on their stream, and the next arrivals take their slots at once."""
    buffer = Buffer(LAYOUT, Fifo(), capacity=8 * draw.num_steps, watermark=1, seed=0, unit=draw, device="cuda")
    simulations, steps = np.divmod(np.arange(800 * draw.num_steps), draw.num_steps)
    arrays, *_ = samples(simulations, steps)
    batches, taken = [], 0
    with torch.cuda.stream(torch.cuda.Stream()):
        while taken < len(simulations):
            at = slice(taken, taken + 8 * draw.num_steps)
            rows = {name: array[at] for name, array in arrays.items()}
            taken += buffer.put_now(rows, simulations[at], steps[at])
            torch.cuda._sleep(1_000_000)
            for _ in range(draw.num_choices):
                batches.append(buffer.draw(8, 0.0))
        torch.cuda.current_stream().synchronize()
    for batch in batches:
        cpu = {name: array.cpu() for name, array in batch.arrays.items()}
        check(replace(batch, arrays=cpu), draw)


@pytest.mark.parametrize("draw", [Samples(), Trajectories(3), Pairs(3)])
@pytest.mark.parametrize("kind", sorted(POLICIES))
def test_no_batch_is_drawn_before_ten_simulations_are_in(kind, draw, monkeypatch, tmp_path):
    """Statistics are fixed at the watermark: three samples of one simulation have scalars without a spread."""
    monkeypatch.setattr(watermark, "MIN_SIMULATIONS", 10)

    def new():
        return Buffer(LAYOUT, POLICIES[kind](), capacity=60, watermark=3, seed=0, unit=draw)

    buffer = new()
    for simulation in range(10):
        assert not buffer.reached_watermark and buffer.draw(1, 0.0) is None
        if simulation == 5:  # what came before a resume counts
            restored = new()
            restored.load_state(saved(buffer, tmp_path))
            buffer = restored
        buffer.put_now(*samples(np.full(3, simulation), np.arange(3)))
    assert buffer.reached_watermark and buffer.draw(1, 0.0) is not None


@pytest.mark.parametrize("draw", [Samples(), Trajectories(3), Pairs(3)])
@pytest.mark.parametrize("kind", sorted(POLICIES))
def test_a_buffer_without_room_for_ten_simulations_is_at_its_watermark_when_it_is_full(kind, draw, monkeypatch):
    monkeypatch.setattr(watermark, "MIN_SIMULATIONS", 10)
    buffer = Buffer(LAYOUT, POLICIES[kind](), capacity=12, watermark=3, seed=0, unit=draw)
    for simulation in range(4):
        assert not buffer.reached_watermark
        assert buffer.put_now(*samples(np.full(3, simulation), np.arange(3))) == 3
    assert buffer.reached_watermark and buffer.draw(1, 0.0) is not None


def test_a_stream_that_ends_before_ten_simulations_is_trained_on(monkeypatch):
    monkeypatch.setattr(watermark, "MIN_SIMULATIONS", 10)
    buffer = Buffer(LAYOUT, Reservoir(), capacity=60, watermark=3, seed=0)
    buffer.put_now(*samples(np.zeros(3, np.int64), np.arange(3)))
    assert not buffer.wait_for_watermark(0.0)
    buffer.end_of_stream()
    assert buffer.wait_for_watermark(0.0) and buffer.draw(2, 0.0) is not None


def test_the_earliest_samples_up_to_the_watermark_can_be_looked_at_without_a_draw():
    buffer = Buffer(LAYOUT, Reservoir(), capacity=8, watermark=6, seed=0)
    put(buffer, 0, 8)
    before = buffer.contents()
    assert buffer.earliest(4)["targets"][:, 0, 0].tolist() == [0, 1, 2, 3]
    assert buffer.earliest(100)["scalars"][:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert buffer.num_drawn == 0 and np.array_equal(buffer.contents().num_seen, before.num_seen)


def test_of_pairs_the_earliest_units_give_one_row_each_at_all_steps():
    buffer = Buffer(LAYOUT, Reservoir(), capacity=16, watermark=12, seed=0, unit=Pairs(4))
    for step in range(4):
        arrays, simulations, steps = rows(0, 4)
        buffer.put_now({name: values + 10 * step for name, values in arrays.items()}, simulations, steps + step)
    assert buffer.earliest(9)["targets"][:, 0, 0].tolist() == [10, 21, 32]  # what comes after steps 0, 1 and 2
