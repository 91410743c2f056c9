"""The buffers' promises: bounded, nothing lost, nothing unseen evicted, draws uniform, no row torn."""

import threading
import time
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.learner.buffers import BUFFERS, Fifo, Firo, Reservoir
from penstock.sample import FieldSpec, Layout

LAYOUT = Layout((FieldSpec(name="a", shape=(3,)), FieldSpec(name="t")), (FieldSpec(name="u", shape=(3,)),))


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


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(sorted(BUFFERS)),
    capacity=st.integers(1, 12),
    data=st.data(),
    actions=st.lists(st.one_of(st.tuples(st.just("put"), st.integers(1, 6)), st.just(("draw", 0))), max_size=60),
)
def test_any_history_is_bounded_and_loses_nothing(kind, capacity, data, actions):
    watermark = data.draw(st.integers(1, capacity))
    batch_size = data.draw(st.integers(1, capacity))
    buffer = BUFFERS[kind](LAYOUT, capacity=capacity, watermark=watermark, seed=0)
    arrived, drawn = [], Counter()
    for action, count in actions:
        if action == "put":
            unseen_before = buffer.num_unseen
            taken = put(buffer, len(arrived), count)
            arrived.extend(range(len(arrived), len(arrived) + taken))
            assert buffer.num_unseen == unseen_before + taken  # an arrival never evicts what was not seen
        else:
            population = len(buffer)
            batch = buffer.draw(batch_size, 0.0)
            if batch is not None:
                assert len(batch) == batch_size
                drawn.update(batch.simulations.tolist())
                assert len(set(batch.simulations.tolist())) == batch_size
                assert len(buffer) == (population if kind == "reservoir" else population - batch_size)
                for array in batch.arrays.values():
                    values = array.flatten(1)
                    assert (values == torch.from_numpy(batch.simulations)[:, None]).all()
        assert len(buffer) <= capacity
        state = buffer.state()
        assert len(buffer) == len(state["slots"]) and state["num_seen"].sum() <= drawn.total()
        assert set(state["arrivals"].tolist()) <= set(range(len(arrived)))
    assert buffer.num_put == len(arrived)
    assert buffer.num_drawn == drawn.total()
    buffer.end_of_stream()
    remaining = [simulation for batch in drain(buffer, batch_size) for simulation in batch]
    assert len(set(remaining)) == len(remaining)
    drawn.update(remaining)
    assert set(drawn) == set(arrived)  # every arrival was drawn at least once
    if kind != "reservoir":
        assert set(drawn.values()) <= {1}
    assert len(buffer) == 0 and buffer.draw(1, 0.0) is None


def test_fifo_keeps_the_order_of_the_stream():
    buffer = Fifo(LAYOUT, capacity=5, watermark=1, seed=0)
    drawn = []
    for first in range(0, 30, 3):
        assert put(buffer, first, 3) == 3
        drawn += buffer.draw(3, 0.0).simulations.tolist()
    assert drawn == list(range(30))


def test_firo_draws_only_at_the_watermark_and_in_random_order():
    buffer = Firo(LAYOUT, capacity=100, watermark=60, seed=0)
    put(buffer, 0, 59)
    assert buffer.draw(4, 0.0) is None
    put(buffer, 59, 41)
    drawn = []
    while (batch := buffer.draw(4, 0.0)) is not None:
        drawn += batch.simulations.tolist()
    assert len(buffer) == 56 and len(set(drawn)) == 44
    assert drawn != sorted(drawn)


@pytest.mark.parametrize(("kind", "num_batches"), [(Firo, 15), (Reservoir, 15)])
def test_draws_are_uniform(kind, num_batches):
    """Chi-square over which of 20 samples a batch of 4 holds; 43.8 is the 99.9 % quantile at 19 degrees."""
    counts = np.zeros(20)
    num_rounds = 200
    for seed in range(num_rounds):
        buffer = kind(LAYOUT, capacity=20, watermark=1, seed=seed)
        put(buffer, 0, 20)
        if kind is Firo:
            counts[buffer.draw(4, 0.0).simulations] += 1
        else:
            for _ in range(num_batches):
                counts[buffer.draw(4, 0.0).simulations] += 1
    expected = counts.sum() / 20
    assert ((counts - expected) ** 2 / expected).sum() < 43.8


def test_reservoir_replaces_seen_samples_uniformly():
    """Half of 20 samples are seen; the slot that an arrival takes is any of those 10. 27.9: 99.9 % at 9 degrees."""
    counts = np.zeros(10)
    for seed in range(400):
        buffer = Reservoir(LAYOUT, capacity=20, watermark=1, seed=seed)
        put(buffer, 0, 20)
        batch = buffer.draw(10, 0.0)
        assert put(buffer, 100, 1) == 1
        buffer.end_of_stream()
        (gone,) = set(range(20)) - {simulation for b in drain(buffer, 20) for simulation in b}
        counts[sorted(batch.simulations.tolist()).index(gone)] += 1
    assert ((counts - 40) ** 2 / 40).sum() < 27.9


def test_put_blocks_until_a_sample_was_seen():
    buffer = Reservoir(LAYOUT, capacity=8, watermark=8, seed=0)
    assert put(buffer, 0, 12) == 8
    counts = []
    thread = threading.Thread(target=lambda: counts.append(put_all(buffer, 8, 4)))
    thread.start()
    time.sleep(0.2)
    assert thread.is_alive() and buffer.put_is_waiting and buffer.num_put == 8
    assert buffer.draw(4, 1.0) is not None
    thread.join(2)
    assert counts == [4] and buffer.num_unseen == 8 and len(buffer) == 8
    assert not buffer.put_is_waiting


