"""Sums of sine waves against their formulas, and the statistics of their laws."""

import numpy as np
import pytest

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.parameters.waves import SineSeries, TravellingWaves

WAVES = {"num_waves": 5, "amplitude": 0.5, "frequency": 0.4, "largest_number": 2}


def test_a_series_is_the_sum_of_its_sines_with_largest_value_one():
    amplitudes, phases = SineSeries(1024).quantiles(generator_of(0, "training", 0)).reshape(2, 5)
    x = np.arange(1024) / 1024
    k = np.arange(1, 6)[:, None]
    expected = ((2 * amplitudes - 1)[:, None] * np.sin(2 * np.pi * (k * x + phases[:, None]))).sum(axis=0)
    value = SineSeries(1024).draw(generator_of(0, "training", 0))
    np.testing.assert_allclose(value, expected / np.abs(expected).max(), atol=1e-13)
    assert len(SineSeries(16).quantile_names("initial")) == amplitudes.size + phases.size


def test_one_generator_gives_one_series_at_every_resolution():
    coarse, fine = (SineSeries(n).draw(generator_of(0, "training", 1)) for n in (32, 128))
    np.testing.assert_allclose(coarse, fine[::4], atol=1e-14)


def test_features_of_two_series_are_about_the_root_of_two_apart():
    law = SineSeries(64)
    features = [law.features(law.draw(generator_of(0, "training", i))) for i in range(200)]
    distances = np.linalg.norm(np.subtract(features[::2], features[1::2]), axis=1)
    assert np.sqrt(np.mean(distances**2)) == pytest.approx(np.sqrt(2), rel=0.1)


def test_travelling_waves_are_those_of_the_formula():
    """δ(t, x) = Σ_j A_j sin(ω_j t + 2π l_j x / L + φ_j) (Brandstetter et al. 2022, arXiv 2202.03376)."""
    law = TravellingWaves(32, **WAVES)
    amplitudes, frequencies, numbers, phases = waves = law.draw(generator_of(0, "training", 0))
    x = np.arange(32)[:, None] / 32
    expected = (amplitudes * np.sin(frequencies * 1.7 + 2 * np.pi * numbers * x + phases)).sum(axis=1)
    np.testing.assert_allclose(np.fft.irfft(law.modes(waves, 1.7)), expected, atol=1e-14)


def test_the_law_of_travelling_waves():
    law = TravellingWaves(32, **WAVES)
    draws = np.array([law.draw(generator_of(0, "training", i)) for i in range(400)]).swapaxes(0, 1).reshape(4, -1)
    amplitudes, frequencies, numbers, phases = draws
    for values, half in ((amplitudes, 0.5), (frequencies, 0.4), (phases - np.pi, np.pi)):
        assert np.abs(values).max() <= half and np.std(values) == pytest.approx(half / np.sqrt(3), rel=0.05)
    assert set(numbers) == {1, 2} and np.mean(numbers) == pytest.approx(1.5, abs=0.05)
    features = np.array([law.features(law.draw(generator_of(0, "training", i))) for i in range(400)])
    assert np.mean(np.sum(features**2, axis=1)) == pytest.approx(1.0, rel=0.1)
    assert len(law.quantile_names("waves")) == law.quantiles(generator_of(0, "training", 0)).size
