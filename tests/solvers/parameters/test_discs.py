"""Gaps between discs, and their law where it is an integral."""

import numpy as np
import pytest
from scipy.integrate import quad

from penstock.solvers.parameters.polygons import Discs

DISCS = Discs(4, 0.05, 0.1, 0.05)


def draws(num_draws):
    generator = np.random.default_rng(0)
    return [DISCS.draw(generator) for _ in range(num_draws)]


def test_discs_keep_their_gaps():
    for discs in draws(200):
        assert ((discs[:, 2] >= 0.05) & (discs[:, 2] <= 0.1)).all()
        for i, (x, y, radius) in enumerate(discs):
            assert min(x, y, 1 - x, 1 - y) - radius > 0.05
            for other_x, other_y, other_radius in discs[:i]:
                assert np.hypot(x - other_x, y - other_y) - radius - other_radius > 0.05


def test_their_number_is_uniform_and_a_lone_one_is_uniform_where_it_finds_room():
    """Of its radius r the density is that of the room for its centre, (1 - 2 (r + gap))²."""
    discs = draws(2000)
    numbers = np.bincount([len(value) for value in discs], minlength=5)[1:]
    assert numbers == pytest.approx(4 * [500], abs=4 * np.sqrt(500 * 0.75))
    lone = np.concatenate([value for value in discs if len(value) == 1])

    def room(r):
        return (1 - 2 * (r + 0.05)) ** 2

    expected = quad(lambda r: r * room(r), 0.05, 0.1)[0] / quad(room, 0.05, 0.1)[0]
    assert lone[:, 2].mean() == pytest.approx(expected, abs=4 * 0.0144 / np.sqrt(len(lone)))
    place = (lone[:, :2] - lone[:, 2:] - 0.05) / (1 - 2 * (lone[:, 2:] + 0.05))  # uniform on [0, 1]²
    assert place.mean(axis=0) == pytest.approx([0.5, 0.5], abs=4 * 0.289 / np.sqrt(len(lone)))
    assert place.var(axis=0) == pytest.approx([1 / 12, 1 / 12], rel=0.2)


def test_their_number_is_at_its_quantile():
    generator = np.random.default_rng(0)
    numbers = [len(DISCS.at_quantiles(np.array([quantile]), generator)) for quantile in (0.01, 0.26, 0.51, 0.76, 0.99)]
    assert numbers == [1, 2, 3, 4, 4] and DISCS.quantile_names("holes") == ("holes_number",)


def test_the_distance_of_features_is_the_root_of_the_area_where_discs_differ():
    one, other = np.array([[0.3, 0.3, 0.1]]), np.array([[0.7, 0.3, 0.1], [0.3, 0.3, 0.1]])
    distance = np.linalg.norm(DISCS.features(one) - DISCS.features(other))
    assert distance == pytest.approx(np.sqrt(1 / 4), rel=0.05)  # of the area of four such discs
    assert "1 to 4 discs" in DISCS.describe()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((0, 0.05, 0.1, 0.05), "most = 0"),
        ((2, 0.1, 0.1, 0.05), "smallest = 0.1"),
        ((2, 0.05, 0.1, -0.05), "gap = -0.05"),
        ((7, 0.05, 0.1, 0.05), "most = 7"),
    ],
)
def test_bad_arguments_are_refused(arguments, name):
    with pytest.raises(ValueError, match=name):
        Discs(*arguments)
