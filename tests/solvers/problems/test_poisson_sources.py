"""Poisson's equation with sine sources: the known solution, the law."""

import numpy as np
import pytest

from penstock.solvers.parameters.sines import SineField
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.steady.poisson_sources import PoissonSources
from tests.support.systems import to_scipy


def published(coefficients, resolution, exponent):
    """f and u of Raonić et al. (2023, arXiv 2302.01178) at the vertices, summed mode by mode."""
    x, y = np.meshgrid(*2 * [np.arange(resolution + 1) / resolution], indexing="ij")
    K, f, u = len(coefficients), 0.0, 0.0
    for i in range(1, K + 1):
        for j in range(1, K + 1):
            mode = coefficients[i - 1, j - 1] * np.sin(np.pi * i * x) * np.sin(np.pi * j * y)
            f = f + np.pi / K**2 * (i**2 + j**2) ** exponent * mode
            u = u + (i**2 + j**2) ** (exponent - 1) / (np.pi * K**2) * mode
    return f, u


@pytest.mark.parametrize("exponent", [0.5, -0.5])
def test_samples_are_the_published_sums_up_to_the_error_of_the_differences(exponent, scipy_solve):
    coefficients = np.random.default_rng(0).uniform(-1, 1, (16, 16))
    problem = PoissonSources(exponent=exponent)
    source = problem.space.distributions["source"].evaluate(coefficients)
    (sample,) = problem.simulate({"source": source}, scipy_solve)
    f, u = published(coefficients, 63, exponent)
    np.testing.assert_allclose(sample.inputs["source"], f, atol=1e-12)
    assert np.linalg.norm(sample.outputs["solution"] - u) < 1e-3 * np.linalg.norm(u)


def test_fourth_order(scipy_solve):
    coefficients, errors = np.random.default_rng(1).uniform(-1, 1, (3, 3)), []
    for n in (12, 24, 48):
        problem = PoissonSources(resolution=n, num_modes=3)
        source = problem.space.distributions["source"].evaluate(coefficients)
        (sample,) = problem.simulate({"source": source}, scipy_solve)
        errors.append(np.abs(sample.outputs["solution"] - published(coefficients, n, 0.5)[1]).max())
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(4.0, abs=0.15)


def test_one_mode_is_that_of_the_compact_scheme(scipy_solve):
    """sin(πix) sin(πjy) is an eigenvector of both sides of the scheme.

    With c = cos(πi/n) and d = cos(πj/n) these take it to (20 - 8 c - 8 d - 4 c d) / 6 and h² (8 + 2 c + 2 d) / 12.
    """
    n, i, j = 9, 2, 3
    coefficients = np.zeros((3, 3))
    coefficients[i - 1, j - 1] = 1.0
    problem = PoissonSources(resolution=n, num_modes=3)
    source = problem.space.distributions["source"].evaluate(coefficients)
    (sample,) = problem.simulate({"source": source}, scipy_solve)
    c, d = np.cos(np.pi * i / n), np.cos(np.pi * j / n)
    factor = (8 + 2 * c + 2 * d) / (2 * n**2 * (20 - 8 * c - 8 * d - 4 * c * d))
    np.testing.assert_allclose(sample.outputs["solution"], factor * source, atol=1e-13)


def test_coefficients_are_uniform_and_their_quantiles_those_of_the_draw():
    field = SineField(31, num_modes=4, exponent=0.5, scale=2.0)
    k = np.arange(1, 5)
    modes = np.sin(np.pi * np.outer(np.arange(32) / 31, k))
    amplitudes = 2.0 * np.sqrt(k[:, None] ** 2 + k**2)
    draws = np.stack([field.draw(generator_of(0, "training", i)) for i in range(500)])
    coefficients = 4 / 31**2 * np.einsum("nxy,xi,yj->nij", draws, modes, modes) / amplitudes  # sines are orthogonal
    assert np.abs(coefficients).max() <= 1 + 1e-12
    assert coefficients.var() == pytest.approx(1 / 3, rel=0.03)
    assert draws[:, :-1, :-1].var() == pytest.approx(field.variance, rel=0.05)
    quantiles = field.quantiles(generator_of(0, "training", 7))
    np.testing.assert_allclose(quantiles, (coefficients[7, :2, :2].ravel() + 1) / 2, atol=1e-12)
    np.testing.assert_allclose(field.at_quantiles(quantiles, generator_of(0, "training", 7)), draws[7], atol=1e-12)
    assert field.quantile_names("f") == ("f_mode_1_1", "f_mode_1_2", "f_mode_2_1", "f_mode_2_2")


def test_samples_pack_and_their_matrix_is_one_and_spd(scipy_solve):
    problem, matrices = PoissonSources(resolution=10, num_modes=4), []

    def solve(system):
        assert system.is_spd
        matrices.append(to_scipy(system.A).toarray())
        return scipy_solve(system)

    draws = [problem.draw(generator_of(0, "training", i)) for i in range(2)]
    samples = [sample for draw in draws for sample in problem.simulate(draw, solve)]
    shapes = {name: array.shape for name, array in problem.layout.pack(samples).items()}
    assert shapes == {"fields": (2, 1, 11, 11), "targets": (2, 1, 11, 11)}
    np.testing.assert_array_equal(matrices[0], matrices[1])
    np.testing.assert_array_equal(matrices[0], matrices[0].T)
    assert np.linalg.eigvalsh(matrices[0]).min() > 0


@pytest.mark.parametrize("options", [{"resolution": 16}, {"num_modes": 0}, {"exponent": np.inf}])
def test_bad_options_are_refused(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        PoissonSources(**options)
