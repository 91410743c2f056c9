"""Leases, losses, faults."""

from penstock.orchestrator.ledger.designs import InOrder
from penstock.orchestrator.ledger.ledger import FIRST, RECENT, Ledger
from penstock.status import Ended


def intervals(*ids):
    return [[i, i + 1] for i in ids]


def test_ids_are_leased_in_order_up_to_the_limit():
    ledger = Ledger(InOrder("training"), limit=5)
    assert ledger.lease(0, 3).simulations == (0, 1, 2)
    assert ledger.lease(1, 3).simulations == (3, 4)
    assert ledger.lease(2, 3) is None
    assert not ledger.is_complete()
    ledger.settle(Ended([[0, 4]], {4: "why"}))
    assert ledger.is_complete()


def test_a_lost_lease_gives_out_again_what_was_not_delivered():
    ledger = Ledger(InOrder("training"))
    ledger.lease(0, 4)
    ledger.lease(1, 2)
    ledger.settle(Ended([[1, 2]], {2: "diverged"}))
    assert ledger.open_ids(0) == [0, 3] and ledger.num_ended_of(0) == 2
    assert ledger.end_lease(0) == {}
    assert ledger.lease(2, 3).simulations == (0, 3)
    assert ledger.lease(3, 3).simulations == (6, 7, 8)


def test_a_whole_lease_loses_nothing():
    ledger = Ledger(InOrder("training"))
    ledger.lease(0, 4)
    ledger.settle(Ended([[0, 4]], {}))
    assert ledger.end_lease(0) == {} and ledger.num_left == float("inf")
    assert ledger.lease(1, 4).simulations == (4, 5, 6, 7)


def test_rebuilt_after_a_resume_it_fills_the_gaps_first():
    ledger = Ledger(InOrder("training"), None, Ended([[0, 2], [4, 5]], {6: "diverged"}))
    assert ledger.lease(0, 4).simulations == (2, 3, 5, 7)
    assert ledger.lease(1, 2).simulations == (8, 9)


def test_every_id_is_given_out_once_whatever_dies():
    """A thousand ids through leases of which every third is lost half way: each delivered exactly once."""
    ledger, delivered, number = Ledger(InOrder("training"), limit=1000), [], 0
    while (lease := ledger.lease(number, 7)) is not None:
        done = lease.simulations[: 3 if number % 3 == 0 else None]
        assert not set(done) & set(delivered)
        delivered += done
        ledger.settle(Ended(intervals(*sorted(delivered)), {}))
        ledger.end_lease(number)
        number += 1
    assert sorted(delivered) == list(range(1000)) and ledger.is_complete()
    assert ledger.to_json()["leased"] == {} and ledger.to_json()["returned"] == []


def test_a_simulation_that_kills_its_worker_is_found_alone_and_given_up():
    """Simulation 37 kills whoever works on it, and what it was in is not known; all others are delivered."""
    for window in (1, 64, 256):
        ledger, delivered, failed, deaths = Ledger(InOrder("training"), limit=512), [], {}, 0
        for number in range(1000):
            lease = ledger.lease(number, window)
            if lease is None:
                break
            died = 37 in lease.simulations
            deaths += died
            delivered += [] if died else lease.simulations  # chunks that were not sent die with the worker
            ledger.settle(Ended(intervals(*sorted(delivered)), failed))
            failed |= ledger.end_lease(number, blamed=lease.simulations if died else ())
        ledger.settle(Ended(intervals(*sorted(delivered)), failed))
        assert deaths == 3 and ledger.is_complete()
        assert list(failed) == [37] and "its worker died" in failed[37]


def test_a_simulation_that_is_known_to_be_at_fault_is_tried_alone_and_costs_no_other_one():
    for window in (1, 64, 256):
        ledger, delivered, failed, solved_with = Ledger(InOrder("training"), limit=512), [], {}, []
        for number in range(1000):
            lease = ledger.lease(number, window)
            if lease is None:
                break
            hangs = 37 in lease.simulations
            delivered += [i for i in lease.simulations if not hangs or i < 37]
            ledger.settle(Ended(intervals(*sorted(delivered)), failed))
            if hangs:
                solved_with.append(lease.simulations)
            failed |= ledger.end_lease(number, blamed=[37] if hangs else (), reason="took longer than 60 s", tries=2)
        ledger.settle(Ended(intervals(*sorted(delivered)), failed))
        assert ledger.is_complete() and failed == {37: "took longer than 60 s, 2 times"}
        assert len(solved_with) == 2 and solved_with[1] == (37,)


def test_fault_when_the_first_all_fail():
    ledger = Ledger(InOrder("training"))
    ledger.settle(Ended([], {i: f"reason {i}" for i in range(FIRST - 1)}))
    assert ledger.fault(0.05) is None
    ledger.settle(Ended([], {i: f"reason {i}" for i in range(FIRST)}))
    assert "simulation 0: reason 0" in ledger.fault(0.05)


def test_fault_when_too_many_of_the_recent_fail():
    ledger = Ledger(InOrder("training"))
    ledger.settle(Ended([[0, 1000]], {}))
    tolerated = int(0.05 * RECENT)
    ledger.settle(Ended([[0, 1000]], {1000 + i: "late" for i in range(tolerated)}))
    assert ledger.fault(0.05) is None
    ledger.settle(Ended([[0, 1000]], {1000 + i: "late" for i in range(tolerated + 1)}))
    assert ledger.fault(0.05) == (
        f"{tolerated + 1} of the last {RECENT} simulations failed, more than solver.max_failed_fraction = 0.05; "
        "simulation 1000: late"
    )


def test_fault_of_a_run_shorter_than_the_first():
    ledger = Ledger(InOrder("training"), limit=3)
    ledger.settle(Ended([], {0: "a", 1: "b", 2: "c"}))
    assert "simulation 0: a" in ledger.fault(1.0)
