"""Uniaxial stress on paper, a draw against NumPy's elements, rigid motions."""

from math import factorial

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.linalg import spsolve

from penstock.solvers.parameters.fields import GaussianField
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problems.solids.elasticity import Elasticity
from tests.support.systems import to_scipy


@pytest.mark.parametrize("dimension", [2, 3])
def test_uniaxial_stress_is_exact(scipy_solve, dimension):
    """Hooke's law: σ_xx = t alone stretches by t / E and narrows by ν t / E.

    In plane strain E and ν are E / (1 - ν²) and ν / (1 - ν). The clamp is widened so that it lets the body narrow.
    """
    problem = Elasticity(resolution=3, dimension=dimension)
    E, nu, t = 2.0, 0.3, 0.7
    modulus, ratio = (E / (1 - nu**2), nu / (1 - nu)) if dimension == 2 else (E, nu)
    strains = t / modulus * np.array([1, -ratio, -ratio])[:dimension]
    problem.elements.given.interpolate(lambda x: strains[:, None] * x[:dimension])
    parameters = {
        "youngs_modulus": np.full((4,) * dimension, E),
        "poisson_ratio": nu,
        **dict.fromkeys(problem.traction_names, 0.0),
        "traction_x": t,
    }
    (sample,) = problem.simulate(parameters, scipy_solve)
    expected = np.moveaxis(strains * problem.mesh.arrays.points, 1, 0).reshape(dimension, *(4,) * dimension)
    np.testing.assert_allclose(sample.outputs["displacement"], expected, atol=1e-13)


@pytest.mark.parametrize(("dimension", "resolution"), [(2, 6), (3, 3)])
def test_a_draw_against_elements_by_numpy(scipy_solve, dimension, resolution):
    """On P1 elements σ : ∇v is constant except for E, of which the mean counts:

    K_iajb = |T| (λ ∂_a φ_i ∂_b φ_j + μ ∂_b φ_i ∂_a φ_j + μ δ_ab ∇φ_i·∇φ_j).
    """
    problem = Elasticity(resolution=resolution, dimension=dimension)
    parameters = problem.draw(generator_of(0, "training", 0))
    d, (points, cells) = dimension, problem.mesh.build()
    E, nu = parameters["youngs_modulus"].ravel()[cells].mean(axis=1), parameters["poisson_ratio"]
    first, second = E * nu / ((1 + nu) * (1 - 2 * nu)), E / (2 * (1 + nu))
    edges = points[cells[:, 1:]] - points[cells[:, :1]]
    slopes = np.linalg.inv(edges).transpose(0, 2, 1)
    G = np.concatenate([-slopes.sum(axis=1, keepdims=True), slopes], axis=1)  # [T, corner, d]
    volume = np.abs(np.linalg.det(edges)) / factorial(d)
    local = np.einsum("t,tia,tjb->tiajb", first, G, G) + np.einsum("t,tib,tja->tiajb", second, G, G)
    local += np.einsum("t,ab,tic,tjc->tiajb", second, np.eye(d), G, G)
    dofs = (cells[:, :, None] * d + np.arange(d)).reshape(len(cells), -1)
    rows, columns = np.repeat(dofs, dofs.shape[1], axis=1), np.tile(dofs, (1, dofs.shape[1]))
    values = (volume[:, None, None, None, None] * local).ravel()
    K = csr_array((values, (rows.ravel(), columns.ravel())), shape=(points.size,) * 2)

    at_end = points[cells][:, :, 0] == 1
    faces = cells[at_end.sum(axis=1) == d][at_end[at_end.sum(axis=1) == d]].reshape(-1, d)
    shares = np.bincount(faces.ravel(), minlength=len(points)) / faces.size
    load = np.outer(shares, [parameters[name] for name in problem.traction_names]).ravel()
    free = np.flatnonzero(np.repeat(points[:, 0] > 0, d))
    u = np.zeros(points.size)
    u[free] = spsolve(K[free][:, free].tocsc(), load[free])

    (sample,) = problem.simulate(parameters, scipy_solve)
    found = sample.outputs["displacement"].reshape(d, -1).T
    np.testing.assert_allclose(found, u.reshape(-1, d), atol=1e-11 * abs(u).max())


@pytest.mark.parametrize(("dimension", "num_motions"), [(2, 3), (3, 6)])
def test_systems_bring_the_rigid_motions_which_strain_nothing(scipy_solve, dimension, num_motions):
    problem = Elasticity(resolution=4, dimension=dimension)
    problem.elements.fill(
        problem._youngs_modulus, problem.draw(generator_of(0, "training", 0))["youngs_modulus"].ravel()
    )
    system = problem.equation.system()
    motions = system.near_nullspace.getVecs()
    assert len(motions) == num_motions and system.A.getBlockSize() == dimension and system.is_spd
    A = to_scipy(system.A)
    assert abs(A - A.T).max() < 1e-13 * abs(A).max()
    is_far = problem.mesh.arrays.points[:, 0] > 0.3  # from the clamp
    for motion in motions:
        image = motion.duplicate()
        system.A.mult(motion, image)
        assert abs(problem.elements.at_points(image)[:, is_far]).max() < 1e-12 * abs(A).max()


@pytest.mark.parametrize("dimension", [2, 3])
def test_samples_pack(scipy_solve, dimension):
    problem = Elasticity(resolution=4, dimension=dimension)
    arrays = problem.layout.pack(list(problem.simulate(problem.draw(generator_of(0, "training", 0)), scipy_solve)))
    assert {name: array.shape for name, array in arrays.items()} == {
        "fields": (1, 1, *(5,) * dimension),
        "scalars": (1, 1 + dimension),
        "targets": (1, dimension, *(5,) * dimension),
    }


@pytest.mark.parametrize("options", [{"resolution": 1}, {"dimension": 1}])
def test_bad_options_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        Elasticity(**options)


@pytest.mark.parametrize("dimension", [2, 3])
def test_derivatives_are_those_of_finite_differences_to_second_order(scipy_solve, dimension):
    """Central differences of u along ξ_k, with E made here from the cosines of the mode."""
    n = 4
    problem = Elasticity(resolution=n - 1, dimension=dimension, derivatives=2, derivatives_as="tangents")
    parameters = problem.draw(generator_of(0, "training", 3))
    (sample,) = samples = list(problem.simulate(parameters, scipy_solve))
    cosine = np.sqrt(2) * np.cos(np.pi * np.arange(n) / (n - 1))
    direction = np.broadcast_to(cosine, (n,) * dimension) / (np.pi**2 + 9)
    deviation = np.sqrt(GaussianField(n, dimension=dimension).variance)

    def displacement(step):
        modulus = parameters["youngs_modulus"] * np.exp(step * direction / deviation)
        (moved,) = problem.simulate(parameters | {"youngs_modulus": modulus}, scipy_solve)
        return moved.outputs["displacement"]

    mode = "mode_" + "_".join(["0"] * (dimension - 1) + ["1"])
    tangent = parameters["youngs_modulus"] * direction / deviation
    np.testing.assert_allclose(sample.inputs[f"youngs_modulus_by_{mode}"], tangent, rtol=1e-10)
    derivative = sample.outputs[f"displacement_by_{mode}"]
    differences = [(displacement(step) - displacement(-step)) / (2 * step) for step in (0.2, 0.1)]
    errors = [np.abs(each - derivative).max() / np.abs(derivative).max() for each in differences]
    assert errors[1] < 1e-2 and errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)
    assert problem.layout.pack(samples)["targets"].shape == (1, 3 * dimension, *[n] * dimension)
