"""The rules by which workers are replaced, by a clock of the tests' own."""

import math
import random
import subprocess
import sys
from types import SimpleNamespace

import pytest

from penstock.orchestrator.actors.solver_actor import read_where, say_where
from penstock.orchestrator.resources.memory import least_memory
from penstock.orchestrator.run import supervision
from penstock.orchestrator.run.supervision import (
    FREE_DEATHS,
    SIMULATIONS_PER_DEATH,
    TIMEOUT_FACTOR,
    TIMEOUT_S,
    Idle,
    MemoryKills,
    Place,
    Silences,
    in_turns,
    memory_bound,
)
from penstock.orchestrator.run.workers import WorkerPool
from penstock.status import Silence


def test_nothing_is_too_long_before_anything_is_known():
    silences = Silences()
    assert silences.look("a", 1e5, "0 0", 0.0) == 0.0 and silences.look("a", 1e5, "0 0", 1e5) == 1e5
    assert silences.timeout_s == math.inf and silences.word_after_s == TIMEOUT_S
    silences.progress()
    assert silences.timeout_s == TIMEOUT_S


def test_what_others_took_decides_what_is_too_long():
    silences = Silences()
    for now in range(40):
        silences.look("a", now, "0 0", float(now))
    silences.look("a", 0.0, "0 1", 40.0)
    assert silences.timeout_s == TIMEOUT_FACTOR * 39 and silences.word_after_s == 5 * 39
    assert Silences(7.0).timeout_s == 7.0 and Silences(7.0).word_after_s == 3.5


def test_a_new_simulation_ends_a_silence_and_so_does_something_given():
    """As in a deterministic lease, whose chunks may hold hundreds of simulations."""
    silences = Silences(5.0)
    for now in range(100):
        assert silences.look("a", float(now), f"0 {now // 3}", float(now)) <= 2.0
    assert silences.look("a", 103.0, "0 33", 103.0) == 4.0
    assert silences.look("a", 0.5, "0 33", 104.0) == 0.5  # it waited for its chunk to be taken
    assert silences.look("b", 8.0, None, 104.0) == 8.0  # on another machine


@pytest.mark.parametrize("seed", range(20))
def test_a_worker_that_ends_simulations_is_never_too_late_and_one_that_hangs_always_is(seed):
    """Simulations that take what they like within 1 : 15, and waits of any length for a chunk to be taken."""
    choice, silences, now = random.Random(seed), Silences(), 0.0
    scale = choice.uniform(0.01, 100.0)
    for number in range(50):
        ends, gave = now + scale * choice.uniform(1, 15), now  # the longest that is seen may be a second less
        while now < ends:
            assert silences.look("a", now - gave, f"0 {number}", now) <= silences.timeout_s
            now += 1.0
        for _ in range(choice.choice([0, 0, 500])):  # it is blocked: the stream counts none of it
            assert silences.look("a", 0.0, "0", now) == 0.0
            now += 1.0
        silences.progress()
    gave, limit = now, max(TIMEOUT_S, TIMEOUT_FACTOR * 16 * scale + TIMEOUT_FACTOR)
    while silences.look("a", now - gave, "0 50", now) <= silences.timeout_s:
        now += 1.0
        assert now - gave < limit + 2.0


def test_a_silence_reads_as_a_line():
    assert str(Silence("solver-2", 40.4, 17)) == "solver-2 silent for 40 s in simulation 17"
    assert str(Silence("solver-2", 40.4, None)) == "solver-2 silent for 40 s"


def test_a_place_whose_workers_die_at_once_is_given_up_after_growing_pauses():
    place, pauses = Place(), []
    while not place.is_hopeless:
        place.died()
        pauses.append(place.pause_s)
    assert pauses == [0.0, 2.0, 4.0, 8.0, 16.0] and len(pauses) == FREE_DEATHS


@pytest.mark.parametrize(("num_simulations", "is_given_up"), [(5, True), (SIMULATIONS_PER_DEATH, False)])
def test_deaths_are_weighed_against_what_was_solved(num_simulations, is_given_up):
    place = Place()
    for _ in range(100):
        place.ended(num_simulations)
        place.died()
        if place.is_hopeless:
            break
    assert place.is_hopeless == is_given_up


def test_a_simulation_that_kills_its_workers_three_times_costs_its_place_one_death():
    place = Place()
    for _ in range(20):
        place.ended(SIMULATIONS_PER_DEATH)
        for number in range(3):
            assert not place.is_hopeless
            place.died(is_repeat=number > 0)
    assert not place.is_hopeless
    for _ in range(2):  # but where nothing at all comes to an end
        place.died(is_repeat=True)
    assert place.is_hopeless


def test_old_merits_do_not_help_a_place_whose_workers_all_die_now():
    place = Place()
    place.ended(1_000_000)
    for _ in range(FREE_DEATHS):
        place.died()
    assert place.is_hopeless


