"""A learner as notebooks use it: no Ray, no solver; its validation set, its order, its checkpoints, what it says."""

import errno
import itertools
import os
import threading
from contextlib import closing

import numpy as np
import pytest
import torch

from penstock.errors import DiskFault, PenstockError
from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import Reservoir
from penstock.learner.checkpoints import checkpoint
from penstock.learner.checkpoints.store import PlainStore
from penstock.learner.learner import Learner
from penstock.learner.losses.losses import RelativeL2, TotalLoss
from penstock.learner.models.grids.fourier.fno import FNO
from penstock.learner.normalization import Normalization
from penstock.learner.optimization import Optimization
from penstock.learner.settings import Settings, StopAfter
from penstock.learner.stream.order import Deterministic, FreeRunning
from penstock.learner.stream.stream import InProcessStream
from penstock.learner.surrogate import Surrogate
from penstock.learner.validation.collect import Collected, Collector
from penstock.messages import Chunk, Lease, LeaseEnd, Restart
from penstock.orchestrator.ledger.designs import InOrder
from penstock.orchestrator.ledger.ledger import Ledger
from penstock.status import Ended, News
from tests.support.learners import NoStream, StopsAt

LAYOUT = Layout((FieldSpec(name="a", on=Grid((16,))),), (FieldSpec(name="u", on=Grid((16,))),))
WINDOW, NUM_LANES, NUM_SIMULATIONS = 5, 2, 60
DETERMINISTIC = Deterministic(num_lanes=NUM_LANES, window=WINDOW, limit=NUM_SIMULATIONS)


class Doubling:
    """u = 2 a for normal a, a chunk a simulation; number 7 fails."""

    def stream(self, lease):
        for simulation in lease.simulations:
            if simulation == 7:
                yield chunk((), failed={7: "it is seven"})
            else:
                yield chunk((simulation,), design=lease.design, finished=(simulation,))


def chunk(simulations, *, design="training", **ends):
    seed = 10**6 if design == "validation" else 0
    fields = [np.random.default_rng(seed + i).normal(size=(1, 16)) for i in simulations]
    fields = np.array(fields, np.float32).reshape(-1, 1, 16)
    numbers = np.array(simulations, np.int64)
    return Chunk(
        design=design,
        arrays={"fields": fields, "targets": 2 * fields},
        simulations=numbers,
        steps=np.zeros_like(numbers),
        quantiles=np.zeros((len(numbers), 1), np.float32),
        **ends,
    )


class Hardest(Reservoir):
    """Draws the units of the largest losses, and chance ones where these are alike; weighs the first row double."""

    def begin(self, table):
        super().begin(table)
        self.losses = np.full(len(table), np.inf)

    def choose(self, batch_size):
        idle = self.random.permutation(self.idle)
        hardest = idle[np.argsort(-self.losses[idle], kind="stable")][:batch_size]
        self.remove(hardest)
        return hardest

    def weights(self, slots):
        weights = np.ones(len(slots))
        weights[0] = 2.0
        return weights / weights.mean()

    def observe(self, slots, losses):
        self.losses[slots] = losses

    def state(self):
        return {"losses": torch.from_numpy(self.losses)}

    def load_state(self, state):
        self.losses[:] = state["losses"].numpy()


def learner(stream, store=None, *, order=None, policy=Reservoir, **settings):
    torch.manual_seed(0)
    surrogate = Surrogate(FNO(LAYOUT, width=8, modes=4, layers=1), Normalization.identity(LAYOUT), LAYOUT)
    return Learner(
        Optimization(surrogate, loss=TotalLoss(LAYOUT, RelativeL2), learning_rate=1e-2),
        Buffer(LAYOUT, policy(), capacity=24, watermark=12, seed=0),
        stream,
        LAYOUT,
        Settings(batch_size=4, batches_per_simulation=2.0, **settings),
        store=store,
        order=order or FreeRunning(),
        quantile_names=("x",),
    )


def submit_all(stream, worker):
    """The validation set, and after it the training simulations."""
    stream.submit(Lease(number=0, simulations=tuple(range(6)), design="validation"), worker)
    stream.submit(Lease(number=1, simulations=tuple(range(NUM_SIMULATIONS))), worker)


def submit_blocks(stream, worker, ended):
    """The blocks that have not ended, on their lanes."""
    ledger, numbers = Ledger(InOrder("training"), NUM_SIMULATIONS, ended), itertools.count()
    for lane in range(NUM_LANES):
        while (lease := ledger.lease_block(next(numbers), DETERMINISTIC.blocks(NUM_SIMULATIONS), lane)) is not None:
            stream.submit(lease, worker)


def validation_set():
    samples = chunk(range(6), design="validation")
    return Collected(samples.arrays, samples.simulations, samples.steps, Ended([[0, 6]]))


