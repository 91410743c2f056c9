"""The disc in closed form, meshes of all draws, the source's interpolation."""

from importlib.util import find_spec

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.shapes.poisson_polygons import PoissonPolygons

needs_gmsh = pytest.mark.skipif(find_spec("gmsh") is None, reason="gmsh, of the extra geometry, is not installed")


@needs_gmsh
def test_a_polygon_of_many_corners_has_the_solution_of_the_disc(scipy_solve):
    """u = (R² - r²) / 4 for f = 1."""
    problem = PoissonPolygons(resolution=40)
    angles = 2 * np.pi * np.arange(100) / 100
    polygon = 0.5 + 0.4 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    source = np.full((64, 64), np.sqrt(problem.field.variance))
    (sample,) = problem.simulate({"polygon": polygon, "source": source}, scipy_solve)
    r = np.linalg.norm(sample.geometry["points"] - 0.5, axis=1)
    np.testing.assert_allclose(sample.inputs["source"], 1, rtol=1e-12)
    np.testing.assert_allclose(sample.outputs["solution"], (0.16 - r**2) / 4, atol=1e-3 * 0.04)


def test_the_source_is_linear_between_the_centres_of_its_cells():
    problem = PoissonPolygons()
    field = problem.draw(generator_of(0, "training", 0))["source"]
    centres = (np.arange(64) + 0.5) / 64
    points = np.random.default_rng(0).uniform(0.01, 0.99, (100, 2))
    expected = RegularGridInterpolator((centres, centres), field)(points) / np.sqrt(problem.field.variance)
    np.testing.assert_allclose(problem.source_at(points, field), expected, atol=1e-12)


@needs_gmsh
def test_meshes_of_all_draws_fit_in_and_are_good(angles, scipy_solve):
    problem = PoissonPolygons(resolution=20)
    (most,) = {geometry.max_points for geometry in problem.layout.geometries}
    sizes, variances = set(), []
    for i in range(30):
        parameters = problem.draw(generator_of(0, "training", i))
        (sample,) = problem.simulate(parameters, scipy_solve)
        assert sample.outputs["solution"].shape == sample.inputs["source"].shape
        x, y = parameters["polygon"].T
        area = np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2
        assert sample.geometry["weights"].sum() == pytest.approx(area, rel=1e-12)
        sizes.add(len(sample.geometry["points"]))
        variances.append(np.mean(sample.inputs["source"] ** 2))
    assert len(sizes) > 20 and max(sizes) <= most
    assert np.mean(variances) == pytest.approx(1, abs=0.4)  # the middle of the square varies less than its sides


@needs_gmsh
def test_samples_pack(scipy_solve):
    problem = PoissonPolygons(resolution=20)
    draws = [problem.draw(generator_of(0, "training", i)) for i in range(3)]
    samples = [sample for draw in draws for sample in problem.simulate(draw, scipy_solve)]
    arrays = problem.layout.pack(samples)
    assert set(arrays) == {"fields", "points", "weights", "targets"}
    for array in arrays.values():
        np.testing.assert_array_equal(array.counts, [len(sample.outputs["solution"]) for sample in samples])


@pytest.mark.parametrize("options", [{"resolution": 9}, {"num_corners": 2}])
def test_bad_options_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        PoissonPolygons(**options)
