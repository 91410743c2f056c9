"""Order of convergence on domains that are meshed again, repeatability, memory, what is refused."""

import sys
from importlib.util import find_spec

import numpy as np
import psutil
import pytest

from penstock.arrays.simplices import lumped_mass, measures
from penstock.errors import Refused
from penstock.solvers.discretisation.elements import triangulate as module
from penstock.solvers.discretisation.elements.remeshed import diffusion
from penstock.solvers.discretisation.elements.triangulate import boundary_points, triangulate
from penstock.solvers.parameters.polygons import StarPolygon

needs_gmsh = pytest.mark.skipif(find_spec("gmsh") is None, reason="gmsh, of the extra geometry, is not installed")
STAR = StarPolygon(9, 0.2, 0.5, turn=0.2, centre=(0.5, 0.5)).draw(np.random.default_rng(0))


def circle(radius, num_corners):
    angles = 2 * np.pi * np.arange(num_corners) / num_corners
    return 0.5 + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def annulus(n):
    return [circle(0.45, 3 * n), circle(0.15, n)]


def log(points):
    """Harmonic."""
    return np.log(np.hypot(*(points - 0.5).T)), np.zeros(len(points))


def waves(points):
    x, y = points.T
    u = np.sin(np.pi * x) * np.sin(2 * np.pi * y)
    return u, 5 * np.pi**2 * u


@needs_gmsh
@pytest.mark.parametrize(("domain", "solution"), [(annulus, log), (annulus, waves), (lambda n: [STAR], waves)])
def test_elements_are_of_second_order_on_domains_meshed_again(scipy_solve, domain, solution):
    errors = []
    for n in (16, 32, 64):
        points, cells = triangulate(domain(n), 1 / n)
        exact, source = solution(points)
        weights, boundary = lumped_mass(points, cells), boundary_points(cells)
        u = diffusion(
            points,
            cells,
            load=weights * source,
            boundary=boundary,
            boundary_values=exact,
            family="test",
            solve=scipy_solve,
        )
        np.testing.assert_array_equal(u[boundary], exact[boundary])
        errors.append(np.sqrt(np.sum(weights * (u - exact) ** 2)))
    assert np.log2(errors[0] / errors[2]) / 2 == pytest.approx(2.0, abs=0.2)


@needs_gmsh
def test_a_mesh_fills_its_domain_and_knows_its_boundary():
    points, cells = triangulate(annulus(24), 1 / 24)
    areas = [n / 2 * r**2 * np.sin(2 * np.pi / n) for r, n in ((0.45, 72), (0.15, 24))]
    assert measures(points, cells).sum() == pytest.approx(areas[0] - areas[1], rel=1e-12)
    radii, boundary = np.hypot(*(points - 0.5).T), boundary_points(cells)
    assert radii[boundary].min() > 0.148 and radii[~boundary].min() > 0.151
    assert ((radii < 0.1501) | (radii > 0.448))[boundary].all() and radii[~boundary].max() < 0.448
    for corner in np.concatenate(annulus(24)):
        assert np.linalg.norm(points[boundary] - corner, axis=1).min() < 1e-12


@needs_gmsh
def test_the_same_domain_has_the_same_mesh_whatever_came_before():
    first = triangulate([STAR], 0.05)
    triangulate(annulus(16), 0.04)
    for one, other in zip(first, triangulate([STAR], 0.05), strict=True):
        np.testing.assert_array_equal(one, other)


@needs_gmsh
def test_a_hundred_meshes_leave_nothing_in_memory():
    process, sizes = psutil.Process(), []
    for num_meshes in (20, 100):
        for n in range(num_meshes):
            triangulate(annulus(8 + n % 7), 0.2)
        sizes.append(process.memory_info().rss)
    assert sizes[1] - sizes[0] < 4e6


@pytest.mark.parametrize(
    "loops",
    [
        [np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])],
        [circle(0.4, 16), circle(0.2, 16) + 0.3],
        [circle(0.4, 16), circle(0.2, 16), circle(0.2, 16) + 0.1],
    ],
)
def test_loops_that_cross_are_refused(loops):
    with pytest.raises(ValueError, match="cross one another, or themselves"):
        triangulate(loops, 0.1)


@needs_gmsh
@pytest.mark.parametrize("loops", [[circle(0.4, 16), circle(0.1, 16) + 2.0], [circle(0.4, 16)[::-1]]])
def test_holes_outside_and_clockwise_polygons_are_refused(loops):
    with pytest.raises((ValueError, Refused), match=r"^[^\n]*$"):
        triangulate(loops, 0.1)


def test_without_gmsh_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gmsh", None)
    with pytest.raises(ImportError, match=r"^this problem's meshes are made by gmsh: pip install[^\n]*$"):
        module._gmsh.__wrapped__()
