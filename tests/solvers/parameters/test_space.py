"""Spaces: parameters from quantiles, and narrower distributions."""

import numpy as np
import pytest
import scipy.stats

from penstock.registry import load_class
from penstock.solvers.parameters.distribution import AtQuantiles, WithQuantiles, can
from penstock.solvers.parameters.fields import (
    BinaryField,
    DirichletField,
    GaussianField,
    LogNormalField,
    PeriodicField,
)
from penstock.solvers.parameters.polygons import StarPolygon
from penstock.solvers.parameters.space import (
    Discrete,
    LogUniform,
    Normal,
    ParameterSpace,
    TruncatedNormal,
    Uniform,
    generator_of,
    seeds_of,
)
from penstock.solvers.problems import PROBLEMS

SPACE = ParameterSpace(
    speed=Uniform(2.0, 5.0, "m/s"),
    viscosity=LogUniform(1e-5, 1e-3),
    height=Normal(2.0, 0.5),
    width=TruncatedNormal(2.0, 0.5, 1.0, 4.0),
    count=Discrete((1, 2, 4)),
    medium=BinaryField(GaussianField(8), above=12.0, below=3.0),
    source=LogNormalField(DirichletField(8)),
    initial=PeriodicField(16),
    domain=StarPolygon(5, 0.2, 0.4, turn=0.1),
)


@pytest.mark.parametrize("law", SPACE.distributions.values(), ids=SPACE.distributions)
def test_the_value_at_the_quantiles_of_a_draw_is_that_draw(law):
    quantiles = law.quantiles(generator_of(0, "training", 1))
    chosen = law.at_quantiles(quantiles, generator_of(0, "training", 1))
    np.testing.assert_allclose(chosen, law.draw(generator_of(0, "training", 1)), atol=1e-12)


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name not in ("external", "store")])
def test_every_problem_takes_every_design(name):
    """The values at the quantiles of a draw are that draw, and quantiles leave the generator as it does."""
    problem = load_class(name, PROBLEMS, "problem")()
    assert problem.quantile_names and problem.space.takes_quantiles
    for parameter, law in problem.space.distributions.items():
        first, second = generator_of(0, "training", 1), generator_of(0, "training", 1)
        quantiles, drawn = law.quantiles(first), law.draw(second)
        assert first.random() == second.random()
        assert len(quantiles) == len(law.quantile_names(parameter)) and ((quantiles >= 0) & (quantiles <= 1)).all()
        chosen = law.at_quantiles(quantiles, generator_of(0, "training", 1))
        np.testing.assert_allclose(law.features(chosen), law.features(drawn), atol=1e-10)


def test_a_function_of_a_field_has_quantiles_only_if_that_field_has():
    class Plain:
        def draw(self, generator):
            return generator.standard_normal(4)

    for field, has in ((GaussianField(4), True), (Plain(), False)):
        law = BinaryField(BinaryField(field, above=1.0, below=-1.0), above=2.0, below=1.0)
        assert can(law, AtQuantiles) == can(law, WithQuantiles) == has
        space = ParameterSpace(speed=Uniform(2.0, 3.0), medium=law)
        assert bool(space.quantile_names) == space.takes_quantiles == has
        assert len(space.quantiles(generator_of(0, "training", 0))) == len(space.quantile_names)


def test_every_parameter_is_at_its_quantiles():
    """The scalars against SciPy's percent-point functions, and the last law to see that none took another's."""
    quantiles = np.linspace(0.1, 0.9, len(SPACE.quantile_names))
    chosen = SPACE.at_quantiles(quantiles, generator_of(0, "training", 1))
    expected = [scipy.stats.uniform(2, 3), scipy.stats.loguniform(1e-5, 1e-3), scipy.stats.norm(2, 0.5)]
    for name, law, quantile in zip(("speed", "viscosity", "height"), expected, quantiles[:3], strict=True):
        assert chosen[name] == pytest.approx(law.ppf(quantile))
    assert len(quantiles) == 5 + 3 + 4 + 2 + 10
    np.testing.assert_allclose(np.linalg.norm(chosen["domain"], axis=1), 0.2 + 0.2 * quantiles[-10:-5])


