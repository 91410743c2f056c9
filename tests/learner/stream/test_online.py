"""A whole learner over a stream, with a stop and a resume."""

import itertools
import time

import numpy as np
import pytest
import torch

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import POLICIES
from penstock.learner.checkpoints.store import PlainStore
from penstock.learner.learner import Learner
from penstock.learner.losses.losses import MSE, TotalLoss
from penstock.learner.models.grids.fourier.fno import FNO
from penstock.learner.normalization import Normalization
from penstock.learner.optimization import Optimization
from penstock.learner.settings import Settings, StopAfter
from penstock.learner.surrogate import Surrogate
from penstock.messages import Chunk
from tests.support.learners import NoStream

LAYOUT = Layout((FieldSpec(name="a", on=Grid((8,))),), (FieldSpec(name="u", on=Grid((8,))),))


class Solver(NoStream):
    """A stream of simulations of three samples each, u = 2 a, cut into chunks across the simulations' borders."""

    def __init__(self, num_simulations):
        self.rows = iter([(simulation, step) for simulation in range(num_simulations) for step in range(3)])

    def next(self, timeout_s, lane=None):
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


@pytest.mark.parametrize("kind", sorted(POLICIES))
def test_a_resumed_learner_takes_every_sample_of_a_repeated_stream_once(tmp_path, kind):
    store = PlainStore(tmp_path)

    def start(**stop_after):
        torch.manual_seed(0)
        settings = Settings(
            batch_size=4,
            stop_after=StopAfter(**stop_after),
            batches_per_simulation=2.0,
            checkpoint_every_s=0.05,
        )
        surrogate = Surrogate(FNO(LAYOUT, width=4, modes=3, layers=1), Normalization.identity(LAYOUT), LAYOUT)
        step = Optimization(surrogate, loss=TotalLoss(LAYOUT, MSE), learning_rate=1e-2)
        buffer = Buffer(LAYOUT, POLICIES[kind](), capacity=30, watermark=12, seed=0)
        return Learner(step, buffer, Solver(100), LAYOUT, settings, store=store)

    assert start(steps=25).run() == "steps"

    resumed = start(simulations=100)
    ingest, buffer = resumed.ingest, resumed.buffer
    num_unique = ingest.counts.unique
    assert resumed.trainer.step == 25 and len(ingest.deliveries.delivered) < 100
    assert num_unique == buffer.num_put  # what was written down is what is in the buffer

    assert resumed.run() == "stream ended"
    status = resumed.status()
    assert status.account.training.delivered == [[0, 100]] and status.account.dropped == num_unique
    assert status.account.unique == buffer.num_put == 300 and status.cause == "stream ended"
    if kind == "reservoir":  # two batches a simulation, as the limiter was told; the others can't repeat a sample
        num_drained = 30 / 4  # the limiter is over with the stream; the full buffer is not
        num_before = 10  # simulations that statistics need, where 12 samples are of 4
        assert status.training.step == pytest.approx(2 * (100 - num_before) + num_drained, abs=8)
