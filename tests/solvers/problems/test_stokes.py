"""A manufactured flow, a force that moves nothing, systems for direct solvers."""

import numpy as np
import pytest
from numpy import cos, pi, sin

from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.flow.stokes import Stokes
from tests.support.systems import to_scipy


def flow_for(problem, force, solve):
    """Velocity [2, M] at the nodes of velocity, and pressure at the vertices."""
    velocity, pressure = problem.elements.parts(solve(problem.assemble(force)).x.array_r)
    return velocity, problem.elements.at_points(velocity, pressure)[1]


def test_a_manufactured_flow_is_met_with_orders_three_and_two(scipy_solve):
    """ψ = sin² πx sin² πy, u = (∂ψ/∂y, -∂ψ/∂x), p = cos πx cos πy."""
    errors = []
    for n in (4, 8, 16):
        problem = Stokes(resolution=n)
        x, y = np.meshgrid(*2 * [np.arange(2 * n + 1) / (2 * n)], indexing="ij")
        along_x = 2 * pi**3 * sin(2 * pi * y) * (1 - 2 * cos(2 * pi * x)) - pi * sin(pi * x) * cos(pi * y)
        along_y = -2 * pi**3 * sin(2 * pi * x) * (1 - 2 * cos(2 * pi * y)) - pi * cos(pi * x) * sin(pi * y)
        velocity, pressure = flow_for(problem, np.stack([along_x, along_y]), scipy_solve)
        x, y = problem.elements.nodes.T
        exact = pi * np.stack([sin(pi * x) ** 2 * sin(2 * pi * y), -sin(2 * pi * x) * sin(pi * y) ** 2])
        grid = cos(pi * np.arange(n + 1) / n)
        errors.append([np.abs(velocity - exact).max(), np.abs(pressure - np.outer(grid, grid).ravel()).max()])
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert (orders[-1] > [2.7, 1.7]).all()
    assert (errors[-1] < np.array([0.01, 0.2])).all()


def test_a_constant_force_is_balanced_by_pressure_alone(scipy_solve):
    problem = Stokes(resolution=4)
    velocity, pressure = flow_for(problem, np.stack([np.full((9, 9), 2.0), np.full((9, 9), -1.0)]), scipy_solve)
    x = np.arange(5) / 4 - 0.5
    np.testing.assert_allclose(velocity, 0, atol=1e-13)
    np.testing.assert_allclose(pressure, (2 * x[:, None] - x).ravel(), atol=1e-12)


def test_systems_are_symmetric_and_direct_solvers_solve_them():
    problem = Stokes(resolution=8)
    parameters = problem.draw(generator_of(0, "training", 0))
    system = problem.assemble(np.stack([parameters["force_x"], parameters["force_y"]]))
    A = to_scipy(system.A)
    assert abs(A - A.T).max() < 1e-15
    assert not system.is_spd
    solution = LinearSolver(Direct(), rtol=1e-10)(system)
    np.testing.assert_allclose(A @ solution.x.array_r, system.b.array_r, atol=1e-12)
    assert problem.assemble(np.zeros((2, 17, 17))).A is system.A


def test_samples_pack(scipy_solve):
    problem = Stokes(resolution=6)
    parameters = problem.draw(generator_of(0, "training", 0))
    (sample,) = problem.simulate(parameters, scipy_solve)
    arrays = problem.layout.pack([sample])
    assert {name: array.shape for name, array in arrays.items()} == {"fields": (1, 2, 7, 7), "targets": (1, 3, 7, 7)}
    np.testing.assert_array_equal(sample.inputs["force"][1], parameters["force_y"][::2, ::2])
    velocity = sample.outputs["velocity"]
    assert np.abs(velocity[:, [0, -1]]).max() == np.abs(velocity[:, :, [0, -1]]).max() == 0 < np.abs(velocity).max()


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="resolution = 1 is too small"):
        Stokes(resolution=1)
