"""Nonlinear diffusion: orders of Newton and in space, SciPy's root, the Jacobian."""

from functools import partial

import numpy as np
import pytest
from scipy.optimize import root

from penstock.solvers.discretisation.newton import newton
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.iterative.petsc import Krylov
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.nonlinear.nonlinear_diffusion import NonlinearDiffusion
from tests.support.systems import to_scipy


def test_newton_converges_quadratically_to_a_manufactured_solution(scipy_solve):
    """The order for u = 2 sin(πx) sin(πy), by ∇·((1 + u²) ∇u) = Δ(u + u³/3)."""
    errors = []
    for n in (15, 31, 63):
        x, y = np.meshgrid(*2 * [np.arange(1, n + 1) / (n + 1)], indexing="ij")
        s = np.sin(np.pi * x) * np.sin(np.pi * y)
        squares = (np.cos(np.pi * x) * np.sin(np.pi * y)) ** 2 + (np.sin(np.pi * x) * np.cos(np.pi * y)) ** 2
        forcing = (1 + 4 * s**2) * 4 * np.pi**2 * s - 2 * 2 * s * 4 * np.pi**2 * squares
        problem, norms = NonlinearDiffusion(resolution=n), []

        def residual(u, problem=problem, forcing=forcing, norms=norms):
            F = problem.residual(u, forcing)
            norms.append(np.linalg.norm(F))
            return F

        assemble = partial(problem.assemble, forcing=forcing)
        u = newton(residual, assemble, np.zeros((n, n)), scipy_solve, name="manufactured")
        errors.append(np.linalg.norm(u - 2 * s) / (n + 1))
        norms = np.array(norms)
        rates = np.log(norms[2:] / norms[1:-1]) / np.log(norms[1:-1] / norms[:-2])
        assert rates[-1] > 1.7
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(2.0, abs=0.1)


def test_levels_agree_with_scipy(scipy_solve, five_point):
    n = 8
    problem = NonlinearDiffusion(resolution=n, num_levels=3)
    parameters = problem.draw(generator_of(0, "training", 0))

    def residual(u, load):
        grid = np.pad(u.reshape(n, n), 1)
        A = five_point(n, lambda i, j: 1 + (grid[i[0] + 1, i[1] + 1] ** 2 + grid[j[0] + 1, j[1] + 1] ** 2) / 2)
        return A @ u - load * parameters["source"].ravel() / (n + 1) ** 2

    for level, sample in enumerate(problem.simulate(parameters, scipy_solve), start=1):
        u = sample.outputs["solution"].ravel()
        assert sample.inputs["load"] == 20.0 * level
        np.testing.assert_allclose(u, root(residual, 0.9 * u, args=(20.0 * level,), tol=1e-12).x, rtol=1e-6)
    assert level == 3


def test_jacobian_is_the_derivative_of_the_residual():
    problem = NonlinearDiffusion(resolution=9)
    u, v, forcing = np.random.default_rng(1).standard_normal((3, 9, 9))
    system = problem.assemble(u, forcing)
    difference = (problem.residual(u + 1e-5 * v, forcing) - problem.residual(u - 1e-5 * v, forcing)) / 2e-5
    np.testing.assert_allclose(to_scipy(system.A) @ v.ravel(), difference.ravel(), rtol=1e-7, atol=1e-8)
    np.testing.assert_array_equal(system.b.array_r, -problem.residual(u, forcing).ravel())
    assert not system.is_spd


def test_inexact_solves_lead_to_the_same_solution(scipy_solve):
    problem = NonlinearDiffusion(resolution=12, num_levels=3)
    parameters = problem.draw(generator_of(0, "training", 1))
    inexact = LinearSolver(Krylov(), accuracy=1e-4)
    for exact, sample in zip(
        problem.simulate(parameters, scipy_solve), problem.simulate(parameters, inexact), strict=True
    ):
        np.testing.assert_allclose(sample.outputs["solution"], exact.outputs["solution"], rtol=1e-5)


def test_samples_pack(scipy_solve):
    problem = NonlinearDiffusion(resolution=8, num_levels=4, load_step=5.0)
    samples = list(problem.simulate(problem.draw(generator_of(0, "training", 2)), scipy_solve))
    arrays = problem.layout.pack(samples)
    assert arrays["fields"].shape == arrays["targets"].shape == (4, 1, 8, 8)
    np.testing.assert_array_equal(arrays["scalars"], [[5.0], [10.0], [15.0], [20.0]])
    assert [sample.step for sample in samples] == list(range(problem.num_steps))


@pytest.mark.parametrize("options", [{"resolution": 0}, {"num_levels": 0}, {"load_step": 0.0}, {"load_step": np.inf}])
def test_bad_options_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        NonlinearDiffusion(**options)
