"""The benchmark 2D-1 where the cylinder has been elsewhere, a turned channel, meshes of all draws."""

import numpy as np
import pytest

from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.flow.channel import parabola, triangulation
from penstock.solvers.problems.flow.random_cylinder import RandomCylinder


@pytest.fixture(scope="module")
def solve():
    return LinearSolver(Direct(solver="mumps"), rtol=1e-10)


def test_a_cylinder_that_comes_back_to_the_benchmarks_place_has_its_drag_and_lift(solve):
    """Drag 5.57953523 and lift 0.01061895 at Re = 20 (Schäfer and Turek 1996, Nabh 1998)."""
    problem = RandomCylinder(resolution=8)
    for centre, radius in (([0.25, 0.15], 0.06), ([0.2, 0.2], 0.05)):
        problem.channel.move(np.array(centre), radius)
        start = problem.channel.state(problem.channel.velocity_on_boundary(parabola(8)))
        unknowns = problem.flow.solve(start, 2 * radius / 20, solve, name="2D-1")
    drag, lift = 20 * problem.flow.force(unknowns, problem.channel.rim)
    assert drag == pytest.approx(5.57953523, rel=1e-3)
    assert lift == pytest.approx(0.01061895, rel=0.1)


def test_a_mirrored_channel_has_the_mirrored_flow(solve):
    """y to H - y; the mesh is no mirror image of itself, so errors differ."""
    problem = RandomCylinder(resolution=8, num_levels=1)
    inflow = parabola(8) * np.linspace(0.5, 1.5, 17)
    parameters = {"radius": 0.04, "centre_x": 0.2, "centre_y": 0.18, "reynolds": 20.0, "inflow": inflow}
    mirrored = parameters | {"centre_y": 0.41 - 0.18, "inflow": inflow[::-1]}
    (one,), (other,) = (list(problem.simulate(draw, solve)) for draw in (parameters, mirrored))
    image = one.geometry["points"] * [1, -1] + [0, 0.41]
    partner = [np.argmin(np.linalg.norm(other.geometry["points"] - point, axis=1)) for point in image]
    np.testing.assert_allclose(other.geometry["points"][partner], image, atol=1e-12)
    scale = np.abs(one.outputs["velocity"]).max()
    reflected = other.outputs["velocity"][:, partner] * [[1], [-1]]
    np.testing.assert_allclose(reflected, one.outputs["velocity"], atol=0.02 * scale)


def test_meshes_of_all_draws_are_good(angles):
    for centre in ([0.15, 0.15], [0.25, 0.15], [0.15, 0.25], [0.25, 0.25], [0.2, 0.2]):
        for radius in (0.03, 0.06):
            points, cells = triangulation(8, np.array(centre), radius)
            all_angles = angles(points, cells)
            assert all_angles.min() > 16 and all_angles.max() < 128


def test_samples_pack_with_their_points(solve):
    problem = RandomCylinder(resolution=4, num_levels=2)
    parameters = problem.draw(generator_of(0, "training", 0))
    samples = list(problem.simulate(parameters, solve))
    problem.layout.pack(samples)
    points, weights = (samples[0].geometry[name] for name in ("points", "weights"))
    place = [parameters["centre_x"], parameters["centre_y"]]
    np.testing.assert_allclose(np.linalg.norm(points[:16] - place, axis=1), parameters["radius"])
    polygon = 8 * parameters["radius"] ** 2 * np.sin(np.pi / 8)
    assert weights.sum() == pytest.approx(2.2 * 0.41 - polygon, rel=1e-12)
    enters = points[:, 0] == 0
    given = samples[0].inputs["boundary_velocity"]
    assert (given[0, enters] >= 0).all() and not given[:, ~enters].any() and not given[1].any()


@pytest.mark.parametrize(
    "options", [{"resolution": 2}, {"resolution": 7}, {"num_levels": 0}, {"largest_reynolds": -1.0}]
)
def test_bad_options_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        RandomCylinder(**options)
