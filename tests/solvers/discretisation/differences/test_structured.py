"""Simplices on regular grids against Kronecker sums, DOLFINx and exact solutions."""

import numpy as np
import pytest
from mpi4py import MPI
from scipy.sparse import diags_array, eye_array, kron

from penstock.solvers.discretisation.differences.structured import StructuredDiffusion
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.strategy import Tolerance
from tests.support.systems import to_scipy


def solve(system) -> np.ndarray:
    return Direct().solve(system, Tolerance(1e-12)).x.array_r.copy()


def smooth(n: int, offset: float) -> tuple[np.ndarray, ...]:
    """The coordinates of points in the unit cube, `offset` after multiples of 1/n."""
    points = (np.arange(n) + offset) / n
    return np.meshgrid(points, points, points, indexing="ij")


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_structured_diffusion_with_a_constant_coefficient_is_the_kronecker_sum(dimension):
    n = 5
    system = StructuredDiffusion(n, dimension).system(np.full((n,) * dimension, 3.0), np.ones((n,) * dimension))
    second_differences = n**2 * diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n - 1, n - 1))
    expected = 0
    for axis in range(dimension):
        factors = [eye_array(n - 1)] * dimension
        factors[axis] = second_differences
        term = factors[0]
        for factor in factors[1:]:
            term = kron(term, factor)
        expected = expected + term
    assert abs(to_scipy(system.A) - 3.0 * expected / n**dimension).max() < 1e-12
    np.testing.assert_allclose(system.b.array_r, n**-dimension)


@pytest.mark.parametrize("dimension", [2, 3])
def test_structured_diffusion_is_what_dolfinx_assembles(dimension):
    import dolfinx
    import ufl
    from dolfinx.fem.petsc import assemble_matrix

    n = 4
    coefficient = np.random.default_rng(0).uniform(1, 10, (n,) * dimension)
    if dimension == 2:
        mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, n, n)
    else:
        mesh = dolfinx.mesh.create_unit_cube(MPI.COMM_SELF, n, n, n)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    a = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Discontinuous Lagrange", 0)))
    num_cells = mesh.topology.index_map(dimension).size_local
    centroids = dolfinx.mesh.compute_midpoints(mesh, dimension, np.arange(num_cells, dtype=np.int32))
    a.x.array[:] = coefficient[tuple(np.floor(n * centroids[:, :dimension]).astype(int).T)]
    u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
    A = assemble_matrix(dolfinx.fem.form(a * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx))
    A.assemble()
    vertices = np.rint(n * space.tabulate_dof_coordinates()[:, :dimension]).astype(int)
    inner = np.flatnonzero(np.all((vertices > 0) & (vertices < n), axis=1))
    inner = inner[np.argsort(np.ravel_multi_index(tuple(vertices[inner].T), (n + 1,) * dimension))]
    system = StructuredDiffusion(n, dimension).system(coefficient, np.ones_like(coefficient))
    assert abs(to_scipy(A)[inner][:, inner] - to_scipy(system.A)).max() < 1e-13


def test_second_order_in_three_dimensions():
    """The order of convergence for u = sin πx sin πy sin πz with a = 1 + x."""
    errors = []
    for n in (8, 16, 32):
        x, y, z = smooth(n, 0.5)
        sines = np.sin(np.pi * y) * np.sin(np.pi * z)
        source = 3 * np.pi**2 * (1 + x) * np.sin(np.pi * x) * sines - np.pi * np.cos(np.pi * x) * sines
        solution = solve(StructuredDiffusion(n, 3).system(1 + x, source))
        x, y, z = (values[1:, 1:, 1:] for values in smooth(n, 0.0))
        exact = np.sin(np.pi * x) * np.sin(np.pi * y) * np.sin(np.pi * z)
        errors.append(np.linalg.norm(solution - exact.ravel()) / np.linalg.norm(exact))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all((orders > 1.9) & (orders < 2.1))
