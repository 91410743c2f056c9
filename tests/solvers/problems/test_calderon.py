"""Fluxes of harmonic functions, the map from potentials to fluxes, one factor for all potentials."""

import numpy as np
import pytest

from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.inverse.calderon import Calderon
from penstock.solvers.problems.inverse.traces import by_side


def vertices(n):
    return np.meshgrid(*2 * [np.arange(n + 1) / n], indexing="ij")


def on_boundary(values):
    values = np.array(values, float)
    values[:, 1:-1, 1:-1] = 0.0
    return values


def random_conductivity(n, seed=0):
    return np.exp(np.random.default_rng(seed).standard_normal((n, n)))


def test_fluxes_of_harmonic_polynomials_are_exact(scipy_solve):
    """By hand, for a = 3: x, xy and x² - y², for which five-point differences have no error."""
    n = 6
    x, y = vertices(n)
    flows = Calderon(resolution=n).fluxes(np.full((n, n), 3.0), on_boundary([x, x * y, x**2 - y**2]), scipy_solve)
    sides, inner, one = by_side(flows), np.arange(1, n) / n, np.ones(n - 1)
    expected = {
        "west": [-one, -inner, 0 * one],
        "east": [one, inner, 2 * one],
        "south": [0 * one, -inner, 0 * one],
        "north": [0 * one, inner, -2 * one],
    }
    for side, values in expected.items():
        np.testing.assert_allclose(sides[side], 3 * np.transpose(values), atol=1e-12)


def test_fluxes_in_a_medium_that_varies_have_second_order(scipy_solve):
    """For a = e^(2x) and u = e^(-x) v with v = exp((x + y) / √2): Δv = v, so ∇·(a ∇u) = e^x (Δv - v) = 0."""
    root, errors = np.sqrt(0.5), []
    for n in (8, 16, 32):
        x, y = vertices(n)
        centres = (np.arange(n) + 0.5) / n
        u = np.exp(root * (x + y) - x)
        a = np.repeat(np.exp(2 * centres)[:, None], n, axis=1)
        sides = by_side(Calderon(resolution=n).fluxes(a, on_boundary([u]), scipy_solve))
        u_x, u_y = np.exp(2 * x) * (root - 1) * u, np.exp(2 * x) * root * u
        exact = {"west": -u_x[0], "east": u_x[-1], "south": -u_y[:, 0], "north": u_y[:, -1]}
        differences = [sides[side][:, 0] - exact[side][1:-1] for side in exact]
        errors.append(np.sqrt(np.sum(np.square(differences)) / n))
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(2.0, abs=0.2)


def test_the_map_of_a_uniform_medium_has_its_known_multipliers(scipy_solve):
    """For a = 1 and g = sin(kπx) on the south alone: kπ coth(kπ) g there, -kπ / sinh(kπ) g on the north."""
    n = 40
    x, y = vertices(n)
    potentials = [np.where(y == 0, np.sin(k * np.pi * x), 0.0) for k in (1, 2, 3)]
    sides = by_side(Calderon(resolution=n).fluxes(np.ones((n, n)), on_boundary(potentials), scipy_solve))
    for k in (1, 2, 3):
        sine = np.sin(k * np.pi * np.arange(1, n) / n)
        size = k * np.pi / np.tanh(k * np.pi)
        np.testing.assert_allclose(sides["south"][:, k - 1], size * sine, atol=0.01 * size)
        np.testing.assert_allclose(sides["north"][:, k - 1], -k * np.pi / np.sinh(k * np.pi) * sine, atol=0.01)


def test_the_map_is_symmetric_has_constants_in_its_kernel_and_conserves_current(scipy_solve):
    """What ∫ g Λh = ∫ a ∇u·∇v says of the map Λ, in a rough medium."""
    n, rng = 9, np.random.default_rng(1)
    potentials = on_boundary([*rng.standard_normal((3, n + 1, n + 1)), np.ones((n + 1, n + 1))])
    flows = Calderon(resolution=n).fluxes(random_conductivity(n), potentials, scipy_solve)
    energies = np.einsum("ixy,jxy->ij", potentials, flows) / n
    np.testing.assert_allclose(energies, energies.T, atol=1e-12)
    assert np.linalg.eigvalsh(energies[:3, :3]).min() > 0
    np.testing.assert_allclose(flows[3], 0, atol=1e-11)
    np.testing.assert_allclose(flows.sum(axis=(1, 2)), 0, atol=1e-10)


def test_a_sample_holds_the_medium_and_the_fluxes_of_its_formulas(scipy_solve):
    """Amplitudes beyond m do nothing, and a potential is the cosine at a point of the east side."""
    problem = Calderon(resolution=20, num_functions=4)
    parameters = {"num_modes": 2, **{f"amplitude_{k}": 0.1 * k for k in range(1, 6)}}
    (sample,) = samples = list(problem.simulate(parameters, scipy_solve))
    x = (7 + 0.5) / 20, (2 + 0.5) / 20
    exponent = sum(0.1 * k * np.prod(np.sin(k * np.pi * np.array(x))) for k in (1, 2))
    assert sample.inputs["conductivity"][7, 2] == pytest.approx(np.exp(exponent), rel=1e-12)
    arrays = problem.layout.pack(samples)
    assert arrays["fields"].shape == (1, 1, 20, 20) and arrays["targets"].shape == (1, 4, 19, 4)
    theta = np.pi * 2.5 / 4
    assert problem.boundary_values[2, 20, 5] == pytest.approx(
        np.cos(np.pi * (np.cos(theta) + 0.25 * np.sin(theta))), rel=1e-12
    )
    assert not problem.boundary_values[:, 1:-1, 1:-1].any()


def test_all_potentials_are_solved_with_one_factor_per_sample():
    """The numeric factorisations that PETSc counts."""
    from petsc4py import PETSc

    PETSc.Log.begin()
    event = PETSc.Log.Event("MatCholFctrNum")
    problem, solve = Calderon(resolution=8), LinearSolver(Direct(solver="petsc"), rtol=1e-10)
    before = event.getPerfInfo()["count"]
    for simulation in range(4):
        list(problem.simulate(problem.draw(generator_of(0, "training", simulation)), solve))
    assert event.getPerfInfo()["count"] == before + 4


def test_draws_have_one_to_five_modes_with_amplitudes_up_to_1():
    problem = Calderon(resolution=8)
    draws = [problem.draw(generator_of(0, "training", i)) for i in range(200)]
    assert {draw["num_modes"] for draw in draws} == {1, 2, 3, 4, 5}
    amplitudes = np.array([[draw[f"amplitude_{k}"] for k in range(1, 6)] for draw in draws])
    assert amplitudes.min() < -0.98 and amplitudes.max() > 0.98
    assert np.abs(amplitudes.mean(axis=0)).max() < 4 / np.sqrt(3 * 200)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 1}, "resolution = 1 is too small: an inner vertex needs 2 squares per side"),
        ({"num_functions": 0}, "num_functions = 0 is too small"),
        ({"wavenumber": 0.0}, "wavenumber = 0.0 must be above 0 and finite"),
        ({"resolution": 8, "wavenumber": 20.0}, "resolution = 8 has 2.5 points per wavelength"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Calderon(**options)
