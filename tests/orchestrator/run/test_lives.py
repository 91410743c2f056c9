"""The lives of a run's learner, with made learners: who follows one that died, and how the run ends."""

from types import SimpleNamespace

import pytest

from penstock.errors import PenstockError
from penstock.orchestrator.actors.learner_process import LearnerDied
from penstock.orchestrator.run import driver
from penstock.orchestrator.run.stopping import StopRequest
from penstock.orchestrator.run.supervision import Restarts
from penstock.orchestrator.store.run_folder import RunFolder

DEATH = LearnerDied("the learner's process died")
TERM = StopRequest("SIGTERM", 143, 20.0)


class Requests:
    """What asks for the end: nothing, until it is set."""

    first = None

    def look(self):
        return self.first


@pytest.fixture
def made(monkeypatch):
    """A driver whose parts are made, and whose learners do what `lives` says: what `prepared` and `_live` give."""
    run = driver._Driver.__new__(driver._Driver)
    said, events, lives = [], [], []
    run.requests, run.restarts, run.reports = Requests(), Restarts(), None
    run.session = SimpleNamespace(folder="here", watch=SimpleNamespace(check=lambda: None))
    run.split = SimpleNamespace(workers=1, most=1)
    run.memory_kills = run.config = None
    run.plan = SimpleNamespace(solving=None, order=SimpleNamespace(must_repeat=False))
    run.folder = SimpleNamespace(
        checkpoints=None,
        event=lambda name, **_: events.append(name),
        update_run=lambda **_: None,
        patience=SimpleNamespace(write=lambda write: write()),
    )
    run._tell, run._announce = said.append, lambda prepared: said.append("announced")
    for name in ("WorkerPool", "Scaling"):
        monkeypatch.setattr(driver, name, lambda *_, **__: None)
    monkeypatch.setattr(driver.staging, "revoke", lambda folder: None)
    monkeypatch.setattr(driver.checkpoint, "latest", lambda folder: next(newest))
    newest = iter(range(1000, 100_000, 5000))  # a checkpoint between any two deaths, far apart

    def do(what):
        if isinstance(what, LearnerDied):
            raise what
        return what() if callable(what) else what

    def placed():
        prepared, live = lives.pop(0)
        run._live = lambda learner, _: do(live)
        return SimpleNamespace(prepared=lambda timeout_s: do(prepared), kill=lambda: said.append("killed"))

    run._placed_learner = placed
    return SimpleNamespace(run=run, said=said, events=events, lives=lives)


READY = SimpleNamespace(pid=1, pids=(), step=7)


@pytest.mark.parametrize("first", [(READY, DEATH), (DEATH, None)], ids=["while it trains", "while it is prepared"])
def test_a_learner_that_dies_has_a_successor(made, first):
    made.lives += [first, (READY, "steps")]
    assert made.run._run() == "steps"
    assert made.events[0] == "learner died" and made.said.count("announced") == 1
    assert ("learner restarted" in made.events) == (first[0] is READY)


def test_a_successor_that_dies_while_it_is_prepared_has_one_too(made):
    made.lives += [(READY, DEATH), (DEATH, None), (READY, "steps")]
    assert made.run._run() == "steps"
    assert made.events == ["learner died", "learner died", "learner restarted"]


@pytest.mark.parametrize("lives", [[(DEATH, None)], [(READY, DEATH)], [(READY, DEATH), (DEATH, None)]])
def test_a_run_that_was_asked_to_end_does_not_fail_with_its_learner(made, lives):
    def asked_then_dead():
        made.run.requests.first = TERM
        raise DEATH

    *before, last = lives
    made.lives += [*before, tuple(asked_then_dead if each is DEATH else each for each in last)]
    assert made.run._run() == f"SIGTERM, but {DEATH} before its checkpoint: the last one is valid"


def test_a_learner_that_dies_at_its_last_checkpoint_ends_the_run(made):
    life = SimpleNamespace(
        learner=SimpleNamespace(stop=lambda: None, status=lambda timeout_s: (_ for _ in ()).throw(DEATH))
    )
    assert "the last one is valid" in made.run._stop(life, "training.stop_after.minutes", 1.0)


def test_without_a_new_checkpoint_the_second_death_is_the_end(made, monkeypatch):
    monkeypatch.setattr(driver.checkpoint, "latest", lambda folder: 1000)
    made.lives += [(READY, DEATH), (READY, DEATH)]
    with pytest.raises(LearnerDied, match="again before it had written another checkpoint"):
        made.run._run()


@pytest.mark.parametrize(
    ("where", "log"), [("", "learner.log"), (": rank 0 of 2", "learner.log"), (": rank 12 of 16", "learner-12.log")]
)
def test_the_log_of_the_rank_that_died_is_named(made, tmp_path, where, log, monkeypatch):
    made.run.folder, made.run.session.watch.fault = RunFolder(tmp_path), None

    def die():
        raise LearnerDied(f"{DEATH}{where}")

    monkeypatch.setattr(made.run, "_run", die)
    with pytest.raises(PenstockError) as raised:
        made.run._run_watched()
    assert f"; see {tmp_path / 'logs' / log}, then go on with: " in str(raised.value)