def test_a_learner_trains_from_a_stream_in_this_process():
    with closing(InProcessStream()) as stream:
        submit_all(stream, Doubling())
        trained = learner(stream, stop_after=StopAfter(simulations=60), validation_simulations=6)
        assert trained.run() == "stream ended"
    status = trained.status()
    assert status.training.step > 60 and status.training.validation["relative_l2"]["mean"] < 0.2
    assert status.account.validation == Ended([[0, 6]]) and status.account.training.failed == {7: "it is seven"}
    assert {end.lease_number for end in status.news.lease_ends} >= {0, 1}
    assert trained.status().news.lease_ends == ()


@pytest.mark.parametrize("policy", [Reservoir, Hardest])
def test_an_order_that_repeats_does_so_in_this_process_over_a_stop_and_a_resume(tmp_path, policy):
    def run(store, stop_at=None):
        with closing(InProcessStream()) as stream:
            settings = {"validation_simulations": 6, "stop_after": StopAfter(simulations=NUM_SIMULATIONS)}
            trained = learner(stream, store, order=DETERMINISTIC, policy=policy, **settings)
            submit_blocks(stream, Doubling(), trained.account.training)
            if stop_at is not None:
                trained.trainer._step = StopsAt(trained.trainer._step, stop_at, trained)
            cause = trained.run()
        return trained, cause

    whole, cause = run(PlainStore(tmp_path / "whole", validation_set()))
    assert cause == "stream ended" and whole.ingest.deliveries.ended == Ended([[0, 7], [8, 60]], {7: "it is seven"})
    store, lives = PlainStore(tmp_path / "stopped", validation_set()), 0
    for stop_at in (9, 31, 50, None):
        resumed, cause = run(store, stop_at)
        assert cause == ("stream ended" if stop_at is None else "stopped")
        lives += 1
    assert lives == 4 and resumed.trainer.step == whole.trainer.step > 60
    for name, value in whole.trainer.surrogate.state_dict().items():
        assert torch.equal(value, resumed.trainer.surrogate.state_dict()[name]), name
    assert resumed.account.training == whole.account.training and resumed.account.unique == whole.account.unique
    assert resumed.trainer.validation_errors == whole.trainer.validation_errors


def test_a_store_with_a_validation_set_has_nothing_solved_for_it(tmp_path):
    store = PlainStore(tmp_path)
    for _ in range(2):
        with closing(InProcessStream()) as stream:
            submit_all(stream, Doubling())
            trained = learner(stream, store, stop_after=StopAfter(steps=20), validation_simulations=6)
            trained.run()
    errors = trained.trainer.validation_errors
    with closing(InProcessStream()) as stream:
        last = learner(stream, store, stop_after=StopAfter(steps=20), validation_simulations=6)
        assert last.account.validation == Ended([[0, 6]])
        assert last.run() == "steps" and last.trainer.validation_errors == errors


def test_one_that_is_stopped_while_the_validation_set_is_solved_has_no_cause():
    with closing(InProcessStream()) as stream:
        trained = learner(stream, stop_after=StopAfter(steps=20), validation_simulations=6)
        threading.Timer(0.2, trained.stop).start()
        assert trained.run() is None and trained.status().training.step == 0


class Breaking(Doubling):
    """Breaks in the training simulations, once there are enough to train on."""

    def stream(self, lease):
        for number, item in enumerate(super().stream(lease)):
            if number == 30:
                raise RuntimeError("the worker broke")
            yield item


def test_what_breaks_the_stream_ends_training_and_is_raised():
    with closing(InProcessStream()) as stream:
        submit_all(stream, Breaking())
        trained = learner(stream, stop_after=StopAfter(simulations=60), validation_simulations=6)
        with pytest.raises(RuntimeError, match="the worker broke"):
            trained.run()
    assert trained.status().account.unique == 29


def test_simulations_that_no_worker_lives_to_finish_end_the_stream_like_others():
    with closing(InProcessStream()) as stream:
        stream.submit(Lease(number=0, simulations=(1, 2, 3), design="validation"), Doubling())
        stream.submit(Lease(number=1, simulations=tuple(range(40))), Doubling())
        trained = learner(stream, stop_after=StopAfter(simulations=42), validation_simulations=4)
        trained.give_up("validation", {0: "its worker died, 3 times"})
        trained.give_up("training", {40: "its worker died, 3 times", 41: "its worker died, 3 times"})
        assert trained.run() == "stream ended"
    account = trained.account
    assert account.validation == Ended([[1, 4]], {0: "its worker died, 3 times"})
    assert account.training.failed.keys() == {7, 40, 41} and account.unique == 39


class Items(NoStream):
    """A stream of what is in a list, which spoils each once the next is asked for: the object store has little room."""

    def __init__(self, *items):
        self.items, self.given = list(items), None

    def next(self, timeout_s, lane=None):
        if isinstance(self.given, Chunk):
            for array in (*self.given.arrays.values(), self.given.simulations, self.given.steps):
                array.fill(0)
        self.given = self.items.pop(0) if self.items else None
        return self.given


