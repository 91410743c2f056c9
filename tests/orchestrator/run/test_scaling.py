"""The number of workers of a run that goes, on a Ray of our own that starts them when it is told to."""

import os
from types import SimpleNamespace

import pytest

from penstock.errors import PenstockError
from penstock.machine import identity_of
from penstock.messages import LeaseEnd
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.ledger.designs import InOrder
from penstock.orchestrator.ledger.ledger import Ledger
from penstock.orchestrator.plan import resolve
from penstock.orchestrator.resources.cores import Node, Split
from penstock.orchestrator.run import starting
from penstock.orchestrator.run.scaling import Scaling
from penstock.orchestrator.run.supervision import MemoryKills
from penstock.orchestrator.run.workers import Taker, WorkerPool
from penstock.orchestrator.store.requests import ask_for_workers, asked_for_workers
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.record import Record
from penstock.status import Ended, Ready, Silence


def config(workers=2, ranks=1, **changes) -> Config:
    return Config(
        problem={"name": "darcy", "resolution": 16},
        solver={"workers": workers, "strategy": "direct", "sort": False, "window": 4},
        training={"stop_after": {"steps": 1}, "device": "cpu", "ranks": ranks},
        **changes,
    )


@pytest.fixture
def running(tmp_path, monkeypatch):
    """The folder of a run that goes, as this process's."""
    monkeypatch.chdir(tmp_path)

    def make(config: Config) -> RunFolder:
        folder = RunFolder.create(config)
        folder.update_run(state="running", driver_pid=os.getpid(), driver_identity=identity_of(os.getpid()))
        return folder

    return make


class Call:
    """Anything that is called for its `remote`."""

    def __init__(self, answer):
        self.remote = answer


class MadeRay:
    """References are numbers; those in `ready` have come."""

    exceptions = SimpleNamespace(RayTaskError=RuntimeError, RayError=RuntimeError)

    def __init__(self):
        self.ready, self.killed, self.num_asked, self._next = set(), [], [], 0

    def remote(self, **options):
        def make(*_):
            prepare, serve = self._new(), self._new()
            return SimpleNamespace(prepare=Call(lambda: prepare), serve=Call(lambda *_: serve), prepared=prepare)

        self.num_asked.append(options["num_cpus"])
        return lambda _: Call(make)

    def _new(self) -> int:
        self._next += 1
        return self._next

    def wait(self, references, num_returns=1, timeout=0):
        return [each for each in references if each in self.ready], [r for r in references if r not in self.ready]

    def get(self, _) -> Ready:
        return Ready(pid=1, conditions={})

    def kill(self, actor) -> None:
        self.killed.append(actor)


class Made:
    """A pool on a made Ray, with a ledger of 1000 simulations."""

    def __init__(self, folder: RunFolder, plan, num: int, session_folder=None):
        self.ray, self.said, self.submitted, self.buried = MadeRay(), [], [], []
        taker = Taker(
            lambda lease, worker: self.submitted.append((lease, worker)),
            lambda worker, why: self.buried.append(worker),
            lambda *_: None,
            1,
            lambda _: None,
        )
        self.pool = WorkerPool(
            *(self.ray, plan.solving, folder, num),
            most=num,
            session_folder=session_folder,
            memory_kills=MemoryKills(),
            tell=self.said.append,
        )
        self.pool.connect(taker)
        self.ledger = Ledger(InOrder("training"), 1000)

    def get_ready(self) -> None:
        self.ray.ready |= set(range(1, 100, 2))  # the odd ones are those of `prepare`
        self.pool.look_after_starting()

    def lease(self) -> set[str]:
        """The workers that leases were submitted to."""
        self.submitted.clear()
        self.pool.lease_ahead(self.ledger, 4, ())
        return {worker for _, worker in self.submitted}

    def end_leases(self, worker: str) -> None:
        for lease, name in self.submitted:
            if name == worker:
                self.pool.close_leases([LeaseEnd(lease.number)])


@pytest.fixture
def made(running, tmp_path):
    return Made(running(config()), resolve(config()), 2, tmp_path)


