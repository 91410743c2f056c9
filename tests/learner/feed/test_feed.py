"""Whatever is drawn ahead: every batch comes once, in order and whole, and none is lost at a hold."""

import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import Fifo, Reservoir
from penstock.learner.feed.feed import DRAW_TIMEOUT_S, Feed
from penstock.learner.stream.rate_limiter import RateLimiter

pytestmark = pytest.mark.usefixtures("watermark_of_samples")

LAYOUT = Layout((FieldSpec(name="a", on=Grid((4,))),), (FieldSpec(name="u", on=Grid((4,))),))


def put(buffer, first, count):
    """Simulations first, ..., each with its number as its values."""
    numbers = np.arange(first, first + count)
    values = np.broadcast_to(numbers.astype(np.float32).reshape(-1, 1, 1), (count, 1, 4))
    return buffer.put_now({"fields": values, "targets": -values}, numbers, np.zeros_like(numbers))


def new_buffer(kind=Fifo, *, capacity=64, num_put=0):
    buffer = Buffer(LAYOUT, kind(), capacity=capacity, watermark=1, seed=0)
    put(buffer, 0, num_put)
    return buffer


def numbers_of(batch):
    """The simulations, after a look at the values."""
    expected = torch.from_numpy(batch.simulations).float().reshape(-1, 1, 1).expand(-1, 1, 4)
    assert torch.equal(batch.arrays["fields"].cpu(), expected) and torch.equal(batch.arrays["targets"].cpu(), -expected)
    return batch.simulations.tolist()


def never():
    return False


def take(feed):
    """The next batch, however slow the thread is that draws it."""
    end = time.monotonic() + 60
    while (batch := feed.next(never)) is None:
        assert time.monotonic() < end
    return batch


def take_all(feed):
    numbers = []
    while not feed.buffer.exhausted or feed.num_ahead:
        batch = feed.next(never)
        numbers += numbers_of(batch) if batch is not None else []
    return numbers


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_stream_comes_out_in_order_and_whole(depth):
    feed = Feed(new_buffer(capacity=16), "cpu", 5, depth=depth)

    def produce():
        first = 0
        while first < 500:
            first += put(feed.buffer, first, min(7, 500 - first))
        feed.buffer.end_of_stream()

    threading.Thread(target=produce, daemon=True).start()
    assert feed.wait_for_population(never)
    feed.start()
    assert take_all(feed) == list(range(500))
    feed.close()


@pytest.mark.parametrize("depth", [0, 2])
@settings(max_examples=30)
@given(actions=st.lists(st.sampled_from(["put", "take", "hold"]), max_size=12))
def test_no_batch_is_lost_at_a_hold(depth, actions):
    feed = Feed(new_buffer(num_put=6), "cpu", 2, depth=depth)
    feed.start()
    numbers, num_put = [], 6
    for action in actions:
        if action == "put":
            num_put += put(feed.buffer, num_put, 2)
        elif action == "take" and len(numbers) < num_put:
            numbers += numbers_of(take(feed))
        elif action == "hold":
            feed.hold()
            while feed.num_ahead:
                batch = feed.next(never)
                numbers += numbers_of(batch) if batch is not None else []
            assert feed.buffer.num_drawn == len(numbers)  # so what is saved now and what was taken make up the stream
            feed.release()
    feed.buffer.end_of_stream()
    assert numbers + take_all(feed) == list(range(num_put))
    feed.close()


