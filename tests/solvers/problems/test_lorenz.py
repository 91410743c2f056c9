"""A trajectory in closed precision, SciPy's, the points of rest."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.transient.lorenz import Lorenz

CLASSICAL = {"sigma": 10.0, "rho": 28.0, "beta": 8 / 3}


def test_the_classical_trajectory_from_ones():
    """At t = 2 it is at (-8.17349993, -9.56202369, 24.62070205); steps of 0.01 leave 1.2e-4."""
    *_, end = Lorenz(num_steps=20).frames(CLASSICAL | {"x": 1.0, "y": 1.0, "z": 1.0})
    np.testing.assert_allclose(end, [-8.17349993, -9.56202369, 24.62070205], atol=2e-4)


def test_trajectories_are_those_of_scipy():
    problem = Lorenz(num_steps=5)
    for i in range(3):
        parameters = problem.draw(generator_of(0, "training", i))
        sigma, rho, beta, *start = parameters.values()

        def rate(time, state, sigma=sigma, rho=rho, beta=beta):
            x, y, z = state
            return [sigma * (y - x), x * (rho - z) - y, x * y - beta * z]

        exact = solve_ivp(rate, (0, 0.5), start, rtol=1e-10, atol=1e-10, t_eval=np.arange(6) / 10).y.T
        np.testing.assert_allclose(list(problem.frames(parameters)), exact, atol=1e-3)


def test_points_of_rest_stay():
    for sign in (1, -1):
        x = sign * np.sqrt(8 / 3 * 27)
        for frame in Lorenz(num_steps=2).frames(CLASSICAL | {"x": x, "y": x, "z": 27.0}):
            np.testing.assert_allclose(frame, [x, x, 27.0], rtol=1e-12)


def test_samples_are_numbers():
    problem = Lorenz(num_steps=3)
    parameters = problem.draw(generator_of(0, "training", 0))
    samples = list(problem.simulate(parameters, solve=None))
    np.testing.assert_array_equal(samples[1].inputs["before"], samples[0].outputs["solution"])
    assert all(sample.inputs["rho"] == parameters["rho"] for sample in samples)
    arrays = problem.layout.pack(samples)
    assert arrays["scalars"].shape == (3, 6) and arrays["target_scalars"].shape == (3, 3)


@pytest.mark.parametrize(
    ("options", "message"), [({"num_steps": 0}, "num_steps = 0 is too small"), ({"interval": 0.0}, "interval = 0.0")]
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Lorenz(**options)