def test_a_worker_too_many_ends_with_its_leases(made):
    made.get_ready()
    assert made.lease() == {"solver-0", "solver-1"} and made.ray.num_asked == [0, 0]
    before = list(made.submitted)
    made.pool.resize(1)
    assert made.pool.num_workers == 1 and not made.ray.killed and made.pool.num_ready == 2
    assert made.lease() == set()  # the other one has its leases ahead
    made.submitted = before
    made.end_leases("solver-1")
    assert made.buried == ["solver-1"] and made.pool.num_ready == made.pool.num_at_work == 1
    made.end_leases("solver-0")
    assert made.lease() == {"solver-0"}


def test_it_is_called_back_where_the_number_grows_again(made):
    made.get_ready()
    made.lease()
    before = list(made.submitted)
    made.pool.resize(1)
    made.pool.resize(3)
    made.get_ready()
    assert made.pool.num_ready == 3 and not made.ray.killed and len(made.ray.num_asked) == 3
    made.submitted = before
    made.end_leases("solver-1")
    assert "solver-1" in made.lease() and not made.buried


def test_what_a_place_counts_outlives_its_workers(made):
    first, second = made.pool.statuses()
    assert not first.is_ready and first.simulations == first.restarts == 0 and first.resident_bytes is None
    made.get_ready()
    made.lease()
    (lease, _), *_ = [each for each in made.submitted if each[1] == "solver-1"]
    made.ledger.settle(Ended([[lease.simulations[0], lease.simulations[-1] + 1]]), None)
    made.pool.close_leases([LeaseEnd(lease.number)])
    _, second = made.pool.statuses()
    assert second.is_ready and second.simulations == len(lease.simulations) and second.resident_bytes > 0
    lease, _ = next(each for each in made.submitted if each[1] == "solver-1" and each[0] is not lease)
    made.pool.close_leases([LeaseEnd(lease.number, error="killed")])
    first, second = made.pool.statuses()
    assert not second.is_ready and second.restarts == 1 and second.simulations == 4
    assert first.is_ready and first.restarts == first.simulations == 0
    made.get_ready()
    made.get_ready()
    made.pool.silent.append(Silence("solver-2", 41.0))
    _, second = made.pool.statuses()
    assert second.is_ready and second.restarts == 1 and second.silent_seconds == 41.0
    made.pool.resize(1)
    assert [status.place for status in made.pool.statuses()] == [0]


def test_those_that_wait_for_a_place_go_first(made):
    made.get_ready()
    made.ray.ready.clear()
    made.pool.resize(4)
    made.pool.look_after_starting()
    made.lease()
    assert made.pool.num_at_work is None
    made.pool.resize(2)
    assert sorted(made.buried) == ["solver-2", "solver-3"] and made.pool.num_at_work == 2


def test_what_waits_is_said_once_in_one_line(running, monkeypatch):
    plan = resolve(config(workers=5))
    made = Made(running(plan.config), plan, 5)
    assert made.ray.num_asked == [1] * 5
    nodes = (Node("node a", 2, 0), Node("node b", 8, 1, 1, 1))
    monkeypatch.setattr(starting, "PLACE_WITHIN_S", -1.0)
    monkeypatch.setattr(starting, "is_placed", lambda *_: False)
    monkeypatch.setattr("penstock.orchestrator.cluster.nodes.nodes_of", lambda _: nodes)
    made.ray.ready.add(1)
    made.pool.look_after_starting()
    assert made.pool.num_at_work == 1  # there may never be more
    made.pool.look_after_starting()
    assert made.said == [
        "solver-1, solver-2, solver-3 and 1 more wait: each asks for 1 CPU, and node b has 1 of 8 CPUs and 1 of 1 GPUs "
        "free, node a has 0 of 2 CPUs free"
    ]


def test_a_request_is_taken_once_and_answered(running):
    plan = resolve(config())
    folder = running(plan.config)
    made = Made(folder, plan, 2, folder.path)
    split = Split.of(plan.config, [Node("here", 4, 4)])
    scaling = Scaling(plan, folder, made.pool, split, made.said.append)
    ask_for_workers(folder, 5)
    scaling.look(Record(), is_steady=False)
    scaling.look(Record(), is_steady=False)
    assert made.pool.num_workers == 5 and asked_for_workers(folder) is None
    ask_for_workers(folder, 10**7)
    scaling.look(Record(), is_steady=False)
    assert made.pool.num_workers == 5
    first, second = made.said
    assert first.startswith("5 solver workers, 2 before (penstock scale); in flight now at most ")
    assert second.startswith("penstock scale: 5 solver workers as before: 9999995 more take ")
    events = [line.split('"event": "')[1].split('"')[0] for line in folder.events.read_text().splitlines()]
    assert events == ["workers scaled", "scaling refused"]


