"""Time-harmonic waves: a plane wave, complex cells summed one by one, the medium."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.sparse.linalg import spsolve

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.steady.helmholtz import Helmholtz
from tests.support.systems import to_scipy


def draw(problem, i=0):
    return problem.draw(generator_of(0, "training", i))


def plane_wave(problem):
    """The plane wave u = exp(i k d·x) at the vertices, and its impedance data.

    The data is ∫ g φ ds by the trapezoidal rule.
    """
    n, k = problem.resolution, problem.wavenumber
    direction = np.array([np.cos(0.4), np.sin(0.4)])
    x, y = np.meshgrid(*2 * [np.arange(n + 1) / n], indexing="ij")
    u = np.exp(1j * k * (direction[0] * x + direction[1] * y))
    side = np.ones(n + 1) / n
    side[[0, -1]] /= 2
    impedance = np.zeros_like(u)
    for normal, edge in (((-1, 0), 0), ((1, 0), -1)):
        impedance[edge, :] += 1j * k * (direction @ normal - 1) * u[edge, :] * side
    for normal, edge in (((0, -1), 0), ((0, 1), -1)):
        impedance[:, edge] += 1j * k * (direction @ normal - 1) * u[:, edge] * side
    return u, impedance


def cells_summed(k, medium, source):
    """The complex A and real b, summed square by square.

    Each square gives a quarter of its area to its corners, half a face to neighbours.
    """
    n = len(medium) - 1
    grid = np.arange((n + 1) ** 2).reshape(n + 1, n + 1)
    A, b = np.zeros(2 * [grid.size], dtype=complex), np.zeros(grid.size)
    for x in range(n):
        for y in range(n):
            ring = grid[[x, x + 1, x + 1, x], [y, y, y + 1, y + 1]]
            b[ring] += source.ravel()[ring] / (4 * n**2)
            A[ring, ring] -= k**2 * (1 + medium.ravel()[ring]) / (4 * n**2)
            for edge in zip(ring, np.roll(ring, 1), strict=True):
                A[np.ix_(edge, edge)] += np.array([[0.5, -0.5], [-0.5, 0.5]])
    for edge in (grid[0], grid[-1], grid[:, 0], grid[:, -1]):
        for ends in pairwise(edge):
            for vertex in ends:
                A[vertex, vertex] -= 1j * k * np.sqrt(1 + medium.ravel()[vertex]) / (2 * n)
    return A, b


def test_second_order_for_a_plane_wave():
    errors = []
    for n in (32, 64, 128):
        problem = Helmholtz(wavenumber=10.0, resolution=n)
        u, impedance = plane_wave(problem)
        system = problem.assemble(np.zeros(u.shape), np.zeros(u.shape), impedance)
        solution = spsolve(to_scipy(system.A).tocsc(), system.b.array_r).view(complex)
        errors.append(np.linalg.norm(solution - u.ravel()) / np.linalg.norm(u))
    assert np.log2(np.array(errors[:-1]) / errors[1:]) == pytest.approx(2.0, abs=0.15)


def test_a_system_equals_complex_cells_summed_one_by_one():
    n, k = 6, 7.0
    problem = Helmholtz(wavenumber=k, resolution=n)
    medium = problem.scaled(draw(problem)["medium"])
    source = np.random.default_rng(0).standard_normal((n + 1, n + 1))
    A, b = cells_summed(k, medium, source)
    system = problem.assemble(medium, source, np.zeros_like(source))
    u = np.linalg.solve(A, b)
    K1 = np.kron(A.real, np.eye(2)) + np.kron(A.imag, [[0, -1], [1, 0]])
    np.testing.assert_allclose(to_scipy(system.A).toarray(), K1, atol=1e-13)
    np.testing.assert_allclose(K1 @ u.view(float), system.b.array_r, atol=1e-12)


def test_sample_of_a_draw_against_complex_cells_summed_one_by_one(scipy_solve):
    n, k = 12, 10.0
    problem = Helmholtz(wavenumber=k, resolution=n)
    parameters = draw(problem, 2)
    (sample,) = problem.simulate(parameters, scipy_solve)
    x, y = np.meshgrid(*2 * [np.arange(n + 1) / n], indexing="ij")
    hump = np.exp(-200 * ((x - 0.3) ** 2 + (y - 0.4) ** 2))
    u = np.linalg.solve(*cells_summed(k, problem.scaled(parameters["medium"]), hump)).reshape(n + 1, n + 1)
    np.testing.assert_array_equal(sample.inputs["medium"], problem.scaled(parameters["medium"]))
    np.testing.assert_allclose(sample.outputs["real"], u.real, atol=1e-9 * np.abs(u).max())
    np.testing.assert_allclose(sample.outputs["imaginary"], u.imag, atol=1e-9 * np.abs(u).max())


def test_medium_has_its_amplitude():
    problem = Helmholtz(wavenumber=20.0, resolution=24)
    assert np.std([problem.scaled(draw(problem, i)["medium"]) for i in range(200)]) == pytest.approx(0.1, rel=0.1)


def test_systems_are_overwritten_in_place_and_samples_pack(scipy_solve):
    problem = Helmholtz(wavenumber=5.0, resolution=8)
    systems = []

    def solve(system):
        systems.append((system.A.handle, system.family, to_scipy(system.A).copy()))
        return scipy_solve(system)

    samples = [sample for i in (0, 1, 0) for sample in problem.simulate(draw(problem, i), solve)]
    assert len(samples) == 3 * problem.num_steps
    arrays = problem.layout.pack(samples)
    assert {name: array.shape for name, array in arrays.items()} == {"fields": (3, 1, 9, 9), "targets": (3, 2, 9, 9)}
    handles, families, matrices = zip(*systems, strict=True)
    assert len(set(handles)) == 1 and set(families) == {"helmholtz"}
    assert abs(matrices[0] - matrices[1]).max() > 0 == abs(matrices[0] - matrices[2]).max()


def test_too_few_points_per_wavelength_are_refused_with_the_resolution_that_has_enough():
    with pytest.raises(ValueError, match=r"15 has 4\.7 points .* wavenumber = 20.* resolution = 16 or more"):
        Helmholtz(resolution=15)
    assert Helmholtz(resolution=16).layout.shapes["targets"] == (2, 17, 17)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 1, "wavenumber": 1.0}, "resolution = 1"),
        ({"wavenumber": 0.0}, "wavenumber = 0"),
        ({"wavenumber": float("nan")}, "wavenumber = nan"),
        ({"wavenumber": float("inf")}, "wavenumber = inf"),
    ],
)
def test_options_that_make_no_problem_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Helmholtz(**options)
