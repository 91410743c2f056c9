"""The L's mesh, orders in space, in time and at the corner, a draw against SciPy."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import splu

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.transient.heat_l_shape import HeatLShape
from tests.support.systems import to_scipy


def smooth_mode(problem):
    """The mode sin(2πx) sin(2πy), which is 0 on all sides of the L."""
    return np.prod(np.sin(2 * np.pi * problem.mesh.arrays.points), axis=1)


def error_of(problem, u, exact):
    """The L2 norm of the difference."""
    return np.sqrt(np.sum(problem.mesh.weights * (u - exact) ** 2))


def orders(errors):
    return np.log2(np.divide(errors[:-1], errors[1:]))


def test_the_mesh_is_an_l_of_triangles_that_are_small_at_the_corner(angles):
    for n in (4, 6, 16, 32):
        problem = HeatLShape(resolution=n)
        mesh = problem.mesh.arrays  # which is checked
        assert len(mesh.cells) == 1.5 * n**2
        assert mesh.weights.sum() == pytest.approx(0.75, rel=1e-14)
        corners = mesh.points[mesh.cells].mean(axis=1)
        assert ((corners < 0.5).any(axis=1)).all()
        assert angles(mesh.points, mesh.cells).min() > 24
        assert angles(mesh.points, mesh.cells).max() < 109
    np.testing.assert_array_equal(problem.mesh.box, [[0, 0], [1, 1]])
    distances = np.linalg.norm(mesh.points - 0.5, axis=1)
    assert np.sort(distances)[:2] == pytest.approx([0, 0.5 / 16**1.5])


def test_a_step_of_a_smooth_mode_is_of_second_order_in_space(scipy_solve):
    """Without a source it shrinks by 1 / (1 + 8π² Δt) per step."""
    errors = []
    for n in (8, 16, 32, 64):
        problem = HeatLShape(resolution=n)
        mode = smooth_mode(problem)
        u = problem.elements.at_points(scipy_solve(problem.assemble(mode, np.zeros_like(mode))).x)
        errors.append(error_of(problem, u, mode / (1 + 8 * np.pi**2 * 0.01)))
    assert orders(errors)[1:] == pytest.approx(2.0, abs=0.1)


def test_decay_of_a_smooth_mode_is_of_first_order_in_time(scipy_solve):
    """At t = 0.02, by differences of one halved step to the next.

    The error in space does not enter these.
    """
    ends = []
    for num_steps in (10, 20, 40, 80):
        problem = HeatLShape(resolution=32, time_step=0.02 / num_steps)
        mode = u = smooth_mode(problem)
        for _ in range(num_steps):
            u = problem.elements.at_points(scipy_solve(problem.assemble(u, np.zeros_like(u))).x)
        ends.append(u)
    assert orders([error_of(problem, *pair) for pair in pairwise(ends)]) == pytest.approx(1.0, abs=0.1)
    assert error_of(problem, 2 * ends[-1] - ends[-2], mode * np.exp(-0.16 * np.pi**2)) < 0.05 * error_of(problem, u, 0)


def test_the_order_survives_the_corner(scipy_solve):
    """One step to u = r^(2/3) sin(2θ/3) (1 - X²) (1 - Y²), X = 2x - 1 and Y = 2y - 1.

    With s the first two factors, which are harmonic, and b the others, Δu = s Δb + 2 ∇s·∇b. A uniform mesh has 4/3.
    """
    errors = []
    for n in (16, 32, 64):
        problem = HeatLShape(resolution=n, time_step=10.0)
        X, Y = 2 * problem.mesh.arrays.points.T - 1
        z = X + 1j * Y
        z[z == 0] = 1e-100
        angle = (np.angle(z) - np.pi / 2) % (2 * np.pi)  # from the side above the corner, round to that on its right
        angle[angle > 1.9 * np.pi] = 0
        power = np.abs(z) ** (2 / 3) * np.exp(2j / 3 * angle)
        slope = 2 / 3 * power / z  # d/dz, whose real and imaginary parts hold the gradient of s = Im z^(2/3)
        s, bump = power.imag, (1 - X**2) * (1 - Y**2)
        gradients = slope.imag * -2 * X * (1 - Y**2) + slope.real * -2 * Y * (1 - X**2)
        source = -4 * (-2 * s * (2 - X**2 - Y**2) + 2 * gradients)  # 4 as X and Y are twice as long as x and y
        u = problem.elements.at_points(scipy_solve(problem.assemble(s * bump, source)).x)
        errors.append(error_of(problem, u, s * bump))
    assert (orders(errors) > 1.8).all()


def test_trajectory_against_scipy(scipy_solve):
    """A draw against the geometry's own stiffness and a mass matrix from P1's formula.

    On a triangle that is its area times (1 + δ_ij) / 12.
    """
    problem = HeatLShape(resolution=12, num_steps=15, time_step=0.02)
    parameters = problem.draw(generator_of(0, "training", 0))
    mesh = problem.mesh.arrays
    size = (len(mesh.points),) * 2
    rows, columns, values = mesh.stiffness()
    K = csr_array((values, (rows, columns)), shape=size)
    a, b = np.moveaxis(mesh.points[mesh.cells[:, 1:]] - mesh.points[mesh.cells[:, :1]], 1, 0)
    areas = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
    values = (areas[:, None, None] * (1 + np.eye(3)) / 12).ravel()
    M = csr_array((values, (rows, columns)), shape=size)
    x, y = mesh.points.T
    on_sides = (x == 0) | (y == 0) | (x == 1) | (y == 1) | ((x == 0.5) & (y >= 0.5)) | ((y == 0.5) & (x >= 0.5))
    inner = diags_array(1.0 * ~on_sides)
    factor = splu((inner @ (M + 0.02 * K) @ inner + diags_array(1.0 * on_sides)).tocsc())

    place = parameters["place"]
    centre = (0.25, 0.25 - place / 2) if place < 0 else (0.25 + place / 2, 0.25)
    hump = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * parameters["width"] ** 2))
    u = np.zeros(len(x))
    for step, sample in enumerate(problem.simulate(parameters, scipy_solve)):
        time = (step + 1) * 0.02
        power = (1 - np.cos(2 * np.pi * parameters["frequency"] * time)) / 2
        assert (sample.step, sample.time) == (step, pytest.approx(time))
        np.testing.assert_allclose(sample.inputs["before"], u, atol=1e-13)
        np.testing.assert_allclose(sample.inputs["heater"], hump, atol=1e-13)
        u = factor.solve(inner @ (M @ (u + 0.02 * power * hump)))
        np.testing.assert_allclose(sample.outputs["solution"], u, atol=1e-13)
    assert step == 14 and u.max() > 1e-3


def test_samples_pack_with_the_time_among_the_scalars(scipy_solve):
    problem = HeatLShape(resolution=8, num_steps=5)
    samples = list(problem.simulate(problem.draw(generator_of(0, "training", 1)), scipy_solve))
    arrays = problem.layout.pack(samples)
    assert {name: array.shape for name, array in arrays.items()} == {
        "fields": (5, 2, 65),
        "scalars": (5, 2),
        "targets": (5, 1, 65),
    }
    np.testing.assert_allclose(arrays["scalars"][:, 1], 0.01 * np.arange(1, 6), rtol=1e-6)
    np.testing.assert_array_equal(arrays["fields"][1:, 0], arrays["targets"][:-1, 0])
    assert [sample.step for sample in samples] == list(range(problem.num_steps))


def test_the_matrix_is_one_and_symmetric_and_the_guess_is_the_last_step():
    problem = HeatLShape(resolution=8)
    before = np.random.default_rng(0).standard_normal(65)
    first = problem.assemble(np.zeros(65), before)
    system = problem.assemble(before, before)
    assert system.A is first.A and system.is_spd and system.family == first.family
    A = to_scipy(system.A)
    assert abs(A - A.T).max() < 1e-17
    assert np.linalg.eigvalsh(A.toarray())[0] > 0
    np.testing.assert_array_equal(problem.elements.at_points(system.guess), before)


def test_the_learner_gets_the_mesh_without_dolfinx():
    """In a separate process, from a pickled layout."""
    code = (
        "import pickle, sys; from penstock.solvers.problems.transient.heat_l_shape import HeatLShape\n"
        "layout = pickle.loads(pickle.dumps(HeatLShape(resolution=8).layout))\n"
        "assert layout.geometries[0].arrays.points.shape == (65, 2)\n"
        "assert not {'dolfinx', 'mpi4py', 'petsc4py'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "options", [{"resolution": 2}, {"resolution": 7}, {"num_steps": 0}, {"time_step": 0.0}, {"time_step": np.inf}]
)
def test_bad_options_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        HeatLShape(**options)
