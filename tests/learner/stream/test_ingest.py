"""Every sample once, every simulation's end once, whatever comes twice."""

import itertools
import json
import queue
import random
import threading
import time
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.geometry import Grid
from penstock.id_set import IdSet
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import Fifo, Reservoir
from penstock.learner.buffers.units import Trajectories
from penstock.learner.normalization import RunningMoments
from penstock.learner.stream.ingest import Ingest
from penstock.learner.stream.rate_limiter import RateLimiter
from penstock.learner.stream.stream import InProcessStream
from penstock.messages import Chunk, Lease, LeaseEnd, Restart, SolveRecord
from penstock.status import Ended, News
from tests.support.learners import NoStream
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("watermark_of_samples")

LAYOUT = Layout((FieldSpec(name="a", on=Grid((2,))),), (FieldSpec(name="u", on=Grid((2,))),))

SECONDS = {"draw": 1.0, "assembly": 2.0, "solve": 4.0, "pack": 8.0}


class QueueStream(NoStream):
    """The in-process form of the stream: what is put into `items` comes out."""

    def __init__(self, *items):
        self.items = queue.Queue()
        for item in items:
            self.items.put(item)

    def next(self, timeout_s):
        try:
            item = self.items.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(item, Exception):
            raise item
        return item


def chunk(*rows, finished=(), failed=None, **header):
    """rows: (simulation, step)."""
    simulations = np.array([row[0] for row in rows], np.int64)
    values = np.broadcast_to(simulations.astype(np.float32).reshape(-1, 1, 1), (len(rows), 1, 2))
    return Chunk(
        arrays={"fields": values, "targets": values},
        simulations=simulations,
        steps=np.array([row[1] for row in rows], np.int64),
        finished=finished,
        failed=failed or {},
        **header,
    )


def new_ingest(*items, capacity=100, kind=Fifo):
    buffer = Buffer(LAYOUT, kind(), capacity=capacity, watermark=1, seed=0)
    return Ingest(QueueStream(*items), buffer, LAYOUT)


def contents(buffer):
    buffer.end_of_stream()
    keys = []
    while (batch := buffer.draw(10, 0.0)) is not None:
        keys += zip(batch.simulations.tolist(), batch.steps.tolist(), strict=True)
    return keys


@given(st.lists(st.tuples(st.sampled_from(["add", "discard", "update"]), st.lists(st.integers(0, 40), max_size=9))))
def test_id_set_is_a_set(changes):
    id_set, ids = IdSet(), set()
    for change, simulations in changes:
        if change == "update":
            id_set.update(np.array(simulations, np.int64))
            ids.update(simulations)
        else:
            for simulation in simulations:
                getattr(id_set, change)(simulation)
                getattr(ids, change)(simulation)
    assert len(id_set) == len(ids)
    assert [simulation for simulation in range(-1, 42) if simulation in id_set] == sorted(ids)
    assert np.flatnonzero(id_set.contains(np.arange(42))).tolist() == sorted(ids)
    assert id_set.end == max(ids, default=-1) + 1
    assert [list(id_set.missing(end)) for end in (0, 20, 42)] == [sorted({*range(end)} - ids) for end in (0, 20, 42)]
    intervals = json.loads(json.dumps(id_set.to_intervals()))
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(intervals))
    restored = IdSet.from_intervals(intervals)
    assert restored.to_intervals() == intervals and len(restored) == len(id_set)


def test_second_copies_are_dropped():
    ingest = new_ingest()
    for item in (
        chunk((0, 0), (1, 0), (0, 1)),
        chunk((0, 1), (0, 2), (0, 2), finished=(0,)),  # one from before, one twice inside the chunk
        chunk((0, 0), (1, 0), (1, 1), finished=(0, 1)),  # simulation 0 was done again
        chunk((1, 1), (2, 0), finished=(1,), failed={2: "singular"}),
        chunk((2, 0), finished=(2,)),
    ):
        assert ingest.take(item)
    assert ingest.deliveries.ended == Ended([[0, 2]], {2: "singular"})
    assert (ingest.counts.unique, ingest.counts.dropped) == (6, 6)
    assert contents(ingest.buffer) == [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (2, 0)]


