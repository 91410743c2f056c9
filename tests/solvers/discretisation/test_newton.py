"""Newton's method on equations with known solutions, and its failures."""

from types import SimpleNamespace

import numpy as np
import pytest

from penstock.solvers.discretisation.newton import newton
from penstock.solvers.problem import SolveError

TARGET = np.array([[1.0, 2.0], [3.0, 4.0]])


def residual(u):
    """The equation u² = TARGET, point by point."""
    return u**2 - TARGET


def jacobian(u):
    return np.diag(2 * u.ravel()), -residual(u).ravel()


def solve_with(error=0.0):
    """A solve with a relative error, and the list of its solutions."""
    given = []

    def solve(system):
        given.append((1 - error) * np.linalg.solve(*system))
        return SimpleNamespace(x=SimpleNamespace(array_r=given[-1]))

    return solve, given


@pytest.mark.parametrize("error, most", [(0.0, 7), (1e-4, 8), (0.5, 35)])
def test_square_roots_by_exact_and_inexact_solves(error, most):
    solve, given = solve_with(error)
    u = newton(residual, jacobian, np.full((2, 2), 2.5), solve, name="roots")
    np.testing.assert_allclose(u, np.sqrt(TARGET), rtol=1e-7)
    assert 4 <= len(given) <= most


def test_a_start_that_is_the_solution_needs_no_solve():
    solve, given = solve_with()
    start = np.zeros((2, 2))
    np.testing.assert_array_equal(newton(lambda u: u**3, lambda u: None, start, solve, name="cube"), start)
    assert not given


def test_start_is_left_as_it_was():
    start = np.full((2, 2), 2.5)
    newton(residual, jacobian, start, solve_with()[0], name="roots")
    assert (start == 2.5).all()


def test_what_has_no_solution_is_refused_in_one_line():
    """The equation u² + 1 = 0, which has no solution."""
    solve, given = solve_with()
    with pytest.raises(SolveError, match=r"^Newton's method, load 7: step 12 leaves a residual of \d[^\n]*$"):
        newton(
            lambda u: u**2 + 1,
            lambda u: (np.diag(2 * u.ravel()), -(u.ravel() ** 2) - 1),
            np.full((2, 2), 0.3),
            solve,
            name="load 7",
            max_steps=12,
        )
    assert len(given) == 12


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_start_whose_residual_is_not_finite_is_no_solution(value):
    solve, given = solve_with()
    with pytest.raises(SolveError, match=r"step 0 leaves a residual of (inf|nan)"):
        newton(lambda u: np.full_like(u, value), lambda u: None, np.zeros((2, 2)), solve, name="level 1")
    assert not given


def test_what_overflows_is_refused_at_once():
    solve, given = solve_with()
    with pytest.raises(SolveError, match=r"step 1 leaves a residual of nan"):
        newton(
            lambda u: np.where(u < 5, u + 1, np.nan),
            lambda u: (np.eye(4), np.full(4, 10.0)),
            np.zeros((2, 2)),
            solve,
            name="level 1",
        )
    assert len(given) == 1