def test_a_validation_set_counts_each_sample_and_each_end_once_and_keeps_nothing_of_the_streams_memory():
    def of(*simulations, **ends):
        return chunk(simulations, design="validation", **ends)

    expected = chunk((0, 2, 3), design="validation").arrays["targets"]
    restart = Restart(design="validation", simulation=3, reason="was ended by SIGKILL")
    collector = Collector(
        Items(
            of(3, restarts=(restart,)),
            of(0, 3, finished=(3,)),
            LeaseEnd(4),
            of(4, 0, 3, finished=(0, 3)),  # second copies
            of(failed={4: "diverged", 3: "too late"}),
            of(2, finished=(2, 4)),
        ),
        LAYOUT,
        5,
    )
    collector.give_up({1: "no worker lives to finish it"})
    collected = collector.run(lambda: False)
    np.testing.assert_array_equal(collected.arrays["targets"], expected)
    assert collected.simulations.tolist() == [0, 2, 3] and collected.steps.tolist() == [0, 0, 0]
    assert collected.ended == Ended([[0, 1], [2, 4]], {1: "no worker lives to finish it", 4: "diverged"})
    assert collector.drain_news() == News(restarts=(restart,), lease_ends=(LeaseEnd(4),))
    assert collector.drain_news() == News()


def test_a_sample_that_the_validation_set_would_lose_is_refused():
    with pytest.raises(PenstockError, match="of the design 'training' arrived before the validation set was whole"):
        Collector(Items(chunk((9,), finished=(9,))), LAYOUT, 1).run(lambda: False)


def test_a_validation_set_of_which_everything_failed_is_none():
    for ends in ({"failed": {0: "a", 1: "b"}}, {"failed": {0: "a"}, "finished": ()}):
        collector = Collector(Items(chunk((0,), design="validation", **ends)), LAYOUT, len(ends["failed"]))
        assert collector.run(lambda: False) is None


@pytest.mark.parametrize("order", [FreeRunning(), DETERMINISTIC])
def test_orders_say_what_they_refuse(order):
    text = "deterministic: true refuses a: give b; and c"
    if order.must_repeat:
        with pytest.raises(Exception, match=f"^{text}$"):
            order.require_possible(["a: give b", "c"])
        with pytest.raises(Exception, match="can't be turned on on resume"):
            order.require_continues(FreeRunning())
    else:
        order.require_possible(["a: give b", "c"])
        order.require_continues(DETERMINISTIC)
    order.require_possible([])
    order.require_continues(order)


class Disk:
    """Refuses the last part of each checkpoint while it is full."""

    def __init__(self, monkeypatch):
        self.is_full, self.num_refused, self._write = False, 0, checkpoint.write_tensors
        monkeypatch.setattr(checkpoint, "write_tensors", self.write)

    def write(self, folder, part, contents):
        if self.is_full and part == "optimizer":
            self.num_refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._write(folder, part, contents)


def test_a_disk_that_is_full_for_a_while_costs_checkpoints_and_nothing_else(tmp_path, monkeypatch):
    """Training goes on meanwhile, the newest checkpoint stays, and the last one waits for the disk."""
    disk, steps = Disk(monkeypatch), []
    limits = {"stop_after": StopAfter(simulations=60), "checkpoint_every_s": 0.0}
    with closing(InProcessStream()) as stream:
        submit_all(stream, Doubling())
        trained = learner(stream, PlainStore(tmp_path, validation_set()), **limits)
        state_of = trained.trainer.checkpoint_state

        def fill_and_free(**options):
            """Full from the third save on; freed when the last one has been refused."""
            steps.append(trained.trainer.step)
            disk.is_full = len(steps) >= 3 and not (trained.cause and disk.num_refused > 3)
            return state_of(**options)

        monkeypatch.setattr(trained.trainer, "checkpoint_state", fill_and_free)
        assert trained.run() == "stream ended"
    assert trained.account.training == Ended([[0, 7], [8, 60]], {7: "it is seven"})
    assert checkpoint.load(tmp_path).step == trained.trainer.step > steps[2] and disk.num_refused > 3
    refused, again = trained.status().news.notes
    assert "No space left on device" in refused and "still valid; it is tried again for 120 s" in refused
    assert again.startswith("the disk takes what is written again, after ")
    assert all(path.name.isdecimal() for path in tmp_path.iterdir())


def test_a_disk_that_stays_full_ends_training_with_its_fault_and_the_newest_checkpoint_is_whole(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    with closing(InProcessStream()) as stream:
        submit_all(stream, Doubling())
        store = PlainStore(tmp_path, validation_set())
        trained = learner(stream, store, stop_after=StopAfter(simulations=60), checkpoint_every_s=0.0)
        trained._patience._within_s = 0.3
        state_of, steps = trained.trainer.checkpoint_state, []

        def fill(**options):
            steps.append(trained.trainer.step)
            disk.is_full = len(steps) >= 3
            return state_of(**options)

        monkeypatch.setattr(trained.trainer, "checkpoint_state", fill)
        with pytest.raises(DiskFault, match=r"step \d+ .*No space left on device; the last one written is still valid"):
            trained.run()
    assert checkpoint.load(tmp_path).step == steps[1] and disk.num_refused > 1
