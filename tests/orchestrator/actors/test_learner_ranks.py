"""Several learner processes are one to the driver: workers shared out, accounts joined, faults by their cause."""

from types import SimpleNamespace

import pytest

from penstock.errors import PenstockError
from penstock.learner.ranks.group import RankLost
from penstock.messages import LeaseEnd
from penstock.orchestrator.actors import learner_ranks
from penstock.orchestrator.actors.learner_process import LearnerDied
from penstock.orchestrator.actors.learner_ranks import LearnerRanks
from penstock.orchestrator.run.supervision import Place
from penstock.orchestrator.run.workers import Taker
from penstock.status import (
    Account,
    BufferStatus,
    Ended,
    IntakeTimes,
    LearnerStatus,
    News,
    Prepared,
    RankStatus,
    TrainingStatus,
)
from penstock.transport.endpoint import Endpoint


def status(*, trained, delivered, failed=None, is_done=False, notes=()):
    return LearnerStatus(
        training=TrainingStatus(
            **{name: None for name in ("loss", "warning", "validation")},
            **{"state": "training", "step": 5, "progress": 0.5, "learning_rate": 1e-3, "seconds": 1.0},
            trained=trained,
            wait_seconds=float(trained),
        ),
        account=Account(
            training=Ended(delivered, failed or {}),
            validation=Ended([[0, 4]]),
            **{name: trained for name in learner_ranks.SUMS},
            intake=IntakeTimes(starved=trained, held=2.0 * trained),
        ),
        buffer=BufferStatus(samples=trained, capacity=10, bias=None),
        news=News(notes=notes, lease_ends=tuple(LeaseEnd(number) for number in notes)),
        silences={trained: 1.0},
        ranks=(RankStatus(resident_bytes=trained),),
        is_done=is_done,
    )


class Process:
    """A learner's process that answers what it is given, or raises it; None is no answer."""

    def __init__(self, rank, *answers):
        self.rank, self.answers, self.said = rank, list(answers), []

    def status(self, timeout_s):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def prepared(self, timeout_s):
        ended = Ended([[10 * self.rank, 10 * self.rank + 5]])
        return Prepared(
            pid=100 + self.rank,
            conditions={},
            device="the CPU",
            buffer_bytes=7,
            buffer_place="memory",
            weight_bytes=3,
            step=5,
            training=ended,
            validation=Ended(),
            endpoint=Endpoint(f"ipc://{self.rank}"),
        )

    def taker(self, worker_bytes, endpoint):
        def say(kind):
            return lambda *arguments: self.said.append((kind, *arguments))

        return Taker(say("lease"), say("bury"), say("give up"), worker_bytes, lambda _: endpoint)


def worker(name, number):
    return SimpleNamespace(name=name, place=Place(number))


def test_workers_go_to_the_rank_of_their_place_and_the_validation_set_to_rank_0():
    processes = [Process(0), Process(1)]
    ranks = LearnerRanks(processes)
    prepared = ranks.prepared(1.0)
    assert prepared.pids == (100, 101) and prepared.buffer_bytes == 14 and prepared.weight_bytes == 3
    assert prepared.training.delivered == [[0, 5], [10, 15]]
    taker = ranks.taker(1, prepared.endpoint)
    assert [taker.endpoint_of(worker(f"solver-{n}", n)).address for n in range(4)] == ["ipc://0", "ipc://1"] * 2
    taker.bury("solver-0", "killed")
    taker.bury("solver-1", "killed")
    assert taker.endpoint_of(worker("solver-4", 1)).address == "ipc://1"  # in the place of solver-1, whatever the order
    assert taker.endpoint_of(worker("solver-5", 0)).address == "ipc://0"
    assert [taker.takes(f"solver-{n}", "validation") for n in (2, 3, 4, 5)] == [True, False, False, True]
    assert all(taker.takes(f"solver-{n}", "training") for n in (2, 3, 4, 5))
    taker.submit("a lease", "solver-3")
    taker.give_up("training", {3: "its worker died"})
    assert processes[1].said == [("bury", "solver-1", "killed"), ("lease", "a lease", "solver-3")]
    assert processes[0].said == [("bury", "solver-0", "killed"), ("give up", "training", {3: "its worker died"})]


def test_a_status_is_that_of_all_ranks_and_no_news_is_lost_while_one_is_slow():
    first = status(trained=3, delivered=[[0, 4]], failed={4: "diverged"}, is_done=True, notes=(1,))
    second = status(trained=5, delivered=[[4, 6]], notes=(2,))
    ranks = LearnerRanks([Process(0, first, None), Process(1, None, second)])
    assert ranks.status(1.0) is None
    both = ranks.status(1.0)
    assert (both.training.trained, both.training.wait_seconds, both.account.unique) == (8, 4.0, 8)
    assert both.account.solver_seconds == both.account.solver_unleased_seconds == 8
    assert both.account.intake == IntakeTimes(starved=4.0, held=8.0)  # of threads that wait at the same time
    assert both.account.training == Ended([[0, 6]], {}) and both.account.validation == Ended([[0, 4]])
    assert (both.buffer.samples, both.buffer.capacity, both.silences) == (8, 20, {3: 1.0, 5: 1.0})
    assert sorted(rank.resident_bytes for rank in both.ranks) == [3, 5]
    assert both.news.notes == (1, 2) and not both.is_done


@pytest.mark.parametrize("cause", [LearnerDied("killed"), PenstockError("the loss is nan", exit_code=1)])
def test_the_fault_of_a_rank_is_told_and_not_that_another_misses_it(cause):
    fine = status(trained=3, delivered=[])
    ranks = LearnerRanks([Process(0, RankLost("rank 0 ends")), Process(1, fine, cause)])
    with pytest.raises(type(cause), match=str(cause)):
        ranks.status(1.0)


def test_ranks_that_miss_each_other_for_no_known_reason_are_dead(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(learner_ranks, "time", SimpleNamespace(monotonic=lambda: float(next(now))))
    ranks = LearnerRanks([Process(rank, RankLost(f"rank {rank} ends")) for rank in range(2)])
    with pytest.raises(LearnerDied, match="rank 1 ends"):
        ranks.status(1.0)