def test_reuse_steers_a_steady_run(running, monkeypatch):
    plan = resolve(config(workers={"max": 4}))
    folder = running(plan.config)
    made = Made(folder, plan, 1, folder.path)
    scaling = Scaling(plan, folder, made.pool, Split.of(plan.config, [Node("here", 4, 4)]), made.said.append)
    made.get_ready()
    for now in range(0, 40, 10):
        monkeypatch.setattr("penstock.orchestrator.run.scaling.time.monotonic", lambda now=now: float(now))
        scaling.look(Record(unique=2 * now, trained=64 * now, delivered=2 * now), is_steady=True)
    assert made.said == ["2 solver workers, 1 before (reuse 32, and solver.workers asks for 8)"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"workers": {"max": 3}}, "chooses the number itself"),
        (
            {"deterministic": True, "buffer": {"batches_per_simulation": 1}},
            "is deterministic: each worker has its lane",
        ),
    ],
)
def test_what_can_not_be_scaled_is_refused(running, changes, expected):
    folder = running(config(**changes))
    with pytest.raises(PenstockError, match=expected):
        ask_for_workers(folder, 2)
    folder.update_run(state="ended")
    with pytest.raises(PenstockError, match="is not running: give solver"):
        ask_for_workers(folder, 2)
    assert not (folder.path / "scale.json").exists()


def test_room_for_a_learner_is_made_by_those_that_start_and_by_what_is_too_much(running, tmp_path):
    plan = resolve(config(workers=3))
    made = Made(running(plan.config), plan, 3, session_folder=tmp_path)
    made.ray.ready = {1, 3, 5}  # a fourth one is not ready
    made.pool.look_after_starting()
    made.pool.resize(4)
    made.pool.look_after_starting()
    assert made.pool.num_ready == 3 and not made.ray.killed
    made.pool.make_room(2)
    assert made.pool.num_ready == 2 and len(made.ray.killed) == 2
    made.pool.look_after_starting()
    assert made.pool.num_workers == 2 and made.pool.num_ready == 2


def test_a_worker_that_starts_is_started_again_once_room_was_made(running, tmp_path):
    plan = resolve(config(workers=2))
    made = Made(running(plan.config), plan, 2, session_folder=tmp_path)
    made.pool.make_room(2)
    assert len(made.ray.killed) == 2 and made.pool.num_ready == 0
    made.get_ready()
    made.get_ready()
    assert made.pool.num_ready == 2


def test_a_damaged_request_leaves_the_run_as_it_is(running):
    plan = resolve(config())
    folder = running(plan.config)
    made = Made(folder, plan, 2)
    scaling = Scaling(plan, folder, made.pool, Split.of(plan.config, [Node("here", 8, 8)]), made.said.append)
    for text in ("{}", "[]", '{"solvers": "two"}', '{"solvers": 0}', '{"solv'):
        (folder.path / "scale.json").write_text(text)
        scaling.look(None, is_steady=False)
    assert len(made.said) == 5 and all("2 solver workers as before" in line for line in made.said)


def test_learner_ranks_keep_a_worker_each(running):
    """Also where those at work are all of one rank."""
    plan = resolve(config(workers=4, ranks=2))
    folder = running(plan.config)
    made = Made(folder, plan, 4)
    made.ray.ready = {1, 5}  # in the places 0 and 2
    made.pool.look_after_starting()
    scaling = Scaling(plan, folder, made.pool, Split.of(plan.config, [Node("here", 8, 8)]), made.said.append)
    ask_for_workers(folder, 2)
    scaling.look(Record(), is_steady=False)
    assert [place.number for place in made.pool._places] == [0, 1]
    ask_for_workers(folder, 1)
    scaling.look(Record(), is_steady=False)
    assert made.pool.num_workers == 2
    assert made.said[-1] == (
        "penstock scale: 2 solver workers as before: 1 can't serve 2 learner ranks (training.ranks): give 2 or more"
    )
