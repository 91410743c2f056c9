"""Case D of the solvers' bench: discretisations, and sequences against SciPy."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import root
from scipy.sparse import diags_array
from scipy.sparse.linalg import spsolve

from benchmarks.solvers import convection, helmholtz, sequences
from benchmarks.solvers.convection import ConvectionDiffusion
from benchmarks.solvers.helmholtz import Helmholtz
from benchmarks.solvers.sequences import Bratu, NonlinearDiffusion, State, Transient


@pytest.fixture
def solve(to_scipy):
    return lambda system: spsolve(to_scipy(system.A).tocsc(), system.b.array_r)


def orders(errors):
    return np.log2(np.array(errors[:-1]) / errors[1:])


def triangles(n):
    """Vertex numbers [3] and hat-function gradients [3, 2] of every triangle of n x n squares, one by one."""
    for x in range(n):
        for y in range(n):
            for corners in (((x, y), (x + 1, y), (x + 1, y + 1)), ((x, y), (x + 1, y + 1), (x, y + 1))):
                points = np.array(corners) / n
                hats = np.linalg.inv(np.column_stack([np.ones(3), points]))  # columns: coefficients of 1, x, y
                yield [i * (n + 1) + j for i, j in corners], hats[1:].T


def sines(n):
    """x, y and sin(πx) sin(πy) at the inner points of n x n squares."""
    x, y = np.meshgrid(*2 * [np.arange(1, n) / n], indexing="ij")
    return x, y, np.sin(np.pi * x) * np.sin(np.pi * y)


# convection-diffusion


def test_convection_is_of_second_order(solve):
    """ε = 1/5, ψ = sin(2x + y)/3, u = sin(πx) sin(πy)."""
    errors = []
    for n in (16, 32, 64):
        case = ConvectionDiffusion(peclet=5.0, resolution=n)
        x, y = np.meshgrid(*2 * [np.arange(n + 1) / n], indexing="ij")
        wind = np.cos(2 * x + y) / 3, -2 * np.cos(2 * x + y) / 3
        u = np.sin(np.pi * x) * np.sin(np.pi * y)
        u_x, u_y = np.pi * np.cos(np.pi * x) * np.sin(np.pi * y), np.pi * np.sin(np.pi * x) * np.cos(np.pi * y)
        source = 2 * np.pi**2 * u / 5 + wind[0] * u_x + wind[1] * u_y
        solution = solve(case.assemble(np.sin(2 * x + y) / 3, source))
        errors.append(np.linalg.norm(solution - u[1:-1, 1:-1].ravel()) / n)
    assert orders(errors) == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("peclet", [1.0, 1e2, 1e5])
def test_convection_equals_elements_summed_one_by_one(peclet, to_scipy):
    n, epsilon, area = 5, 1 / peclet, 1 / 50
    case = ConvectionDiffusion(peclet=peclet, resolution=n)
    stream, source = case.stream(0), np.random.default_rng(0).standard_normal((n + 1, n + 1))
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
    inner = np.arange((n + 1) ** 2).reshape(n + 1, n + 1)[1:-1, 1:-1].ravel()
    system = case.assemble(stream, source)
    np.testing.assert_allclose(to_scipy(system.A).toarray(), A[np.ix_(inner, inner)], atol=1e-13)
    np.testing.assert_allclose(system.b.array_r, b[inner], atol=1e-13)


def test_upwinding_without_wind_is_the_laplacian(to_scipy):
    n = 6
    system = ConvectionDiffusion(peclet=1.0, resolution=n).assemble(np.zeros((n + 1, n + 1)), np.ones((n + 1, n + 1)))
    line = diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n - 1, n - 1)).toarray()
    laplacian = np.kron(line, np.eye(n - 1)) + np.kron(np.eye(n - 1), line)
    np.testing.assert_allclose(to_scipy(system.A).toarray(), laplacian, atol=1e-14)
    np.testing.assert_allclose(system.b.array_r, 1 / n**2)


def test_wind_is_scaled_to_the_peclet_number():
    case = ConvectionDiffusion(peclet=1e3, resolution=24)
    speeds = []
    for vertices, gradients in triangles(24):
        speeds.append(np.linalg.norm(case.stream(3).ravel()[vertices] @ gradients))
    assert max(speeds) == pytest.approx(1.0)


# Helmholtz


def plane_wave(case):
    """u = exp(i k d·x) at the vertices, and ∫ g φ ds for its impedance data by the trapezoidal rule."""
    n, k = case.resolution, case.wavenumber
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


def test_helmholtz_is_of_second_order_for_a_plane_wave(solve):
    errors = []
    for n in (32, 64, 128):
        case = Helmholtz(wavenumber=10.0, resolution=n)
        u, impedance = plane_wave(case)
        solution = solve(case.assemble(np.zeros(u.shape), np.zeros(u.shape), impedance)).view(complex)
        errors.append(np.linalg.norm(solution - u.ravel()) / np.linalg.norm(u))
    assert orders(errors) == pytest.approx(2.0, abs=0.15)


def test_helmholtz_equals_complex_cells_summed_one_by_one(to_scipy):
    """Each square gives a quarter of its area to its corners and half a face to each pair of neighbours."""
    n, k = 5, 7.0
    case = Helmholtz(wavenumber=k, resolution=n)
    medium, source = case.medium(0), np.random.default_rng(0).standard_normal((n + 1, n + 1))
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
    system = case.assemble(medium, source, np.zeros_like(source))
    u = np.linalg.solve(A, b)
    K1 = np.kron(A.real, np.eye(2)) + np.kron(A.imag, [[0, -1], [1, 0]])
    np.testing.assert_allclose(to_scipy(system.A).toarray(), K1, atol=1e-13)
    np.testing.assert_allclose(K1 @ u.view(float), system.b.array_r, atol=1e-12)


def test_medium_has_its_amplitude():
    case = Helmholtz(wavenumber=20.0, resolution=24)
    assert np.std([case.medium(i) for i in range(200)]) == pytest.approx(0.1, rel=0.1)
    assert [round(6.283 * case.resolution / case.wavenumber) >= 10 for case in helmholtz.CASES] == [True] * 6


# sequences


def five_point(n, conductance):
    """Σ over faces of conductance(i, j) (u_i - u_j) on n x n inner points with zero outside, face by face."""
    A = np.zeros((n**2, n**2))
    for x in range(n):
        for y in range(n):
            for neighbour in ((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)):
                value = conductance((x, y), neighbour)
                A[x * n + y, x * n + y] += value
                if min(neighbour) >= 0 and max(neighbour) < n:
                    A[x * n + y, neighbour[0] * n + neighbour[1]] -= value
    return A


@pytest.mark.parametrize("sequence", [NonlinearDiffusion(9), Bratu(9)])
def test_jacobian_is_the_derivative_of_the_residual(sequence, to_scipy):
    generator = np.random.default_rng(1)
    u, v = generator.standard_normal((2, 9, 9))
    A = to_scipy(sequence.assemble(State(2, u)).A)
    difference = (sequence.residual(2, u + 1e-5 * v) - sequence.residual(2, u - 1e-5 * v)) / 2e-5
    np.testing.assert_allclose(A @ v.ravel(), difference.ravel(), rtol=1e-7, atol=1e-8)
    np.testing.assert_array_equal(sequence.vector.array_r, -sequence.residual(2, u).ravel())


def end_of_level(sequence, level):
    """The u at which the level's iteration ended, and the relative residuals it went through."""
    i, residuals = 0, []
    while (state := sequence.state(i)).level <= level:
        if state.level == level:
            residuals.append(np.linalg.norm(sequence.residual(level, state.u)) / state.start)
        i += 1
    return state.u, np.array(residuals)