@given(st.integers(0, 10**6))
def test_leases_redone_in_any_order_deliver_every_sample_once(seed):
    """Streams of the same simulations, cut anywhere by a worker's death and begun again from the start."""
    shuffle = random.Random(seed)
    ingest = new_ingest(capacity=200)
    unfinished = set(range(6))
    while unfinished:
        simulation = shuffle.choice(sorted(range(6)))  # finished ones come again, too
        num_steps = 4 if shuffle.random() < 0.5 else shuffle.randrange(4)
        steps = [(simulation, step) for step in range(num_steps)]
        cut = shuffle.randrange(len(steps) + 1)
        ingest.take(chunk(*steps[:cut]))
        ingest.take(chunk(*steps[cut:], finished=(simulation,) if num_steps == 4 else ()))
        unfinished -= {simulation} if num_steps == 4 else set()
    assert ingest.deliveries.delivered.to_intervals() == [[0, 6]]
    assert sorted(contents(ingest.buffer)) == [(simulation, step) for simulation in range(6) for step in range(4)]
    assert ingest.state()["partial"] == {}


def test_headers_are_gathered_and_drained():
    record = SolveRecord(strategy="direct", seconds=0.1, iterations=0, relative_residual=1e-12)
    restarts = tuple(Restart(design="training", simulation=i, reason="was ended by SIGKILL") for i in range(2))
    ingest = new_ingest(
        chunk((0, 0), finished=(0,), solves=(record, record), restarts=restarts[:1], retried=1, seconds=SECONDS),
        LeaseEnd(3),
        chunk((1, 0), finished=(1,), solves=(record,), restarts=restarts[1:], retried=2),
        LeaseEnd(4),
    )
    ingest.run(lambda: ingest.stream.items.empty())
    lease_ends = (LeaseEnd(3), LeaseEnd(4))
    assert ingest.drain_news() == News(solves=(record,) * 3, restarts=restarts, lease_ends=lease_ends)
    assert ingest.drain_news() == News()
    assert (ingest.counts.retried, ingest.counts.solver_seconds) == (3, 15.0)


def test_a_worker_that_a_full_buffer_holds_up_is_seen_to_wait_before_its_wait_ends():
    """Nothing is drawn, so no chunk is taken after the first."""

    class Solver:
        def stream(self, lease):
            yield from (chunk((simulation, 0), finished=(simulation,)) for simulation in lease.simulations)

    ingest, stop = new_ingest(capacity=1), threading.Event()
    with closing(InProcessStream()) as ingest.stream:
        ingest.stream.submit(Lease(number=0, simulations=tuple(range(9))), Solver())
        ingest.start(stop.is_set)
        wait_until(lambda: ingest.waits()["blocked"] > 0.1 and ingest.times.seconds()["full"] > 0.1)
        before = ingest.waits()["blocked"]
        wait_until(lambda: ingest.waits()["blocked"] > 2 * before)
        assert ingest.counts.unique == 1 and ingest.waits()["unleased"] < 0.1
        assert ingest.state()["solver_blocked_seconds"] > 2 * before
        stop.set()
        ingest.join()


