"""Draws: their law, their resolutions, their seeds."""

import numpy as np
import pytest
import scipy.stats

from penstock.solvers.parameters.fields import BinaryField, DirichletField, GaussianField, LogNormalField, PeriodicField
from penstock.solvers.parameters.polygons import StarPolygon
from penstock.solvers.parameters.scalars import Fixed
from penstock.solvers.parameters.space import (
    Discrete,
    LogUniform,
    Normal,
    ParameterSpace,
    TruncatedNormal,
    Uniform,
    generator_of,
)


def test_field_is_the_sum_of_its_cosines():
    """The fast evaluations against the Karhunen-Loève sum written out.

    Resolutions are below and above the number of modes.
    """
    for resolution in (5, 8, 12):
        field = GaussianField(resolution, num_modes=8)
        coefficients = np.random.default_rng(1).standard_normal((8, 8))
        centres = (np.arange(resolution) + 0.5) / resolution
        x, y = np.meshgrid(centres, centres, indexing="ij")
        expected = np.zeros((resolution, resolution))
        for k1 in range(8):
            for k2 in range(8):
                norm = (np.sqrt(2) if k1 else 1.0) * (np.sqrt(2) if k2 else 1.0)
                expected += coefficients[k1, k2] * norm * np.cos(np.pi * k1 * x) * np.cos(np.pi * k2 * y)
        np.testing.assert_allclose(field.evaluate(coefficients), expected, atol=1e-12)


def test_dirichlet_field_is_the_sum_of_its_sines():
    """The fast evaluations, and those at vertices, against the Karhunen-Loève sum written out."""
    coefficients = np.random.default_rng(1).standard_normal((8, 8))
    for resolution, centring in ((5, "cells"), (8, "cells"), (9, "cells"), (12, "cells"), (12, "vertices")):
        field = DirichletField(resolution, num_modes=8, centring=centring)
        i = np.arange(resolution)
        places = (i + 0.5) / resolution if centring == "cells" else i / (resolution - 1)
        x, y = np.meshgrid(places, places, indexing="ij")
        expected = np.zeros((resolution, resolution))
        for k1 in range(1, 9):
            for k2 in range(1, 9):
                expected += coefficients[k1 - 1, k2 - 1] * 2 * np.sin(np.pi * k1 * x) * np.sin(np.pi * k2 * y)
        np.testing.assert_allclose(field.evaluate(coefficients), expected, atol=1e-12)


class UnitNoise:
    """A generator whose numbers are 0, except for one, which is 1."""

    def __init__(self, place):
        self.place = place

    def standard_normal(self, size):
        return np.eye(1, size, self.place)[0]


@pytest.mark.parametrize("name", ["bridge", "cosines"])
def test_a_field_on_an_interval_has_the_covariance_of_greens_function(name):
    """(-d²/dx² + τ²)^-1 in closed form: the Brownian bridge for 0 at both ends and τ = 0, else cosh cosh / τ sinh τ.

    The mean mode 1 / τ² is dropped. What 1000 modes leave out is about 2 / (1000 π²) at most.
    """
    options = {"dimension": 1, "exponent": 1.0, "num_modes": 1000, "centring": "vertices"}
    x = np.arange(9) / 8
    low, high = np.minimum(x, x[:, None]), np.maximum(x, x[:, None])
    if name == "bridge":
        field = DirichletField(9, inverse_length=0.0, **options)
        count, expected = 1000, low * (1 - high)
    else:
        field = GaussianField(9, inverse_length=2.0, **options)
        count, expected = 999, np.cosh(2 * low) * np.cosh(2 * (1 - high)) / (2 * np.sinh(2)) - 1 / 4
    draws = np.stack([field.draw(UnitNoise(place)) for place in range(count)])
    np.testing.assert_allclose(draws.T @ draws, expected, atol=2 / (990 * np.pi**2))


def test_a_smooth_function_on_an_interval_is_0_at_both_ends_or_not():
    ends = {}
    for field in (DirichletField, GaussianField):
        value = field(33, dimension=1, exponent=3.0, centring="vertices").draw(generator_of(0, "training", 1))
        ends[field] = np.abs(value[[0, -1]]) / np.abs(value).max()
    assert ends[DirichletField].max() < 1e-12 and ends[GaussianField].min() > 1e-3


def test_the_variance_of_a_dirichlet_field_is_that_of_its_draws():
    """Averaged over the domain, against the sum of the eigenvalues of (-Laplacian + 9)^-2."""
    field = DirichletField(17, num_modes=16)
    k = np.arange(1, 17)
    eigenvalues = (np.pi**2 * (k[:, None] ** 2 + k**2) + 9.0) ** -2
    assert field.variance == pytest.approx(eigenvalues.sum())
    draws = np.stack([field.draw(generator_of(0, "training", i)) for i in range(1000)])
    assert draws.var(axis=0).mean() == pytest.approx(eigenvalues.sum(), rel=0.08)


