"""A run to which faults of many kinds are done, one after another."""

from random import Random

import pytest

from benchmarks.chaos.faults import KINDS, SIMULATIONS_PER_FAULT, bear, plan
from benchmarks.chaos.run import Run

NUM_FAULTS = 6
SEED = 1131  # draws faults of a worker, of a simulation, of the learner, of the driver and of the clock


@pytest.mark.darcy
@pytest.mark.slow  # two starts of Ray, three of the learner, five of workers, and a clock that is wrong for 10 s
@pytest.mark.timeout(600)  # on a machine with many times as much to do as it has cores
def test_a_run_bears_six_faults_and_nothing_is_lost_or_left(tmp_path):
    random = Random(SEED)
    run = Run(tmp_path, SIMULATIONS_PER_FAULT * NUM_FAULTS)
    try:
        recoveries = bear(run, plan(NUM_FAULTS, random), random, print)
        account, left = run.account(), run.left()
    finally:
        run.remove()
    assert len({each.fault.kind for each in recoveries}) == NUM_FAULTS
    assert account.faults() == [] and len(account.failed) <= 1
    assert account.error < 0.5  # untrained it is about 1
    assert left == []


def test_a_plan_is_drawn_from_its_seed_in_rounds_of_all_kinds():
    """So between three deaths of the learner the driver has ended too, and a run may bear them."""
    plans = [plan(30, Random(seed)) for seed in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]
    for faults in plans:
        for start in range(0, 31 - len(KINDS), len(KINDS)):
            assert {fault.kind for fault in faults[start : start + len(KINDS)]} == set(KINDS)
