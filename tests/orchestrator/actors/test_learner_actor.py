"""The whole way of a sample from draw to gradient without Ray."""

import threading

import pytest

from penstock.errors import PenstockError
from penstock.learner.stream.stream import InProcessStream
from penstock.messages import Lease
from penstock.orchestrator.actors.learner_actor import LearnerActor
from penstock.orchestrator.actors.solver_actor import make_worker
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.plan import resolve
from penstock.orchestrator.store.run_folder import RunFolder
from tests.support.waiting import wait_until


@pytest.fixture
def stream():
    stream = InProcessStream()
    yield stream
    stream.close()


def config(**changes) -> Config:
    values = {
        "problem": {"name": "darcy", "resolution": 16},
        "solver": {"strategy": {"name": "gcrodr", "m": 20, "k": 5}, "window": 16},
        "buffer": {"kind": "fifo", "capacity": 64, "watermark": 32},
        "model": {"name": "fno", "width": 8, "modes": 4, "layers": 2},
        "training": {"batch_size": 8, "device": "cpu", "stop_after": {"simulations": 800}},
        "validation": {"simulations": 16, "every_s": 1000},
    }
    return Config.model_validate(values | changes)


@pytest.fixture
def learner(tmp_path, monkeypatch, stream):
    """A function that builds a learner fed by this process, and the worker that feeds it."""
    monkeypatch.chdir(tmp_path)

    def make(config):
        plan = resolve(config)
        actor = LearnerActor(plan, RunFolder.create(config).path, num_threads=1, stream=stream)
        actor.prepare()
        return actor, make_worker(plan)

    return make


def test_from_draw_to_gradient(learner):
    """800 simulations through the FIFO buffer: each is trained on once, and the error is that of a surrogate."""
    actor, worker = learner(config())
    actor.start()
    actor.lease(Lease(number=0, simulations=tuple(range(16)), design="validation"), worker)
    for number in range(50):
        lease = Lease(number=number + 1, simulations=tuple(range(16 * number, 16 * number + 16)))
        actor.lease(lease, worker)
    wait_until(lambda: actor.status().account.training.delivered == [[0, 800]])
    wait_until(lambda: actor.status().is_done)
    status = actor.status()
    assert status.cause == "stream ended"
    assert status.account.unique == status.training.trained == 800 and status.training.step == 100
    assert status.account.validation.delivered == [[0, 16]]
    assert status.training.validation["relative_l2"]["mean"] < 0.3  # untrained it is about 1


POLICY = """
from penstock.learner.buffers.policies import Fifo


class Mine(Fifo):
    def choose(self, batch_size):
        return self.table.age
"""


def test_what_a_users_policy_raises_is_placed_in_its_file(learner, tmp_path):
    (tmp_path / "mine.py").write_text(POLICY)
    actor, worker = learner(config(buffer={"kind": f"{tmp_path}/mine.py:Mine", "capacity": 64, "watermark": 32}))
    actor.start()
    actor.lease(Lease(number=0, simulations=tuple(range(16)), design="validation"), worker)
    actor.lease(Lease(number=1, simulations=tuple(range(64))), worker)
    with pytest.raises(PenstockError, match=r"AttributeError: .*has no attribute 'age' \(.*mine\.py, line 7\); full"):
        wait_until(lambda: actor.status().is_done)


MODEL = """
import torch
from torch import nn


class Mine(nn.Module):
    def __init__(self, layout):
        super().__init__()
        self.map, self.unused = nn.Conv2d(1, 1, 1), nn.Linear(2, 2)
        self.gain = {gain}

    def forward(self, fields):
        return self.gain * self.map(fields)
"""


def test_a_model_is_rehearsed_before_the_first_lease(learner, tmp_path):
    """Random numbers that are neither parameter nor buffer would be others after a restore."""
    (tmp_path / "mine.py").write_text(MODEL.format(gain="torch.randn(1)"))
    with pytest.raises(PenstockError, match=r"^model: restored from a checkpoint .*gain.* register_buffer") as refusal:
        learner(config(model={"name": "./mine.py:Mine"}))
    assert refusal.value.exit_code == 2
    (tmp_path / "mine.py").write_text(MODEL.format(gain="2.0"))
    actor, _ = learner(config(model={"name": "./mine.py:Mine"}))
    assert actor.status().news.notes == ("model: no gradient reaches unused.weight, unused.bias",)
    assert actor.status().news.notes == ()


def test_a_stalled_learner_stops_the_solver_and_goes_on(learner):
    """Nothing trains, the buffer fills, the solver waits, and resumes. The guarantee's 30 s are in tests/end_to_end."""
    actor, worker = learner(config(training={"batch_size": 8, "device": "cpu", "stop_after": {"simulations": 2000}}))
    go_on = threading.Event()
    draw = actor._learner.buffer.draw
    actor._learner.buffer.draw = lambda *arguments, **options: go_on.wait() and draw(*arguments, **options)
    actor.start()
    actor.lease(Lease(number=0, simulations=tuple(range(16)), design="validation"), worker)
    actor.lease(Lease(number=1, simulations=tuple(range(2000))), worker)
    wait_until(lambda: actor.status().account.unique == 64)
    before = actor.status()
    go_on.wait(2.0)
    stalled = actor.status()
    assert stalled.account.unique == stalled.buffer.samples == 64 == stalled.buffer.capacity
    assert stalled.training.trained == before.training.trained == 0
    go_on.set()
    wait_until(lambda: actor.status().training.trained >= 512)
    actor.stop()
    wait_until(lambda: actor.status().is_done)
    assert actor.status().cause == "stopped"