def test_the_time_of_the_intake_goes_to_what_it_waits_for(monkeypatch):
    """By a clock that each wait sets forward: two chunks of one sample, for a buffer with one slot."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("penstock.learner.stream.timesheet.time", clock)
    ingest = new_ingest(chunk((0, 0), finished=(0,)), chunk((1, 0), finished=(1,)), capacity=1)

    def takes(seconds, then=lambda: None):
        def wait(*_, **__):
            clock.now += seconds
            return then()

        return wait

    class Paused:
        """The lock, which a checkpoint holds whenever it is wanted."""

        def acquire(self, blocking=True):
            clock.now += 1.0 if blocking else 0.0
            return blocking

        def release(self):
            pass

    next_item = ingest.stream.next
    ingest.stream.next = takes(10.0, lambda: next_item(0.0))
    ingest.rate_limiter = SimpleNamespace(
        wait_to_ingest=takes(100.0), start=lambda: None, add_simulations=lambda count: None
    )
    monkeypatch.setattr(ingest.buffer, "wait_for_slot", takes(1000.0, lambda: ingest.buffer.draw(1, 0.0) is not None))
    ingest._lock = Paused()
    ingest.run(lambda: len(ingest.deliveries.delivered) == 2)
    # one chunk is begun and put, the other begun, put in vain and put again
    assert ingest.times.seconds() == {"starved": 20.0, "taking": 0.0, "full": 1000.0, "held": 200.0, "paused": 5.0}


def test_chunks_of_another_design_leave_nothing_but_their_solve_records():
    record = SolveRecord(strategy="direct", seconds=0.1, iterations=0, relative_residual=1e-12)
    ingest = new_ingest()
    untouched = ingest.state()
    assert ingest.take(
        chunk((0, 0), (1, 0), finished=(0,), failed={1: "why"}, design="validation", solves=(record,), retried=1)
    )
    assert ingest.state() == untouched and ingest.deliveries.ended.delivered == [] and len(ingest.buffer) == 0
    assert ingest.drain_news().solves == (record,)
    assert ingest.take(chunk((0, 0), (1, 0), finished=(0, 1)))  # the same numbers in training are other simulations
    assert ingest.deliveries.ended.delivered == [[0, 2]] and contents(ingest.buffer) == [(0, 0), (1, 0)]


def test_draining_does_not_wait_for_a_checkpoint():
    record = SolveRecord(strategy="direct", seconds=0.1, iterations=0, relative_residual=1e-12)
    ingest = new_ingest(LeaseEnd(3), chunk((0, 0), finished=(0,), solves=(record,)))
    stop, drained = threading.Event(), []
    ingest.pause()
    ingest.start(stop.is_set)
    wait_until(lambda: ingest._news._solves)
    thread = threading.Thread(target=lambda: drained.append(ingest.drain_news()))
    thread.start()
    thread.join(10)
    assert drained == [News(solves=(record,), lease_ends=(LeaseEnd(3),))] and len(ingest.deliveries.delivered) == 0
    ingest.resume()
    wait_until(lambda: len(ingest.deliveries.delivered))
    stop.set()
    assert ingest.join(60) and len(ingest.deliveries.delivered) == 1


def test_nothing_goes_in_after_a_stop():
    """The last checkpoint may be written by then: what came later would be counted and not saved."""
    ingest = new_ingest()
    assert not ingest.take(chunk((0, 0), finished=(0,)), lambda: True)
    assert len(ingest.deliveries.delivered) == ingest.counts.unique == len(ingest.buffer) == 0


def test_a_simulation_is_delivered_only_when_all_its_samples_are_in_and_pausing_never_deadlocks():
    ingest = new_ingest(chunk((0, 0), (0, 1), (0, 2), finished=(0,)), capacity=2, kind=Reservoir)
    stop = threading.Event()
    ingest.start(stop.is_set)
    wait_until(lambda: ingest.buffer.put_is_waiting)
    ingest.pause()  # while the chunk's last row waits for a slot
    assert len(ingest.deliveries.delivered) == 0
    state = ingest.state()
    assert state["partial"] == {"0": [0, 1]} and state["num_unique"] == len(ingest.buffer) == 2
    ingest.resume()
    assert ingest.buffer.draw(1, 1.0) is not None
    wait_until(lambda: len(ingest.deliveries.delivered))
    stop.set()
    assert ingest.join(60) and len(ingest.deliveries.delivered) == 1


def test_the_thread_that_wrote_the_buffer_may_end_the_pause():
    ingest = new_ingest(chunk((0, 0), finished=(0,)))
    stop = threading.Event()
    ingest.pause()
    ingest.start(stop.is_set)
    time.sleep(0.1)
    assert ingest.counts.unique == 0
    threading.Thread(target=ingest.resume).start()
    wait_until(lambda: len(ingest.deliveries.delivered))
    stop.set()
    assert ingest.join(60) and ingest.counts.unique == 1


def test_moments_are_of_the_samples_up_to_the_watermark_and_survive_a_checkpoint():
    """Those of simulations that came with the one that reached it count, later ones and second copies don't."""
    values = np.random.default_rng(0).normal(5, 2, (8, 1, 2)).astype(np.float32)

    def part(start, stop):
        rows = chunk(*[(simulation, 0) for simulation in range(start, stop)], finished=range(start, stop))
        return replace(rows, arrays={"fields": values[start:stop], "targets": 3 * values[start:stop]})

    buffers = [Buffer(LAYOUT, Reservoir(), capacity=8, watermark=4, seed=0) for _ in range(2)]
    ingest, other = (Ingest(NoStream(), buffer, LAYOUT) for buffer in buffers)
    ingest.take(part(0, 3))
    assert ingest.state(with_buffer=False)["moments"] == RunningMoments().state()  # they come again
    other.load_state(json.loads(json.dumps(ingest.state())))
    other.buffer.put_now(part(0, 3).arrays, np.arange(3), np.zeros(3, np.int64))
    other.take(part(1, 6))
    assert other.buffer.reached_watermark
    other.take(part(6, 8))
    for name, array in (("fields", values[:6]), ("targets", 3 * values[:6])):
        assert other.moments.mean[name] == pytest.approx(array.mean(axis=(0, 2), dtype=np.float64), rel=1e-6)
        assert other.moments.std[name] == pytest.approx(array.std(axis=(0, 2), dtype=np.float64), rel=1e-6)


