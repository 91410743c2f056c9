"""The cantilever against the closed form of Timoshenko and Goodier."""

import numpy as np
import pytest

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.solids.cantilever import Cantilever

AUGARDE = {"load": 1.0, "youngs_modulus": 1000.0, "poisson_ratio": 0.25}


def timoshenko(points, load, youngs_modulus, poisson_ratio, length):
    """u [2, P] for D = 2, where I = 2/3."""
    x, y = points.T
    nu, rigidity = poisson_ratio, 6 * youngs_modulus * 2 / 3
    along = -load * y / rigidity * ((6 * length - 3 * x) * x + (2 + nu) * (y**2 - 1))
    across = load / rigidity * (3 * nu * y**2 * (length - x) + (4 + 5 * nu) * x + (3 * length - x) * x**2)
    return np.stack([along, across])


def error_of(problem, parameters, solve):
    """The relative L2 norm of the error at the points."""
    (sample,) = problem.simulate(parameters, solve)
    weights, points = problem.mesh.weights, problem.mesh.arrays.points
    exact = timoshenko(points, **parameters, length=problem.length)
    return np.sqrt(np.sum(weights * (sample.outputs["displacement"] - exact) ** 2) / np.sum(weights * exact**2))


def test_the_tip_sinks_as_in_the_closed_form(scipy_solve):
    """P L³ / (3 E I) + (4 + 5 ν) D² L P / (24 E I) is 0.2665."""
    problem = Cantilever(resolution=4)
    (sample,) = problem.simulate(AUGARDE, scipy_solve)
    np.testing.assert_allclose(problem.mesh.arrays.points[problem.tip], [8, 0])
    assert sample.outputs["tip"] == pytest.approx(0.2665, rel=1e-3)
    assert error_of(problem, AUGARDE, scipy_solve) < 1e-4


def test_the_error_is_of_third_order_or_better(scipy_solve):
    errors = [error_of(Cantilever(resolution=n), AUGARDE, scipy_solve) for n in (2, 4, 8)]
    assert (np.log2(np.divide(errors[:-1], errors[1:])) > 2.8).all()


def test_draws_and_other_lengths_agree_with_the_closed_form(scipy_solve):
    """The data of one draw leave no trace in the next."""
    problem = Cantilever(resolution=4, length=5.3)
    for i in range(3):
        assert error_of(problem, problem.draw(generator_of(0, "training", i)), scipy_solve) < 3e-4


def test_samples_pack(scipy_solve):
    problem = Cantilever(resolution=2, length=4.0)
    arrays = problem.layout.pack(list(problem.simulate(problem.draw(generator_of(0, "training", 0)), scipy_solve)))
    assert sorted(array.shape for array in arrays.values()) == [(1, 1), (1, 2, 15), (1, 3)]


@pytest.mark.parametrize("options", [{"resolution": 3}, {"resolution": 0}, {"length": 0.0}, {"length": np.inf}])
def test_bad_options_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        Cantilever(**options)
