"""Double glazing: the symmetry of its eddy, layers, boundary values, the law."""

import numpy as np
import pytest
from scipy.sparse import diags_array, eye_array, kron
from scipy.sparse.linalg import spsolve

from penstock.solvers.discretisation.differences.cells import cell_means
from penstock.solvers.discretisation.elements.supg import UpwindedConvection
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.steady.double_glazing import DoubleGlazing

IFISS = {"diffusion": 1 / 200}


def test_mean_and_centre_are_a_quarter(scipy_solve):
    """Four panes add up to 1, so the mean and the centre are 1/4 up to the error of the elements.

    The centre is the mean of the four cells around it, up to h².
    """
    errors = []
    for n in (16, 32, 64):
        (sample,) = DoubleGlazing(resolution=n).simulate(IFISS, scipy_solve)
        u = sample.outputs["temperature"]
        centre = u[n // 2 - 1 : n // 2 + 1, n // 2 - 1 : n // 2 + 1].mean()
        errors.append((abs(u.mean() - 0.25), abs(centre - 0.25)))
    assert np.all(np.array(errors)[2] < 1e-4)
    assert np.all(np.array(errors)[1:] < np.array(errors)[:-1])


def test_boundary_values_of_a_linear_solution_are_met(scipy_solve):
    """u = 2 + x - 3 y solves -ε Δu + w·∇u = f for the constant wind of ψ = 2 x + y and f = w·∇u, exactly in P1."""
    n = 6
    x, y = np.meshgrid(*2 * [np.arange(n + 1) / n], indexing="ij")
    u = 2 + x - 3 * y
    boundary_values = u.copy()
    boundary_values[1:-1, 1:-1] = 0
    source = np.full_like(u, 1 * 1 + -2 * -3)  # w = (∂ψ/∂y, -∂ψ/∂x) = (1, -2)
    system = UpwindedConvection(n).system(2 * x + y, source, diffusion=0.01, boundary_values=boundary_values)
    solution = scipy_solve(system).x.array_r.reshape(n - 1, n - 1)
    np.testing.assert_allclose(solution, u[1:-1, 1:-1], atol=1e-12)


def test_without_wind_the_temperature_is_the_series_of_a_hot_pane(scipy_solve):
    """Δu = 0 with u = 1 on x = 1: Σ 4/(kπ) sin(kπ Y) sinh(kπ X) / sinh(kπ) over odd k, on the unit square."""
    n = 32
    (sample,) = DoubleGlazing(resolution=n, wind="random").simulate(
        {"diffusion": 1.0, "eddies": np.zeros((n + 1, n + 1))}, scipy_solve
    )
    X = Y = (np.arange(n) + 0.5) / n
    k = np.arange(1, 120, 2)[:, None] * np.pi
    exact = np.einsum("kx,ky->xy", np.sinh(k * X) / np.sinh(k), 4 / k * np.sin(k * Y))
    np.testing.assert_allclose(sample.outputs["temperature"][:-4], exact[:-4], atol=3e-3)
    assert np.abs(sample.inputs["wind_x"]).max() == 0


def test_the_eddy_turns_as_published_and_random_winds_do_not_leave(scipy_solve):
    """w = (2y (1 - x²), -2x (1 - y²)) of IFISS at the centres of cells, up to h²; the flux through a wall is 0."""
    n = 32
    problem = DoubleGlazing(resolution=n, wind="random")
    eddies = np.full((n + 1, n + 1), np.sqrt(problem.space.distributions["eddies"].variance))
    x = -1 + 2 * (np.arange(n)[:, None] + 0.5) / n
    y = x.T
    (sample,) = problem.simulate({"diffusion": 0.05, "eddies": eddies}, scipy_solve)
    np.testing.assert_allclose(sample.inputs["wind_x"], 2 * y * (1 - x**2), atol=4e-3)
    np.testing.assert_allclose(sample.inputs["wind_y"], -2 * x * (1 - y**2), atol=4e-3)
    (fixed,) = DoubleGlazing(resolution=n).simulate({"diffusion": 0.05}, scipy_solve)
    np.testing.assert_allclose(fixed.outputs["temperature"], sample.outputs["temperature"], rtol=1e-9, atol=1e-12)
    (drawn,) = problem.simulate(problem.draw(generator_of(0, "training", 0)), scipy_solve)
    # On triangles with a side on the wall the wind is along it; the other half of a cell has a share of h.
    assert np.abs(drawn.inputs["wind_x"][0]).max() < 0.2 * np.abs(drawn.inputs["wind_x"]).max()


def test_temperatures_are_those_of_central_differences_on_the_square_of_side_2(scipy_solve):
    """Central differences of -ε Δu + w·∇u on (-1, 1)², with w as published and ε large enough for them."""
    n, diffusion = 64, 0.05
    points = np.linspace(-1, 1, n + 1)
    shape = (n + 1, n + 1)
    first = diags_array([-1.0, 1.0], offsets=[-1, 1], shape=shape) * n / 4
    second = diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=shape) * n**2 / 4
    identity = eye_array(n + 1)
    x, y = (axis.ravel() for axis in np.meshgrid(points, points, indexing="ij"))
    A = diffusion * (kron(second, identity) + kron(identity, second))
    A += diags_array(2 * y * (1 - x**2)) @ kron(first, identity)
    A -= diags_array(2 * x * (1 - y**2)) @ kron(identity, first)
    u = np.zeros(shape)
    u[-1] = 1.0
    u[-1, [0, -1]] = 0.5
    inner = np.arange(u.size).reshape(shape)[1:-1, 1:-1].ravel()
    b = -(A.tocsr() @ u.ravel())[inner]
    u[1:-1, 1:-1] = spsolve(A.tocsr()[inner][:, inner].tocsc(), b).reshape(n - 1, n - 1)
    (sample,) = DoubleGlazing(resolution=n).simulate({"diffusion": diffusion}, scipy_solve)
    np.testing.assert_allclose(sample.outputs["temperature"], cell_means(u), atol=0.01)


def test_diffusions_are_log_uniform():
    problem = DoubleGlazing(resolution=4, smallest_diffusion=0.01, largest_diffusion=1.0)
    logarithms = np.log10([problem.draw(generator_of(0, "training", i))["diffusion"] for i in range(2000)])
    assert -2 <= logarithms.min() < -1.99 and -0.01 < logarithms.max() <= 0
    np.testing.assert_allclose(np.histogram(logarithms, 4, (-2, 0))[0] / 2000, 0.25, atol=0.04)
    quantiles = [problem.quantiles(generator_of(0, "training", i))[0] for i in range(5)]
    np.testing.assert_allclose(quantiles, (logarithms[:5] + 2) / 2, atol=1e-12)


@pytest.mark.parametrize("wind", ["recirculating", "random"])
def test_samples_pack(wind, scipy_solve):
    problem = DoubleGlazing(resolution=8, wind=wind)
    samples = list(problem.simulate(problem.draw(generator_of(0, "training", 0)), scipy_solve))
    arrays = {name: array.shape for name, array in problem.layout.pack(samples).items()}
    fields = {"fields": (1, 2, 8, 8)} if wind == "random" else {}
    assert arrays == {"scalars": (1, 1), "targets": (1, 1, 8, 8)} | fields


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 1}, "resolution = 1"),
        ({"wind": "still"}, "wind = 'still' is not known"),
        ({"smallest_diffusion": 0.1}, "smallest_diffusion = 0.1 must be above 0 and below largest_diffusion = 0.05"),
        ({"largest_diffusion": np.inf}, "largest_diffusion = inf, which must be finite"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DoubleGlazing(**options)