def test_ranks_of_parameters_go_with_their_rows():
    ingest = new_ingest(kind=Reservoir)
    quantiles = np.array([[0.1, 0.5], [0.2, 0.6], [0.2, 0.6], [0.3, 0.7]], np.float32)
    ingest.take(chunk((1, 0), finished=(1,), quantiles=quantiles[:1]))
    ingest.take(chunk((1, 0), (2, 0), (2, 1), (3, 0), finished=(1, 2, 3), quantiles=quantiles))
    contents = ingest.buffer.contents()
    found = dict(zip(contents.simulations.tolist(), contents.quantiles.tolist(), strict=True))
    assert found == {1: quantiles[0].tolist(), 2: quantiles[1].tolist(), 3: quantiles[3].tolist()}


def test_a_simulation_that_fails_half_way_leaves_no_slot_taken():
    buffer = Buffer(LAYOUT, Fifo(), capacity=6, watermark=1, seed=0, unit=Trajectories(num_steps=3))
    ingest = Ingest(NoStream(), buffer, LAYOUT)
    ingest.take(chunk((0, 0), (0, 1), (1, 0)))
    assert not ingest.take(chunk((2, 0)), lambda: len(buffer) == 3)  # no slot
    ingest.take(chunk(failed={1: "singular"}))
    ingest.give_up({0: "no worker lives to finish it"})
    assert len(buffer) == 0 and ingest.counts.unique == ingest.counts.forgotten == 3
    ingest.take(chunk(*[(simulation, step) for simulation in (2, 3) for step in range(3)], finished=(2, 3)))
    assert ingest.deliveries.failed.keys() == {0, 1} and len(buffer) == 6
    assert ingest.deliveries.ended.delivered == [[2, 4]]


def test_a_simulation_given_up_while_its_chunk_waits_takes_no_slot():
    buffer = Buffer(LAYOUT, Fifo(), capacity=6, watermark=1, seed=0, unit=Trajectories(num_steps=3))
    ingest = Ingest(NoStream(), buffer, LAYOUT)
    ingest.take(chunk(*[(simulation, step) for simulation in (0, 1) for step in range(3)], finished=(0, 1)))
    arrival = ingest.begin(chunk((2, 0), (3, 0)))
    assert not ingest.put_now(arrival)
    ingest.give_up({2: "no worker lives to finish it"})
    buffer.draw(2, 0.0)
    assert ingest.put_now(arrival)
    assert len(buffer) == 1 and ingest.state()["partial"] == {"3": [0]}


