"""The stream's bias against SciPy's tests and against distributions whose distance is known."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.bias import bias, kolmogorov_smirnov
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import Fifo

LAYOUT = Layout((FieldSpec(name="a", on=Grid((2,))),), (FieldSpec(name="u", on=Grid((2,))),))


def filled(quantiles, steps=None, capacity=1000):
    buffer = Buffer(LAYOUT, Fifo(), capacity=capacity, watermark=1, seed=0)
    count = len(quantiles)
    arrays = {name: np.zeros((count, *shape), np.float32) for name, shape in LAYOUT.shapes.items()}
    steps = np.zeros(count, np.int64) if steps is None else steps
    assert buffer.put_now(arrays, np.arange(count), steps, quantiles=quantiles.astype(np.float32)) == count
    return buffer


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_the_distance_is_that_of_scipy(values):
    """Ties and the ends of the interval included."""
    (distance,) = kolmogorov_smirnov(np.array(values)[:, None])
    assert distance == pytest.approx(scipy.stats.kstest(values, "uniform", method="asymp").statistic, abs=1e-12)


def test_an_unbiased_stream_is_told_from_a_sorted_one():
    quantiles = np.random.default_rng(0).random((1000, 2))
    quantiles[:, 1] **= (
        2  # distribution function sqrt(x): mean 1/3, variance 1/5 - 1/9, largest distance from x at 1/4: 1/4
    )
    parameters = bias(filled(quantiles), ["wavenumber", "source_mode_0_1"])["parameters"]
    unbiased, biased = parameters["wavenumber"], parameters["source_mode_0_1"]
    assert unbiased["mean"] == pytest.approx(0.5, abs=0.03)
    assert unbiased["spread"] == pytest.approx(12**-0.5, abs=0.015)
    assert unbiased["ks"] < 1.36 / np.sqrt(1000)
    assert biased["mean"] == pytest.approx(1 / 3, abs=0.03)
    assert biased["spread"] == pytest.approx((1 / 5 - 1 / 9) ** 0.5, abs=0.015)
    assert biased["ks"] == pytest.approx(1 / 4, abs=0.05)


def test_ages_and_steps():
    buffer = filled(np.zeros((100, 0)), steps=np.arange(100) % 4)
    told = bias(buffer, [])
    assert told["parameters"] == {} and told["age_p95"] == pytest.approx(np.quantile(np.arange(100), 0.95))
    assert told["steps"] == {"mean": 1.5, "spread": pytest.approx(1.25**0.5)}


def test_an_empty_buffer_has_none():
    assert bias(filled(np.zeros((0, 3))), ["a", "b", "c"]) == {"parameters": {}, "steps": None, "age_p95": None}
