"""Scalars: their laws against SciPy's, and what is refused."""

import numpy as np
import pytest
import scipy.stats

from penstock.solvers.parameters.scalars import Fixed
from penstock.solvers.parameters.space import Discrete, LogUniform, Normal, TruncatedNormal, Uniform, generator_of

LAWS = [
    (Uniform(2.0, 5.0), scipy.stats.uniform(2, 3)),
    (LogUniform(1e-3, 10.0), scipy.stats.loguniform(1e-3, 10)),
    (LogUniform(1e-200, 1e200), scipy.stats.loguniform(1e-200, 1e200)),
    (Normal(2.0, 0.5), scipy.stats.norm(2, 0.5)),
    (TruncatedNormal(2.0, 0.5, 1.0, 4.0), scipy.stats.truncnorm(-2, 4, 2, 0.5)),
    (TruncatedNormal(2.0, 0.5, -np.inf, 1.5), scipy.stats.truncnorm(-np.inf, -1, 2, 0.5)),
    (TruncatedNormal(0.0, 1.0, 9.0, np.inf), scipy.stats.truncnorm(9, np.inf)),  # Φ is 1 there to rounding
    (TruncatedNormal(0.0, 1.0, 12.0, 12.5), scipy.stats.truncnorm(12, 12.5)),
]


@pytest.mark.parametrize(("law", "expected"), LAWS)
def test_a_scalar_is_the_inverse_of_its_distribution_function(law, expected):
    """At quantiles, in the tails too, against SciPy's percent-point function."""
    for quantile in (1e-9, 0.01, 0.3, 0.5, 0.99, 1 - 1e-9):
        assert law.at(quantile) == pytest.approx(expected.ppf(quantile), rel=1e-6)
    draws = [law.draw(generator_of(0, "training", i)) for i in range(500)]
    assert scipy.stats.kstest(draws, expected.cdf).pvalue > 1e-3


@pytest.mark.parametrize("law", [law for law, _ in LAWS if not isinstance(law, Normal)])
def test_a_feature_is_the_quantile_of_the_value(law):
    value, quantile = (function(generator_of(0, "training", 3)) for function in (law.draw, law.quantiles))
    np.testing.assert_allclose(law.features(value), quantile, atol=1e-9)


@pytest.mark.parametrize("law", [LogUniform(0.1, 0.7), TruncatedNormal(0.0, 1.0, 1.1, 1.3)])
def test_no_value_is_beyond_the_ends(law):
    assert law.low <= law.at(0.0) <= law.at(1.0) <= law.high
    assert (law.at(0.0), law.at(1.0)) == pytest.approx((law.low, law.high), rel=1e-12)


def test_discrete_values_come_equally_often():
    """By the χ² test of SciPy; and the distance of different values is 1."""
    law = Discrete([1e-3, 1e-4, 1e-5], "m^2/s")
    draws = [law.draw(generator_of(0, "training", i)) for i in range(900)]
    assert scipy.stats.chisquare([draws.count(value) for value in law.values]).pvalue > 1e-3
    assert [law.at(quantile) for quantile in (0.0, 0.33, 0.34, 0.99, 1.0)] == [1e-3, 1e-3, 1e-4, 1e-5, 1e-5]
    assert np.linalg.norm(law.features(1e-3) - law.features(1e-4)) == pytest.approx(1.0)
    assert law.describe() == "one of 0.001, 0.0001, 1e-05 with the same probability, in m^2/s"


def test_a_uniform_number_is_that_of_the_generator():
    """To the bit, so that draws stay what they were."""
    for i in range(20):
        assert Uniform(0.2, 0.7).draw(generator_of(0, "x", i)) == generator_of(0, "x", i).uniform(0.2, 0.7)


@pytest.mark.parametrize(
    ("law", "arguments", "message"),
    [
        (Uniform, (3.0, 3.0), "low = 3.0 must be below high = 3.0"),
        (Uniform, (0.0, np.inf), "low = 0.0 and high = inf must be finite"),
        (LogUniform, (0.0, 1.0), "low = 0.0 must be above 0"),
        (LogUniform, (2.0, 1.0), "low = 2.0 must be below high = 1.0"),
        (TruncatedNormal, (0.0, 0.0, 1.0, 2.0), "deviation = 0.0 must be above 0"),
        (TruncatedNormal, (0.0, 1.0, 2.0, 1.0), "low = 2.0 must be below high = 1.0"),
        (TruncatedNormal, (0.0, 1.0, 50.0, 60.0), r"\[50.0, 60.0\] holds less than 1e-200"),
        (TruncatedNormal, (np.nan, 1.0, 0.0, 1.0), r"\[0.0, 1.0\] holds less"),
        (Discrete, ([1.0],), "must be at least 2"),
        (Discrete, ([1.0, 2.0, 1.0],), "must differ from one another"),
    ],
)
def test_laws_that_are_none_are_refused(law, arguments, message):
    with pytest.raises(ValueError, match=message):
        law(*arguments)


@pytest.mark.parametrize(
    ("law", "expected"),
    [
        (Uniform(2.0, 5.0), scipy.stats.uniform(3, 1)),
        (LogUniform(1e-3, 10.0), scipy.stats.loguniform(3, 4)),
        (Normal(2.0, 0.5), scipy.stats.truncnorm(2, 4, 2, 0.5)),
        (TruncatedNormal(2.0, 0.5, 1.0, 4.0), scipy.stats.truncnorm(2, 4, 2, 0.5)),
    ],
)
def test_a_narrowed_law_is_the_law_given_that_the_value_lies_there(law, expected):
    """On [3, 4], against SciPy's; 3 alone is a fixed value, which draws nothing."""
    narrowed = law.narrowed([3, 4])
    for quantile in (0.01, 0.5, 0.99):
        assert narrowed.at(quantile) == pytest.approx(expected.ppf(quantile), rel=1e-9)
    assert law.narrowed(3) == Fixed(3.0)
    generator = generator_of(0, "training", 0)
    assert law.narrowed(3).draw(generator) == 3.0
    assert generator.random() == generator_of(0, "training", 0).random()


def test_values_are_narrowed_to_some_of_them():
    law = Discrete(("paper", "code", "other"))
    assert law.narrowed(["code", "paper"]) == Discrete(("code", "paper"))
    assert law.narrowed("code") == law.narrowed(["code"]) == Fixed("code")
    assert Fixed("code").describe() == "fixed at code"
