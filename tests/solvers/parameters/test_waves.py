"""The statistics of random waves, in closed form."""

import numpy as np
import pytest

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.parameters.waves import RandomWaves

WAVES = [RandomWaves().draw(generator_of(0, "training", i)) for i in range(2000)]


def test_the_mean_square_is_that_of_the_law():
    """Per term E[A²] E[sin²] = 1/6, of four terms; a tenth of the draws keep 0.45 of the circle: 0.63."""
    x = np.arange(32) / 32
    assert np.mean([wave(x) ** 2 for wave in WAVES]) == pytest.approx(4 / 6 * (0.9 + 0.1 * 0.45), rel=0.05)


def test_choices_are_as_frequent_as_the_published_code_makes_them():
    """Two of four wave numbers, the same one twice in 1/4 of the draws; 1/10 absolute, 1/10 with a window."""
    assert all(wave.counts.sum() == 2 and wave.counts.size == 4 for wave in WAVES)
    for share, expected in (
        (np.mean([wave.counts.max() == 2 for wave in WAVES]), 0.25),
        (np.mean([wave.is_absolute for wave in WAVES]), 0.1),
        (np.mean([wave.window is not None for wave in WAVES]), 0.1),
        (np.mean([wave.sign > 0 for wave in WAVES]), 0.5),
    ):
        assert share == pytest.approx(expected, abs=0.04)


def test_terms_are_sines_and_what_is_not_chosen_stays_as_a_constant():
    wave = next(wave for wave in WAVES if wave.window is None and not wave.is_absolute and wave.counts.max() == 2)
    twice = int(np.argmax(wave.counts))
    x = np.linspace(-1, 2, 50)
    rest = sum(wave.amplitudes[m] * np.sin(wave.phases[m]) for m in range(4) if m != twice)
    term = wave.amplitudes[twice] * np.sin(2 * np.pi * 2 * (twice + 1) * x + wave.phases[twice])
    np.testing.assert_allclose(wave(x), wave.sign * (rest + term), atol=1e-12)


def test_absolute_values_have_one_sign_and_windows_cut_off():
    for wave in WAVES[:300]:
        values = wave(np.arange(100) / 100)
        if wave.is_absolute:
            assert (wave.sign * values >= 0).all()
        if wave.window is not None:
            assert np.abs(values[[0, 1, 2, 98, 99]]).max() < 1e-5


def test_features_of_two_draws_are_about_the_square_root_of_two_apart():
    law = RandomWaves()
    squares = [np.sum((law.features(a) - law.features(b)) ** 2) for a, b in zip(WAVES[::2], WAVES[1::2], strict=True)]
    assert np.mean(squares) == pytest.approx(2.0, rel=0.1)


def test_quantiles_are_those_of_the_same_draw_and_uniform():
    law = RandomWaves()
    quantiles = np.array([law.quantiles(generator_of(0, "training", i)) for i in range(2000)])
    np.testing.assert_array_equal(quantiles[:, :4], [wave.amplitudes for wave in WAVES])
    assert len(law.quantile_names("initial")) == quantiles.shape[1] == 8
    np.testing.assert_allclose(quantiles.mean(axis=0), 0.5, atol=0.03)
    np.testing.assert_allclose(quantiles.var(axis=0), 1 / 12, atol=0.006)
