"""Uniaxial stretch on paper, rotations without stress, energy and its derivatives, small loads."""

import numpy as np
import pytest
from scipy.optimize import brentq

from penstock.solvers.discretisation.elements.mesh_fem import plane
from penstock.solvers.discretisation.newton import newton
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problem import SolveError
from penstock.solvers.problems.solids.elasticity import Elasticity
from penstock.solvers.problems.solids.hyperelastic_block import LOADS, HyperelasticBlock
from tests.support.systems import to_scipy

DEMO = {"youngs_modulus": 10.0, "poisson_ratio": 0.3, **dict.fromkeys(LOADS, 0.0)}


def block_of(parameters, **options):
    """A block whose forms have these data."""
    problem = HyperelasticBlock(**options)
    for name, constant in problem._constants.items():
        constant.value = parameters[name]
    return problem


def interpolated(problem, displacement):
    """The array of a displacement [3, N] of points [3, N]."""
    problem._displacement.interpolate(displacement)
    return problem._displacement.x.array.copy()


@pytest.mark.parametrize("degree", [1, 2])
def test_uniaxial_stretch_is_exact(scipy_solve, degree):
    """A stretch of 1.5 with free sides, by the roots of P_yy = 0: μ (c - 1/c) + λ ln(1.5 c²) / c.

    The clamp is replaced by the displacement there, and the start is a stretch of 1.2.
    """
    first, second = 10 * 0.3 / (1.3 * 0.4), 10 / 2.6
    c = brentq(lambda c: second * (c - 1 / c) + first * np.log(1.5 * c**2) / c, 0.5, 1.0, xtol=1e-15)
    force = second * (1.5 - 1 / 1.5) + first * np.log(1.5 * c**2) / 1.5
    assert (c, force) == (pytest.approx(0.88017459, abs=1e-8), pytest.approx(3.78280176, abs=1e-8))
    problem = block_of({**DEMO, "traction_x": force}, resolution=2, degree=degree)
    start, exact = (
        interpolated(problem, lambda x, stretch=stretch: np.array([[stretch - 1], [c - 1], [c - 1]]) * x)
        for stretch in (1.2, 1.5)
    )
    u = newton(problem.residual, problem.assemble, start, scipy_solve, name="stretch")
    np.testing.assert_allclose(u, exact, atol=1e-9)


def test_the_corner_goes_where_it_does_in_the_demo_of_fenics(scipy_solve):
    """There the traction acts on all free sides. By quadratic elements on 6³ cubes: (0.08152, -0.14370, -0.00870)."""
    from dolfinx.fem import assemble_vector, form
    from ufl import as_vector, inner

    problem = block_of({**DEMO, "weight_y": -0.5, "traction_x": 0.1}, resolution=6, degree=2)
    elements = problem.elements
    work = inner(as_vector([0.1, 0.0, 0.0]), elements.test)
    sides = [plane(axis, at) for axis in (1, 2) for at in (0.0, 1.0)]
    on_sides = sum(assemble_vector(form(work * elements.on(side))).array for side in sides)
    on_sides[elements.conditions[0].dof_indices()[0]] = 0.0

    def linearise(u):
        system = problem.assemble(u)
        system.b.array += on_sides
        return system

    start = np.zeros_like(on_sides)
    newton(lambda u: problem.residual(u) + on_sides, linearise, start, scipy_solve, name="demo")
    corner = np.argmin(abs(problem.mesh.arrays.points - 1).sum(axis=1))
    displacement = elements.at_points(problem._displacement.x.petsc_vec)[:, corner]
    assert displacement == pytest.approx([0.08152, -0.14370, -0.00870], abs=2e-4)


def test_a_rotated_body_has_no_stress():
    problem = block_of(DEMO, resolution=2)
    angle = 0.8
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    forces = problem.residual(interpolated(problem, lambda x: rotation @ x - x))
    np.testing.assert_allclose(forces, 0, atol=1e-14)


