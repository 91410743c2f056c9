"""Triangulations of plane domains by gmsh, an optional package.

Axes:  P points, T triangles, L corners of a loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import ModuleType

import numpy as np

from penstock.arrays.simplices import checked_cells, measures

OPTIONS = {
    "General.Terminal": 0,  # silent
    "General.NumThreads": 1,
    "Mesh.Algorithm": 6,  # frontal Delaunay: triangles with nearly equal sides
    "Mesh.MeshSizeExtendFromBoundary": 0,  # else short edges of holes make triangles small far from them
}


def triangulate(loops: Sequence[np.ndarray], spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut a polygon with polygonal holes into triangles.

    The same arguments give the same triangles, whatever was cut before.

    Args:
        loops: corners of the polygon, counterclockwise, and of each hole, [L, 2].
        spacing: about how far apart points are, and at most so far on the loops.

    Returns:
        Points [P, 2], those of the loops among them, and cells [T, 3].

    Raises:
        ImportError: gmsh can't be imported.
        ValueError: the loops cross one another, or themselves, or a hole lies outside or in another one.
        Refused: the polygon runs clockwise, or a triangle is degenerate.
    """
    if _cross(loops):
        raise ValueError("the loops around the domain cross one another, or themselves")  # gmsh would never return
    gmsh = _gmsh()
    gmsh.clear()
    gmsh.option.setNumber("Mesh.MeshSizeMax", spacing)
    geometry, tags = gmsh.model.geo, []
    for loop in loops:
        corners = [geometry.addPoint(x, y, 0.0) for x, y in loop.tolist()]
        lines = [geometry.addLine(*ends) for ends in zip(corners, corners[1:] + corners[:1], strict=True)]
        tags.append(geometry.addCurveLoop(lines))
    geometry.addPlaneSurface(tags)
    geometry.synchronize()
    gmsh.model.mesh.generate(2)
    numbers, coordinates, _ = gmsh.model.mesh.getNodes()
    _, corners = gmsh.model.mesh.getElementsByType(2)
    place = np.empty(int(numbers.max()) + 1, np.int64)
    place[numbers] = np.arange(len(numbers))
    points, cells = checked_cells(coordinates.reshape(-1, 3)[:, :2], place[corners].reshape(-1, 3))
    outside, *holes = map(_area, loops)
    if not np.isclose(measures(points, cells).sum(), outside - sum(map(abs, holes)), rtol=1e-9):
        raise ValueError("gmsh's triangles don't fill the domain: does a hole lie outside, or in another one?")
    return points, cells


def missing_gmsh() -> str | None:
    """Why gmsh can't be imported, and what to install; None where it can."""
    try:
        import gmsh  # noqa: F401
    except (ImportError, OSError) as error:  # the latter where a library is missing that gmsh is linked to
        return f"this problem's meshes are made by gmsh: pip install 'penstock[geometry]' ({error})"
    return None


def boundary_points(cells: np.ndarray) -> np.ndarray:
    """Whether each point lies on the boundary, bool [P].

    There edges belong to one triangle alone.

    Args:
        cells: numbers of points, [T, 3].
    """
    num_points = int(cells.max()) + 1
    edges = np.sort(np.concatenate([cells[:, [0, 1]], cells[:, [1, 2]], cells[:, [2, 0]]]), axis=1)
    codes, counts = np.unique(edges @ [num_points, 1], return_counts=True)
    on_boundary = np.zeros(num_points, bool)
    on_boundary[np.concatenate(np.divmod(codes[counts == 1], num_points))] = True
    return on_boundary


def _cross(loops: Sequence[np.ndarray]) -> bool:
    """Whether two edges cross between their ends."""
    starts, ends = np.concatenate(loops), np.concatenate([np.roll(loop, -1, axis=0) for loop in loops])
    (x, y), (along_x, along_y) = starts.T[:, :, None], (ends - starts).T[:, :, None]
    of_starts, of_ends = (along_x * (y_ - y) - along_y * (x_ - x) for x_, y_ in (starts.T, ends.T))  # sides of lines
    parts = of_starts * of_ends < 0  # line i parts the ends of edge j
    return bool((parts & parts.T).any())


def _area(loop: np.ndarray) -> float:
    """The area of a polygon; below 0 where its corners [L, 2] run clockwise."""
    (x, y), (next_x, next_y) = loop.T, np.roll(loop, -1, axis=0).T
    return float(np.sum(x * next_y - next_x * y) / 2)


@cache
def _gmsh() -> ModuleType:
    if missing := missing_gmsh():
        raise ImportError(missing)
    import gmsh

    gmsh.initialize(readConfigFiles=False, interruptible=False)  # keeps its hands off the process's signals
    for name, value in OPTIONS.items():
        gmsh.option.setNumber(name, value)
    return gmsh
