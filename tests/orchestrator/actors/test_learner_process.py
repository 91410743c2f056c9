"""A learner that can't be reached for a while is no dead one, and nothing that is said to it or by it is lost."""

import random
from collections import Counter
from types import SimpleNamespace

import pytest
import ray.exceptions

from penstock.messages import LeaseEnd
from penstock.orchestrator.actors import learner_process
from penstock.orchestrator.actors.learner_actor import LearnerActor
from penstock.orchestrator.actors.learner_process import BACK_WITHIN_S, SILENT_S, LearnerDied, LearnerProcess
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.status import LearnerStatus, News


class MadeRay:
    """Calls a learner in this process, over a network that loses calls and answers.

    `loses` is asked before and after each call; each wait takes a second of the clock. One that hangs gives no answer,
    and the wait for it takes as long as it may.
    """

    exceptions = ray.exceptions

    def __init__(self, actor):
        self.actor = actor
        self.loses = lambda: False
        self.now = 0.0
        self.killed_by = None
        self.hangs = False

    def remote(self, **options):
        methods = {name: SimpleNamespace(remote=self._caller(name)) for name in ("prepare", "status", "hear")}
        return lambda cls: SimpleNamespace(remote=lambda *arguments: SimpleNamespace(**methods))

    def _caller(self, name):
        def call(*arguments):
            if self.killed_by is not None:
                return self.killed_by
            if self.loses():
                return ray.exceptions.ActorUnavailableError("lost on the way there", None)
            result = getattr(self.actor, name)(*arguments)
            return ray.exceptions.ActorUnavailableError("lost on the way back", None) if self.loses() else [result]

        return call

    def wait(self, answers, timeout):
        if not self.hangs:
            return answers, []
        self.now += timeout
        return [], answers

    def get(self, answer):
        if isinstance(answer, Exception):
            raise answer
        return answer[0]

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The network, the learner's process as the driver sees it, and what the learner was told."""
    said, news, built = [], [], []
    actor = LearnerActor(None, tmp_path, 1, stream=SimpleNamespace(silences=dict))
    monkeypatch.setattr(actor, "_prepare", lambda: built.append("built") or "prepared")
    monkeypatch.setattr(actor, "lease", lambda number: said.append(number))

    def status():
        drained = News(lease_ends=tuple(news), notes=("a note",) * len(news))
        news.clear()
        return LearnerStatus(training=None, account=None, buffer=None, news=drained)

    actor._learner = SimpleNamespace(status=status)
    network = MadeRay(actor)
    monkeypatch.setattr(learner_process, "learner_options", lambda split, num_ranks: {})
    monkeypatch.setattr(learner_process.time, "monotonic", lambda: network.now)
    monkeypatch.setattr(learner_process.time, "sleep", network.sleep)
    learner = LearnerProcess(
        network,
        None,
        RunFolder(tmp_path),
        SimpleNamespace(learner_threads=1),
        staging=tmp_path,
        session_folder=None,
        memory_kills=SimpleNamespace(is_recent=lambda now: False),
    )
    return SimpleNamespace(network=network, learner=learner, said=said, news=news, built=built)


@pytest.mark.parametrize("seed", range(5))
def test_every_lease_and_every_news_comes_once_and_in_order_over_a_network_that_loses_a_third(made, seed):
    choice = random.Random(seed)
    submit = made.learner.taker(1, None).submit
    made.network.loses = lambda: choice.random() < 0.33
    told, reported, notes = 0, [], 0
    while made.learner.prepared(1.0) is None:
        pass
    assert made.built == ["built"]
    for number in range(300):
        for _ in range(choice.randrange(4)):
            submit(told)
            told += 1
        made.news.append(LeaseEnd(number))
        if (status := made.learner.status(1.0)) is not None:
            reported += [end.lease_number for end in status.news.lease_ends]
            notes += len(status.news.notes)
    made.network.loses = lambda: False
    for _ in range(3):
        status = made.learner.status(1.0)
        reported += [end.lease_number for end in status.news.lease_ends]
        notes += len(status.news.notes)
    assert made.said == list(range(told)) and reported == list(range(300)) and notes == 300
    assert max(Counter(reported).values()) == 1


def test_one_that_stays_out_of_reach_is_given_up_and_one_that_is_dead_at_once(made):
    assert made.learner.prepared(1.0) == "prepared"
    made.network.loses = lambda: True
    while made.network.now < BACK_WITHIN_S:
        assert made.learner.status(1.0) is None
    made.network.loses = lambda: False  # it counts from the last answer
    assert made.learner.status(1.0) is not None
    made.network.loses, back = lambda: True, made.network.now
    with pytest.raises(LearnerDied, match="could not be reached for 60 s"):
        while made.network.now < back + 2 * BACK_WITHIN_S:
            made.learner.status(1.0)
    assert BACK_WITHIN_S < made.network.now - back <= BACK_WITHIN_S + 2.0
    made.network.killed_by = ray.exceptions.ActorDiedError()
    with pytest.raises(LearnerDied, match=r"died \(ActorDiedError\)"):
        made.learner.status(1.0)


def test_one_that_hangs_is_given_up_and_one_that_is_slow_is_not(made):
    assert made.learner.prepared(1.0) == "prepared"
    for _ in range(2):  # it counts from the last answer
        made.network.hangs, since = True, made.network.now
        while made.network.now < since + SILENT_S:
            assert made.learner.status(1.0) is None
        made.network.hangs = False
        assert made.learner.status(1.0) is not None
    made.network.hangs, since = True, made.network.now
    assert made.learner.status(1.0) is None
    made.network.now += 10_000.0  # this process was stopped, as all of the run may be
    with pytest.raises(LearnerDied, match="hangs: it has not answered for 120 s"):
        while made.network.now < since + 10_000 + 2 * SILENT_S:
            made.learner.status(1.0)
    assert made.network.now - since - 10_000 > SILENT_S