def test_giving_up_returns_at_once_while_a_checkpoint_is_written():
    ingest = new_ingest()
    ingest.take(chunk((0, 0)))
    ingest.pause()
    ingest.give_up({0: "no worker lives to finish it"})
    assert not ingest.deliveries.failed
    ingest.resume()
    ingest.give_up({})
    assert ingest.deliveries.failed.keys() == {0}


def test_a_restored_ingest_takes_only_what_is_missing():
    ingest, other = new_ingest(), new_ingest()
    for each in (ingest, other):
        each.rate_limiter = RateLimiter(2.0)
    ingest.stream.waits = lambda: {"blocked": 0.5, "unleased": 1.0}
    ingest.take(chunk((0, 0), (0, 0), (0, 1), (1, 0), finished=(0,), failed={7: "why"}, retried=2))
    ingest.rate_limiter.add_batch()
    state = ingest.state()
    assert state["rate_limiter"] == {
        "started": True,
        "num_batches": 1,
        "num_simulations": 1,
        "batches_per_simulation": 2.0,
    }
    assert (state["num_unique"], state["num_dropped"], state["num_retried"]) == (3, 1, 2)
    assert state["solver_blocked_seconds"] == 0.5
    other.load_state(json.loads(json.dumps(state)))
    assert (
        other.state() == state
        and other.waits() == {"blocked": 0.5, "unleased": 0.0}
        and other.deliveries.ended.delivered == [[0, 1]]
    )
    other.take(chunk((0, 0), (0, 1), finished=(0,)))
    other.take(chunk((1, 0), (1, 1), (7, 0), finished=(1, 7)))
    assert contents(other.buffer) == [(1, 1)]
    assert other.deliveries.ended == Ended([[0, 2]], {7: "why"})


def test_without_the_buffer_its_simulations_count_as_never_delivered():
    ingest = new_ingest()
    ingest.take(chunk((0, 0), (1, 0), (2, 0), finished=(0, 1, 2)))
    ingest.buffer.draw(1, 0.0)  # a FIFO: simulation 0 is trained on and gone
    ingest.take(chunk((3, 0)))
    restored = new_ingest()
    restored.load_state(json.loads(json.dumps(ingest.state(with_buffer=False))))
    assert restored.deliveries.ended.delivered == [[0, 1]] and restored.counts.unique == 1
    restored.take(chunk((0, 0), (1, 0), (2, 0), (3, 0), (3, 1), finished=(0, 1, 2, 3)))
    assert contents(restored.buffer) == [(1, 0), (2, 0), (3, 0), (3, 1)]
    assert restored.counts.unique == 5


def test_an_exception_in_the_thread_is_raised_to_its_owner_and_wakes_the_trainer():
    ingest = new_ingest(RuntimeError("the stream broke"))
    ingest.start(lambda: False)
    assert ingest.buffer.draw(1, 600.0) is None
    with pytest.raises(RuntimeError, match="the stream broke"):
        ingest.join(60)


def test_the_rate_limiter_holds_ingestion_back_until_training_waits_for_it():
    ingest = new_ingest(*[chunk((simulation, 0), finished=(simulation,)) for simulation in range(6)])
    ingest.rate_limiter = RateLimiter(1.0)
    ingest.rate_limiter.start()
    stop = threading.Event()
    ingest.start(stop.is_set)
    for num_delivered in (2, 3):  # 1 * (2 - 1) > 0 batches
        wait_until(lambda expected=num_delivered: len(ingest.deliveries.delivered) == expected)
        time.sleep(0.1)
        assert len(ingest.deliveries.delivered) == num_delivered
        ingest.rate_limiter.add_batch()
    assert len(ingest.buffer.draw(6, 60.0)) == 6  # a draw that needs six may have them
    stop.set()
    ingest.join(60)
