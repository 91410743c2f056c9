"""The limiter holds both sides to its ratio, and never both at once."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.learner.stream.rate_limiter import RateLimiter


@given(st.floats(0.05, 20), st.lists(st.booleans(), max_size=200))
def test_any_order_stays_within_one_simulation_and_never_both_wait(ratio, wishes):
    limiter, num_batches, num_simulations = RateLimiter(ratio), 0, 0
    limiter.start()
    for wants_to_train in wishes:
        assert limiter.may_train() or limiter.may_ingest()
        if wants_to_train and limiter.may_train():
            limiter.add_batch()
            num_batches += 1
        elif not wants_to_train and limiter.may_ingest():
            limiter.add_simulations(1)
            num_simulations += 1
        assert ratio * (num_simulations - 2) <= num_batches < ratio * (num_simulations + 1) + 1


def test_counting_starts_at_the_watermark():
    limiter = RateLimiter(2.0)
    limiter.add_simulations(100)
    assert limiter.may_ingest()
    limiter.start()
    assert limiter.may_train()
    limiter.add_batch()
    limiter.add_batch()
    assert not limiter.may_train()


def test_each_side_waits_for_the_other_and_gives_up_when_told():
    limiter, done = RateLimiter(1.0), []
    limiter.start()
    limiter.add_batch()

    def add_later(add, *arguments, count):
        def run():
            for _ in range(count):
                time.sleep(0.05)
                done.append(add.__name__)
                add(*arguments)

        threading.Thread(target=run).start()

    add_later(limiter.add_simulations, 1, count=1)
    limiter.wait_to_train(lambda: False)
    assert done == ["add_simulations"]
    limiter.add_simulations(3)
    add_later(limiter.add_batch, count=2)
    limiter.wait_to_ingest(lambda: False)
    assert done[1:] == ["add_batch"] * 2
    limiter.add_simulations(9)
    end = time.monotonic() + 0.1
    limiter.wait_to_ingest(lambda: time.monotonic() > end)
    assert time.monotonic() > end and not limiter.may_ingest()


def test_a_restored_limiter_goes_on_counting():
    limiter, other = RateLimiter(0.5), RateLimiter(0.5)
    limiter.start()
    limiter.add_batch()
    other.load_state(limiter.state())
    assert not other.may_train()


@pytest.mark.parametrize("ratio", [0.1, 0.5, 3.0, 10.0])
def test_a_ratio_that_changes_on_resume_holds_from_there(ratio):
    """5000 batches at r = 1 lie behind it; both sides at full speed then give r batches per simulation."""
    before, limiter = RateLimiter(1.0), RateLimiter(ratio)
    before.start()
    for _ in range(5000):
        before.add_simulations(1)
        before.add_batch()
    limiter.load_state(before.state())
    num_batches = num_simulations = 0
    for _ in range(400):
        if limiter.may_train():
            limiter.add_batch()
            num_batches += 1
        if limiter.may_ingest():
            limiter.add_simulations(1)
            num_simulations += 1
        assert ratio * (num_simulations - 2) <= num_batches < ratio * (num_simulations + 1) + 1
    assert min(num_batches, num_simulations) >= 39


def test_a_ratio_of_zero_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        RateLimiter(0.0)
