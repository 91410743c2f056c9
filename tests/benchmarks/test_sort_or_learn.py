"""The study at a tiny size: it compares equal samples and finds a biased stream."""

import numpy as np
import pytest

from benchmarks import sort_or_learn
from benchmarks.sort_or_learn import Draws, Outcome, is_within, learn, page, rows_of
from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.messages import Chunk

N, CAPACITY = 512, 64
LAYOUT = Layout((FieldSpec(name="a", on=Grid((16, 16))),), (FieldSpec(name="u", on=Grid((16, 16))),))


class Square:
    """A problem with u = 1 + a² and a = x everywhere.

    A sample is one number, and sorting sweeps it.
    """

    layout = LAYOUT


def draws(seed: int, count: int = N) -> Draws:
    x = np.random.default_rng(seed).random((count, 1)).astype(np.float32)
    fields = np.broadcast_to(x[:, :, None, None], (count, 1, 16, 16)).copy()
    chunk = Chunk(
        arrays={"fields": fields, "targets": 1 + fields * fields},
        simulations=np.arange(count),
        steps=np.zeros(count, np.int64),
        quantiles=x,
    )
    return Draws(chunk, x)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The study with a buffer of 64 samples, and windows of 1/4, 1 and 4 times that."""
    for name, value in {"CAPACITY": CAPACITY, "WATERMARK": 32, "WIDTH": 4, "MODES": 2}.items():
        monkeypatch.setattr(sort_or_learn, name, value)
    monkeypatch.setattr(sort_or_learn, "WINDOWS", (CAPACITY // 4, CAPACITY, 4 * CAPACITY))


def test_orders_are_permutations_that_sort_within_each_window():
    training = draws(0)
    assert training.orders[1] == list(range(N))
    x = training.features[:, 0]
    for window in sort_or_learn.WINDOWS:
        order = training.orders[window]
        for start in range(0, N, window):
            assert sorted(order[start : start + window]) == list(range(start, start + window))
        steps = np.abs(np.diff(x[order]))
        assert steps.mean() < 8 / window < np.abs(np.diff(x)).mean() * 32 / window  # 1/3 as drawn, some sweeps sorted


def test_the_buffers_population_is_further_from_its_target_the_more_it_is_sorted():
    """KS distances show a sweep in a FIFO; a reservoir mixes it.

    As drawn, they are those of independent draws.
    """
    training, validation = draws(1), draws(2, 64)
    arms = [("fifo", 1), ("fifo", 4 * CAPACITY), ("reservoir", 1), ("reservoir", 4 * CAPACITY)]
    outcomes = {arm: learn(Square(), training, validation, 0, arm[0], 1, arm[1]) for arm in arms}
    distances = {arm: outcome.distance for arm, outcome in outcomes.items()}
    assert distances["reservoir", 1] < 1.36 / CAPACITY**0.5  # exceeded by 64 draws in 1 of 20 cases, and this is a mean
    for kind in ("fifo", "reservoir"):
        assert distances[kind, 4 * CAPACITY] > 2 * distances[kind, 1]
    assert distances["reservoir", 4 * CAPACITY] < 0.8 * distances["fifo", 4 * CAPACITY]
    assert all(0 < outcome.error < 0.5 for outcome in outcomes.values())
    assert outcomes["reservoir", 1] == learn(Square(), training, validation, 0, "reservoir", 1, 1)  # no timing enters


def test_a_verdict_is_by_the_seeds_spread_of_the_samples_as_drawn():
    errors = {1: (0.10, 0.14), 16: (0.09, 0.18), 64: (0.13, 0.17), 256: (0.01, 0.02)}
    arms = {("reservoir", 1, window): [Outcome(error, 0.1) for error in pair] for window, pair in errors.items()}
    assert [is_within(arms, "reservoir", 1, window) for window in (16, 64, 256)] == [True, False, True]
    rows = {row[3]: row for row in rows_of("Darcy, 32 x 32", arms)}
    assert rows["as drawn"][4:] == ["0.1200", "0.1000 to 0.1400", "", "0.100", ""]
    assert rows["window 1 x capacity"][4:] == ["0.1500", "0.1300 to 0.1700", "1.25x", "0.100", "worse"]
    arms |= {("reservoir", 4, window): outcomes for (_, _, window), outcomes in arms.items()}
    text = page("the table", {"Darcy": arms, "Poisson": arms}, N, range(2))
    text = " ".join(text.split())
    assert "windows of 0.25 and 4 capacities are within the seeds' spread" in text
    assert "1000 samples (`buffer.capacity`), is among them" in text  # the first window stands for the default's
