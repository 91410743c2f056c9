"""Schedules against torch's own and the published configuration."""

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from penstock.learner.schedules import Schedule


def torch_factors(make_scheduler, num_steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make_scheduler(optimizer)
    factors = []
    for _ in range(num_steps):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


def test_cosine_is_that_of_torch():
    expected = torch_factors(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=200), 201)
    schedule = Schedule(warm_up=0.0)
    np.testing.assert_allclose([schedule(n / 200) for n in range(201)], expected, atol=1e-12)


def test_warm_up_then_cosine_is_that_of_torch():
    def make(optimizer):
        warm_up = lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=40)
        cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=960)
        return lr_scheduler.SequentialLR(optimizer, [warm_up, cosine], milestones=[40])

    schedule = Schedule()
    np.testing.assert_allclose([schedule(n / 1000) for n in range(1001)], torch_factors(make, 1001), atol=1e-12)


def test_constant_is_that_of_torch_after_its_warm_up():
    expected = torch_factors(lambda optimizer: lr_scheduler.LinearLR(optimizer, 0.1, total_iters=20), 101)
    schedule = Schedule(shape="constant", warm_up=0.2)
    np.testing.assert_allclose([schedule(n / 100) for n in range(101)], expected, atol=1e-12)


def test_step_is_that_of_the_published_configuration():
    """Meyer et al., SC 2023: MultiStepLR, halved at 6,250, 12,500, 18,750 and 25,000 batches; here a 25th of each."""
    expected = torch_factors(lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [250, 500, 750, 1000], 0.5), 1100)
    schedule = Schedule(shape="step", warm_up=0.0, steps=1000)
    factors = [schedule(schedule.progress(steps=n, samples=0, minutes=0, of_run=0.3)) for n in range(1100)]
    np.testing.assert_array_equal(factors, expected)


def test_plateau_is_that_of_torch():
    def make(optimizer):
        warm_up = lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=10)
        level = lr_scheduler.ConstantLR(optimizer, factor=1.0)
        decay = lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=20)
        return lr_scheduler.SequentialLR(optimizer, [warm_up, level, decay], milestones=[10, 80])

    schedule = Schedule(shape="plateau", warm_up=0.1)
    np.testing.assert_allclose([schedule(n / 100) for n in range(101)], torch_factors(make, 101), atol=1e-12)


def test_one_cycle_is_that_of_torch():
    def make(optimizer):
        return lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=1001, pct_start=0.3, cycle_momentum=False)

    schedule, expected = Schedule(shape="one_cycle"), torch_factors(make, 1000)
    # torch's rise is a step shorter: it ends at step 0.3 * 1001 - 1
    np.testing.assert_allclose([schedule(n / 1000) for n in range(1000)], expected, atol=0.006)
    assert schedule(1.0) == pytest.approx(4e-6)


def test_progress_is_that_of_the_length_or_else_of_the_run():
    done = {"steps": 50, "samples": 30, "minutes": 2, "of_run": 0.7}
    assert Schedule().progress(**done) == 0.7
    assert Schedule(steps=200).progress(**done) == 0.25
    assert Schedule(samples=300).progress(**done) == 0.1
    assert Schedule(minutes=4).progress(**done) == 0.5
    assert Schedule(steps=20).progress(**done) == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": "linear"}, "one of cosine, constant, step"),
        ({"warm_up": 1.0}, "warm_up must be at least 0 and below 1"),
        ({"warm_up": -0.1}, "warm_up must be at least 0 and below 1"),
        ({"steps": 0}, r"schedule\.steps must be above 0"),
        ({"steps": 10, "minutes": 1}, "one length, not steps and minutes"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**options)
