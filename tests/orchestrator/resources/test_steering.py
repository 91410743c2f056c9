"""The number of workers on made series, whose right numbers are known."""

import random

import pytest

from penstock.orchestrator.config.solver import Steered
from penstock.orchestrator.resources.steering import WINDOW_S, Steering


class Made:
    """A run whose workers solve at a rate each, and whose learner trains at another, second by second."""

    def __init__(self, rate: float, trained_rate: float, *, least=1, most=64, reuse=8.0, seed: int | None = None):
        self.rate, self.trained_rate = rate, trained_rate
        self.steering = Steering(Steered(min=least, max=most, reuse=reuse))
        self.num, self.now = least, 0.0
        self.unique, self.trained = 0.0, 0.0
        self.luck = random.Random(seed)
        self.noise = 0.0 if seed is None else 0.5
        self.numbers = [self.num]
        self.changed_at = []

    def go(self, seconds: int) -> "Made":
        for _ in range(seconds):
            self.now += 1.0
            self.unique += self.rate * self.num * self.luck.uniform(1 - self.noise, 1 + self.noise)
            self.trained += self.trained_rate * self.luck.uniform(1 - self.noise, 1 + self.noise)
            counts = {"unique": int(self.unique), "trained": int(self.trained), "simulations": int(self.unique)}
            found = self.steering.look(self.now, self.num, **counts)
            if found is not None:
                self.num, _ = found
                self.numbers.append(self.num)
                self.changed_at.append(self.now)
        return self


class Crowded(Made):
    """Two cores, which the learner and the workers share: one more worker takes from the learner what it gains."""

    def go(self, seconds: int) -> "Made":
        for _ in range(seconds):
            self.trained_rate = 160.0 / (1 + self.num)
            super().go(1)
        return self


def test_solver_limited_runs_grow_to_the_target_and_rest():
    run = Made(rate=2.0, trained_rate=160.0).go(1200)  # 10 workers give 20 samples/s, 160 / 20 = 8
    assert run.numbers == [1, 2, 4, 8]  # with reuse 10, in the band around 8


def test_learner_limited_runs_shrink():
    run = Made(rate=5.0, trained_rate=80.0, least=1, most=16)
    run.num = 16
    run.go(1200)  # two give 10 samples/s
    assert run.numbers[1:] == [8, 4, 2]


def test_the_bounds_hold_and_are_no_change():
    assert Made(rate=1.0, trained_rate=1000.0, most=5).go(600).numbers == [1, 2, 4, 5]
    assert Made(rate=100.0, trained_rate=1.0, least=2).go(600).numbers == [2]


def test_a_pause_lies_between_two_changes():
    run = Made(rate=2.0, trained_rate=640.0).go(1200)
    assert len(run.changed_at) > 3
    assert all(
        later - earlier >= WINDOW_S for earlier, later in zip([0.0, *run.changed_at], run.changed_at, strict=False)
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("right", [1.5, 3.2, 6.5, 20.0])
def test_noise_does_not_move_it(seed, right):
    """Within a factor of two at once, and then still for an hour."""
    run = Made(rate=4.0, trained_rate=8.0 * 4.0 * right, seed=seed).go(400)
    changes = len(run.numbers)
    run.go(3600)
    assert len(run.numbers) <= changes + 1
    assert abs(run.num - right) <= max(1.0, 0.35 * right)


@pytest.mark.parametrize("rate", [2.0, 4.0, 6.0, 9.0])
def test_workers_that_take_from_the_learner_do_not_make_it_swing(rate):
    """From one number the other looks better, and from the other the one: it takes what was nearer, and stays."""
    run = Crowded(rate=rate, trained_rate=0.0).go(550)
    assert len(run.numbers) <= 4, run.numbers


def test_few_simulations_are_waited_for():
    """One in ten seconds, whose count in a window of 30 s is 3 give or take 2."""
    run = Made(rate=0.1, trained_rate=8.0)
    assert run.go(290).numbers == [1]
    assert run.go(300).numbers[1] == 2


def test_a_run_whose_solvers_give_nothing_grows_in_the_end():
    run = Made(rate=0.0, trained_rate=10.0).go(500)
    assert run.numbers == [1, 2]


def test_what_was_seen_long_ago_is_forgotten():
    run = Made(rate=4.0, trained_rate=8.0 * 4.0).go(300)
    assert run.numbers == [1]
    run.trained_rate *= 4
    run.go(900)
    assert run.num == 4
    run.trained_rate /= 4
    assert run.go(1500).num == 1
