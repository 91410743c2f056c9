"""Drifting diffusion: steps, order in space, steady state, law of the coefficient."""

import numpy as np
import pytest

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.transient.drifting_diffusion import DriftingDiffusion
from tests.support.systems import to_scipy


def test_steps_agree_with_dense_matrices(scipy_solve, five_point):
    """Steps of u' = -A(t) u + 1 against dense matrices.

    g has covariance (-Δ + 9)^-2 on 128 x 128 modes, without the mean.
    """
    n, step = 7, 0.02
    problem = DriftingDiffusion(resolution=n, num_steps=5, time_step=step)
    parameters = problem.draw(generator_of(0, "training", 0))
    k = np.arange(128)
    variances = (np.pi**2 * (k[:, None] ** 2 + k**2) + 9.0) ** -2
    first, second = (parameters[name] / np.sqrt(variances.sum() - 9.0**-2) for name in ("first", "second"))
    u = np.zeros(n**2)
    for i, sample in enumerate(problem.simulate(parameters, scipy_solve), start=1):
        a = np.exp(np.cos(2 * np.pi * i * step) * first + np.sin(2 * np.pi * i * step) * second)
        A = (n + 1) ** 2 * five_point(n, lambda i, j, a=a: (a[i[0] + 1, i[1] + 1] + a[j[0] + 1, j[1] + 1]) / 2)
        np.testing.assert_allclose(sample.inputs["before"].ravel(), u, atol=1e-13)
        np.testing.assert_allclose(sample.inputs["coefficient"], a[1:-1, 1:-1], rtol=1e-12)
        u = np.linalg.solve(np.eye(n**2) + step * A, u + step)
        np.testing.assert_allclose(sample.outputs["solution"].ravel(), u, atol=1e-13)
    assert i == 5


def test_a_step_is_of_second_order_in_space(scipy_solve):
    """The order in space for a = 1 + x + y².

    A step leads from `before` to u = sin(πx) sin(πy).
    """
    errors, step = [], 0.1
    for n in (15, 31, 63):
        x, y = np.meshgrid(*2 * [np.arange(n + 2) / (n + 1)], indexing="ij")
        u = np.sin(np.pi * x) * np.sin(np.pi * y)
        u_x, u_y = np.pi * np.cos(np.pi * x) * np.sin(np.pi * y), np.pi * np.sin(np.pi * x) * np.cos(np.pi * y)
        divergence = -2 * np.pi**2 * (1 + x + y**2) * u + u_x + 2 * y * u_y
        before = (u - step * divergence - step)[1:-1, 1:-1]
        solution = scipy_solve(DriftingDiffusion(resolution=n, time_step=step).assemble(before, 1 + x + y**2)).x
        errors.append(np.abs(solution.array_r - u[1:-1, 1:-1].ravel()).max())
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(2.0, abs=0.1)


def test_heat_equation_decays_to_its_steady_state(scipy_solve):
    """A large step with a = 1 gives the solution of -Δu = 1, 0.0736713 at the centre."""
    problem = DriftingDiffusion(resolution=31, num_steps=4, time_step=10.0)
    *_, last = problem.simulate({"first": np.zeros((33, 33)), "second": np.zeros((33, 33))}, scipy_solve)
    assert last.outputs["solution"][15, 15] == pytest.approx(0.0736713, rel=2e-3)


def test_logarithm_of_the_coefficient_has_unit_variance_at_all_times():
    problem = DriftingDiffusion(resolution=8)
    draws = [problem.draw(generator_of(0, "training", i)) for i in range(400)]
    for time in (0.0, 0.1):
        logarithms = np.log([problem.coefficient(draw, time) for draw in draws])
        assert logarithms.var(axis=0).mean() == pytest.approx(1.0, rel=0.1)


def test_samples_pack(scipy_solve):
    problem = DriftingDiffusion(resolution=8, num_steps=6)
    samples = list(problem.simulate(problem.draw(generator_of(0, "training", 1)), scipy_solve))
    arrays = problem.layout.pack(samples)
    assert arrays["fields"].shape == (6, 2, 8, 8)
    assert arrays["targets"].shape == (6, 1, 8, 8)
    assert [sample.step for sample in samples] == list(range(problem.num_steps))
    np.testing.assert_array_equal(arrays["fields"][1:, 0], arrays["targets"][:-1, 0])


def test_matrix_is_symmetric_positive_definite_and_the_guess_is_the_last_step():
    problem = DriftingDiffusion(resolution=6)
    before = np.random.default_rng(0).standard_normal((6, 6))
    system = problem.assemble(before, problem.coefficient(problem.draw(generator_of(0, "training", 2)), 0.3))
    A = to_scipy(system.A).toarray()
    np.testing.assert_array_equal(A, A.T)
    assert system.is_spd and np.linalg.eigvalsh(A)[0] > 0
    np.testing.assert_array_equal(system.guess.array_r, before.ravel())


@pytest.mark.parametrize("options", [{"resolution": 0}, {"num_steps": 0}, {"time_step": -0.1}, {"time_step": np.inf}])
def test_bad_options_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        DriftingDiffusion(**options)