def test_values_sit_at_cells_or_vertices_of_one_function():
    """The middle of five cells is that of five vertices; and no third name is known."""
    for field in (GaussianField, DirichletField):
        cells, vertices = (field(5, centring=each).draw(generator_of(3, "x", 7)) for each in ("cells", "vertices"))
        assert cells[2, 2] == pytest.approx(vertices[2, 2], abs=1e-12)
        with pytest.raises(ValueError, match="centring='corners'"):
            field(5, centring="corners")


def test_a_draw_is_one_function_at_every_resolution():
    coarse = GaussianField(32).draw(generator_of(3, "training", 7))
    for factor in (3, 5):  # odd factors: the coarse centres are among the fine ones; 160 is above the 128 modes
        fine = GaussianField(32 * factor).draw(generator_of(3, "training", 7))
        np.testing.assert_allclose(fine[factor // 2 :: factor, factor // 2 :: factor], coarse, atol=1e-12)


def test_variance_and_mean_mode():
    """The pointwise variance against the sum of eigenvalues, and the mean against 0.

    The eigenvalues are those of (-Laplacian + 9)^-2.
    """
    field = GaussianField(16, num_modes=16)
    draws = np.stack([field.draw(generator_of(0, "training", i)) for i in range(4000)])
    k = np.arange(16)
    eigenvalues = (np.pi**2 * (k[:, None] ** 2 + k[None, :] ** 2) + 9.0) ** -2
    eigenvalues[0, 0] = 0.0
    # The mean of φ_k² over the cell centres is 1 for every k < n.
    assert draws.var(axis=0).mean() == pytest.approx(eigenvalues.sum(), rel=0.05)
    np.testing.assert_allclose(draws.mean(axis=(1, 2)), 0.0, atol=1e-12)


def test_draws_depend_on_seed_design_and_simulation_alone():
    field = GaussianField(8)
    reference = field.draw(generator_of(0, "training", 5))
    np.testing.assert_array_equal(field.draw(generator_of(0, "training", 5)), reference)
    for other in ((1, "training", 5), (0, "validation", 5), (0, "training", 6)):
        assert np.abs(field.draw(generator_of(*other)) - reference).max() > 1e-3


def test_binary_field_takes_its_two_values_about_equally_often():
    field = BinaryField(GaussianField(32), above=12.0, below=3.0)
    draws = np.stack([field.draw(generator_of(0, "training", i)) for i in range(400)])
    assert set(np.unique(draws)) == {3.0, 12.0}
    assert (draws == 12.0).mean() == pytest.approx(0.5, abs=0.03)


def test_distance_of_binary_fields_is_the_area_where_they_differ():
    field = BinaryField(GaussianField(32), above=12.0, below=3.0)
    a, b = (field.draw(generator_of(0, "training", i)) for i in (0, 1))
    distance = np.linalg.norm(field.features(a) - field.features(b))
    assert distance == pytest.approx(2 * np.sqrt((a != b).mean()))


def test_uniform_stays_in_its_bounds_and_refuses_bad_ones():
    space = ParameterSpace(speed=Uniform(2.0, 3.0, "m/s"), angle=Uniform(0.0, 1.0))
    draws = [space.draw(generator_of(0, "training", i)) for i in range(500)]
    speeds = np.array([draw["speed"] for draw in draws])
    assert 2.0 <= speeds.min() < 2.02 and 2.98 < speeds.max() <= 3.0
    assert space.features(draws[0]).shape == (2,)
    with pytest.raises(ValueError, match="low = 3"):
        Uniform(3.0, 2.0)


def test_normal_has_its_mean_and_deviation_and_refuses_bad_ones():
    space = ParameterSpace(height=Normal(3.0, 0.5, "m"), angle=Normal())
    draws = [space.draw(generator_of(0, "training", i)) for i in range(2000)]
    heights = np.array([draw["height"] for draw in draws])
    assert scipy.stats.kstest(heights, scipy.stats.norm(3.0, 0.5).cdf).pvalue > 1e-3
    features = np.stack([space.features(draw) for draw in draws])
    np.testing.assert_allclose(features[:, 0], (heights - 3.0) / 0.5)
    assert features.std(axis=0) == pytest.approx([1.0, 1.0], rel=0.05)
    assert Normal(3.0, 0.5, "m").describe() == "normal with mean 3 and standard deviation 0.5, in m"
    for deviation in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"deviation = {deviation}"):
            Normal(3.0, deviation)


def test_ranks_of_a_field_are_the_quantiles_of_its_leading_modes():
    """Quantiles against quadrature of the drawn field times each cosine.

    At 32 cells the 16 x 16 modes are orthogonal exactly.
    """
    field = GaussianField(32, num_modes=16)
    value, quantiles = field.draw(generator_of(0, "training", 7)), field.quantiles(generator_of(0, "training", 7))
    cosine = np.sqrt(2) * np.cos(np.pi * (np.arange(32) + 0.5) / 32)
    x, y = cosine[:, None] * np.ones(32), cosine[None, :] * np.ones((32, 1))
    for quantile, mode, square in zip(quantiles, (y, x, x * y), (1, 1, 2), strict=True):
        coefficient = (value * mode).mean()
        deviation = (np.pi**2 * square + 9.0) ** -1
        assert quantile == pytest.approx(scipy.stats.norm.cdf(coefficient / deviation), abs=1e-10)
    assert field.quantile_names("source") == ("source_mode_0_1", "source_mode_1_0", "source_mode_1_1")


def test_ranks_are_uniform_whatever_the_range():
    medium = BinaryField(GaussianField(8), above=2.0, below=1.0)
    space = ParameterSpace(speed=Uniform(2.0, 30.0), height=Normal(-4.0, 3.0), medium=medium)
    quantiles = np.stack([space.quantiles(generator_of(0, "training", i)) for i in range(500)])
    assert quantiles.shape == (500, len(space.quantile_names)) == (500, 5)
    for column in quantiles.T:
        assert scipy.stats.kstest(column, "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(quantiles.T) - np.eye(5)).max() < 0.15


@pytest.mark.parametrize(
    "distribution",
    [
        *(Uniform(2.0, 5.0), LogUniform(2.0, 5.0), Normal(2.0, 5.0), TruncatedNormal(0.0, 1.0, 0.0, 2.0)),
        *(Discrete((1, 2)), Fixed(1), GaussianField(8), DirichletField(8), PeriodicField(8), StarPolygon(5, 0.1, 0.2)),
        BinaryField(GaussianField(8), above=2.0, below=1.0),
    ],
)
def test_ranks_use_the_generator_as_the_draw_does(distribution):
    """The generator is left as `draw` leaves it.

    So the quantiles of the next distribution are those of its draw.
    """
    first, second = generator_of(0, "training", 1), generator_of(0, "training", 1)
    distribution.draw(first)
    distribution.quantiles(second)
    assert first.random() == second.random()


def test_the_rank_of_a_uniform_number_is_its_place_in_the_interval():
    value = Uniform(2.0, 5.0).draw(generator_of(0, "training", 3))
    assert Uniform(2.0, 5.0).quantiles(generator_of(0, "training", 3)) == pytest.approx([(value - 2) / 3])


def test_the_rank_of_a_normal_number_is_its_quantile():
    value = Normal(2.0, 5.0).draw(generator_of(0, "training", 3))
    expected = scipy.stats.norm(2.0, 5.0).cdf(value)
    assert Normal(2.0, 5.0).quantiles(generator_of(0, "training", 3)) == pytest.approx([expected])


def test_a_distribution_without_ranks_leaves_its_space_without():
    class Coin:
        def draw(self, generator):
            return generator.integers(2)

    space = ParameterSpace(speed=Uniform(2.0, 3.0), coin=Coin())
    assert space.quantile_names == () and space.quantiles(generator_of(0, "training", 0)).shape == (0,)


def test_gaussian_field_in_three_dimensions_has_its_covariance():
    """The covariance against the Karhunen-Loève sum at two points.

    The sum is over the modes of the grid.
    """
    n, k = 8, np.arange(8)
    field = GaussianField(n, dimension=3, num_modes=8)
    draws = np.array([field.draw(np.random.default_rng(i)) for i in range(2000)])
    cosines = np.sqrt(2) * np.cos(np.pi * np.outer((np.arange(n) + 0.5) / n, k))
    cosines[:, 0] = 1.0
    variances = 1 / (np.pi**2 * (k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) + 9) ** 2
    variances[0, 0, 0] = 0.0
    here, there = (1, 2, 3), (3, 2, 5)
    for point in (here, there):
        products = [cosines[p] * cosines[q] for p, q in zip(here, point, strict=True)]
        expected = np.einsum("xyz,x,y,z->", variances, *products)
        seen = np.mean(draws[(slice(None), *here)] * draws[(slice(None), *point)])
        spread = np.std(draws[(slice(None), *here)] * draws[(slice(None), *point)]) / np.sqrt(len(draws))
        assert abs(seen - expected) < 4 * spread


def test_in_three_dimensions_too_a_draw_is_one_function_at_every_resolution():
    coarse, fine = (GaussianField(n, dimension=3, num_modes=16).draw(generator_of(3, "training", 7)) for n in (8, 24))
    np.testing.assert_allclose(fine[1::3, 1::3, 1::3], coarse, atol=1e-12)


def test_a_log_normal_field_has_the_unit_variance_of_its_logarithm():
    field = LogNormalField(GaussianField(16, num_modes=16))
    draws = np.log([field.draw(generator_of(0, "training", i)) for i in range(2000)])
    assert draws.var(axis=0).mean() == pytest.approx(1.0, rel=0.05)
    features = [field.features(np.exp(draw)) for draw in draws[:2]]
    assert np.linalg.norm(features[0]) == pytest.approx(np.sqrt(np.mean(draws[0] ** 2)))
