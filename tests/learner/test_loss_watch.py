"""Divergence without a NaN is said; what ordinary runs do is not."""

import numpy as np
import pytest

from penstock.learner.loss_watch import LossWatch


def warnings(losses_by_step, every=20, first_step=0):
    """The warnings of a watch that sees the mean over about 50 steps, as the trainer has it, every 20 steps."""
    watch, mean, found = LossWatch(first_step), losses_by_step[0], []
    for step, loss in enumerate(losses_by_step, 1):
        mean += 0.02 * (loss - mean)
        if step == 1 or step % every == 0:
            watch.see(mean, step)
            found.append(watch.warning)
    return found


def falling(num_steps, lowest, seed=0, spread=0.3):
    """From 1 down by a power of the steps, as losses of operators do, with a batch's scatter."""
    n = np.arange(num_steps)
    return np.maximum(lowest, (1 + n / 20) ** -0.7) * np.random.default_rng(seed).lognormal(0, spread, num_steps)


DIVERGING = {
    "grows from the first step": np.minimum(1e6, 1.05 ** np.arange(1000)),
    "jumps and stays": np.concatenate([falling(3000, 0.01), np.full(600, 1e4)]),
    "falls back to what untrained weights give": np.concatenate([falling(3000, 0.01), np.full(600, 0.9)]),
    "swings between good and absurd": np.concatenate([falling(3000, 0.01), np.tile([0.05, 1e3], 300)]),
}
ORDINARY = {
    "falls": falling(5000, 0.003),
    "scatters by a factor of 10": falling(5000, 0.01, spread=1.5),
    "has an absurd batch now and then": falling(5000, 0.01) * np.where(np.arange(5000) % 1000 == 999, 1e4, 1),
    "rises when other samples come": np.concatenate([falling(3000, 0.003), np.full(1000, 0.2)]),
    "never learns": np.full(2000, 1.0) * np.random.default_rng(0).lognormal(0, 0.5, 2000),
    "is perfect": np.zeros(1000),
}


@pytest.mark.parametrize("name", DIVERGING)
def test_divergence_is_said(name):
    assert warnings(DIVERGING[name])[-1].startswith("training diverges: its loss was ")


@pytest.mark.parametrize("name", ORDINARY)
def test_what_ordinary_runs_do_is_not(name):
    assert not any(warnings(ORDINARY[name]))


def test_a_loss_that_comes_back_takes_the_warning_back():
    said = warnings(np.concatenate([falling(2000, 0.01), np.full(500, 5.0), np.full(800, 0.02)]))
    assert any(said) and said[-1] is None


def test_what_comes_before_the_first_step_does_not_count():
    """A resumed mean begins as that of the loss before, which may have been in other units."""
    losses = np.concatenate([np.full(10, 1e-4), falling(2000, 0.05)])
    assert any(warnings(losses)) and not any(warnings(losses, first_step=200))
