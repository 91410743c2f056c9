"""Meshes around holes, order of convergence, a draw against SciPy, one family."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.linalg import spsolve

from penstock.arrays.simplices import checked_cells, measures
from penstock.messages import Lease
from penstock.solvers.discretisation.elements.remeshed import diffusion
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.auto.auto import Auto
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.steady.poisson_with_hole import PoissonWithHole
from penstock.solvers.worker import SolverWorker


def hole_of(parameters):
    return np.array([parameters["centre_x"], parameters["centre_y"]]), parameters["radius"]


@pytest.mark.parametrize(("resolution", "num_draws"), [(20, 300), (33, 100)])
def test_all_meshes_are_valid(resolution, num_draws, angles):
    """Of many draws, and at the corners of their range."""
    problem = PoissonWithHole(resolution=resolution)
    (most,) = {geometry.max_points for geometry in problem.layout.geometries}
    holes = [hole_of(problem.draw(generator_of(0, "training", i))) for i in range(num_draws)]
    holes += [(np.array([x, y]), r) for x in (0.35, 0.65) for y in (0.35, 0.5, 0.65) for r in (0.1, 0.25)]
    sizes = set()
    for centre, radius in holes:
        points, cells, num_rim = problem.mesh(centre, radius)
        checked_cells(points, cells)
        distances = np.linalg.norm(points - centre, axis=1)
        assert distances[:num_rim] == pytest.approx(radius, rel=1e-12)
        assert (distances[num_rim:] > radius + 0.5 / resolution).all()
        polygon = num_rim / 2 * radius**2 * np.sin(2 * np.pi / num_rim)
        assert measures(points, cells).sum() == pytest.approx(1 - polygon, rel=1e-12)
        assert 0.8 * most < len(points) <= most
        assert angles(points, cells).min() > 20
        assert angles(points, cells).max() < 125
        sizes.add(len(points))
    assert len(sizes) > 50


def test_second_order_around_the_hole(scipy_solve):
    """The order for u = log r + 5 Re z³ + sin(πx) sin(2πy), given on rim and sides.

    z and r are those of the hole's centre. The first two are harmonic.
    """
    centre, radius, errors = np.array([0.42, 0.55]), 0.2, []
    for n in (20, 40, 80):
        points, cells, num_rim = PoissonWithHole(resolution=n).mesh(centre, radius)
        (x, y), (X, Y) = points.T, (points - centre).T
        waves = np.sin(np.pi * x) * np.sin(2 * np.pi * y)
        exact = np.log(np.hypot(X, Y)) + 5 * (X**3 - 3 * X * Y**2) + waves
        weights = np.bincount(cells.ravel(), np.repeat(measures(points, cells) / 3, 3))
        boundary = (x == 0) | (x == 1) | (y == 0) | (y == 1)
        boundary[:num_rim] = True
        u = diffusion(
            points,
            cells,
            load=weights * 5 * np.pi**2 * waves,
            boundary=boundary,
            boundary_values=exact,
            family="test",
            solve=scipy_solve,
        )
        np.testing.assert_array_equal(u[boundary], exact[boundary])
        errors.append(np.sqrt(np.sum(weights * (u - exact) ** 2)))
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(2.0, abs=0.2)


def test_linear_functions_are_exact(scipy_solve):
    points, cells, num_rim = PoissonWithHole(resolution=20).mesh(np.array([0.5, 0.4]), 0.15)
    exact = 1 + points @ [2.0, -3.0]
    boundary = ((points == 0) | (points == 1)).any(axis=1) | (np.arange(len(points)) < num_rim)
    zeros = np.zeros(len(points))
    u = diffusion(points, cells, load=zeros, boundary=boundary, boundary_values=exact, family="test", solve=scipy_solve)
    np.testing.assert_allclose(u, exact, atol=1e-12)


def test_sample_of_a_draw_against_scipy(scipy_solve):
    """Triangles by the cotangents of their angles, all values of u as unknowns."""
    problem = PoissonWithHole(resolution=20)
    parameters = problem.draw(generator_of(0, "training", 3))
    (sample,) = problem.simulate(parameters, scipy_solve)
    centre, radius = hole_of(parameters)
    points, cells, num_rim = problem.mesh(centre, radius)
    np.testing.assert_array_equal(sample.geometry["points"], points)

    size, areas = len(points), measures(points, cells)
    K, weights = csr_array((size, size)), np.zeros(size)
    for k in range(3):
        here, one, other = cells[:, k], cells[:, k - 1], cells[:, k - 2]
        a, b = points[one] - points[here], points[other] - points[here]
        half = (a * b).sum(axis=1) / (4 * areas)  # of the cotangent, as |a x b| is twice the area
        for row, column, sign in ((one, one, 1), (other, other, 1), (one, other, -1), (other, one, -1)):
            K += csr_array((sign * half, (row, column)), shape=(size, size))
        weights += np.bincount(here, areas / 3, minlength=size)
    x, y = points.T
    source = sum(
        parameters[f"source_{j}{k}"] * np.sin(j * np.pi * x) * np.sin(k * np.pi * y)
        for j in (1, 2, 3)
        for k in (1, 2, 3)
    )
    rim = np.arange(size) < num_rim
    angle = np.arctan2(y - centre[1], x - centre[0])
    g = parameters["rim_0"] + parameters["rim_1"] * np.cos(angle) + parameters["rim_2"] * np.sin(angle)
    b = np.where(rim, g, weights * source)
    is_given = rim | (x == 0) | (x == 1) | (y == 0) | (y == 1)
    b[is_given & ~rim] = 0
    A = K.tolil()
    A[np.flatnonzero(is_given)] = 0
    A[is_given, is_given] = 1
    np.testing.assert_allclose(sample.outputs["solution"], spsolve(A.tocsc(), b), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(sample.inputs["source"], source, atol=1e-12)
    np.testing.assert_allclose(sample.inputs["boundary_value"], np.where(rim, g, 0), atol=1e-12)
    np.testing.assert_allclose(sample.geometry["weights"], weights, rtol=1e-12)


def test_samples_pack_without_padding(scipy_solve):
    problem = PoissonWithHole(resolution=20)
    draws = [problem.draw(generator_of(0, "training", i)) for i in range(3)]
    samples = [sample for draw in draws for sample in problem.simulate(draw, scipy_solve)]
    arrays = problem.layout.pack(samples)
    assert set(arrays) == {"fields", "points", "weights", "targets"}
    for name, channels in (("fields", 2), ("points", 2), ("weights", 1), ("targets", 1)):
        assert arrays[name].channels == channels
        np.testing.assert_array_equal(arrays[name].counts, [len(sample.outputs["solution"]) for sample in samples])


def test_systems_of_all_sizes_are_one_family_with_one_trial():
    """A family per size would hold a trial for each size that comes twice.

    The others would be solved by guess.
    """
    problem, solver = PoissonWithHole(resolution=20), LinearSolver(Auto(), accuracy=1e-4)
    solutions = []

    def solve(system):
        solutions.append(solver(system))
        assert solutions[-1].converged and system.is_spd and system.family == "poisson_with_hole"
        return solutions[-1]

    for i in range(40):
        list(problem.simulate(problem.draw(generator_of(0, "training", i)), solve))
    (decision,) = solver.decisions
    assert decision.number == 0 and decision.family == "poisson_with_hole"
    undecided = [solution.strategy for solution in solutions].count("auto")
    assert undecided <= 12 and solver.num_retried == 0


def test_too_coarse_a_grid_is_refused():
    with pytest.raises(ValueError, match="resolution = 19"):
        PoissonWithHole(resolution=19)


def test_a_worker_sends_samples_of_all_sizes_in_one_chunk(scipy_solve):
    """As `simulate` yields them, in the order of the chunk."""
    problem = PoissonWithHole(resolution=20)
    worker = SolverWorker(problem, {"training": LinearSolver(Direct(), rtol=1e-10)}, seed=0, must_repeat=True)
    (chunk,) = worker.stream(Lease(number=0, simulations=(0, 1, 2, 3)))
    assert sorted(chunk.finished) == [0, 1, 2, 3] and not chunk.failed
    for row, simulation in enumerate(chunk.simulations):
        (sample,) = problem.simulate(problem.draw(generator_of(0, "training", simulation)), scipy_solve)
        expected = problem.layout.pack([sample])
        for name, rows in chunk.arrays.items():
            np.testing.assert_allclose(rows.row(row), expected[name].row(0), rtol=1e-5, atol=1e-6)
