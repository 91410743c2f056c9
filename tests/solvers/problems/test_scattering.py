"""Fluxes of waves with known derivatives, the symmetry of their map, inclusions by hand."""

import numpy as np
import pytest

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.inverse.scattering import Scattering
from penstock.solvers.problems.inverse.traces import by_side


def vertices(n):
    return np.meshgrid(*2 * [np.arange(n + 1) / n], indexing="ij")


def on_boundary(values):
    values = np.array(values, float)
    values[:, 1:-1, 1:-1] = 0.0
    return values


def test_fluxes_in_a_medium_that_varies_have_second_order(scipy_solve):
    """For u = (2 + cos 2x) cos 4y, of which -Δu / u = 16 + 4 cos 2x / (2 + cos 2x) is (ω κ)²."""
    errors = []
    for n in (40, 80, 160):
        x, y = vertices(n)
        squares = 16 + 4 * np.cos(2 * x) / (2 + np.cos(2 * x))
        u = (2 + np.cos(2 * x)) * np.cos(4 * y)
        u_x, u_y = -2 * np.sin(2 * x) * np.cos(4 * y), -4 * (2 + np.cos(2 * x)) * np.sin(4 * y)
        problem = Scattering(resolution=n, wavenumber=1.0)
        sides = by_side(problem.fluxes(squares, on_boundary([u]), scipy_solve))
        exact = {"west": -u_x[0], "east": u_x[-1], "south": -u_y[:, 0], "north": u_y[:, -1]}
        differences = [sides[side][:, 0] - exact[side][1:-1] for side in exact]
        errors.append(np.sqrt(np.sum(np.square(differences)) / n))
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(2.0, abs=0.2)


def test_a_plane_wave_in_a_uniform_medium_goes_on_as_it_is(scipy_solve):
    """For κ = 1 the boundary values are those of a plane wave, whose derivatives are known: 69 squares, ω = 2π."""
    problem = Scattering(num_functions=5)
    squares = np.full((70, 70), (2 * np.pi) ** 2)
    sides = by_side(problem.fluxes(squares, problem.boundary_values, scipy_solve))
    along = np.arange(1, 69) / 69
    for number, angle in enumerate(np.pi * (np.arange(5) + 0.5) / 5):
        east = -2 * np.pi * np.cos(angle) * np.sin(2 * np.pi * (np.cos(angle) + along * np.sin(angle)))
        south = 2 * np.pi * np.sin(angle) * np.sin(2 * np.pi * along * np.cos(angle))
        np.testing.assert_allclose(sides["east"][:, number], east, atol=0.05)
        np.testing.assert_allclose(sides["south"][:, number], south, atol=0.05)


def test_the_map_from_waves_to_fluxes_is_symmetric(scipy_solve):
    """What ∫ g Λh = ∫ ∇u·∇v - (ω κ)² u v says of the map Λ, in a rough medium."""
    n, rng = 9, np.random.default_rng(1)
    waves = on_boundary(rng.standard_normal((4, n + 1, n + 1)))
    squares = rng.uniform(1, 30, (n + 1, n + 1))
    flows = Scattering(resolution=n, wavenumber=1.0).fluxes(squares, waves, scipy_solve)
    energies = np.einsum("ixy,jxy->ij", waves, flows) / n
    np.testing.assert_allclose(energies, energies.T, atol=1e-10)


def test_a_sample_holds_inclusions_at_their_places(scipy_solve):
    """One inclusion at (0.3, 0.8), where κ is 2; those beyond the number drawn are left out."""
    problem = Scattering(resolution=30, num_functions=3)
    places = {"x_1": 0.3, "y_1": 0.8, **{f"{axis}_{k}": 0.5 for axis in "xy" for k in (2, 3, 4)}}
    (sample,) = samples = list(problem.simulate({"num_inclusions": 1, **places}, scipy_solve))
    refraction = sample.inputs["refraction"]
    assert refraction[9, 24] == pytest.approx(2.0) and refraction[15, 15] == pytest.approx(1.0, abs=1e-4)
    assert refraction[12, 24] == pytest.approx(1 + np.exp(-2e4 / 3 * 0.1**4))
    arrays = problem.layout.pack(samples)
    assert arrays["fields"].shape == (1, 1, 31, 31) and arrays["targets"].shape == (1, 4, 29, 3)


def test_refraction_stays_in_the_published_range():
    """κ of the published set lies in [1, 4.655]; ours reaches beyond 2 and never 5."""
    problem = Scattering(resolution=30, num_functions=1)
    largest = [problem.refraction(problem.draw(generator_of(0, "training", i))).max() for i in range(200)]
    assert min(largest) > 1.3 and 2.5 < max(largest) < 4.655


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 1}, "resolution = 1 is too small: an inner vertex needs 2 squares per side"),
        ({"num_functions": 0}, "num_functions = 0 is too small"),
        ({"wavenumber": np.inf}, "wavenumber = inf must be above 0 and finite"),
        ({"resolution": 20}, "resolution = 20 has 4.0 points per wavelength at wavenumber = 31.4"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Scattering(**options)
