"""DOLFINx's elements on meshes with points in any order, against NumPy's."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.spatial import Delaunay

from penstock.geometry import Mesh
from penstock.solvers.discretisation.elements.mesh_fem import MeshElements, Recovery, WeakForm, plane
from tests.support.systems import to_scipy


def mesh_of(dimension):
    """A mesh of the unit cube's corners and random points in it, in random order."""
    generator = np.random.default_rng(dimension)
    if dimension == 1:
        order = generator.permutation(12)
        points = np.empty((12, 1))
        points[order, 0] = np.linspace(0, 1, 12) ** 2
        return Mesh(12, 1, lambda: (points, np.stack([order[:-1], order[1:]], axis=1))).arrays
    corners = np.indices((2,) * dimension).reshape(dimension, -1).T
    points = generator.permutation(np.concatenate([corners, generator.random((60, dimension))]))
    cells = Delaunay(points).simplices
    inverted = np.linalg.det(points[cells[:, 1:]] - points[cells[:, :1]]) < 0
    cells[inverted] = cells[inverted][:, [1, 0, *range(2, dimension + 1)]]
    return Mesh(len(points), dimension, lambda: (points, cells)).arrays


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_values_go_to_the_points_where_dolfinx_has_them(dimension):
    mesh = mesh_of(dimension)
    elements = MeshElements(mesh)
    linear = 1 + mesh.points @ np.arange(1, dimension + 1)
    function = elements.function()
    function.interpolate(lambda x: 1 + x[:dimension].T @ np.arange(1, dimension + 1))
    np.testing.assert_allclose(elements.at_points(function.x.petsc_vec), linear, rtol=1e-14)
    np.testing.assert_allclose(elements.at_dofs(linear).array_r, function.x.array, rtol=1e-14)
    for each in (function, elements.given):
        elements.fill(each, linear**2)
        np.testing.assert_array_equal(elements.at_points(each.x.petsc_vec), linear**2)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_stiffness_and_masses_are_those_of_the_geometry(dimension):
    """Of inner points.

    Rows and columns of points on the boundary are those of the identity.
    """
    from ufl import dx, grad, inner

    mesh = mesh_of(dimension)
    elements = MeshElements(mesh)
    is_inner = ~((mesh.points == 0) | (mesh.points == 1)).any(axis=1)
    if dimension > 1:  # of the convex hull of random points and corners
        assert is_inner.sum() == 60
    rows, columns, values = mesh.stiffness()
    K = csr_array((values, (rows, columns)), shape=(len(mesh.points),) * 2).toarray()
    expected = np.where(np.outer(is_inner, is_inner), K, np.diag(~is_inner))

    u, v = elements.trial, elements.test
    system = WeakForm(elements, inner(grad(u), grad(v)) * dx, v * dx, family="poisson").system()
    order = np.rint(elements.at_dofs(np.arange(len(mesh.points))).array_r).astype(int)
    np.testing.assert_allclose(to_scipy(system.A).toarray(), expected[np.ix_(order, order)], atol=1e-11 * abs(K).max())
    np.testing.assert_allclose(elements.at_points(system.b), np.where(is_inner, mesh.weights, 0), atol=1e-15)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_vectors_of_degree_two_come_out_at_the_points(dimension):
    mesh = mesh_of(dimension)
    components = 2 if dimension == 1 else dimension
    elements = MeshElements(mesh, degree=2, components=components)
    slopes = np.random.default_rng(0).standard_normal((components, dimension))
    elements.given.interpolate(lambda x: slopes @ x[:dimension] ** 2)
    values = elements.at_points(elements.given.x.petsc_vec)
    np.testing.assert_allclose(values, slopes @ mesh.points.T**2, rtol=1e-12, atol=1e-14)
    data = elements.function()
    elements.fill(data, mesh.points.sum(axis=1))
    expected = elements.function()
    expected.interpolate(lambda x: x[:dimension].sum(axis=0))
    np.testing.assert_allclose(data.x.array, expected.x.array, atol=1e-15)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_quadratic_functions_are_exact_with_values_given_all_around(scipy_solve, dimension):
    """-Δu = -2 d for u = 1 + |x|²; the second of two systems overwrites the vector that the first has left."""
    from ufl import dx, grad, inner

    mesh = mesh_of(dimension)
    elements = MeshElements(mesh, degree=2)
    source = elements.constants(["source"])["source"]
    u, v = elements.trial, elements.test
    form = WeakForm(elements, inner(grad(u), grad(v)) * dx, source * v * dx, family="poisson", is_spd=True)
    for scale in (1.0, -3.0):
        elements.given.interpolate(lambda x, scale=scale: scale * (1 + (x**2).sum(axis=0)))
        source.value = -2.0 * dimension * scale
        solution = elements.at_points(scipy_solve(form.system()).x)
        np.testing.assert_allclose(solution, scale * (1 + (mesh.points**2).sum(axis=1)), rtol=1e-9)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_a_flux_through_one_side_and_a_coefficient_that_changes(scipy_solve, dimension):
    """-(a u')' = -2 a for u = 1 + x², with a u' = 2 a where x = 1, u = 1 where x = 0, the other sides insulated."""
    from ufl import dx, grad, inner

    mesh = mesh_of(dimension)
    elements = MeshElements(mesh, degree=2, fixed=plane(0, 0.0))
    elements.given.x.array[:] = 1.0
    a = elements.function()
    u, v = elements.trial, elements.test
    load = -2 * a * v * dx + 2 * a * v * elements.on(plane(0, 1.0))
    form = WeakForm(elements, a * inner(grad(u), grad(v)) * dx, load, family="poisson", is_spd=True)
    for coefficient in (1.0, 5.0):
        elements.fill(a, np.full(len(mesh.points), coefficient))
        solution = elements.at_points(scipy_solve(form.system()).x)
        np.testing.assert_allclose(solution, 1 + mesh.points[:, 0] ** 2, rtol=1e-9)


