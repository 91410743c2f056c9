"""Two learners that train together: the same weights as one, one end, one checkpoint, and what ends one ends both."""

import errno
import itertools
import os
import signal
from contextlib import closing

import numpy as np
import pytest
import torch

from penstock.errors import PenstockError
from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import Fifo, Reservoir
from penstock.learner.checkpoints import checkpoint
from penstock.learner.checkpoints.store import PlainStore
from penstock.learner.learner import Learner
from penstock.learner.losses.losses import MSE, TotalLoss
from penstock.learner.models.grids.fourier.fno import FNO
from penstock.learner.normalization import Normalization
from penstock.learner.optimization import Optimization
from penstock.learner.optimizers.adamw import AdamW
from penstock.learner.optimizers.muon import Muon
from penstock.learner.ranks import turns
from penstock.learner.ranks.group import ALONE, RankLost
from penstock.learner.settings import Settings, StopAfter
from penstock.learner.stream.ingest import Ingest
from penstock.learner.stream.order import Deterministic, FreeRunning
from penstock.learner.stream.stream import InProcessStream
from penstock.learner.surrogate import Surrogate
from penstock.messages import Chunk, Lease
from penstock.orchestrator.ledger.designs import InOrder
from penstock.orchestrator.ledger.ledger import Ledger
from tests.support.learners import NoStream, StopsAt
from tests.support.ranks import Ranks, on_ranks
from tests.support.waiting import wait_until

LAYOUT = Layout((FieldSpec(name="a", on=Grid((16,))),), (FieldSpec(name="u", on=Grid((16,))),))
ORDER = Deterministic(num_lanes=2, window=5, limit=60)


def samples(simulations, design="training"):
    seed = 10**6 if design == "validation" else 0
    fields = [np.random.default_rng(seed + i).normal(3.0, 2.0, size=(1, 16)) for i in simulations]
    fields = np.array(fields, np.float32).reshape(-1, 1, 16)
    return {"fields": fields, "targets": 2 * fields - 1}


def chunk(simulations, design="training", **ends):
    numbers = np.array(simulations, np.int64)
    return Chunk(
        design=design,
        arrays=samples(simulations, design),
        simulations=numbers,
        steps=np.zeros_like(numbers),
        quantiles=np.zeros((len(numbers), 1), np.float32),
        **ends,
    )


class Doubling:
    """u = 2 a - 1, a chunk a simulation; the data of a simulation are those of its number and an offset."""

    def __init__(self, offset=0):
        self.offset = offset

    def stream(self, lease):
        for simulation in lease.simulations:
            own = chunk((simulation + self.offset,), design=lease.design, finished=(simulation,))
            own.simulations[:] = simulation
            yield own


def new_learner(group, stream, folder=None, *, order=None, policy=Reservoir, batch_size=4, **settings):
    torch.manual_seed(0)
    surrogate = Surrogate(FNO(LAYOUT, width=8, modes=4, layers=1), Normalization.identity(LAYOUT), LAYOUT)
    settings = {"checkpoint_every_s": 1e9, **settings}
    return Learner(
        Optimization(surrogate, loss=TotalLoss(LAYOUT, MSE), learning_rate=1e-2, ema_decay=0.9, group=group),
        Buffer(LAYOUT, policy(), capacity=24, watermark=12, seed=group.rank),
        stream,
        LAYOUT,
        Settings(batch_size=batch_size, **settings),
        store=PlainStore(folder),
        order=order or FreeRunning(),
    )


def weights(trained):
    return {name: value.numpy().copy() for name, value in trained.trainer.surrogate.state_dict().items()}


class Batches(NoStream):
    """A stream of one chunk with the rows of a rank, of all batches in their order."""

    def __init__(self, group, num_steps, batch_size):
        numbers = np.arange(num_steps * batch_size * 2).reshape(num_steps, 2, batch_size)
        own = numbers.reshape(-1) if group.size == 1 else numbers[:, group.rank].reshape(-1)
        self.items = [chunk(part, finished=tuple(part.tolist())) for part in np.split(own, num_steps)]

    def next(self, timeout_s, lane=None):
        return self.items.pop(0) if self.items else None


def equal_batches(group, optimizer):
    """20 steps on batches whose rows are known: a queue gives them in the order in which they came."""
    torch.manual_seed(0)
    per_rank = 8 if group.size == 1 else 4
    surrogate = Surrogate(FNO(LAYOUT, width=8, modes=4, layers=1), Normalization.identity(LAYOUT), LAYOUT)
    options = {"learning_rate": 1e-3, "optimizer": optimizer, "ema_decay": 0.9, "group": group}
    step = Optimization(surrogate, loss=TotalLoss(LAYOUT, MSE), **options)
    buffer = Buffer(LAYOUT, Fifo(), capacity=20 * per_rank, watermark=20 * per_rank, seed=0)
    trained = Learner(
        step,
        buffer,
        Batches(group, 20, 4),
        LAYOUT,
        Settings(batch_size=per_rank, stop_after=StopAfter(steps=20)),
    )
    assert trained.run() == "steps" and trained.trainer.step == 20 and trained.trainer.num_trained == 20 * per_rank
    return weights(trained) | {"loss": trained.trainer.loss, "rate": trained.trainer.learning_rate}


