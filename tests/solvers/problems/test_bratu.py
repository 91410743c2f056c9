"""Bratu's lower branch against SciPy and a spectral solution, and its fold."""

from functools import partial

import numpy as np
import pytest
from scipy.optimize import root

from penstock.solvers.discretisation.newton import newton
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problem import SolveError
from penstock.solvers.problems.nonlinear.bratu import Bratu
from tests.support.systems import to_scipy


def test_levels_agree_with_scipy(scipy_solve, five_point):
    n = 9
    problem = Bratu(resolution=n, num_levels=5)
    laplacian = (n + 1) ** 2 * five_point(n, lambda i, j: 1.0)
    for level, sample in enumerate(problem.simulate({"largest_rate": 6.8}, scipy_solve), start=1):
        rate = 6.8 * (1 - 0.9**level)
        assert sample.inputs["rate"] == pytest.approx(rate)
        exact = root(lambda u, rate=rate: laplacian @ u - rate * np.exp(u), np.zeros(n**2))
        np.testing.assert_allclose(sample.outputs["solution"].ravel(), exact.x, rtol=1e-6)
    assert level == 5


def test_second_order_in_space(scipy_solve):
    """The centre's value at λ = 5 against collocation on 21 x 21 Chebyshev points."""
    points = np.cos(np.pi * np.arange(21) / 20)
    weights = (-1.0) ** np.arange(21) * np.r_[2.0, np.ones(19), 2.0]
    D = np.outer(weights, 1 / weights) / (points[:, None] - points + np.eye(21))
    D -= np.diag(D.sum(axis=1))
    second = 4 * (D @ D)[1:-1, 1:-1]  # on an interval of length 1
    laplacian = np.kron(second, np.eye(19)) + np.kron(np.eye(19), second)
    exact = root(
        lambda u: laplacian @ u + 5.0 * np.exp(u),
        np.zeros(19**2),
        jac=lambda u: laplacian + np.diag(5.0 * np.exp(u)),
        tol=1e-12,
    )
    assert exact.success
    errors = []
    for n in (15, 31, 63):
        problem = Bratu(resolution=n)
        residual, assemble = (partial(method, rate=5.0) for method in (problem.residual, problem.assemble))
        u = newton(residual, assemble, np.zeros((n, n)), scipy_solve, name="rate 5")
        errors.append(abs(u[n // 2, n // 2] - exact.x[19**2 // 2]))
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(2.0, abs=0.1)


def test_jacobians_are_positive_definite_below_the_fold(scipy_solve):
    problem, least = Bratu(resolution=9), []

    def solve(system):
        assert system.is_spd
        A = to_scipy(system.A).toarray()
        np.testing.assert_array_equal(A, A.T)
        least.append(np.linalg.eigvalsh(A)[0])
        return scipy_solve(system)

    *_, last = problem.simulate({"largest_rate": 6.8}, solve)
    assert 0 < least[-1] < least[0] / 2
    assert min(least) > 0
    assert last.outputs["solution"].max() < 1.39  # the height at the fold


def test_beyond_the_fold_the_simulation_is_refused(scipy_solve):
    problem = Bratu(resolution=9, num_levels=40)
    with pytest.raises(SolveError, match=r"^Newton's method, rate (6\.\d|[7-9])[^\n]*$"):
        list(problem.simulate({"largest_rate": 9.0}, scipy_solve))


def test_jacobian_is_the_derivative_of_the_residual():
    problem = Bratu(resolution=9)
    u, v = np.random.default_rng(1).standard_normal((2, 9, 9))
    system = problem.assemble(u, 3.0)
    difference = (problem.residual(u + 1e-5 * v, 3.0) - problem.residual(u - 1e-5 * v, 3.0)) / 2e-5
    np.testing.assert_allclose(to_scipy(system.A) @ v.ravel(), difference.ravel(), rtol=1e-7, atol=1e-8)
    np.testing.assert_array_equal(system.b.array_r, -problem.residual(u, 3.0).ravel())


def test_samples_pack(scipy_solve):
    problem = Bratu(resolution=8, num_levels=4)
    samples = list(problem.simulate(problem.draw(generator_of(0, "training", 0)), scipy_solve))
    arrays = problem.layout.pack(samples)
    assert arrays["scalars"].shape == (4, 1)
    assert arrays["targets"].shape == (4, 1, 8, 8)
    assert [sample.step for sample in samples] == list(range(problem.num_steps))


@pytest.mark.parametrize("options", [{"resolution": 0}, {"num_levels": 0}])
def test_bad_options_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        Bratu(**options)