def test_forces_are_the_derivative_of_the_energy_and_the_matrix_is_that_of_forces():
    """By central differences, in random directions that leave the clamp alone.

    The energy is that of the P1 cells: |T| ψ(F) with F = I + Σ u_i ∇φ_i.
    """
    problem = block_of({**DEMO, "weight_y": -0.5, "traction_z": 0.2}, resolution=2)
    elements, (points, cells) = problem.elements, problem.mesh.build()
    generator = np.random.default_rng(0)
    values, direction = 0.05 * generator.standard_normal((2, 3, len(points))) * (points[:, 0] > 0)
    u, v = (elements.at_dofs(field).array.copy() for field in (values, direction))

    def energy(field):
        inverse = np.linalg.inv(points[cells[:, 1:]] - points[cells[:, :1]])
        moved = field.T[cells]
        F = np.eye(3) + ((inverse @ (moved[:, 1:] - moved[:, :1])).transpose(0, 2, 1))
        J = np.linalg.det(F)
        first, second = 10 * 0.3 / (1.3 * 0.4), 10 / 2.6
        psi = second / 2 * ((F**2).sum(axis=(1, 2)) - 3) - second * np.log(J) + first / 2 * np.log(J) ** 2
        at_end = cells[(points[cells][:, :, 0] == 1).sum(axis=1) == 3]
        ends = at_end[points[at_end][:, :, 0] == 1].reshape(-1, 3)
        work = -0.5 * field[1][cells].mean(axis=1).mean() + 0.2 * field[2][ends].mean(axis=1).mean()
        return psi.mean() - work  # all cells are alike, and so are the faces at the end

    step = 1e-5
    change = (energy(values + step * direction) - energy(values - step * direction)) / (2 * step)
    assert -problem.residual(u) @ v == pytest.approx(change, rel=1e-6)
    difference = (problem.residual(u + step * v) - problem.residual(u - step * v)) / (2 * step)
    A = to_scipy(problem.assemble(u).A)
    np.testing.assert_allclose(-A @ v, difference, atol=1e-7 * abs(difference).max())
    assert abs(A - A.T).max() < 1e-13 * abs(A).max()


def test_a_small_load_deforms_as_hookes_law_says(scipy_solve):
    load = {"traction_x": 1e-5, "traction_y": -2e-5, "traction_z": 3e-5}
    (large,) = HyperelasticBlock(resolution=3, num_levels=1).simulate({**DEMO, **load}, scipy_solve)
    small = Elasticity(resolution=3, dimension=3)
    parameters = {"youngs_modulus": np.full((4, 4, 4), 10.0), "poisson_ratio": 0.3, **load}
    (linear,) = small.simulate(parameters, scipy_solve)
    expected = linear.outputs["displacement"].reshape(3, -1)
    np.testing.assert_allclose(large.outputs["displacement"], expected, atol=1e-4 * abs(expected).max())


def test_levels_end_at_the_displacement_of_the_full_load(scipy_solve):
    parameters = HyperelasticBlock().draw(generator_of(0, "training", 0))
    samples = list(HyperelasticBlock(resolution=2, num_levels=3).simulate(parameters, scipy_solve))
    (at_once,) = HyperelasticBlock(resolution=2, num_levels=1).simulate(parameters, scipy_solve)
    assert [sample.step for sample in samples] == [0, 1, 2]
    assert samples[0].inputs["weight_x"] == pytest.approx(parameters["weight_x"] / 3)
    last = samples[-1].outputs["displacement"]
    np.testing.assert_allclose(last, at_once.outputs["displacement"], atol=1e-7)
    assert abs(last[:, HyperelasticBlock(resolution=2).mesh.arrays.points[:, 0] == 0]).max() == 0


def test_a_load_that_turns_cells_over_is_refused(scipy_solve):
    problem = HyperelasticBlock(resolution=2, num_levels=1)
    with pytest.raises(SolveError, match=r"^Newton's method, 1 of the load: [^\n]*$"):
        list(problem.simulate({**DEMO, "traction_x": -100.0}, scipy_solve))


def test_samples_pack(scipy_solve):
    problem = HyperelasticBlock(resolution=2, num_levels=2)
    arrays = problem.layout.pack(list(problem.simulate(problem.draw(generator_of(0, "training", 1)), scipy_solve)))
    assert sorted(array.shape for array in arrays.values()) == [(2, 3, 27), (2, 8)]


@pytest.mark.parametrize("options", [{"resolution": 0}, {"degree": 3}, {"num_levels": 0}])
def test_bad_options_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        HyperelasticBlock(**options)