@pytest.mark.parametrize(("kind", "lowest"), [(GaussianField, 0), (DirichletField, 1)])
def test_the_leading_modes_of_a_field_are_at_their_quantiles(kind, lowest):
    """By quadrature, exact for these modes at 32 cells, against SciPy's percent-point function."""
    field = kind(32, num_modes=16)
    names = field.quantile_names("source")
    quantiles = np.linspace(0.1, 0.9, len(names))
    x = np.pi * (np.arange(32) + 0.5) / 32
    value = field.at_quantiles(quantiles, generator_of(0, "training", 7))
    assert len(names) == (4 if lowest else 3)
    for name, quantile in zip(names, quantiles, strict=True):
        ks = [int(k) for k in name.split("_")[-2:]]
        waves = [np.sqrt(2) * np.sin(k * x) if lowest else (np.sqrt(2) if k else 1) * np.cos(k * x) for k in ks]
        deviation = (np.pi**2 * (ks[0] ** 2 + ks[1] ** 2) + 9) ** -1
        coefficient = (value * waves[0][:, None] * waves[1]).mean() / deviation
        assert coefficient == pytest.approx(scipy.stats.norm.ppf(quantile), abs=1e-10)


def test_a_narrowed_space_draws_from_less_and_leaves_the_first_as_it_was():
    narrowed = SPACE.narrowed({"speed": [2.5, 3.0], "viscosity": 1e-4, "count": [1, 2]})
    draws = [narrowed.draw(generator_of(0, "training", i)) for i in range(60)]
    speeds = np.array([draw["speed"] for draw in draws])
    assert 2.5 <= speeds.min() < 2.55 and 2.95 < speeds.max() <= 3.0
    assert {draw["viscosity"] for draw in draws} == {1e-4} and {draw["count"] for draw in draws} == {1, 2}
    assert narrowed.describe()["viscosity"] == "fixed at 0.0001"
    assert "viscosity" not in narrowed.quantile_names and len(narrowed.quantile_names) == len(SPACE.quantile_names) - 1
    assert SPACE.distributions["speed"] == Uniform(2.0, 5.0, "m/s")
    assert len(narrowed.features(draws[0])) == len(SPACE.features(draws[0])) - 2  # viscosity, and a count


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"viscosty": 1.0}, "viscosty: unknown parameter; did you mean 'viscosity'?"),
        ({"speed": [3.0, 2.5]}, r"speed = [3.0, 2.5]: the range is empty"),
        ({"speed": [3.0, 3.0]}, r"speed = [3.0, 3.0]: the range is empty"),
        ({"speed": [3.0]}, r"speed = [3.0]: the range is empty"),
        ({"speed": []}, "speed = []: give a number, or a range [low, high]"),
        ({"speed": [3.0, 4.0, 5.0]}, "give a number, or a range [low, high]"),
        ({"speed": True}, "speed = True: give a number, or a range [low, high]"),
        ({"speed": "fast"}, "speed = 'fast': give a number, or a range [low, high]"),
        ({"speed": float("nan")}, "speed = nan: give a number, or a range [low, high]"),
        ({"speed": 1.0}, "speed = 1.0: it must lie in [2, 5]"),
        ({"speed": [4.0, 6.0]}, "speed = [4.0, 6.0]: it must lie in [2, 5]"),
        ({"height": [40.0, 50.0]}, "height = [40.0, 50.0]: [40.0, 50.0] holds less than"),
        ({"count": 3}, "count = 3: give some of the values 1, 2, 4, or one of them"),
        ({"count": []}, "count = []: give some of the values 1, 2, 4, or one of them"),
        ({"medium": 3.0}, "medium = 3.0: its distribution can't be narrowed: 12 where positive"),
    ],
)
def test_what_is_no_part_of_a_distribution_is_refused(given, message):
    with pytest.raises(ValueError) as caught:
        SPACE.narrowed(given)
    assert message in str(caught.value)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 2**97 + 1])
def test_seeds_of_a_lease_give_the_generators_of_its_simulations(seed):
    """The reference is NumPy's SeedSequence, with one, two and four words of the run's seed."""
    for simulations in ((), (0,), (0, 1, 5, 2**32 - 1), (3, 2**32), tuple(range(64))):
        seeds = seeds_of(seed, "training", simulations)
        assert len(seeds) == len(simulations)
        for simulation, each in zip(simulations, seeds, strict=True):
            generator, expected = each.generator(), generator_of(seed, "training", simulation)
            assert generator.bit_generator.state == expected.bit_generator.state
            assert each.generator().random() == generator.random()  # each is fresh
    for _ in range(2):
        children, others = generator.spawn(2), each.generator().spawn(1)
        assert [child.random() for child in children] == [child.random() for child in expected.spawn(2)]
        assert others[0].random() == generator_of(seed, "training", 63).spawn(1)[0].random()
