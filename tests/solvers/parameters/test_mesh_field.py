"""Matern fields on meshes: their covariance, at the boundary too."""

import numpy as np
import pytest
from scipy.special import k1

from penstock.geometry import Mesh
from penstock.solvers.parameters.mesh_field import MaternField
from penstock.solvers.parameters.space import generator_of


class UnitNoise:
    """A generator whose numbers are 0, except for one, which is 1."""

    def __init__(self, place):
        self.place = place

    def standard_normal(self, size):
        return np.eye(1, size, self.place)[0]


def interval(num_points):
    def build():
        numbers = np.arange(num_points)
        return numbers[:, None] / (num_points - 1), np.stack([numbers[:-1], numbers[1:]], axis=1)

    return Mesh(num_points=num_points, dimension=1, build=build)


def square(n):
    """n x n vertices, every cell cut in two."""

    def build():
        x = np.arange(n) / (n - 1)
        points = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)
        at = np.arange(n * n).reshape(n, n)
        corners = [at[:-1, :-1], at[1:, :-1], at[1:, 1:], at[:-1, 1:]]
        a, b, c, d = (corner.ravel() for corner in corners)
        return points, np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])

    return Mesh(num_points=n * n, dimension=2, build=build)


def covariance(field, point):
    """That of a point with all others, exactly: a draw is linear in its numbers."""
    size = len(field.quantile_names("")) + field.mesh.num_points
    draws = np.stack([field.draw(UnitNoise(place)) for place in range(size)])
    return draws.T @ draws[:, point]


def matern(exponent, distance):
    """Of σ = κ = 1 in one dimension, ν = 3/2 or 7/2, from the closed forms of half-integer ν."""
    r = np.abs(distance)
    return np.exp(-r) * (1 + r if exponent == 2 else 1 + r + 2 * r**2 / 5 + r**3 / 15)


@pytest.mark.parametrize("exponent", [2, 4])
def test_covariance_on_an_interval_with_its_mirror_images(exponent):
    """Neumann conditions add the images of a point in both ends; the error falls with h²."""
    kappa, errors = 10.0, []
    for num_points in (41, 81):
        field = MaternField(interval(num_points), inverse_length=kappa, exponent=exponent, deviation=3.0)
        x = np.arange(num_points) / (num_points - 1)
        for place in (0, num_points // 4):
            images = [side * x[place] + 2 * k for side in (-1, 1) for k in (-2, -1, 0, 1, 2)]
            expected = 9 * sum(matern(exponent, kappa * (x - image)) for image in images)
            errors.append(np.abs(covariance(field, place) - expected).max() / 9)
    assert errors[2] < 0.02 and errors[3] < 0.01
    assert errors[0] / errors[2] == pytest.approx(4, rel=0.2) and errors[1] / errors[3] == pytest.approx(4, rel=0.2)


def test_covariance_in_the_middle_of_a_square():
    """ν = 1: κr K₁(κr) (Lindgren et al. 2011, eq. 1), where the boundary is far.

    The spectrum (κ² + k²)^-2 makes the error fall with h² |log h|.
    """
    kappa, errors = 9.0, []
    for n in (17, 33):
        middle, end = (n // 2) * (n + 1), n // 2 + (n - 1) // 4 + 1
        field = MaternField(square(n), inverse_length=kappa)
        seen = covariance(field, middle).reshape(n, n)[n // 2, n // 2 : end]
        distances = kappa * np.arange(1, (n - 1) // 4 + 1) / (n - 1)
        errors.append(np.abs(seen - [1, *(distances * k1(distances))]).max())
    assert errors[1] < 0.045 and errors[0] / errors[1] > 2.2


def test_leading_modes_are_normal_numbers_of_their_own():
    """Quantiles are uniform, and the field at them has them: by the weak form K g = M^(1/2) ξ, tested with 1 and x."""
    mesh = interval(41)
    field = MaternField(mesh, inverse_length=2.0)
    quantiles = np.array([0.9, 0.2])
    assert field.quantile_names("load") == ("load_mean", "load_slope_x")
    draws = [field.at_quantiles(quantiles, generator_of(0, "training", i)) for i in range(3)]
    integrals = [mesh.weights @ draw for draw in draws]  # the integral of g is κ^-2 times that of the noise
    np.testing.assert_allclose(integrals, integrals[0], rtol=1e-10)
    expected = field.at_quantiles(np.array([0.5, 0.2]), generator_of(0, "training", 0))
    difference = draws[0] - expected
    np.testing.assert_allclose(difference, difference[0], rtol=1e-9)  # the mode of constants is a constant


def test_features_of_two_draws_are_about_the_root_of_two_apart():
    field = MaternField(interval(81), inverse_length=20.0, deviation=5.0)
    features = np.stack([field.features(field.draw(generator_of(0, "training", i))) for i in range(400)])
    apart = np.linalg.norm(features[::2] - features[1::2], axis=1)
    assert np.mean(apart**2) == pytest.approx(2.1, rel=0.1)  # 2, and 1/40 more at each end


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inverse_length": 0.0}, "inverse_length = 0.0 must be above 0"),
        ({"inverse_length": 1.0, "exponent": 3}, "exponent = 3 must be 2 or 4"),
        ({"inverse_length": 1.0, "deviation": 0.0}, "deviation = 0.0 must be above 0"),
    ],
)
def test_options_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MaternField(interval(5), **options)


def test_a_mesh_too_coarse_for_the_field_is_refused():
    with pytest.raises(ValueError, match=r"inverse_length = 50\.0 is too large for the mesh: its longest edge, 0\.1"):
        MaternField(interval(11), inverse_length=50.0).draw(generator_of(0, "training", 0))