def test_nothing_is_drawn_that_the_run_has_no_step_for():
    feed = Feed(new_buffer(num_put=20), "cpu", 2, depth=4)
    feed.start(num_batches=3)
    assert [numbers_of(take(feed)) for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert feed.next(never) is None and not feed.num_ahead and feed.buffer.num_drawn == 6
    feed.close()


@pytest.mark.parametrize("depth", [0, 3])
def test_batches_count_for_the_rate_limiter_when_they_are_drawn(depth):
    limiter = RateLimiter(2.0)
    limiter.start()
    limiter.add_simulations(2)
    feed = Feed(new_buffer(Reservoir, num_put=8), "cpu", 4, limiter, depth=depth)
    feed.start()
    for _ in range(2 * (2 + 1)):  # the limiter's bound, T < r (D + 1)
        take(feed)
    assert feed.next(never) is None  # after a moment, for the caller has a run to end and checkpoints to make
    assert limiter.state()["num_batches"] == 6 and feed.buffer.num_drawn == 6 * 4
    feed.close()


def test_what_ends_the_thread_is_raised_by_next():
    class Broken(Fifo):
        def choose(self, batch_size):
            raise RuntimeError("the draw broke")

    feed = Feed(new_buffer(Broken, num_put=8), "cpu", 4, depth=2)
    feed.start()
    with pytest.raises(RuntimeError, match="the draw broke"):
        take(feed)
    feed.close()


class Weighing(Fifo):
    """Each row counts as its simulation's number."""

    def weights(self, slots):
        return self.table.simulations[slots]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("depth", [0, 2])
def test_a_batch_arrives_with_its_slots_and_weights(depth, device):
    buffer = new_buffer(Weighing, num_put=32)
    feed = Feed(buffer, device, 4, depth=depth)
    feed.start(8)
    for number in range(8):
        batch = take(feed)
        assert batch.weights.tolist() == batch.simulations.tolist() == list(range(4 * number, 4 * number + 4))
        assert batch.weights.dtype == torch.float32 and batch.weights.device.type == device
        np.testing.assert_array_equal(buffer.table.simulations[batch.slots], batch.simulations)
    feed.close()


@pytest.mark.parametrize("what", ["no samples", "the rate limiter", "nobody takes", "a closed buffer"])
def test_a_closed_feed_has_no_thread(what):
    limiter = RateLimiter(1.0)
    limiter.start()
    if what in ("the rate limiter", "a closed buffer"):
        limiter.add_batch()
    feed = Feed(new_buffer(Reservoir, num_put=0 if what == "no samples" else 8), "cpu", 4, limiter, depth=2)
    feed.start()
    if what == "a closed buffer":  # the limiter lets go of one who waits for it: nobody will be delivered any more
        feed.buffer.close()
        assert take_all(feed) == []
    feed.close()
    assert not feed._thread.is_alive()


def test_time_without_a_batch_is_counted():
    for depth in (0, 1):
        feed = Feed(new_buffer(), "cpu", 4, depth=depth)
        feed.start()
        assert feed.next(never) is None and feed.wait_seconds >= DRAW_TIMEOUT_S
        feed.close()


def test_a_batch_that_is_there_is_not_waited_for_however_long_its_gather_takes():
    layout = Layout((FieldSpec(name="a", on=Grid((512, 512))),), (FieldSpec(name="u", on=Grid((512, 512))),))
    buffer = Buffer(layout, Reservoir(), capacity=16, watermark=1, seed=0)
    arrays = {name: np.zeros((16, *shape), np.float32) for name, shape in layout.shapes.items()}
    buffer.put_now(arrays, np.arange(16), np.zeros(16, np.int64))
    feed = Feed(buffer, "cpu", 16)
    began = time.monotonic()
    for _ in range(20):
        assert feed.next(never) is not None
    assert feed.wait_seconds < 0.2 * (time.monotonic() - began)


def test_waiting_for_the_population_ends_with_a_request_or_with_the_stream():
    feed = Feed(new_buffer(), "cpu", 4)
    assert not feed.wait_for_population(lambda: True)
    feed.buffer.end_of_stream()
    assert feed.wait_for_population(never)


def test_a_batch_that_the_buffer_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="batch_size must be between 1 and the buffer's number of slots 64, not 65"):
        Feed(new_buffer(), "cpu", 65)


@pytest.mark.gpu
@pytest.mark.parametrize("pin_memory", [False, True])
def test_batches_reach_a_gpu_whole_while_it_computes(pin_memory):
    """Large batches and kernels that read them late: what reuses staging or memory too early would change the sums."""
    shape = (512, 512)
    layout = Layout((FieldSpec(name="a", on=Grid(shape)),), (FieldSpec(name="u", on=Grid(shape)),))
    buffer = Buffer(layout, Fifo(), capacity=64, watermark=1, seed=0, pin_memory=pin_memory)
    feed = Feed(buffer, "cuda", 8)
    assert feed.depth == 2

    def produce():
        for number in range(800):
            values = np.full((1, 1, *shape), number, np.float32)
            while not buffer.put_now({"fields": values, "targets": -values}, *np.array([[number], [0]])):
                buffer.wait_for_slot()
        buffer.end_of_stream()

    threading.Thread(target=produce, daemon=True).start()
    feed.start()
    numbers, extremes = [], []
    ballast = torch.randn(4096, 4096, device="cuda")
    while not buffer.exhausted or feed.num_ahead:
        batch = feed.next(never)
        if batch is not None:
            numbers.append(torch.from_numpy(batch.simulations))
            ballast = (ballast @ ballast).clamp(-1, 1)  # the reads below are queued behind it
            both = torch.cat([batch.arrays["fields"], -batch.arrays["targets"]], dim=1).flatten(1)
            extremes.append(torch.stack([both.amin(1), both.amax(1)]))
    feed.close()
    numbers = torch.cat(numbers)
    assert numbers.tolist() == list(range(800))
    assert torch.equal(torch.cat(extremes, dim=1).cpu(), numbers.float().expand(2, -1))
