"""Sums of sine waves against their formulas, and the statistics of their laws."""

import numpy as np
import pytest

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.parameters.waves import RandomWaves, SineSeries, TravellingWaves

DRAWS = [RandomWaves().draw(generator_of(0, "training", i)) for i in range(2000)]
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


def test_the_mean_square_is_that_of_the_law():
    """Per term E[A²] E[sin²] = 1/6, of four terms; a tenth of the draws keep 0.45 of the circle: 0.63."""
    x = np.arange(32) / 32
    assert np.mean([wave(x) ** 2 for wave in DRAWS]) == pytest.approx(4 / 6 * (0.9 + 0.1 * 0.45), rel=0.05)


def test_choices_are_as_frequent_as_the_published_code_makes_them():
    """Two of four wave numbers, the same one twice in 1/4 of the draws; 1/10 absolute, 1/10 with a window."""
    assert all(wave.counts.sum() == 2 and wave.counts.size == 4 for wave in DRAWS)
    for share, expected in (
        (np.mean([wave.counts.max() == 2 for wave in DRAWS]), 0.25),
        (np.mean([wave.is_absolute for wave in DRAWS]), 0.1),
        (np.mean([wave.window is not None for wave in DRAWS]), 0.1),
        (np.mean([wave.sign > 0 for wave in DRAWS]), 0.5),
    ):
        assert share == pytest.approx(expected, abs=0.04)


def test_terms_are_sines_and_what_is_not_chosen_stays_as_a_constant():
    wave = next(wave for wave in DRAWS if wave.window is None and not wave.is_absolute and wave.counts.max() == 2)
    twice = int(np.argmax(wave.counts))
    x = np.linspace(-1, 2, 50)
    rest = sum(wave.amplitudes[m] * np.sin(wave.phases[m]) for m in range(4) if m != twice)
    term = wave.amplitudes[twice] * np.sin(2 * np.pi * 2 * (twice + 1) * x + wave.phases[twice])
    np.testing.assert_allclose(wave(x), wave.sign * (rest + term), atol=1e-12)


def test_absolute_values_have_one_sign_and_windows_cut_off():
    for wave in DRAWS[:300]:
        values = wave(np.arange(100) / 100)
        if wave.is_absolute:
            assert (wave.sign * values >= 0).all()
        if wave.window is not None:
            assert np.abs(values[[0, 1, 2, 98, 99]]).max() < 1e-5


def test_features_of_two_draws_are_about_the_square_root_of_two_apart():
    law = RandomWaves()
    squares = [np.sum((law.features(a) - law.features(b)) ** 2) for a, b in zip(DRAWS[::2], DRAWS[1::2], strict=True)]
    assert np.mean(squares) == pytest.approx(2.0, rel=0.1)


def test_quantiles_are_those_of_the_same_draw_and_uniform():
    law = RandomWaves()
    quantiles = np.array([law.quantiles(generator_of(0, "training", i)) for i in range(2000)])
    np.testing.assert_array_equal(quantiles[:, :4], [wave.amplitudes for wave in DRAWS])
    assert len(law.quantile_names("initial")) == quantiles.shape[1] == 8
    x = np.arange(16) / 16
    for i, wave in enumerate(DRAWS[:5]):
        again = law.at_quantiles(quantiles[i], generator_of(0, "training", i))
        np.testing.assert_allclose(again(x), wave(x), atol=1e-14)
    np.testing.assert_allclose(quantiles.mean(axis=0), 0.5, atol=0.03)
    np.testing.assert_allclose(quantiles.var(axis=0), 1 / 12, atol=0.006)
