"""Random polygons: their shape and their law."""

import numpy as np
import pytest
import scipy.stats

from penstock.solvers.parameters.polygons import StarPolygon
from penstock.solvers.parameters.space import generator_of


@pytest.mark.parametrize("num_corners", [3, 4, 9])
def test_all_of_a_polygon_is_seen_from_its_centre(num_corners):
    """Every triangle of the centre and an edge has a positive area, and they go round once."""
    law = StarPolygon(num_corners, 0.1, 0.5, turn=0.249, centre=(0.3, -0.2))
    for i in range(200):
        x, y = (law.draw(generator_of(0, "training", i)) - [0.3, -0.2]).T
        areas = (x * np.roll(y, -1) - y * np.roll(x, -1)) / 2
        assert areas.shape == (num_corners,) and areas.min() > 0
        angles = np.unwrap(np.arctan2([*y, y[0]], [*x, x[0]]))
        assert angles[-1] - angles[0] == pytest.approx(2 * np.pi)


def test_radii_and_angles_have_their_laws():
    """Uniform, by the Kolmogorov-Smirnov test of SciPy; without turns the angles are those of a regular polygon."""
    draws = np.stack([StarPolygon(5, 0.2, 0.6, turn=0.2).draw(generator_of(0, "x", i)) for i in range(300)])
    radii, angles = np.linalg.norm(draws, axis=2), np.arctan2(draws[..., 1], draws[..., 0])
    turns = angles * 5 / (2 * np.pi) - np.arange(5)
    turns -= 5 * np.round(turns / 5)
    for corner in range(5):
        assert scipy.stats.kstest(radii[:, corner], scipy.stats.uniform(0.2, 0.4).cdf).pvalue > 1e-3
        assert scipy.stats.kstest(turns[:, corner], scipy.stats.uniform(-0.2, 0.4).cdf).pvalue > 1e-3
    still = StarPolygon(4, 0.2, 0.6).at_quantiles(np.full(4, 0.5), generator_of(0, "x", 0))
    np.testing.assert_allclose(still, 0.4 * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]]), atol=1e-15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, 0.1, 0.2), "num_corners = 2 is too small"),
        ((5, 0.0, 0.2), "smallest = 0.0 must be above 0"),
        ((5, 0.3, 0.2), "smallest = 0.3 must be above 0 and below largest = 0.2"),
        ((5, 0.1, 0.2, 0.25), "turn = 0.25 must be from 0 to below 1/4"),
    ],
)
def test_options_that_are_none_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        StarPolygon(*arguments)