@pytest.mark.parametrize("dimension", [2, 3])
def test_mixed_elements_transport_linear_functions_exactly(scipy_solve, dimension):
    """σ = -∇u + w u, ∇·σ + u = f for a linear u; σ·n is given where x = 0, u elsewhere. Again with other data."""
    from basix.ufl import element, mixed_element
    from dolfinx import fem
    from ufl import FacetNormal, SpatialCoordinate, TestFunctions, TrialFunctions, as_vector, div, dot, ds, dx, split

    mesh = mesh_of(dimension)
    elements = MeshElements(mesh)
    cell = elements.mesh.basix_cell()
    space = fem.functionspace(elements.mesh, mixed_element([element("RT", cell, 2), element("DG", cell, 1)]))
    (flux, u), (tau, v) = TrialFunctions(space), TestFunctions(space)
    slope, wind = np.arange(1.0, 1 + dimension), np.linspace(1, -2, dimension)
    scale = elements.constants(["scale"])["scale"]
    exact = scale * (1 + dot(as_vector(slope), SpatialCoordinate(elements.mesh)))
    form = (dot(flux - u * as_vector(wind), tau) - u * div(tau) + (div(flux) + u) * v) * dx
    load = (scale * (slope @ wind) + exact) * v * dx - exact * dot(tau, FacetNormal(elements.mesh)) * ds
    given = fem.Function(space)
    conditions = [elements.condition(given, plane(0, 0.0), of=space.sub(0))]
    equation = WeakForm(elements, form, load, conditions=conditions, family="transport")
    solution = fem.Function(space)
    outputs = [Recovery(elements, part) for part in split(solution)]
    for value in (1.0, -3.0):
        scale.value = value
        expected = value * (1 + mesh.points @ slope)
        expected_flux = wind[:, None] * expected - value * slope[:, None]
        given.sub(0).interpolate(
            lambda x, value=value: wind[:, None] * value * (1 + slope @ x[:dimension]) - value * slope[:, None]
        )
        solution.x.array[:] = scipy_solve(equation.system()).x.array_r
        for output, values in zip(outputs, (expected_flux, expected), strict=True):
            np.testing.assert_allclose(output.at_points(), values, atol=1e-10)


