"""Boundary functions: harmonic solutions, the maximum principle, the law."""

import numpy as np
import pytest

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.steady.poisson_boundary import PoissonBoundary


def around(u, n):
    """The values of u(x, y) along the sides, counter-clockwise from (0, 0)."""
    t, zero, one = np.arange(n) / n, np.zeros(n), np.ones(n)
    return np.concatenate([u(t, zero), u(one, t), u(1 - t, one), u(zero, 1 - t)])


def vertices(n):
    return np.meshgrid(*2 * [np.arange(n + 1) / n], indexing="ij")


def solution_of(u, n, solve):
    (sample,) = PoissonBoundary(resolution=n).simulate({"boundary": around(u, n)}, solve)
    return sample


@pytest.mark.parametrize("power", [1, 2, 3, 4, 5])
def test_harmonic_polynomials_are_exact_and_sides_are_where_they_say(power, scipy_solve):
    """The nine points are exact on Re and Im of (x + iy)^k for k < 8."""

    def u(x, y):
        return np.real((1 - 2j) * (x + 1j * y) ** power)

    sample = solution_of(u, 6, scipy_solve)
    np.testing.assert_allclose(sample.outputs["solution"], u(*vertices(6)), atol=1e-12)
    t = np.arange(7) / 6
    for side, values in {
        "west": u(0 * t, t),
        "east": u(0 * t + 1, t),
        "south": u(t, 0 * t),
        "north": u(t, 0 * t + 1),
    }.items():
        np.testing.assert_allclose(sample.inputs[side], values, atol=1e-14)


def test_sixth_order_for_harmonic_functions(scipy_solve):
    """The order for u = exp(4x) cos(4y), without a source (Collatz 1960)."""

    def u(x, y):
        return np.exp(4 * x) * np.cos(4 * y)

    errors = []
    for n in (8, 16, 32):
        errors.append(np.abs(solution_of(u, n, scipy_solve).outputs["solution"] - u(*vertices(n))).max())
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(6.0, abs=0.3)


def test_boundary_functions_have_the_covariance_that_is_claimed():
    """Variance 1 and the correlation of 625 (-d²/ds² + 25)^-2 at a distance s on the line, without its mean.

    On the line that is 1.25 (1 + 5 s) exp(-5 s), of mean 1/4 over the period 4; images at 4 - s hardly count.
    """
    problem = PoissonBoundary(resolution=16)
    draws = np.stack([problem.draw(generator_of(0, "training", i))["boundary"] for i in range(3000)])
    for shift in (0, 4, 12):
        s = shift / 16
        expected = 1.25 * (1 + 5 * s) * np.exp(-5 * s) - 0.25
        assert np.mean(draws * np.roll(draws, shift, axis=1)) == pytest.approx(expected, abs=0.03)
    np.testing.assert_allclose(draws.mean(axis=1), 0.0, atol=1e-12)


def test_solutions_keep_the_maximum_principle_and_samples_pack(scipy_solve):
    problem = PoissonBoundary(resolution=12)
    draws = [problem.draw(generator_of(0, "training", i)) for i in range(3)]
    samples = [sample for draw in draws for sample in problem.simulate(draw, scipy_solve)]
    arrays = problem.layout.pack(samples)
    assert {name: array.shape for name, array in arrays.items()} == {"fields": (3, 4, 13), "targets": (3, 1, 13, 13)}
    for draw, sample in zip(draws, samples, strict=True):
        inside = sample.outputs["solution"][1:-1, 1:-1]
        assert draw["boundary"].min() < inside.min() < inside.max() < draw["boundary"].max()
        for first, second in (("west", "south"), ("east", "south")):
            assert sample.inputs[first][0] == sample.inputs[second][0 if first == "west" else -1]


def test_too_coarse_a_grid_is_refused():
    with pytest.raises(ValueError, match="resolution = 1"):
        PoissonBoundary(resolution=1)
