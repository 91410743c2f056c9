"""The plate of Meyer et al.: values at its end, sine transforms, layers at the edges."""

import numpy as np
import pytest
from scipy.fft import dstn, idstn
from scipy.special import erfc

from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.constant import Constant
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.transient.heat_plate import TEMPERATURES, HeatPlate
from tests.support.systems import to_scipy

EXAMPLE = dict(zip(TEMPERATURES, (100.0, 500.0, 300.0, 200.0, 400.0), strict=True))


def trajectory(problem, parameters):
    return list(problem.simulate(parameters, LinearSolver(Constant(), rtol=1e-10)))


def by_sines(n, extent, time_step, num_steps, temperatures):
    """u after some steps by sine transforms, which diagonalise the five-point Laplacian."""
    initial, west, east, south, north = temperatures
    ratio = time_step * ((n + 1) / extent) ** 2
    edges = np.zeros((n, n))
    edges[0] += west
    edges[-1] += east
    edges[:, 0] += south
    edges[:, -1] += north
    along = 2 - 2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1))
    eigenvalues = 1 + ratio * (along[:, None] + along)
    u = np.full((n, n), initial)
    for _ in range(num_steps):
        u = idstn(dstn(u + ratio * edges, type=1) / eigenvalues, type=1)
    return u


@pytest.mark.parametrize(("extent", "node", "mean"), [(10.0, 100.48837, 197.00374), (1.0, 350.0, 350.0)])
def test_the_last_step_of_the_published_discretisation(extent, node, mean):
    """Step 100 for temperatures of 100, 500, 300, 200 and 400 K against sine transforms.

    With L = 1 the plate is at rest: its mean and the centre are those of the four edges, by symmetry.
    """
    last = trajectory(HeatPlate(extent=extent), EXAMPLE)[-1]
    u = last.outputs["temperature"]
    assert (last.step, last.time) == (99, pytest.approx(1.0))
    np.testing.assert_allclose(u, by_sines(100, extent, 0.01, 100, EXAMPLE.values()), rtol=1e-8)
    assert u[50, 50] == pytest.approx(node, abs=6e-6 if extent == 10 else 1e-3)
    assert u.mean() == pytest.approx(mean, abs=6e-6 if extent == 10 else 1e-3)


def test_far_from_corners_the_edges_are_those_of_a_half_space(scipy_solve):
    """u = T_initial + (T_west - T_initial) erfc(x / (2 √t)), up to the errors of steps and differences."""
    n, num_steps = 40, 50
    problem = HeatPlate(resolution=n, extent=10.0, num_steps=num_steps, time_step=0.02)
    *_, last = problem.simulate(EXAMPLE, scipy_solve)
    x = np.arange(1, n + 1) * 10 / (n + 1)
    exact = 100 + 400 * erfc(x / 2) + 200 * erfc((10 - x) / 2)
    np.testing.assert_allclose(last.outputs["temperature"][:, n // 2], exact, atol=0.01 * 400)


def test_swapping_the_axes_transposes_the_plate(scipy_solve):
    problem = HeatPlate(resolution=7, num_steps=3, extent=1.0)
    swapped = dict(zip(("initial", "south", "north", "west", "east"), EXAMPLE.values(), strict=True))
    for sample, other in zip(*(problem.simulate(p, scipy_solve) for p in (EXAMPLE, swapped)), strict=True):
        np.testing.assert_allclose(sample.outputs["temperature"], other.outputs["temperature"].T, rtol=1e-12)


def test_samples_pack_with_their_times_and_all_steps_share_a_matrix(scipy_solve):
    problem, systems = HeatPlate(resolution=6, num_steps=4, time_step=0.5), []

    def solve(system):
        systems.append((to_scipy(system.A).toarray(), system.guess.array_r.copy()))
        return scipy_solve(system)

    parameters = problem.draw(generator_of(0, "training", 0))
    samples = list(problem.simulate(parameters, solve))
    arrays = problem.layout.pack(samples)
    assert {name: array.shape for name, array in arrays.items()} == {"scalars": (4, 6), "targets": (4, 1, 6, 6)}
    np.testing.assert_allclose(arrays["scalars"][:, 5], [0.5, 1.0, 1.5, 2.0])
    np.testing.assert_allclose(arrays["scalars"][0, :5], [parameters[name] for name in TEMPERATURES])
    assert all(100 <= parameters[name] <= 500 for name in TEMPERATURES)
    assert len({A.tobytes() for A, _ in systems}) == 1
    np.testing.assert_array_equal(systems[1][1], samples[0].outputs["temperature"].ravel())


def test_values_sit_at_the_inner_points_of_the_plate():
    problem = HeatPlate(resolution=4, extent=10.0)
    for axis in problem.outputs[0].on.axes():
        np.testing.assert_allclose(axis, [2.0, 4.0, 6.0, 8.0])


@pytest.mark.parametrize("options", [{"resolution": 0}, {"extent": 0.0}, {"num_steps": 0}, {"time_step": np.inf}])
def test_bad_options_are_refused(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        HeatPlate(**options)
