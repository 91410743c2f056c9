"""Poisson's equation: polynomials, order of convergence, a draw against SciPy."""

import numpy as np
import pytest
from numpy.polynomial import chebyshev
from scipy.sparse import diags_array, eye_array, kron
from scipy.sparse.linalg import spsolve

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.steady.poisson import Poisson
from tests.support.systems import to_scipy

SIDES = ("west", "east", "south", "north")


def parameters_of(u, **source) -> dict[str, float]:
    """The coefficients for boundary values u(X, Y), a polynomial on [-1, 1]².

    f is given by `source`, and zero without it.
    """
    points = np.linspace(-1, 1, 6)
    values = u(-1, points), u(1, points), u(points, -1), u(points, 1)
    boundary = {
        f"{side}_{k}": coefficient
        for side, on_side in zip(SIDES, values, strict=True)
        for k, coefficient in enumerate(chebyshev.chebfit(points, on_side, 5))
    }
    return boundary | {f"source_{k}": 0.0 for k in range(6)} | source


def corners_mean(values):
    n = len(values) - 1
    return np.array([[values[i : i + 2, j : j + 2].mean() for j in range(n)] for i in range(n)])


def vertices(n):
    """The coordinates X and Y, in [-1, 1]."""
    return np.meshgrid(*2 * [np.linspace(-1, 1, n + 1)], indexing="ij")


def test_linear_boundary_values_are_met(scipy_solve):
    """The harmonic u = X is exact in P1 elements."""
    n = 8
    problem = Poisson(resolution=n)
    (sample,) = problem.simulate(parameters_of(lambda x, y: x + 0 * y), scipy_solve)
    expected = np.repeat(2 * (np.arange(n) + 0.5) / n - 1, n).reshape(n, n)
    np.testing.assert_allclose(sample.outputs["solution"], expected, atol=1e-12)


def test_cubic_solutions_are_exact_at_the_vertices(scipy_solve):
    """The five points are exact for u = X² - Y² + 3 Y + X³ Y + X Y³.

    It has -Δu = -48 T₁(X) T₁(Y), since X = 2x - 1.
    """
    problem = Poisson(resolution=7)

    def u(x, y):
        return x**2 - y**2 + 3 * y + x**3 * y + x * y**3

    (sample,) = problem.simulate(parameters_of(u, source_1=-48.0), scipy_solve)
    np.testing.assert_allclose(sample.outputs["solution"], corners_mean(u(*vertices(7))), atol=1e-12)


def test_second_order(scipy_solve):
    """The order for u = Re (X + iY)⁴ + X³ Y + X Y³.

    The first part is harmonic, and the five points have an error of h² on it.
    """

    def u(x, y):
        return x**4 - 6 * x**2 * y**2 + y**4 + x * y**3 + x**3 * y

    errors = []
    for n in (8, 16, 32, 64):
        (sample,) = Poisson(resolution=n).simulate(parameters_of(u, source_1=-48.0), scipy_solve)
        errors.append(np.abs(sample.outputs["solution"] - corners_mean(u(*vertices(n)))).max())
    assert np.log2(np.array(errors[:-1]) / errors[1:]) == pytest.approx(2.0, abs=0.1)


def test_sample_of_a_draw_against_scipy(scipy_solve):
    """A draw against five points on all vertices.

    Boundary values are given, T_k are cosines, and corners are averaged.
    """
    n = 12
    problem = Poisson(resolution=n)
    parameters = problem.draw(generator_of(0, "training", 0))
    (sample,) = problem.simulate(parameters, scipy_solve)

    X, Y = vertices(n)
    source, sides = 0.0, dict.fromkeys(SIDES, 0.0)
    for k in range(6):
        along = np.cos(k * np.arccos(np.linspace(-1, 1, n + 1)))
        source = source + parameters[f"source_{k}"] * np.cos(k * np.arccos(X)) * np.cos(k * np.arccos(Y))
        for side in SIDES:
            sides[side] = sides[side] + parameters[f"{side}_{k}"] * along
    u = np.zeros((n + 1, n + 1))
    u[0], u[-1], u[1:-1, 0], u[1:-1, -1] = sides["west"], sides["east"], sides["south"][1:-1], sides["north"][1:-1]
    for corner, (first, second) in {
        (0, 0): (sides["west"][0], sides["south"][0]),
        (0, -1): (sides["west"][-1], sides["north"][0]),
        (-1, 0): (sides["east"][0], sides["south"][-1]),
        (-1, -1): (sides["east"][-1], sides["north"][-1]),
    }.items():
        u[corner] = (first + second) / 2

    line = n**2 * diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n + 1, n + 1))
    laplacian = (kron(line, eye_array(n + 1)) + kron(eye_array(n + 1), line)).tocsr()
    inner = np.arange((n + 1) ** 2).reshape(n + 1, n + 1)[1:-1, 1:-1].ravel()
    b = source.ravel()[inner] - (laplacian @ u.ravel())[inner]
    u[1:-1, 1:-1] = spsolve(laplacian[inner][:, inner].tocsc(), b).reshape(n - 1, n - 1)
    np.testing.assert_allclose(sample.outputs["solution"], corners_mean(u), rtol=1e-9, atol=1e-12)


def test_right_hand_sides_have_rank_30_and_the_matrix_is_one(scipy_solve):
    problem = Poisson(resolution=16)
    matrices, loads = [], []

    def solve(system):
        matrices.append(to_scipy(system.A).copy())
        loads.append(system.b.array_r.copy())
        assert system.is_spd and system.family == "poisson"
        return scipy_solve(system)

    for i in range(40):
        list(problem.simulate(problem.draw(generator_of(0, "training", i)), solve))
    values = np.linalg.svd(loads, compute_uv=False)
    assert values[29] > 1e-6 * values[0] > 1e4 * values[30]
    assert all(abs(A - matrices[0]).max() == 0 for A in matrices)


def test_samples_hold_30_scalars_and_pack(scipy_solve):
    problem = Poisson(resolution=6)
    draws = [problem.draw(generator_of(0, "training", i)) for i in range(2)]
    samples = [sample for draw in draws for sample in problem.simulate(draw, scipy_solve)]
    assert len(samples) == 2 * problem.num_steps
    arrays = problem.layout.pack(samples)
    assert {name: array.shape for name, array in arrays.items()} == {"scalars": (2, 30), "targets": (2, 1, 6, 6)}
    assert problem.quantile_names == tuple(spec.name for spec in problem.inputs)
    np.testing.assert_allclose(arrays["scalars"][1], problem.features(draws[1]), rtol=1e-6)  # both standard normal


def test_too_coarse_a_grid_is_refused():
    with pytest.raises(ValueError, match="resolution = 1"):
        Poisson(resolution=1)
