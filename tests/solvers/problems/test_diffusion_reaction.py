"""SciPy's adaptive methods on the same cells, the steady state, the order of the steps, the law at first."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.finite_volume import diffusion_reaction
from penstock.solvers.problems.finite_volume.diffusion_reaction import DiffusionReaction


def laplacian(c):
    """Δc on (-1, 1)² cell by cell, from the differences across each cell's faces; none across the boundary."""
    across_x = np.pad(np.diff(c, axis=0), ((1, 1), (0, 0)))
    across_y = np.pad(np.diff(c, axis=1), ((0, 0), (1, 1)))
    return (np.diff(across_x, axis=0) + np.diff(across_y, axis=1)) * (len(c) / 2) ** 2


def by_scipy(initial, end):
    """u and v at the end."""

    def rate(time, flat):
        u, v = flat.reshape(initial.shape)
        return np.stack([1e-3 * laplacian(u) + u - u**3 - 5e-3 - v, 5e-3 * laplacian(v) + u - v]).ravel()

    solution = solve_ivp(rate, (0, end), initial.ravel(), method="DOP853", rtol=1e-9, atol=1e-9)
    return solution.y[:, -1].reshape(initial.shape)


def test_trajectories_from_white_noise_are_those_of_scipy():
    problem = DiffusionReaction(resolution=24, num_steps=4, interval=0.25)
    initial = problem.draw(generator_of(0, "training", 0))["initial"]
    *_, end = problem.frames(initial)
    np.testing.assert_allclose(end, by_scipy(initial, 1.0), atol=1e-3)


def test_steps_are_of_order_two(monkeypatch):
    problem = DiffusionReaction(resolution=16, num_steps=1, interval=0.8)
    initial = problem.draw(generator_of(0, "training", 1))["initial"]
    exact, errors = by_scipy(initial, 0.8), []
    for step in (0.04, 0.02, 0.01):
        monkeypatch.setattr(diffusion_reaction, "LARGEST_STEP", step)
        *_, end = problem.frames(initial)
        errors.append(np.abs(end - exact).max())
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(2.0, abs=0.3)


def test_the_uniform_steady_state_is_steady_and_small_waves_on_it_grow_as_they_must():
    """u = v = -k^(1/3) = -0.170998; about it the equations are linear, with a matrix for each cosine."""
    problem, n = DiffusionReaction(resolution=8, num_steps=1, interval=2.0), 8
    value = -(0.005 ** (1 / 3))
    assert value == pytest.approx(-0.170998, abs=1e-6)
    steady = np.full((2, n, n), value)
    *_, end = problem.frames(steady)
    np.testing.assert_allclose(end, steady, atol=1e-14)
    wave = np.cos(3 * np.pi * (np.arange(n) + 0.5) / n)[:, None] * np.ones(n)
    rate = 4 * np.sin(3 * np.pi / (2 * n)) ** 2 * (n / 2) ** 2
    matrix = np.array([[1 - 3 * value**2 - 1e-3 * rate, -1], [1, -1 - 5e-3 * rate]])
    *_, end = problem.frames(steady + 1e-6 * np.stack([wave, -wave]))
    growth = expm(2.0 * matrix) @ [1, -1]
    np.testing.assert_allclose((end - steady) / 1e-6, np.multiply.outer(growth, wave), atol=1e-4)


def test_at_first_both_are_standard_normal():
    problem = DiffusionReaction(resolution=64)
    initial = problem.draw(generator_of(0, "training", 0))["initial"]
    assert initial.shape == (2, 64, 64)
    assert initial.mean() == pytest.approx(0, abs=0.05) and initial.std() == pytest.approx(1, abs=0.05)
    quantiles = np.array([problem.quantiles(generator_of(0, "training", i)) for i in range(400)])
    assert len(problem.quantile_names) == 2
    np.testing.assert_allclose(quantiles.mean(axis=0), 0.5, atol=0.05)
    np.testing.assert_allclose(quantiles.var(axis=0), 1 / 12, atol=0.015)
    law = problem.space.distributions["initial"]
    again = law.at_quantiles(quantiles[0], generator_of(0, "training", 0))
    np.testing.assert_allclose(again, initial, atol=1e-13)


def test_samples_have_both_substances():
    problem = DiffusionReaction(resolution=8, num_steps=3)
    samples = list(problem.simulate(problem.draw(generator_of(0, "training", 0)), solve=None))
    np.testing.assert_array_equal(samples[1].inputs["before"], samples[0].outputs["solution"])
    assert problem.layout.pack(samples)["targets"].shape == (3, 2, 8, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 1}, "resolution = 1 is too small"),
        ({"num_steps": 0}, "num_steps = 0 is too small"),
        ({"interval": 0.0}, "interval = 0.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DiffusionReaction(**options)
