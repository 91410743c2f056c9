"""A hole in the middle by the square's conformal radius, meshes of all draws."""

from importlib.util import find_spec

import numpy as np
import pytest
from scipy.special import ellipk

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.shapes.square_with_holes import SquareWithHoles

needs_gmsh = pytest.mark.skipif(find_spec("gmsh") is None, reason="gmsh, of the extra geometry, is not installed")


@needs_gmsh
def test_the_potential_of_a_hole_in_the_middle_falls_with_the_logarithm(scipy_solve):
    """V log(ρ / r) / log(ρ / a) on the mean over angles, ρ = 1 / K(1/√2) the square's conformal radius.

    It holds up to (a / ρ)⁸ = 1e-6.
    """
    problem, (a, V) = SquareWithHoles(resolution=64, max_holes=1), (0.1, 2.0)
    (sample,) = problem.simulate({"holes": np.array([[0.5, 0.5, a]]), "potential_1": V}, scipy_solve)
    r = np.linalg.norm(sample.geometry["points"] - 0.5, axis=1)
    rho = 1 / ellipk(0.5)
    expected = V * np.log(rho / r) / np.log(rho / a)
    assert rho == pytest.approx(0.5394, abs=1e-4)
    error = sample.outputs["potential"] - expected
    for low, high in ((0.12, 0.16), (0.2, 0.24), (0.3, 0.34)):
        ring = (r > low) & (r < high)
        assert abs(np.average(error[ring], weights=sample.geometry["weights"][ring])) < 0.005 * V


@needs_gmsh
def test_meshes_of_all_draws_fit_in_and_are_good(angles):
    problem = SquareWithHoles(resolution=20, max_holes=6)
    (most,) = {geometry.max_points for geometry in problem.layout.geometries}
    counts = set()
    for i in range(40):
        holes = problem.draw(generator_of(0, "training", i))["holes"]
        points, cells = problem.mesh(holes)
        assert 0.7 * most < len(points) <= most
        assert angles(points, cells).min() > 15
        counts.add(len(holes))
    assert counts == {1, 2, 3, 4, 5, 6}


@needs_gmsh
def test_samples_pack_and_have_the_potentials_on_the_rims(scipy_solve):
    problem = SquareWithHoles(resolution=20)
    draws = [problem.draw(generator_of(0, "training", i)) for i in range(4)]
    samples = [sample for draw in draws for sample in problem.simulate(draw, scipy_solve)]
    arrays = problem.layout.pack(samples)
    assert set(arrays) == {"fields", "points", "weights", "targets"}
    for draw, sample in zip(draws, samples, strict=True):
        given, u = sample.inputs["boundary_value"], sample.outputs["potential"]
        potentials = [draw[f"potential_{k + 1}"] for k in range(len(draw["holes"]))]
        assert set(given) == {0, *potentials}
        assert min(0, *potentials) <= u.min() + 1e-12 and u.max() <= max(0, *potentials) + 1e-12
        for (x, y, radius), potential in zip(draw["holes"], potentials, strict=True):
            on_rim = np.isclose(np.hypot(*(sample.geometry["points"] - [x, y]).T), radius, rtol=1e-9)
            assert on_rim.sum() >= 12 and (u[on_rim] == potential).all() and (given[on_rim] == potential).all()


@pytest.mark.parametrize("options", [{"resolution": 19}, {"max_holes": 0}, {"max_holes": 7}])
def test_bad_options_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        SquareWithHoles(**options)
