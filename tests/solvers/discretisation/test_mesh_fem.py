"""DOLFINx's elements on meshes with points in any order, against NumPy's."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.spatial import Delaunay

from penstock.geometry import Mesh
from penstock.solvers.discretisation.mesh_fem import MeshElements
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
    elements.fill(function, linear**2)
    np.testing.assert_array_equal(elements.at_points(function.x.petsc_vec), linear**2)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_stiffness_and_masses_are_those_of_the_geometry(dimension):
    """Of inner points.

    Rows and columns of points on the boundary are those of the identity.
    """
    from dolfinx.fem import form
    from ufl import dx, grad, inner

    mesh = mesh_of(dimension)
    elements = MeshElements(mesh)
    is_inner = ~((mesh.points == 0) | (mesh.points == 1)).any(axis=1)
    if dimension > 1:  # of the convex hull of random points and corners
        assert is_inner.sum() == 60
    rows, columns, values = mesh.stiffness()
    K = csr_array((values, (rows, columns)), shape=(len(mesh.points),) * 2).toarray()
    expected = np.where(np.outer(is_inner, is_inner), K, np.diag(~is_inner))

    A = to_scipy(elements.matrix(inner(grad(elements.trial), grad(elements.test)) * dx)).toarray()
    order = elements.point_of_dof
    np.testing.assert_allclose(A, expected[np.ix_(order, order)], atol=1e-11 * abs(K).max())
    load = elements.at_points(elements.vector(form(elements.test * dx)))
    np.testing.assert_allclose(load, np.where(is_inner, mesh.weights, 0), atol=1e-15)
