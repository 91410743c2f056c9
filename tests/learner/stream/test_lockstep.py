"""Deterministic runs inside one process: what is put and drawn, and when, does not depend on time."""

import itertools
import json
import random

import numpy as np
import pytest
import torch

from penstock.errors import PenstockError
from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import POLICIES
from penstock.learner.buffers.units import Trajectories
from penstock.learner.checkpoints.rows import Rows
from penstock.learner.stream.blocks import Blocks
from penstock.learner.stream.ingest import Ingest
from penstock.learner.stream.lanes import Lanes
from penstock.learner.stream.lockstep import Lockstep
from penstock.learner.stream.rate_limiter import RateLimiter
from penstock.messages import Chunk, LeaseEnd
from penstock.orchestrator.ledger.designs import InOrder
from penstock.orchestrator.ledger.ledger import Ledger
from penstock.status import Ended
from tests.support.learners import NoStream

LAYOUT = Layout((FieldSpec(name="a", on=Grid((2,))),), (FieldSpec(name="u", on=Grid((2,))),))
WINDOW, NUM_LANES, LIMIT = 5, 3, 52  # blocks 0 to 10, the last one of two simulations: lanes of 4, 4 and 3 blocks
CHUNK_ROWS = 4
NUM_STEPS = 3


def blocks(limit: int | None = LIMIT) -> Blocks:
    return Blocks(size=WINDOW, num_lanes=NUM_LANES, limit=limit)


def fails_at(simulation: int) -> int | None:
    """The step that fails, -1 for the draw; some failures come after samples that were sent."""
    return {3: -1, 7: 1, 8: 2}.get(simulation % 11)


def chunks_of(ids):
    """What a worker makes of a lease, cut by count across the simulations' borders."""
    failed = {i: "no draw" for i in ids if fails_at(i) == -1}
    rows, finished = [], []

    def chunk():
        keys = np.array(rows, np.int64).reshape(-1, 2)
        values = (keys[:, 0] + keys[:, 1] / 10).astype(np.float32)
        fields = np.broadcast_to(values[:, None, None], (len(keys), 1, 2))
        return Chunk(
            arrays={"fields": fields, "targets": fields},
            simulations=keys[:, 0],
            steps=keys[:, 1],
            quantiles=np.zeros((len(keys), 0), np.float32),
            finished=tuple(finished),
            failed=dict(failed),
        )

    for simulation in ids:
        if fails_at(simulation) == -1:
            continue
        for step in range(NUM_STEPS):
            if step == fails_at(simulation):
                rows[:] = [row for row in rows if row[0] != simulation]
                failed[simulation] = "diverged"
                break
            rows.append((simulation, step))
            if len(rows) == CHUNK_ROWS:
                yield chunk()
                rows.clear(), finished.clear(), failed.clear()
        else:
            finished.append(simulation)
    if rows or finished or failed:
        yield chunk()


class Workers(NoStream):
    """One worker a lane, leased as the driver does it. They are late, and die, as the generator `luck` has it."""

    def __init__(self, luck: random.Random | None, limit: int | None = LIMIT):
        self.luck, self.limit = luck, limit
        self.num_deaths = 0
        self._num_leases = 0
        self._leases = {}

    def attach(self, ingest):
        self._ingest = ingest
        self._ledger = Ledger(InOrder("training"), self.limit, ingest.deliveries.ended)

    def next(self, timeout_s, lane=None):
        if self.luck and self.luck.random() < 0.3:
            return None  # nothing came in time
        if lane not in self._leases:
            lease = self._ledger.lease_block(self._num_leases, blocks(self.limit), lane)
            if lease is None:
                return None
            self._num_leases += 1
            self._leases[lane] = (lease.number, chunks_of(lease.simulations))
        number, chunks = self._leases[lane]
        dies = self.luck is not None and self.luck.random() < 0.1
        chunk = None if dies else next(chunks, None)
        if chunk is not None:
            return chunk
        del self._leases[lane]
        self.num_deaths += dies
        self._ledger.settle(self._ingest.deliveries.ended)
        self._ledger.end_lease(number)
        return LeaseEnd(number)


def _copy(value):
    if isinstance(value, Rows):
        return value.tensor.clone() if value.index is None else value.tensor[value.index]
    return value.clone() if isinstance(value, torch.Tensor) else json.loads(json.dumps(value))


class Learner:
    """Everything of a learner but the training. `log` holds of every draw how much was put before it, and the batch."""

    def __init__(self, kind, luck, *, ratio=0.7, capacity=24, watermark=12, limit=LIMIT, draw=None):
        self.limiter = RateLimiter(ratio)
        self.buffer = Buffer(LAYOUT, POLICIES[kind](), capacity=capacity, watermark=watermark, seed=1, unit=draw)
        self.workers = Workers(luck, limit)
        self.lanes = Lanes(self.workers, blocks(limit))
        self.ingest = Ingest(self.lanes, self.buffer, LAYOUT, self.limiter)
        self.feed = Lockstep(self.ingest, "cpu", 4)
        self.log = []

    def run(self, is_killed=lambda: False) -> bool:
        """Until the buffer is drained, or killed between two calls of the feed; whether it was drained."""
        self.workers.attach(self.ingest)
        while not self.feed.wait_for_population(is_killed):
            return False
        self.feed.start()
        while not self.buffer.exhausted:
            if is_killed():
                return False
            if (batch := self.feed.next(lambda: False)) is not None:
                keys = zip(batch.simulations.tolist(), batch.steps.tolist(), strict=True)
                self.log.append((self.buffer.num_put, list(keys)))
                first = 10 * batch.arrays["targets"][:, 0, 0]  # rows hold their keys
                assert first.round().tolist() == [10 * i + step for i, step in self.log[-1][1]]
        return True

    def saved(self):
        """As a checkpoint keeps it."""
        buffer = {name: _copy(value) for name, value in self.buffer.state().items()}
        return buffer, json.loads(json.dumps([self.ingest.state(), self.lanes.state()])), list(self.log)

    def restore(self, saved):
        buffer, (ingest, lanes), log = saved
        self.log = list(log)
        self.buffer.load_state(buffer)
        self.ingest.load_state(ingest)
        self.lanes.load_state(lanes)