def test_newton_converges_quadratically_to_a_manufactured_solution():
    """u = 2 sin(πx) sin(πy), and ∇·((1 + u²) ∇u) = Δ(u + u³/3)."""
    errors = []
    for n in (16, 32, 64):
        _, _, s = sines(n)
        sequence = NonlinearDiffusion(n - 1)
        x, y = np.meshgrid(*2 * [np.arange(1, n) / n], indexing="ij")
        squares = (np.cos(np.pi * x) * np.sin(np.pi * y)) ** 2 + (np.sin(np.pi * x) * np.cos(np.pi * y)) ** 2
        flux_divergence = (1 + 4 * s**2) * -4 * np.pi**2 * s + 2 * 2 * s * 4 * np.pi**2 * squares
        sequence.source = -flux_divergence / sequence.load_step
        u, residuals = end_of_level(sequence, 1)
        errors.append(np.linalg.norm(u - 2 * s) / n)
        rates = np.log(residuals[2:] / residuals[1:-1]) / np.log(residuals[1:-1] / residuals[:-2])
        assert rates[-1] > 1.7
    assert orders(errors) == pytest.approx(2.0, abs=0.1)


def test_newton_agrees_with_scipy():
    n = 8
    sequence = NonlinearDiffusion(n)

    def residual(u):
        grid = np.pad(u.reshape(n, n), 1)
        A = five_point(n, lambda i, j: 1 + (grid[i[0] + 1, i[1] + 1] ** 2 + grid[j[0] + 1, j[1] + 1] ** 2) / 2)
        return A @ u - 2 * 20.0 * sequence.source.ravel() / (n + 1) ** 2

    u, _ = end_of_level(sequence, 2)
    np.testing.assert_allclose(u.ravel(), root(residual, u.ravel() * 0.9, tol=1e-12).x, rtol=1e-6)


