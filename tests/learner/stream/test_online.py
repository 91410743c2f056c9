"""Ingest, buffer, limiter and trainer together, as the learner runs them, with a stop and a resume."""

import itertools
import threading
import time

import numpy as np
import pytest
import torch

from penstock.learner.buffers.buffer import BUFFERS
from penstock.learner.checkpoints import checkpoint
from penstock.learner.feed.feed import Feed
from penstock.learner.losses.losses import MSE
from penstock.learner.models.fno import FNO
from penstock.learner.normalization import Normalization
from penstock.learner.step import Step
from penstock.learner.stream.ingest import Ingest
from penstock.learner.stream.rate_limiter import RateLimiter
from penstock.learner.surrogate import Surrogate
from penstock.learner.trainer import StopAfter, Trainer
from penstock.sample import Chunk, FieldSpec, Layout

LAYOUT = Layout((FieldSpec(name="a", shape=(8,)),), (FieldSpec(name="u", shape=(8,)),))


class Solver:
    """A stream of simulations of three samples each, u = 2 a, cut into chunks across the simulations' borders."""

    def __init__(self, num_simulations):
        self.rows = iter([(simulation, step) for simulation in range(num_simulations) for step in range(3)])

    def next(self, timeout_s):
        rows = list(itertools.islice(self.rows, 4))
        if not rows:
            time.sleep(timeout_s)
            return None
        fields = np.stack([np.random.default_rng(row).normal(size=(1, 8)) for row in rows]).astype(np.float32)
        simulations, steps = np.array(rows, np.int64).T
        finished = tuple(simulations[steps == 2].tolist())
        return Chunk(
            arrays={"fields": fields, "targets": 2 * fields}, simulations=simulations, steps=steps, finished=finished
        )


def learner(folder, writer, kind, depth, stop_after):
    """The wiring that an owner does. Returns trainer and ingest."""
    torch.manual_seed(0)
    limiter = RateLimiter(2.0)
    buffer = BUFFERS[kind](LAYOUT, capacity=30, watermark=12, seed=0)
    ingest = Ingest(Solver(100), buffer, LAYOUT, limiter)

    def save(trainer):
        writer.wait()
        ingest.pause()
        state = trainer.checkpoint_state()
        state["meta"]["ingest"] = ingest.state()
        writer.save(folder, trainer.step, **state, keep=2, release=ingest.resume)

    surrogate = Surrogate(FNO(LAYOUT, width=4, modes=3, layers=1), Normalization.identity(LAYOUT), LAYOUT)
    trainer = Trainer(
        Step(surrogate, loss=MSE(), learning_rate=1e-2),
        Feed(buffer, "cpu", 4, limiter, depth=depth),
        ingest,
        stop_after=stop_after,
        checkpoint=save,
        checkpoint_every_s=0.05,
    )
    return trainer, ingest


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("kind", sorted(BUFFERS))
def test_a_resumed_learner_takes_every_sample_of_a_repeated_stream_once(tmp_path, kind, depth):
    writer = checkpoint.Writer()
    trainer, ingest = learner(tmp_path, writer, kind, depth, StopAfter(steps=25))
    stop = threading.Event()
    ingest.start(stop.is_set)
    assert trainer.run(lambda: False) == "steps"
    stop.set()
    assert ingest.join(60)

    resumed, again = learner(tmp_path, writer, kind, depth, StopAfter(simulations=100))
    writer.wait()
    saved = checkpoint.load(tmp_path)
    resumed.load_checkpoint(saved)
    again.load_state(saved.meta["ingest"])
    num_unique = again.num_unique
    assert resumed.step == 25 and again.num_delivered < 100
    assert num_unique == resumed.buffer.num_put  # what was written down is what is in the buffer

    def end_the_stream_after_100() -> bool:
        if again.num_delivered == 100:
            resumed.buffer.end_of_stream()
        return again.num_delivered == 100

    again.start(end_the_stream_after_100)
    assert resumed.run(lambda: False) == "stream ended"
    assert again.join(60)
    assert again.delivered.to_intervals() == [[0, 100]]
    assert again.num_unique == resumed.buffer.num_put == 300 and again.num_dropped == num_unique
    if kind == "reservoir":  # two batches a simulation, as the limiter was told; the others can't repeat a sample
        num_drained = 30 / 4  # the limiter is over with the stream; the full buffer is not
        num_before = 10  # simulations that statistics need, where 12 samples are of 4
        assert resumed.step == pytest.approx(2 * (100 - num_before) + num_drained, abs=8)
