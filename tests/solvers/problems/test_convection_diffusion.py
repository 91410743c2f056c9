"""Convection and diffusion: order of convergence, elements one by one, the wind."""

import numpy as np
import pytest
from scipy.sparse import diags_array
from scipy.sparse.linalg import spsolve

from penstock.solvers.discretisation.elements.supg import UpwindedConvection
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.steady.convection_diffusion import ConvectionDiffusion
from tests.support.systems import to_scipy


def triangles(n):
    """The triangles of n x n squares, one by one.

    Each has vertex numbers [3] and hat-function gradients [3, 2].
    """
    for x in range(n):
        for y in range(n):
            for corners in (((x, y), (x + 1, y), (x + 1, y + 1)), ((x, y), (x + 1, y + 1), (x, y + 1))):
                points = np.array(corners) / n
                hats = np.linalg.inv(np.column_stack([np.ones(3), points]))  # columns: coefficients of 1, x, y
                yield [i * (n + 1) + j for i, j in corners], hats[1:].T


def inner_vertices(n):
    return np.arange((n + 1) ** 2).reshape(n + 1, n + 1)[1:-1, 1:-1].ravel()


def elements_summed(peclet, stream, source):
    """The A and b of the inner vertices, summed triangle by triangle."""
    n, epsilon = len(stream) - 1, 1 / peclet
    area = 1 / (2 * n**2)
    A, b = np.zeros(2 * [(n + 1) ** 2]), np.zeros((n + 1) ** 2)
    for vertices, gradients in triangles(n):
        slope_x, slope_y = stream.ravel()[vertices] @ gradients
        wind = np.array([slope_y, -slope_x])
        speed, along = np.linalg.norm(wind), gradients @ wind
        length = 2 * speed / np.sum(np.abs(along))
        alpha = speed * length / (2 * epsilon)
        tau = length / (2 * speed) * (np.cosh(min(alpha, 300)) / np.sinh(min(alpha, 300)) - 1 / alpha)
        for i in range(3):
            b[vertices[i]] += area * (1 / 3 + tau * along[i]) * np.mean(source.ravel()[vertices])
            for j in range(3):
                galerkin = epsilon * gradients[i] @ gradients[j] + along[j] / 3
                A[vertices[i], vertices[j]] += area * (galerkin + tau * along[i] * along[j])
    inner = inner_vertices(n)
    return A[np.ix_(inner, inner)], b[inner]


def draw(problem, i=0):
    return problem.draw(generator_of(0, "training", i))


def test_second_order():
    """The order for ε = 1/5, ψ = sin(2x + y)/3, u = sin(πx) sin(πy)."""
    errors = []
    for n in (16, 32, 64):
        problem = ConvectionDiffusion(peclet=5.0, resolution=n)
        x, y = np.meshgrid(*2 * [np.arange(n + 1) / n], indexing="ij")
        wind = np.cos(2 * x + y) / 3, -2 * np.cos(2 * x + y) / 3
        u = np.sin(np.pi * x) * np.sin(np.pi * y)
        u_x, u_y = np.pi * np.cos(np.pi * x) * np.sin(np.pi * y), np.pi * np.sin(np.pi * x) * np.cos(np.pi * y)
        source = 2 * np.pi**2 * u / 5 + wind[0] * u_x + wind[1] * u_y
        system = problem.discretisation.system(np.sin(2 * x + y) / 3, source, diffusion=1 / 5)
        solution = spsolve(to_scipy(system.A).tocsc(), system.b.array_r)
        errors.append(np.linalg.norm(solution - u[1:-1, 1:-1].ravel()) / n)
    assert np.log2(np.array(errors[:-1]) / errors[1:]) == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("peclet", [1.0, 1e2, 1e5])
def test_a_system_equals_elements_summed_one_by_one(peclet):
    n = 5
    problem = ConvectionDiffusion(peclet=peclet, resolution=n)
    stream = problem.scaled(draw(problem)["stream"])
    source = np.random.default_rng(0).standard_normal((n + 1, n + 1))
    A, b = elements_summed(peclet, stream, source)
    system = problem.discretisation.system(stream, source, diffusion=1 / peclet)
    assert not system.is_spd and np.prod(system.grid.shape) == (n - 1) ** 2
    np.testing.assert_allclose(to_scipy(system.A).toarray(), A, atol=1e-13)
    np.testing.assert_allclose(system.b.array_r, b, atol=1e-13)