def test_a_run_is_idle_when_nothing_changes_for_all_its_minutes():
    idle = Idle(2.0)
    assert not idle.is_over(0, 0, 0.0) and not idle.is_over(0, 0, 119.0)
    assert not idle.has_progress and idle.is_over(0, 0, 120.0)
    assert not idle.is_over(1, 0, 121.0) and idle.has_progress
    assert not idle.is_over(1, 0, 240.0) and idle.is_over(1, 0, 241.0)
    assert not Idle(None).is_over(0, 0, 0.0) and not Idle(None).is_over(0, 0, 1e9)


def test_training_on_what_a_checkpoint_holds_tells_nothing_of_how_long_a_simulation_takes():
    idle = Idle(2.0, num_ended=1000)
    for second in range(200):
        assert not idle.is_over(1000, float(second), float(second)) and not idle.has_progress
    idle.is_over(1001, 200.0, 200.0)
    assert idle.has_progress


def test_memory_is_shared_by_the_workers():
    total = least_memory().total
    assert memory_bound(None, 1) == int(0.8 * total) and memory_bound(None, 4) == memory_bound(None, 1) // 4
    assert memory_bound(300, 4) == 300_000_000


def test_kills_for_want_of_memory_are_noticed_for_a_while(monkeypatch, tmp_path):
    vmstat = tmp_path / "vmstat"
    monkeypatch.setattr(supervision, "Path", lambda path: vmstat)
    vmstat.write_text("nr_free_pages 5\noom_kill 3\n")
    kills = MemoryKills()
    assert not kills.is_recent(100.0)
    vmstat.write_text("nr_free_pages 5\noom_kill 4\n")
    kills.look(101.0)
    assert kills.is_recent(105.0) and not kills.is_recent(120.0)
    vmstat.unlink()
    assert not kills.is_recent(121.0)


def test_where_a_worker_is_can_be_read_after_its_death(tmp_path):
    file = tmp_path / "where"
    assert read_where(file) is None
    say = say_where(file)
    assert read_where(file) is None
    for lease_number, simulation in ((12, 123456789), (12, 7), (13, None), (1000, 0)):
        say(lease_number, simulation)
        assert read_where(file) == (lease_number, simulation)
    code = f"""
import os
from pathlib import Path
from penstock.orchestrator.resources.memory import least_memory
from penstock.orchestrator.actors.solver_actor import say_where
say_where(Path({str(file)!r}))(5, 17)
os.abort()
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert read_where(file) == (5, 17)


@pytest.mark.parametrize(
    ("checkpoints", "goes_on"),
    [
        ([None], True),
        ([None, None], False),  # it dies before it writes anything
        ([None, 10, 10], False),
        ([None, 10, 20], False),  # and again, and again
        ([0, 10, 999], False),
        ([0, 10, 1000], True),
        ([0, 900, 1800, 2700, 3600], True),
        ([0, 900, 1800, 1900, 2700], False),
    ],
)
def test_a_learner_is_replaced_as_long_as_that_gets_the_run_on(checkpoints, goes_on):
    restarts = supervision.Restarts()
    *before, last = [restarts.refused(step) for step in checkpoints]
    assert not any(before) and (last is None) == goes_on


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_places_serve_all_ranks_however_their_number_goes(num_ranks):
    generator = random.Random(num_ranks)
    places = [Place(number) for number in range(num_ranks)]
    for _ in range(200):
        generator.shuffle(places)
        num = generator.randint(num_ranks, 9)
        ordered = in_turns(places, num, num_ranks)
        assert len(ordered) >= num and len({place.number for place in ordered}) == len(ordered)
        assert set(places) <= set(ordered) and (num_ranks > 1 or ordered[: len(places)] == places)
        places = ordered[:num]
        assert {place.number % num_ranks for place in places} == set(range(num_ranks))


@pytest.mark.parametrize(("is_external", "who"), [(False, "it"), (True, "./heat --fast")])
def test_a_silence_that_is_too_long_is_that_of_the_external_program(is_external, who):
    """Of a pool whose parts are made."""
    pool, said, events = WorkerPool.__new__(WorkerPool), [], []
    pool._solving = SimpleNamespace(problem=SimpleNamespace(is_external=is_external, command="./heat --fast"))
    pool._silences, pool._tell, pool._empty = Silences(4.0), said.append, lambda worker, pause_s: None
    pool._folder = SimpleNamespace(event=lambda name, **keys: events.append(keys["error"]))
    worker = SimpleNamespace(name="solver-0", pid=9, hung_s=5.0, where=None, leases={}, place=Place())
    pool._replace(worker, "killed")
    assert events == [f"{who} was silent for 5 s, which is too long (solver.timeout_s)"]
    assert said == [f"solver-0 died: {events[0]}"]