def test_conditions_hold_in_the_space_that_they_are_of():
    """Those of the elements in theirs; none in another space, unless they are given."""
    from dolfinx import fem
    from ufl import TestFunction, TrialFunction, dx, inner

    elements = MeshElements(mesh_of(2))
    elements.given.x.array[:] = 7.0
    space = fem.functionspace(elements.mesh, ("Lagrange", 2))
    u, v = TrialFunction(space), TestFunction(space)
    given = fem.Function(space)
    given.x.array[:] = 7.0
    conditions = [elements.condition(given, plane(1, 0.0))]
    own = WeakForm(elements, elements.trial * elements.test * dx, elements.test * dx).vector().array_r
    free = WeakForm(elements, inner(u, v) * dx, v * dx).vector().array_r
    held = WeakForm(elements, inner(u, v) * dx, v * dx, conditions=conditions).vector().array_r
    assert (own == 7.0).any() and not (free == 7.0).any()
    np.testing.assert_array_equal(np.flatnonzero(held == 7.0), conditions[0].dof_indices()[0])


def test_a_form_without_data_is_assembled_once():
    from ufl import dx, grad, inner

    elements = MeshElements(mesh_of(2))
    u, v = elements.trial, elements.test
    form = WeakForm(elements, inner(grad(u), grad(v)) * dx, v * dx, family="poisson")
    first = form.system().A
    state = first.stateGet()
    assert form.system().A is first and first.stateGet() == state


def test_a_part_of_the_boundary_without_a_facet_is_refused():
    with pytest.raises(
        ValueError, match=r"^fixed: no facet .* has all its corners on this part; .*; give None where u"
    ):
        MeshElements(mesh_of(2), fixed=plane(0, 0.5))
    with pytest.raises(ValueError, match=r"^on\(part\): no facet .* has all its corners on this part; [^;]*mesh$"):
        MeshElements(mesh_of(2)).on(plane(1, 7.0))
    elements = MeshElements(mesh_of(2))
    with pytest.raises(ValueError, match=r"^condition\(part\): no .*; a point alone is held by dolfinx.fem.dirichlet"):
        elements.condition(elements.given, lambda x: np.hypot(*x) < 1e-9)


@pytest.mark.parametrize(
    ("part", "got"),
    [
        (lambda x: True, "bool"),
        (lambda x: np.True_, "bool"),
        (lambda x: x[0], r"float64 \[\d+\]"),
        (lambda x: x == 0, r"bool \[2, \d+\]"),
    ],
)
def test_a_part_that_gives_no_truth_values_is_refused_by_what_it_gives(part, got):
    with pytest.raises(ValueError, match=rf"^fixed: a part must return bool \[N\] for N points, got {got}$"):
        MeshElements(mesh_of(2), fixed=part)


def test_without_given_values_conditions_are_natural_everywhere():
    """Then A is the stiffness of all points, and what `given` holds counts nowhere."""
    from ufl import dx, grad, inner

    mesh = mesh_of(2)
    elements = MeshElements(mesh, fixed=None)
    elements.fill(elements.given, np.ones(len(mesh.points)))
    rows, columns, values = mesh.stiffness()
    K = csr_array((values, (rows, columns)), shape=(len(mesh.points),) * 2).toarray()
    u, v = elements.trial, elements.test
    system = WeakForm(elements, inner(grad(u), grad(v)) * dx, v * dx, family="neumann").system()
    order = np.rint(elements.at_dofs(np.arange(len(mesh.points))).array_r).astype(int)
    np.testing.assert_allclose(to_scipy(system.A).toarray(), K[np.ix_(order, order)], atol=1e-11 * abs(K).max())
    np.testing.assert_allclose(elements.at_points(system.b), mesh.weights, rtol=1e-12)