def test_upwinding_without_wind_is_the_laplacian():
    n = 6
    system = UpwindedConvection(n).system(np.zeros((n + 1, n + 1)), np.ones((n + 1, n + 1)), diffusion=1.0)
    line = diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n - 1, n - 1)).toarray()
    laplacian = np.kron(line, np.eye(n - 1)) + np.kron(np.eye(n - 1), line)
    np.testing.assert_allclose(to_scipy(system.A).toarray(), laplacian, atol=1e-14)
    np.testing.assert_allclose(system.b.array_r, 1 / n**2)


def test_wind_is_scaled_to_the_peclet_number():
    problem = ConvectionDiffusion(peclet=1e3, resolution=24)
    parameters = draw(problem, 3)
    stream = problem.scaled(parameters["stream"])
    speeds = [np.linalg.norm(stream.ravel()[vertices] @ gradients) for vertices, gradients in triangles(24)]
    assert max(speeds) == pytest.approx(1.0)
    assert stream.mean() == pytest.approx(0.0, abs=1e-14)
    np.testing.assert_allclose(problem.features(parameters), stream.ravel() / 25)
    np.testing.assert_allclose(problem.features({"stream": 7 * parameters["stream"] + 2}), stream.ravel() / 25)


@pytest.mark.parametrize("peclet", [1e2, 1e4])
def test_sample_of_a_draw_against_elements_summed_one_by_one(peclet, scipy_solve):
    """A sample against the solution at the corners of cells and the wind of triangles.

    The solution has zeros around.
    """
    n = 8
    problem = ConvectionDiffusion(peclet=peclet, resolution=n)
    parameters = draw(problem, 1)
    (sample,) = problem.simulate(parameters, scipy_solve)
    stream = problem.scaled(parameters["stream"])
    u = np.zeros((n + 1, n + 1))
    u[1:-1, 1:-1] = np.linalg.solve(*elements_summed(peclet, stream, np.ones_like(u))).reshape(n - 1, n - 1)
    means = [[u[i : i + 2, j : j + 2].mean() for j in range(n)] for i in range(n)]
    np.testing.assert_allclose(sample.outputs["solution"], means, rtol=1e-9, atol=1e-12)
    slopes = np.reshape([stream.ravel()[vertices] @ gradients for vertices, gradients in triangles(n)], (n, n, 2, 2))
    np.testing.assert_allclose(sample.inputs["wind_x"], slopes[..., 1].mean(axis=2), atol=1e-13)
    np.testing.assert_allclose(sample.inputs["wind_y"], -slopes[..., 0].mean(axis=2), atol=1e-13)


def test_concentration_is_carried_downwind(scipy_solve):
    """The wind of ψ = y blows along x.

    The concentration gathers at the far end, and evenly in y.
    """
    problem = ConvectionDiffusion(resolution=16)
    stream = np.broadcast_to(np.linspace(0.0, 2.0, 17), (17, 17))
    (sample,) = problem.simulate({"stream": stream}, scipy_solve)
    np.testing.assert_allclose(sample.inputs["wind_x"], 1.0)
    np.testing.assert_allclose(sample.inputs["wind_y"], 0.0, atol=1e-14)
    solution = sample.outputs["solution"]
    assert solution[12, 8] > 2 * solution[3, 8] > 0
    assert solution[8, 3] == pytest.approx(solution[8, 12], rel=0.05)


def test_systems_are_overwritten_in_place_and_samples_pack(scipy_solve):
    problem = ConvectionDiffusion(resolution=6)
    systems = []

    def solve(system):
        systems.append((system.A.handle, system.family, to_scipy(system.A).copy()))
        return scipy_solve(system)

    samples = [sample for i in (0, 1, 0) for sample in problem.simulate(draw(problem, i), solve)]
    assert len(samples) == 3 * problem.num_steps
    shapes = {name: array.shape for name, array in problem.layout.pack(samples).items()}
    assert shapes == {"fields": (3, 2, 6, 6), "targets": (3, 1, 6, 6)}
    handles, families, matrices = zip(*systems, strict=True)
    assert len(set(handles)) == 1 and set(families) == {"convection"}
    assert abs(matrices[0] - matrices[1]).max() > 0 == abs(matrices[0] - matrices[2]).max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 1}, "resolution = 1"),
        ({"peclet": 0.0}, "peclet = 0"),
        ({"peclet": float("inf")}, "peclet = inf"),
        ({"peclet": float("nan")}, "peclet = nan"),
    ],
)
def test_options_that_make_no_problem_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ConvectionDiffusion(**options)