@pytest.mark.parametrize("optimizer", [AdamW, Muon])
def test_two_ranks_train_as_one_on_equal_batches(optimizer, tmp_path):
    first, second = on_ranks(tmp_path, equal_batches, optimizer)
    np.testing.assert_equal(second, first)
    for name, value in equal_batches(ALONE, optimizer).items():
        np.testing.assert_allclose(first[name], value, rtol=0, atol=1e-6, err_msg=name)


def merged_normalization(group):
    buffer = Buffer(LAYOUT, Reservoir(), capacity=24, watermark=12, seed=0)
    ingest = Ingest(NoStream(), buffer, LAYOUT)
    for part in ((0, 1, 2, 3), (4, 5)) if group.rank == 0 else ((6,), (), (7, 8)):
        ingest.take(chunk(part))
    normalization, remarks = ingest.normalization(group)
    return {name: value.numpy() for name, value in normalization.named_buffers()}, remarks


def test_the_normalisation_is_that_of_all_ranks_samples(tmp_path):
    (first, remarks), (second, _) = on_ranks(tmp_path, merged_normalization)
    np.testing.assert_equal(second, first)
    for name, values in samples(range(9)).items():
        np.testing.assert_allclose(first[f"{name}_mean"], [values.mean(dtype=np.float64)], rtol=1e-6)
        np.testing.assert_allclose(first[f"{name}_std"], [values.std(dtype=np.float64)], rtol=1e-6)
    assert len(remarks) == 1 and remarks[0].startswith("means and deviations are of 9 simulations")


class Late(Doubling):
    """Yields the last simulations only once the learner has waited for them."""

    def __init__(self, waits):
        super().__init__(1000)
        self.waits = waits

    def stream(self, lease):
        for number, item in enumerate(super().stream(lease)):
            if number == 20:
                self.waits()
            yield item


def uneven(group):
    """Rank 1 has half of rank 0's simulations, and after some of these none for a while."""
    turns.GO_ON_AFTER_S = 1.0
    with closing(InProcessStream()) as stream:
        trained = new_learner(
            group, stream, stop_after=StopAfter(simulations=100), policy=Fifo, validation_simulations=4
        )
        trainer = trained.trainer

        def until_it_waits():
            wait_until(lambda: trainer.learner_wait_seconds > 0.3, every_s=0.05)

        if group.rank == 0:
            stream.submit(Lease(number=0, simulations=tuple(range(4)), design="validation"), Doubling())
        simulations = tuple(range(65)) if group.rank == 0 else tuple(range(35))
        stream.submit(Lease(number=1, simulations=simulations), Doubling() if group.rank == 0 else Late(until_it_waits))
        cause = trained.run()
    errors = trainer.validation_errors
    return (
        cause,
        trainer.step,
        trainer.num_trained,
        trainer.progress,
        trainer.learner_wait_seconds,
        errors,
        weights(trained),
    )


def test_a_rank_without_a_batch_makes_the_other_wait_and_one_that_is_drained_does_not(tmp_path):
    first, second = on_ranks(tmp_path, uneven)
    assert first[0] == second[0] == "stream ended" and first[1] == second[1]
    assert 17 <= first[1] < 25 and (first[2], second[2]) == (65, 35)
    assert first[3] == second[3] == 1.0 and first[4] > 0.2
    assert first[5]["relative_l2"]["mean"] > 0 and second[5] is None
    np.testing.assert_equal(second[6], first[6])


def held_by_the_limiter(group):
    """Rank 1 has a third of the simulations. Its limiter then holds its training, and rank 0's its samples."""
    turns.GO_ON_AFTER_S = 1.0
    with closing(InProcessStream()) as stream:
        limits = {"stop_after": StopAfter(simulations=100), "batches_per_simulation": 1.0}
        trained = new_learner(group, stream, policy=Reservoir, **limits)
        simulations = tuple(range(65)) if group.rank == 0 else tuple(range(65, 100))
        stream.submit(Lease(number=1, simulations=simulations), Doubling())
        return trained.run(), trained.trainer.step, trained.ingest.deliveries.num_ended


def test_a_rank_whose_share_is_over_does_not_stop_one_that_the_rate_limiter_holds(tmp_path):
    first, second = on_ranks(tmp_path, held_by_the_limiter)
    assert first[:2] == second[:2] and first[0] == "stream ended" and (first[2], second[2]) == (65, 35)


