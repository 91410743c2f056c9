"""The model of the stream against closed forms, and its account of every simulation."""

import numpy as np
import pytest

from benchmarks.scale.calibration import fitted
from benchmarks.scale.model import Constants, Cost, DriverCost, Metadata, Scenario, Simulation
from penstock.messages import CHUNK_BYTES, CHUNKS_UNDER_WAY

CHUNK = CHUNK_BYTES  # bytes of a sample that fills a chunk
MEGABYTES = CHUNK / 1e6


def simulated(constants=None, **scenario):
    scenario = {"sample_bytes": CHUNK, "pause_s": 0.1, "warm_up_s": 20.0, "seconds": 50.0} | scenario
    return Simulation(Scenario(**scenario), constants or Constants()).run()


def test_one_worker_brings_a_sample_per_pause_and_cost():
    constants = Constants(worker=Cost(chunk=0.02, sample=0.01, megabyte=0.07 / MEGABYTES), take=Cost(chunk=0.05))
    assert simulated(constants, num_workers=1).rate == pytest.approx(1 / (0.1 + 0.1), rel=0.02)


def test_small_samples_share_a_chunk_of_one_second():
    constants = Constants(worker=Cost(chunk=0.1), metadata=Metadata(chunk=500.0))
    outcome = simulated(constants, num_workers=1, sample_bytes=1000, window=10)
    assert outcome.rate == pytest.approx(10 / 1.1, rel=0.03)
    assert {rows for _, rows in outcome.delivered[1:]} == {10}


@pytest.mark.parametrize("thread", ["take", "carry"])
def test_a_receiver_that_is_full_brings_what_it_can(thread):
    constants = Constants(**{thread: Cost(chunk=0.005, sample=0.01, megabyte=0.005 / MEGABYTES)})
    outcome = simulated(constants, num_workers=8)
    assert outcome.rate == pytest.approx(1 / 0.02, rel=0.02)
    assert getattr(outcome, f"{thread}_load") == pytest.approx(1.0, abs=0.02)
    assert simulated(constants, num_workers=8, num_ranks=2).rate == pytest.approx(8 / 0.1, rel=0.02)


def test_a_ring_that_is_full_blocks_its_worker():
    """More is never under way than the rings hold, and no sample is made beyond the one that waits."""
    outcome = simulated(Constants(take=Cost(chunk=1.0)), num_workers=4)
    assert outcome.bytes_under_way == 4 * CHUNKS_UNDER_WAY * CHUNK
    assert outcome.rate == pytest.approx(1.0, rel=0.05)


def test_the_driver_is_busy_with_what_it_does():
    cost = DriverCost(tick=0.01, worker=0.001, sample=0.0001, lease=0.002)
    outcome = simulated(Constants(driver=cost), num_workers=10)
    expected = 0.01 + 10 * 0.001 + 100 * 0.0001 + 100 / 64 * 0.002
    assert outcome.driver_load == pytest.approx(expected, rel=0.02)
    assert outcome.driver_messages == pytest.approx(2 + 100 / 64, rel=0.1)


def test_workers_wait_for_leases_of_a_slow_driver():
    """Ten samples per lease, two leases ahead, and a tick of 10 s: it is seen to run out of them."""
    slow = Constants(driver=DriverCost(tick=10.0))
    assert simulated(slow, num_workers=1, window=10, warm_up_s=0.0, seconds=20.0).rate < 5.0
    assert simulated(num_workers=1, window=10).rate == pytest.approx(10.0, rel=0.02)


@pytest.mark.parametrize("lost_share", [0.0, 0.3])
def test_every_simulation_ends_once(lost_share):
    outcome = simulated(
        Constants(take=Cost(chunk=0.004), start_s=2.0),
        num_workers=10,
        limit=5000,
        warm_up_s=5.0,
        seconds=5.0,
        lost_share=lost_share,
        notice_s=3.0,
        after_s=100.0,
    )
    ids = np.concatenate([np.arange(first, first + num) for first, num in outcome.delivered])
    assert np.array_equal(np.sort(ids), np.arange(5000))
    assert (outcome.returned > 0) == (lost_share > 0)


def test_the_loss_of_workers_returns_their_leases_and_no_others():
    """Nothing is sent before the loss, so the two leases of each dead worker come back whole."""
    slow = {"num_workers": 10, "pause_s": 1000.0, "warm_up_s": 1.0, "seconds": 1.0}
    outcome = simulated(**slow, lost_share=0.2, notice_s=1.0, after_s=5.0)
    first_leases = Simulation(Scenario(**slow, sample_bytes=CHUNK), Constants())
    first_leases.run()
    lost = [lease for worker in first_leases._ready[:2] for lease in worker.leases]
    assert len(lost) == 4 and outcome.returned == sum(lease.size for lease in lost)


def test_the_rate_is_back_once_the_lost_workers_are():
    constants = Constants(start_s=5.0)
    loss = {"num_workers": 50, "pause_s": 0.5, "seconds": 10.0, "lost_share": 0.1, "after_s": 30.0}
    assert 15 <= simulated(constants, **loss, notice_s=10.0).back_after_s <= 18
    assert simulated(constants, **loss, notice_s=99.0).back_after_s == np.inf


def test_costs_are_found_again():
    rng = np.random.default_rng(0)
    terms, costs = rng.uniform(0.1, 10, (8, 3)), np.array([0.5, 0.0, 0.02])
    assert fitted(terms, terms @ costs) == pytest.approx(costs, abs=1e-9)