def test_chunks_are_taken_one_a_lane_in_turn_whatever_comes_when():
    """A FIFO that is never full draws in the order of arrival: it is that of the definition."""
    lanes = [
        [chunk for block in range(lane, 11, 3) for chunk in chunks_of(range(5 * block, min(52, 5 * block + 5)))]
        for lane in range(3)
    ]
    turns = [chunk for turn in itertools.zip_longest(*lanes) for chunk in turn if chunk is not None]
    expected = [
        (i, s) for chunk in turns for i, s in zip(chunk.simulations.tolist(), chunk.steps.tolist(), strict=True)
    ]
    learner = Learner("fifo", random.Random(5), capacity=200)
    assert learner.run()
    assert [key for _, keys in learner.log for key in keys] == expected
    assert learner.ingest.deliveries.num_ended == LIMIT and set(learner.ingest.deliveries.failed) == {
        i for i in range(LIMIT) if fails_at(i) is not None
    }


@pytest.mark.parametrize("kind", sorted(POLICIES))
@pytest.mark.parametrize(
    "options",
    [
        {"ratio": 0.2},  # the buffer is full, and chunks go in by parts
        {"ratio": 0.7},
        {"ratio": 3.0},
        {"ratio": 0.7, "draw": Trajectories(NUM_STEPS)},
    ],
)
def test_late_chunks_deaths_and_kills_leave_the_sequence_of_puts_and_draws_as_it_is(kind, options):
    undisturbed = Learner(kind, None, **options)
    assert undisturbed.run()
    num_deaths, num_kills, num_kills_within_a_chunk = 0, 0, 0
    for seed in range(8):
        luck = random.Random(seed)
        learner, is_drained, saved = Learner(kind, luck, **options), False, None
        while not is_drained:
            calls_left = itertools.count(luck.randrange(1, 25), -1)
            is_drained = learner.run(lambda calls_left=calls_left: next(calls_left) <= 0)
            num_deaths += learner.workers.num_deaths
            if not is_drained and (saved is None or luck.random() < 0.7):  # else it is killed since its last checkpoint
                num_kills_within_a_chunk += learner.feed._in_hand is not None
                saved = learner.saved()
            if not is_drained:
                num_kills += 1
                learner = Learner(kind, luck, **options)
                learner.restore(saved)
        assert learner.log == undisturbed.log
        final, expected = learner.buffer.state(), undisturbed.buffer.state()
        assert final["random"] == expected["random"] and final["num_put"] == expected["num_put"]
        assert learner.ingest.deliveries.ended.delivered == undisturbed.ingest.deliveries.ended.delivered
        assert learner.ingest.deliveries.failed == undisturbed.ingest.deliveries.failed
    assert num_deaths >= 10 and num_kills >= 10 and (options["ratio"] > 0.2 or num_kills_within_a_chunk > 5)


def test_draws_follow_the_limiter():
    """Reservoir, r = 2: batch T is drawn as soon as T < 2 (D + 1), D the simulations ended since the watermark."""
    learner = Learner("reservoir", random.Random(2), ratio=2.0, capacity=100, limit=None)
    stop = itertools.count()
    assert not learner.run(lambda: next(stop) > 400)
    num_batches = len(learner.log)
    state = learner.limiter.state()
    assert num_batches > 50
    assert abs(state["num_batches"] - 2 * (state["num_simulations"] + 1)) <= 2 * 3  # a chunk ends up to three at once


def test_a_lane_is_leased_whole_blocks_in_order_whatever_was_delivered_of_them():
    ledger = Ledger(InOrder("training"), 52, Ended([[0, 2], [10, 12], [15, 20]], {3: "why"}))
    leases = [[ledger.lease_block(10 * lane + n, blocks(), lane) for n in range(4)] for lane in range(3)]
    starts = [[lease.simulations[0] for lease in lane if lease is not None] for lane in leases]
    assert starts == [[0, 30, 45], [5, 20, 35, 50], [10, 25, 40]]  # block 3, 15 to 19, was delivered
    assert leases[1][3].simulations == (50, 51)
    assert all(lease.lane == lane for lane in range(3) for lease in leases[lane] if lease)
    ledger.settle(Ended([[0, 3], [5, 10], [10, 12], [15, 20]], {3: "why"}))
    ledger.end_lease(0)  # the worker of lane 0 died with all its leases
    ledger.end_lease(1)
    assert ledger.lease_block(90, blocks(), 0).simulations == (0, 1, 2, 3, 4)
    assert ledger.lease_block(91, blocks(), 0).simulations == (30, 31, 32, 33, 34)
    assert ledger.lease_block(92, blocks(), 0) is None


def test_a_buffer_that_can_neither_take_nor_give_is_named():
    learner = Learner("fifo", None)
    learner.buffer.draw = lambda *arguments, **options: None
    with pytest.raises(PenstockError, match=r"raise buffer\.capacity"):
        learner.run()