def test_a_blocked_put_ends_by_should_stop_and_by_close():
    for end in ("should_stop", "close"):
        buffer = Fifo(LAYOUT, capacity=2, watermark=1, seed=0)
        stop, counts = threading.Event(), []
        thread = threading.Thread(target=lambda b=buffer, s=stop, c=counts: c.append(put_all(b, 0, 5, s.is_set)))
        thread.start()
        time.sleep(0.1)
        stop.set() if end == "should_stop" else buffer.close()
        thread.join(2)
        assert counts == [2]


def test_draw_times_out_wakes_on_arrival_and_tells_exhaustion():
    buffer = Fifo(LAYOUT, capacity=8, watermark=2, seed=0)
    before = time.monotonic()
    assert buffer.draw(2, 0.1) is None and not buffer.exhausted
    assert 0.1 <= time.monotonic() - before < 1
    batches = []
    thread = threading.Thread(target=lambda: batches.append(buffer.draw(2, 10.0)))
    thread.start()
    put(buffer, 0, 3)
    thread.join(2)
    assert len(batches[0]) == 2
    buffer.end_of_stream()
    assert len(buffer.draw(2, 0.0)) == 1 and buffer.exhausted
    thread = threading.Thread(target=lambda: batches.append(buffer.draw(2, 10.0)))
    thread.start()
    thread.join(1)
    assert batches[1] is None


def test_close_wakes_a_waiting_draw():
    buffer = Reservoir(LAYOUT, capacity=8, watermark=2, seed=0)
    batches = []
    thread = threading.Thread(target=lambda: batches.append(buffer.draw(2, 30.0)))
    thread.start()
    time.sleep(0.1)
    buffer.close()
    thread.join(2)
    assert batches == [None] and buffer.exhausted and put(buffer, 0, 1) == 0


@pytest.mark.parametrize("kind", sorted(BUFFERS))
def test_no_row_is_torn_under_concurrency(kind):
    """Rows carry their own checksum; one thread puts, one draws, one takes populations, for two seconds."""
    layout = Layout((FieldSpec(name="a", shape=(64, 32)),), (FieldSpec(name="u", shape=(64, 32)),))
    buffer = BUFFERS[kind](layout, capacity=24, watermark=12, seed=0)
    stop, torn = threading.Event(), []

    def is_whole(arrays):
        values = torch.cat([arrays["fields"].flatten(1), arrays["targets"].flatten(1)], dim=1)
        return bool((values == values[:, :1]).all())

    def arrive():
        first = 0
        while not stop.is_set():
            values = np.arange(first, first + 5, dtype=np.float32).reshape(5, 1, 1, 1) * np.ones((1, 1, 64, 32), "f")
            simulations = np.arange(first, first + 5)
            count = buffer.put_now({"fields": values, "targets": values}, simulations, simulations)
            first += count
            if count < 5:
                buffer.wait_for_slot(stop.is_set)

    def look():
        while not stop.is_set():
            if not is_whole(buffer.population(6)):
                torn.append("population")

    threads = [threading.Thread(target=target) for target in (arrive, look)]
    for thread in threads:
        thread.start()
    end, num_batches = time.monotonic() + 2, 0
    while time.monotonic() < end:
        batch = buffer.draw(8, 0.5)
        if batch is not None:
            num_batches += 1
            if not is_whole(batch.arrays) or (batch.arrays["fields"][:, 0, 0, 0].numpy() != batch.simulations).any():
                torn.append("batch")
    stop.set()
    for thread in threads:
        thread.join(5)
    assert not torn and num_batches > 50


@pytest.mark.parametrize("kind", sorted(BUFFERS))
@pytest.mark.parametrize("count", [7, 10])
def test_a_restored_buffer_goes_on_as_the_saved_one(kind, count):
    def new():
        return BUFFERS[kind](LAYOUT, capacity=10, watermark=4, seed=3)

    buffer, other = new(), new()
    put(buffer, 0, 10)
    buffer.draw(3, 0.0)
    put(buffer, 10, count - 7)
    state = {name: v.clone() if isinstance(v, torch.Tensor) else v for name, v in buffer.state().items()}
    other.load_state(state)
    assert (len(other), other.num_unseen, other.num_put) == (len(buffer), buffer.num_unseen, buffer.num_put)
    for each in (buffer, other):
        put(each, 20, 3)
    for _ in range(3):
        first, second = (each.draw(2, 0.0) for each in (buffer, other))
        assert first.simulations.tolist() == second.simulations.tolist()
        torch.testing.assert_close(first.arrays, second.arrays, rtol=0, atol=0)
    first, second = buffer.state(), other.state()
    for name in ("slots", "num_seen", "arrivals"):
        assert torch.equal(first[name], second[name])


def test_a_state_of_another_capacity_is_refused():
    buffer = Fifo(LAYOUT, capacity=4, watermark=1, seed=0)
    with pytest.raises(ValueError, match="capacity of 4"):
        Fifo(LAYOUT, capacity=5, watermark=1, seed=0).load_state(buffer.state())


def test_numbers():
    buffer = Reservoir(LAYOUT, capacity=10, watermark=3, seed=0)
    assert buffer.num_bytes == 10 * LAYOUT.sample_bytes
    put(buffer, 0, 2)
    assert not buffer.reached_watermark and buffer.draw(1, 0.0) is None
    put(buffer, 2, 2)
    buffer.draw(3, 0.0)
    assert buffer.reached_watermark and (len(buffer), buffer.num_unseen) == (4, 1)
    state = buffer.state()
    assert sorted(state["num_seen"].tolist()) == [0, 1, 1, 1] and sorted(state["arrivals"].tolist()) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="watermark"):
        Fifo(LAYOUT, capacity=4, watermark=5, seed=0)