def test_continuation_agrees_with_scipy_and_stays_below_the_fold(to_scipy):
    n = 9
    sequence = Bratu(n)
    laplacian = (n + 1) ** 2 * five_point(n, lambda i, j: 1.0)
    for level in (1, 5):
        u, _ = end_of_level(sequence, level)
        exact = root(lambda u, level=level: laplacian @ u - 6.8 * (1 - 0.9**level) * np.exp(u), np.zeros(n**2))
        np.testing.assert_allclose(u.ravel(), exact.x, rtol=1e-6)
    for i in range(0, 60, 5):
        system = sequence.system(i)
        assert system.is_spd
        assert np.linalg.eigvalsh(to_scipy(system.A).toarray())[0] > 0
    assert sequence.state(59).u.max() < 1.39  # the height at the fold


def test_time_steps_agree_with_scipy():
    """Steps of u' = -A(t) u + 1 with dense matrices."""
    n, step = 7, 0.02
    sequence = Transient(n, time_step=step)
    u = np.zeros(n**2)
    for i in range(5):
        np.testing.assert_allclose(sequence.state(i).u.ravel(), u, atol=1e-11)
        np.testing.assert_allclose(sequence.system(i).guess.array_r, u, atol=1e-11)
        a = sequence.coefficient((i + 1) * step)
        A = (n + 1) ** 2 * five_point(n, lambda i, j, a=a: (a[i[0] + 1, i[1] + 1] + a[j[0] + 1, j[1] + 1]) / 2)
        u = np.linalg.solve(np.eye(n**2) + step * A, u + step)


def test_heat_equation_decays_to_its_steady_state():
    """With a = 1 and a large step, u is the solution of -Δu = 1, 0.0736713 at the centre."""
    sequence = Transient(31, time_step=10.0)
    sequence.coefficient = lambda time: np.ones((33, 33))
    assert sequence.state(4).u[15, 15] == pytest.approx(0.0736713, rel=2e-3)


CASES = (
    ConvectionDiffusion(peclet=1e2, resolution=12),
    Helmholtz(wavenumber=5.0, resolution=10),
    NonlinearDiffusion(8),
    Bratu(8),
    Transient(8),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_system_is_a_function_of_its_number(case, to_scipy):
    first = case.system(3)
    A, b, handle = to_scipy(first.A).copy(), first.b.array_r.copy(), first.A.handle
    other = case.system(1)
    assert other.A.handle == handle  # overwritten in place
    assert abs(to_scipy(other.A) - A).max() > 0
    again = case.system(3)
    assert abs(to_scipy(again.A) - A).max() == 0
    np.testing.assert_array_equal(again.b.array_r, b)
    assert again.A.getSize() == (case.num_unknowns, case.num_unknowns)
    assert case.features(3).ndim == 1
    if again.is_spd:
        assert abs(A - A.T).max() == 0
    if again.grid is not None:
        assert np.prod(again.grid.shape) == case.num_unknowns


def test_sequence_does_not_depend_on_how_it_was_prepared():
    whole, pieces = NonlinearDiffusion(8), NonlinearDiffusion(8)
    whole.prepare(9)
    for i in (2, 5, 8):
        pieces.system(i)
    np.testing.assert_array_equal(whole.state(8).u, pieces.state(8).u)


def test_names_are_unique_and_end_in_the_size():
    cases = (*convection.CASES, *helmholtz.CASES, *sequences.CASES)
    assert len({case.name for case in cases}) == len(cases)
    assert all(case.name.endswith(f" {case.num_unknowns}") for case in cases)
