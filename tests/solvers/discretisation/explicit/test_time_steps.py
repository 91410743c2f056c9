"""Orders of the steps against solutions in closed form."""

import numpy as np
import pytest

from penstock.solvers.discretisation.explicit.time_steps import heun, rk4, strang


@pytest.mark.parametrize(("method", "order"), [(heun, 2), (rk4, 4)])
def test_steps_have_their_order(method, order):
    """The logistic equation u' = u (1 - u) from 0.2 has the solution 1 / (1 + 4 exp(-t))."""
    errors = []
    for num_steps in (10, 20, 40):
        u = np.array([0.2])
        for _ in range(num_steps):
            u = method(lambda u: u * (1 - u), u, 2.0 / num_steps)
        errors.append(abs(u[0] - 1 / (1 + 4 * np.exp(-2.0))))
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(order, abs=0.2)


def test_splitting_is_of_order_two_and_exact_where_the_parts_commute():
    """u' = -u + u², split in both: 1/u - 1 grows by exp(t)."""

    def decay(u, step):
        return u * np.exp(-step)

    def growth(u, step):
        return u / (1 - step * u)

    errors = []
    for num_steps in (10, 20, 40):
        u = strang(np.array([0.5]), outer=decay, inner=growth, step=1.0 / num_steps, num_steps=num_steps)
        errors.append(abs(u[0] - 1 / (1 + np.e)))
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(2.0, abs=0.05)
    twice = strang(np.array([0.5]), outer=decay, inner=decay, step=0.25, num_steps=4)
    np.testing.assert_allclose(twice, 0.5 * np.exp(-2.0), rtol=1e-14)
