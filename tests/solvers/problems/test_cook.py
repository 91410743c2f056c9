"""Cook's membrane against its published and extrapolated displacements, and where it locks."""

import numpy as np
import pytest

from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.solids.cook import Cook

BENCHMARK = {"youngs_modulus": 1.0, "poisson_ratio": 1 / 3, "force_x": 0.0, "force_y": 1.0}
SOFT = {"youngs_modulus": 240.565, "poisson_ratio": 0.4999, "force_x": 0.0, "force_y": 100.0}


def lifts(solve, parameters, **options):
    """u_y at the middle and at the upper corner of the end."""
    (sample,) = Cook(**options).simulate(parameters, solve)
    return np.array([sample.outputs["tip"], sample.outputs["displacement"][1, -1]])


def test_the_benchmark_converges_to_its_displacement(scipy_solve):
    """Published values of the middle are 23.96 to 23.97; these digits are by elements of degree 4, extrapolated.

    The order at the corner is lower, because shear stress jumps there.
    """
    errors = [np.array([23.9676, 25.188]) - lifts(scipy_solve, BENCHMARK, resolution=n) for n in (8, 16)]
    assert (errors[0] > 0).all() and (errors[1] < [0.05, 0.2]).all()
    assert np.log2(errors[0] / errors[1]) == pytest.approx([1.4, 1.2], abs=0.1)


def test_plane_strain_has_the_published_displacement(scipy_solve):
    """E = 70, ν = 1/3, a traction of 6.25: four codes give 32.2 to 32.3 at the upper corner."""
    parameters = {"youngs_modulus": 70.0, "poisson_ratio": 1 / 3, "force_x": 0.0, "force_y": 100.0}
    assert lifts(scipy_solve, parameters, resolution=24, law="plane_strain")[1] == pytest.approx(32.25, rel=0.005)


def test_nearly_incompressible_material_locks_with_degree_one_only(scipy_solve):
    """E = 240.565, ν = 0.4999, a traction of 6.25: 7.69 and 8.07 by elements of degree 4."""
    options = {"resolution": 16, "law": "plane_strain"}
    assert lifts(scipy_solve, SOFT, **options) == pytest.approx([7.69, 8.07], rel=0.04)
    assert lifts(scipy_solve, SOFT, **options, degree=1)[0] < 2.5


def test_material_and_load_enter_as_hookes_law_says(scipy_solve):
    """The displacement is linear in the force and inverse to E."""
    problem = Cook(resolution=4)
    parameters = problem.draw(generator_of(0, "training", 0))
    (sample,) = problem.simulate(parameters, scipy_solve)
    total = np.zeros_like(sample.outputs["displacement"])
    for name in ("force_x", "force_y"):
        single = {**parameters, "youngs_modulus": 1.0, "force_x": 0.0, "force_y": 0.0, name: 1.0}
        (part,) = problem.simulate(single, scipy_solve)
        total += parameters[name] * part.outputs["displacement"] / parameters["youngs_modulus"]
    np.testing.assert_allclose(sample.outputs["displacement"], total, atol=1e-11 * abs(total).max())


def test_the_panel_has_cooks_corners_and_the_tip_is_the_middle_of_its_end(scipy_solve):
    problem = Cook(resolution=6)
    points = problem.mesh.arrays.points
    np.testing.assert_allclose(points[[0, 6, -7, -1]], [[0, 0], [0, 44], [48, 44], [48, 60]])
    np.testing.assert_allclose(points[problem.tip], [48, 52])
    assert problem.mesh.weights.sum() == pytest.approx(48 * (44 + 16) / 2)


def test_samples_pack(scipy_solve):
    problem = Cook(resolution=4)
    arrays = problem.layout.pack(list(problem.simulate(problem.draw(generator_of(0, "training", 0)), scipy_solve)))
    assert arrays["scalars"].shape == (1, 4)
    assert sorted(array.shape for array in arrays.values()) == [(1, 1), (1, 2, 25), (1, 4)]


@pytest.mark.parametrize("options", [{"resolution": 3}, {"resolution": 0}, {"degree": 3}, {"law": "thin"}])
def test_bad_options_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} = {value!r}"):
        Cook(**options)