def deterministic(group, folder, stops):
    """Lives of two learners in a deterministic order; rank 1 stops them at the given steps."""
    steps = []
    for stop_at in (*stops, None):
        with closing(InProcessStream()) as stream:
            limit = 60 * group.size
            trained = new_learner(
                group.branch(),
                stream,
                folder,
                order=ORDER,
                stop_after=StopAfter(simulations=limit),
                batches_per_simulation=1.0,
            )
            trained._group.close = lambda: None
            ledger, numbers = Ledger(InOrder("training"), 60, trained.account.training), itertools.count()
            for lane in range(2):
                while (lease := ledger.lease_block(next(numbers), ORDER.blocks(60), lane)) is not None:
                    stream.submit(lease, Doubling(1000 * group.rank))
            if group.rank == group.size - 1 and stop_at is not None:
                trained.trainer._step = StopsAt(trained.trainer._step, stop_at, trained)
            cause = trained.run()
            life = cause, trained.trainer.step, stop_at
            assert cause == ("stream ended" if stop_at is None else "stopped"), life
            # the other rank may have drawn its next batch, which is then trained on
            assert stop_at is None or trained.trainer.step - stop_at in (0, 1), life
            steps.append(trained.trainer.step)
    return weights(trained), trained.trainer.step, trained.trainer.num_trained, trained.account.training, steps


def test_a_stop_of_one_stops_both_at_one_step_and_both_resume_to_the_bit(tmp_path):
    whole = on_ranks(tmp_path, deterministic, tmp_path / "whole", ())
    stopped = on_ranks(tmp_path, deterministic, tmp_path / "stopped", (9, 31))
    np.testing.assert_equal([rank[0] for rank in stopped], [rank[0] for rank in whole])
    np.testing.assert_equal(whole[1][0], whole[0][0])
    assert [rank[1:4] for rank in stopped] == [rank[1:4] for rank in whole] and whole[0][1] > 50
    assert stopped[0][4] == stopped[1][4] and len(stopped[0][4]) == 3
    with pytest.raises(PenstockError) as refused:
        deterministic(ALONE, tmp_path / "whole", ())
    assert str(refused.value).endswith("is of 2 learner ranks and can't be resumed by 1: resume with as many")
    step = checkpoint.latest(tmp_path / "whole")
    names = {path.name for path in (tmp_path / "whole" / str(step)).iterdir()}
    assert names == {
        *("meta.json", "weights.safetensors", "optimizer.safetensors", "buffer.safetensors"),
        *("optimizer-1.safetensors", "buffer-1.safetensors"),
    }
    assert checkpoint.load(tmp_path / "whole", weights_only=True).step == whole[0][1]


def refused_once(group, folder):
    """Rank 1's disk refuses the first checkpoint."""
    refusals = iter([OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
    write = checkpoint.write_tensors

    def refuse(*arguments):
        if group.rank == 1 and (error := next(refusals, None)) is not None:
            raise error
        return write(*arguments)

    checkpoint.write_tensors = refuse
    with closing(InProcessStream()) as stream:
        trained = new_learner(group, stream, folder, stop_after=StopAfter(steps=30))
        stream.submit(Lease(number=1, simulations=tuple(range(60))), Doubling(1000 * group.rank))
        trained.run()
    return trained.status().news.notes


def test_a_disk_that_refuses_one_rank_refuses_both_and_both_save_again(tmp_path):
    first, second = on_ranks(tmp_path, refused_once, tmp_path / "checkpoints")
    assert "rank 1: No space left on device" in first[0] and "No space left on device" in second[0]
    assert first[1].startswith("the disk takes what is written again") and len(first) == len(second) == 2
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["30"]


class Ends:
    """A step before which a rank ends, once there is a checkpoint."""

    def __init__(self, step, folder, end):
        self._step, self._folder, self._end = step, folder, end

    def __call__(self, *arguments):
        if (checkpoint.latest(self._folder) or 0) > 0:
            self._end()
        return self._step(*arguments)

    def __getattr__(self, name):
        return getattr(self._step, name)


def ended(group, folder, how):
    with closing(InProcessStream()) as stream:
        trained = new_learner(group, stream, folder, stop_after=StopAfter(steps=100_000), checkpoint_every_s=0.0)

        def end():
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("the model broke")

        if group.rank == 1:
            trained.trainer._step = Ends(trained.trainer._step, folder, end)
        stream.submit(Lease(number=1, simulations=tuple(range(500))), Doubling(1000 * group.rank))
        trained.run()


def newest(group, folder):
    with closing(InProcessStream()) as stream:
        return new_learner(group, stream, folder, stop_after=StopAfter(steps=1000)).trainer.step


@pytest.mark.parametrize("how", ["kill", "raise"])
def test_what_ends_one_rank_ends_the_other_and_both_go_on_from_their_last_common_checkpoint(tmp_path, how):
    ranks = Ranks(tmp_path, ended, tmp_path / "checkpoints", how)
    error = ranks.said(0)
    assert isinstance(error, RankLost) and "another rank has ended" in str(error)
    if how == "raise":
        assert str(ranks.said(1)) == "the model broke"
    ranks.end()
    steps = on_ranks(tmp_path, newest, tmp_path / "checkpoints")
    assert steps[0] == steps[1] > 0
