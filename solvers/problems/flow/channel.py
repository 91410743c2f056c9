"""The channel with a cylinder of the benchmark by Schäfer and Turek (1996).

Axes:  P points of the mesh, E edges, B nodes where the velocity is given; n squares across the channel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from penstock.arrays.simplices import checked_cells
from penstock.geometry import Mesh
from penstock.solvers.discretisation.elements.taylor_hood import TaylorHood, with_midpoints
from penstock.solvers.discretisation.elements.triangulation import graded, halves, quadrilaterals

HEIGHT, LENGTH = 0.41, 2.2
CENTRE, RADIUS = np.array([0.2, 0.2]), 0.05  # of the cylinder
DIAMETER = 2 * RADIUS
TOLERANCE = 1e-6  # of the radius

RING_GROWTH = 5.0  # from the innermost layer around the cylinder to the outermost: triangles stay about as wide as long
CHANNEL_GROWTH = 2.0  # from the first column behind the ring to the last, at the outlet
COLUMNS = 3  # behind the ring, for each square across the channel


class Channel(TaylorHood):
    """Taylor-Hood elements on the channel, with curved edges on the cylinder.

    The channel is open at its end. With n = 16 and at Re = 20 straight edges cost 0.1 % of the drag, curved ones
    0.004 %.

    Args:
        resolution: n, squares across the channel, even.
    """

    def __init__(self, resolution: int):
        super().__init__(channel_mesh(resolution).arrays, is_open=is_outlet, curve=onto_circle(CENTRE, RADIUS))
        self.resolution = resolution
        self.centre, self.radius = CENTRE, RADIUS
        on_rim = np.linalg.norm(self.nodes[self.boundary] - CENTRE, axis=1) < (1 + TOLERANCE) * RADIUS
        self.rim = self.boundary[on_rim]  # the nodes on the cylinder

    def move(self, centre: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """Put a cylinder elsewhere.

        The same triangles lie between other points from now on.

        Returns:
            Points [P, 2] and triangles [T, 3], as by `triangulation`.
        """
        points, cells = checked_cells(*triangulation(self.resolution, centre, radius))
        nodes, _ = with_midpoints(points, cells, onto_circle(centre, radius))
        geometry = self.space.mesh.geometry
        geometry.x[:, :2] = nodes[geometry.input_global_indices]
        self.centre, self.radius = centre, radius
        return points, cells

    def velocity_on_boundary(self, inflow: np.ndarray, *, spin: float = 0.0) -> np.ndarray:
        """The velocity [2, B] on the boundary.

        Args:
            inflow: velocity along the channel at the inlet, at heights i H / (2 n), [2 n + 1].
            spin: velocity of the cylinder's surface, which turns counterclockwise.
        """
        nodes = self.nodes[self.boundary]
        velocity = np.zeros((2, len(nodes)))
        enters = nodes[:, 0] < 1e-9
        velocity[0, enters] = inflow[np.rint(2 * self.resolution / HEIGHT * nodes[enters, 1]).astype(int)]
        turns = np.isin(self.boundary, self.rim)
        across, along = (nodes[turns] - self.centre).T / self.radius
        velocity[:, turns] = spin * np.stack([-along, across])
        return velocity


def require_resolution(resolution: int) -> None:
    """Raise ValueError unless a channel may have this number of squares across."""
    if resolution < 4 or resolution % 2:
        raise ValueError(f"resolution = {resolution} must be an even number of squares across the channel, from 4 on")


def parabola(resolution: int) -> np.ndarray:
    """The benchmark's inflow with a mean of 1, at heights i H / (2 n), [2 n + 1]."""
    s = np.arange(2 * resolution + 1) / (2 * resolution)
    return 6 * s * (1 - s)


def channel_mesh(resolution: int) -> Mesh:
    """The channel's mesh of 7 n (n + 1) points."""
    return Mesh(7 * resolution * (resolution + 1), 2, partial(triangulation, resolution))


def triangulation(
    resolution: int, centre: np.ndarray = CENTRE, radius: float = RADIUS
) -> tuple[np.ndarray, np.ndarray]:
    """The channel around a cylinder.

    A ring of n layers, of 4 n quadrilaterals each, leads from the cylinder to the square of the channel's height, and
    3 n columns of n quadrilaterals are behind it. All are cut in two.

    Args:
        resolution: n, even, so that points lie straight before and behind the cylinder's centre.
        centre: of the cylinder, [2].
        radius: of the cylinder.

    Returns:
        Points [7 n (n + 1), 2], those on the cylinder first, and triangles [14 n², 3].
    """
    n = resolution
    angles = np.pi / 2 * np.arange(4 * n) / n - np.pi / 4
    inside = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    up, highest = HEIGHT * np.arange(n) / n, np.full(n, HEIGHT)
    down, lowest = HEIGHT - up, np.zeros(n)
    outside = np.stack([np.r_[highest, down, lowest, up], np.r_[up, highest, down, lowest]], axis=1)
    fractions = graded(n, RING_GROWTH)[:, None, None]
    ring = ((1 - fractions) * inside + fractions * outside).reshape(-1, 2)
    x = HEIGHT + (LENGTH - HEIGHT) * graded(COLUMNS * n, CHANNEL_GROWTH)[1:]
    y = HEIGHT * np.arange(n + 1) / n
    behind = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)

    numbers = np.arange(len(ring)).reshape(n + 1, 4 * n)
    around = np.concatenate([numbers, numbers[:, :1]], axis=1)  # closes the ring
    columns = np.arange(len(behind)).reshape(COLUMNS * n, n + 1) + len(ring)
    columns = np.concatenate([around[-1:, : n + 1], columns])
    corners = np.concatenate([quadrilaterals(around), quadrilaterals(columns)])
    climbs = np.arange(len(corners)) % n < n // 2  # in the ring these are the shorter diagonals
    return np.concatenate([ring, behind]), halves(corners, climbs)


def onto_circle(centre: np.ndarray, radius: float) -> Callable[[np.ndarray], np.ndarray]:
    """The function from the ends of edges [E, 2, 2] to their midpoints [E, 2].

    Those of edges whose ends are both on the circle lie on it, too.
    """

    def midpoints(ends: np.ndarray) -> np.ndarray:
        middles = ends.mean(axis=1)
        on_circle = (np.linalg.norm(ends - centre, axis=2) < (1 + TOLERANCE) * radius).all(axis=1)
        offsets = middles[on_circle] - centre
        middles[on_circle] = centre + radius * offsets / np.linalg.norm(offsets, axis=1, keepdims=True)
        return middles

    return midpoints


def is_outlet(points: np.ndarray) -> np.ndarray:
    """Whether points [..., 2] lie at the channel's end."""
    return points[..., 0] > (1 - 1e-9) * LENGTH
