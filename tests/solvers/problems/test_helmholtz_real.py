"""Standing waves: a cosine series, orders of convergence, elements one by one."""

import numpy as np
import pytest

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.steady.helmholtz_real import HelmholtzReal
from tests.support.systems import to_scipy


def cosine_series(n, wavenumber, num_modes=200):
    """u for c = 20 at the vertices, from the cosine coefficients of the load.

    u = Σ_m f_m cos(mπx) Y_m(y) with Y'' = (m²π² - k²) Y, Y'(0) = 0, Y'(1) = 1: for κ² = m²π² - k² > 0 that is
    cosh(κy) / (κ sinh κ), else with -κ² for κ² a cosine over -κ sin κ.
    """
    x = np.arange(n + 1) / n
    u = np.zeros((n + 1, n + 1))
    for m in range(num_modes):
        coefficient = 2 * (np.sin(0.65 * m * np.pi) - np.sin(0.35 * m * np.pi)) / (m * np.pi) if m else 0.3
        square = (m * np.pi) ** 2 - wavenumber**2
        kappa = np.sqrt(abs(square))
        if square > 0:  # cosh(κy) / sinh κ without overflow
            along_y = (np.exp(kappa * (x - 1)) + np.exp(-kappa * (x + 1))) / (1 - np.exp(-2 * kappa)) / kappa
        else:
            along_y = -np.cos(kappa * x) / (kappa * np.sin(kappa))
        u += coefficient * np.outer(np.cos(m * np.pi * x), along_y)
    return u


def test_second_order_towards_the_cosine_series_of_a_uniform_medium(scipy_solve):
    """The order at k = 5, in the mean square; resolutions are such that vertices lie on the ends of the load."""
    errors = []
    for n in (20, 40, 80):
        problem = HelmholtzReal(resolution=n, wavenumber=5.0)
        (sample,) = problem.simulate({"medium": np.zeros((n + 1, n + 1))}, scipy_solve)
        np.testing.assert_array_equal(sample.inputs["speed"], 20.0)
        errors.append(np.linalg.norm(sample.outputs["solution"] - cosine_series(n, 5.0)) / n)
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(2.0, abs=0.1)


def test_second_order_in_a_medium_that_varies(scipy_solve):
    """The order for u = cos(πx) cos(2πy), (ω/c)² = 9 + x + 2 y², and the load f = 5π² u - (ω/c)² u."""
    errors = []
    for n in (16, 32, 64):
        x, y = np.meshgrid(*2 * [np.arange(n + 1) / n], indexing="ij")
        u, squares = np.cos(np.pi * x) * np.cos(2 * np.pi * y), 9 + x + 2 * y**2
        side = np.ones(n + 1)
        side[[0, -1]] = 0.5
        load = np.outer(side, side) / n**2 * (5 * np.pi**2 - squares) * u  # the trapezoidal rule
        problem = HelmholtzReal(resolution=n, wavenumber=3.0)
        solution = scipy_solve(problem.assemble(squares, load)).x.array_r
        errors.append(np.abs(solution - u.ravel()).max())
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(2.0, abs=0.1)


def test_systems_equal_elements_summed_one_by_one_by_quadrature():
    """Bilinear elements by 2 x 2 Gauss points, which are exact for them."""
    n = 4
    problem = HelmholtzReal(resolution=n, wavenumber=4.0)
    squares = np.random.default_rng(0).uniform(10, 20, (n + 1, n + 1))
    points = 0.5 + np.array([-1, 1]) / np.sqrt(12)
    A = np.zeros(2 * [(n + 1) ** 2])
    for i in range(n):
        for j in range(n):
            corners = [(i, j), (i, j + 1), (i + 1, j), (i + 1, j + 1)]
            numbers = [a * (n + 1) + b for a, b in corners]
            square = np.mean([squares[corner] for corner in corners])
            for x in points:
                for y in points:
                    hats = np.outer([1 - x, x], [1 - y, y]).ravel()
                    slopes = n * np.array([np.outer([-1, 1], [1 - y, y]), np.outer([1 - x, x], [-1, 1])]).reshape(2, 4)
                    A[np.ix_(numbers, numbers)] += (slopes.T @ slopes - square * np.outer(hats, hats)) / (4 * n**2)
    system = problem.assemble(squares, problem.load)
    np.testing.assert_allclose(to_scipy(system.A).toarray(), A, atol=1e-13)
    assert not system.is_spd
    eigenvalues = np.linalg.eigvalsh(A)
    assert eigenvalues[0] < 0 < eigenvalues[-1]


@pytest.mark.parametrize("n", [7, 20])
def test_the_load_is_that_of_a_unit_flux_on_three_tenths_of_the_top(n):
    """Hat functions integrated on a fine grid; their sum is the length 0.3, their first moment that of its middle."""
    load = HelmholtzReal(resolution=n, wavenumber=2.0).load
    assert np.abs(load[:, :-1]).max() == 0
    x = 0.35 + 0.3 * (np.arange(30_000) + 0.5) / 30_000
    hats = np.maximum(0, 1 - np.abs(n * x - np.arange(n + 1)[:, None]))
    np.testing.assert_allclose(load[:, -1], 0.3 * hats.mean(axis=1), atol=1e-8)
    assert load.sum() == pytest.approx(0.3) and load[:, -1] @ np.arange(n + 1) / n == pytest.approx(0.15)


def test_samples_of_draws_pack_and_have_the_size_that_is_known(scipy_solve):
    """max |u| of the published set lies between 0.03 and 0.05 for most draws; c is within 20 ± 0.5."""
    problem = HelmholtzReal()
    samples = [s for i in range(2) for s in problem.simulate(problem.draw(generator_of(0, "training", i)), scipy_solve)]
    shapes = {name: array.shape for name, array in problem.layout.pack(samples).items()}
    assert shapes == {"fields": (2, 1, 101, 101), "targets": (2, 1, 101, 101)}
    for sample in samples:
        assert 0.02 < np.abs(sample.outputs["solution"]).max() < 0.07
        assert 0.01 < np.abs(sample.inputs["speed"] - 20).max() < 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 1}, "resolution = 1"),
        ({"wavenumber": 0.0}, "wavenumber = 0"),
        ({"resolution": 32}, "resolution = 32 has 4.0 points per wavelength at wavenumber = 50.*resolution = 40"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        HelmholtzReal(**options)
