"""The benchmark 2D-1, the mesh around the cylinder."""

import numpy as np
import pytest

from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.flow.channel import Channel, channel_mesh, parabola
from penstock.solvers.problems.flow.cylinder import Cylinder


@pytest.fixture(scope="module")
def solve():
    return LinearSolver(Direct(solver="mumps"), rtol=1e-10)


def test_drag_lift_and_pressure_are_those_of_the_benchmark(solve):
    """2D-1 (Schäfer and Turek 1996), with the digits of Nabh (1998).

    The pressure's drop from before to behind the cylinder is 0.11752017 at a mean inflow of 0.2.
    """
    problem = Cylinder(resolution=12, num_levels=1)
    (sample,) = problem.simulate({"reynolds": 20.0, "inflow": parabola(12)}, solve)
    assert sample.outputs["drag"] == pytest.approx(5.57953523, rel=5e-4)
    assert sample.outputs["lift"] == pytest.approx(0.01061895, rel=0.03)
    points = problem.channel.nodes[problem.channel.node_of_point]
    before, behind = (np.argmin(np.linalg.norm(points - place, axis=1)) for place in ([0.15, 0.2], [0.25, 0.2]))
    drop = sample.outputs["pressure"][before] - sample.outputs["pressure"][behind]
    assert 0.2**2 * drop == pytest.approx(0.11752017, rel=0.01)


def test_the_mesh_fills_the_channel_around_the_cylinder(angles):
    for n in (4, 16):
        mesh = channel_mesh(n).arrays  # which is checked
        points = mesh.points
        assert len(mesh.cells) == 14 * n**2
        np.testing.assert_allclose(np.linalg.norm(points[: 4 * n] - 0.2, axis=1), 0.05)
        polygon = 2 * n * 0.05**2 * np.sin(np.pi / (2 * n))
        assert mesh.weights.sum() == pytest.approx(2.2 * 0.41 - polygon, rel=1e-12)
        assert np.abs(points - [0.15, 0.2]).sum(axis=1).min() < 1e-12
        assert np.abs(points - [0.25, 0.2]).sum(axis=1).min() < 1e-12
        assert angles(points, mesh.cells).min() > 26
        assert angles(points, mesh.cells).max() < 104


def test_edges_on_the_cylinder_are_curved():
    """The triangles' area is the channel's less the circle's, up to order 4."""
    from dolfinx.fem import Constant, assemble_scalar, form
    from ufl import dx

    errors = []
    for n in (4, 8):
        one = Constant(Channel(n).space.mesh, 1.0)
        errors.append(abs(assemble_scalar(form(one * dx)) - (2.2 * 0.41 - np.pi * 0.05**2)))
    assert errors[0] < 1e-5 and np.log2(errors[0] / errors[1]) == pytest.approx(4.0, abs=0.2)


def test_samples_pack(solve):
    problem = Cylinder(resolution=4, num_levels=2, largest_reynolds=20.0)
    parameters = problem.draw(generator_of(0, "training", 0))
    arrays = problem.layout.pack(list(problem.simulate(parameters, solve)))
    assert arrays["targets"].shape == (2, 3, 140)
    assert arrays["target_scalars"].shape == (2, 2)
    np.testing.assert_allclose(arrays["scalars"][:, 0], parameters["reynolds"] * np.array([0.5, 1]), rtol=1e-6)
    assert arrays["target_scalars"][0, 0] > arrays["target_scalars"][1, 0] > 0  # less drag where inertia is larger


@pytest.mark.parametrize(
    "options", [{"resolution": 2}, {"resolution": 7}, {"num_levels": 0}, {"largest_reynolds": np.inf}]
)
def test_bad_options_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        Cylinder(**options)
