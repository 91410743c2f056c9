"""The slotted block: its mesh, its published data, differences by SciPy."""

import numpy as np
import pytest
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import spsolve

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.steady.thermal import Thermal


def temperature(problem, parameters, solve):
    (sample,) = problem.simulate(parameters, solve)
    return sample.outputs["temperature"]


def test_the_mesh_is_the_block_less_the_slot():
    for n in (1, 2, 3):
        mesh = Thermal(resolution=n).mesh
        assert mesh.weights.sum() == pytest.approx(1.6 - 0.1 * 0.8)
        np.testing.assert_allclose(mesh.box, [[-0.5, -0.8], [0.5, 0.8]])
        assert not (np.abs(mesh.arrays.points) < np.array([0.05, 0.4]) - 1e-9).all(axis=1).any()


def test_the_response_to_a_flux_agrees_with_an_extrapolated_one(scipy_solve):
    """ψ has ψ = 0 on the left and ∂ψ/∂n = 1 on the right.

    By P2 elements with 71,324 unknowns ψ(0.5, 0.8) = 1.3909, its mean on the right is 1.4863, its integral 1.1288.
    """
    problem = Thermal(resolution=2)
    psi = temperature(problem, {"left": 0.0, "flux": -1.0}, scipy_solve)
    points = problem.mesh.arrays.points
    assert psi[-1] == pytest.approx(1.3909, abs=2e-3)
    on_right = points[:, 0] == 0.5
    assert np.trapezoid(psi[on_right], points[on_right, 1]) / 1.6 == pytest.approx(1.4863, abs=3e-3)
    assert np.sum(problem.mesh.weights * psi) == pytest.approx(1.1288, abs=3e-3)
    assert psi.max() == pytest.approx(1.587, abs=4e-3)


def test_temperature_is_linear_in_the_two_numbers_and_the_matrix_stays(scipy_solve):
    problem = Thermal(resolution=1)
    psi = temperature(problem, {"left": 0.0, "flux": -1.0}, scipy_solve)
    A = problem.equation.matrix()
    state = A.stateGet()
    parameters = problem.draw(generator_of(0, "training", 0))
    found = temperature(problem, parameters, scipy_solve)
    np.testing.assert_allclose(found, parameters["left"] - parameters["flux"] * psi, atol=1e-8)
    assert problem.equation.matrix() is A and A.stateGet() == state


def test_functions_on_the_edges_agree_with_differences_by_scipy(scipy_solve):
    """Conductances between neighbouring points of a grid: 1, or 1/2 along an insulated boundary."""
    problem = Thermal(resolution=2, edges="functions")
    parameters = problem.draw(generator_of(0, "training", 0))
    found = temperature(problem, parameters, scipy_solve)
    n = 4  # squares across half of the slot
    shape = (20 * n + 1, 32 * n + 1)
    x, y = (index * 0.05 / n - half for index, half in zip(np.indices(shape), (0.5, 0.8), strict=True))
    centres = (x[:-1, :-1] + 0.025 / n, y[:-1, :-1] + 0.025 / n)
    is_solid = ~((abs(centres[0]) < 0.05) & (abs(centres[1]) < 0.4))
    number = np.arange(x.size).reshape(shape)
    pairs = []  # of the ends of the four sides of each solid square
    for low, high in (
        (number[:-1, :-1], number[1:, :-1]),
        (number[:-1, 1:], number[1:, 1:]),
        (number[:-1, :-1], number[:-1, 1:]),
        (number[1:, :-1], number[1:, 1:]),
    ):
        pairs.append(np.stack([low[is_solid], high[is_solid]]))
    low, high = np.concatenate(pairs, axis=1)
    C = csr_array((np.full(len(low), 0.5), (low, high)), shape=(x.size,) * 2)
    C = C + C.T
    K = (diags_array(C.sum(axis=1)) - C).tocsr()
    T = np.zeros(x.size)
    s = (y[0] + 0.8) / 1.6
    for edge, column in (("left", number[0]), ("right", number[-1])):
        T[column] = sum(parameters[f"{edge}_{k}"] * np.cos(k * np.pi * s) for k in range(4))
    is_free = (C.sum(axis=1) > 0) & (abs(x.ravel()) < 0.4999)
    free = np.flatnonzero(is_free)
    T[free] = spsolve(K[free][:, free].tocsc(), -(K[free] @ T))
    i, j = np.rint((problem.mesh.arrays.points - problem.mesh.box[0]) / 0.05 * n).astype(int).T
    np.testing.assert_allclose(found, T.reshape(shape)[i, j], atol=0.01 * np.ptp(T))


def test_equal_temperatures_fill_the_block_and_opposite_ones_cancel_in_its_middle(scipy_solve):
    problem = Thermal(resolution=1, edges="functions")
    none = dict.fromkeys(problem.space.distributions, 0.0)
    equal = temperature(problem, {**none, "left_0": 80.0, "right_0": 80.0}, scipy_solve)
    np.testing.assert_allclose(equal, 80.0, rtol=1e-12)
    opposite = temperature(problem, {**none, "left_0": 30.0, "right_0": 70.0}, scipy_solve)
    x = problem.mesh.arrays.points[:, 0]
    np.testing.assert_allclose(opposite[np.isclose(x, -0.5)], 30.0)
    assert opposite[np.isclose(x, 0)] == pytest.approx(50.0, abs=0.05)


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ("numbers", {"scalars": (1, 2), "targets": (1, 1, 678)}),
        ("functions", {"fields": (1, 1, 678), "scalars": (1, 8), "targets": (1, 1, 678)}),
    ],
)
def test_samples_pack(scipy_solve, edges, expected):
    problem = Thermal(resolution=1, edges=edges)
    samples = list(problem.simulate(problem.draw(generator_of(0, "training", 0)), scipy_solve))
    assert {name: array.shape for name, array in problem.layout.pack(samples).items()} == expected
    if edges == "functions":
        given, found = samples[0].inputs["edge_temperature"], samples[0].outputs["temperature"]
        np.testing.assert_allclose(found[given != 0], given[given != 0], rtol=1e-12)
        assert (given != 0).sum() == 66


@pytest.mark.parametrize("options", [{"resolution": 0}, {"edges": "insulated"}])
def test_bad_options_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} = {value!r}"):
        Thermal(**options)
