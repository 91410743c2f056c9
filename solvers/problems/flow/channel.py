"""The channel with a cylinder of the benchmark by Schäfer and Turek (1996).

Axes:  P points of the mesh, E edges, B nodes where the velocity is given; n squares across the channel.
"""

from __future__ import annotations

from functools import cached_property, partial

import numpy as np

from penstock.geometry import Mesh
from penstock.solvers.discretisation.taylor_hood import TaylorHood
from penstock.solvers.problems.flow.meshes import halves, quadrilaterals

HEIGHT, LENGTH = 0.41, 2.2
CENTRE, RADIUS = np.array([0.2, 0.2]), 0.05  # of the cylinder
DIAMETER = 2 * RADIUS

RING_GROWTH = 5.0  # from the innermost layer around the cylinder to the outermost: triangles stay about as wide as long
CHANNEL_GROWTH = 2.0  # from the first column behind the ring to the last, at the outlet
COLUMNS = 3  # behind the ring, for each square across the channel


class Channel(TaylorHood):
    """Taylor-Hood elements on the channel, open at its end; edges on the cylinder are parabolas.

    Straight edges would cost 0.2 % of the drag.

    Args:
        resolution: n, squares across the channel, even.
    """

    def __init__(self, resolution: int):
        super().__init__(channel_mesh(resolution).arrays, is_open=is_outlet, curve=onto_rim)
        self.resolution = resolution

    @cached_property
    def rim(self) -> np.ndarray:
        """The nodes on the cylinder."""
        return self.boundary[is_rim(self.nodes[self.boundary])]

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
        turns = is_rim(nodes)
        across, along = (nodes[turns] - CENTRE).T / RADIUS
        velocity[:, turns] = spin * np.stack([-along, across])
        return velocity


def require_resolution(resolution: int) -> None:
    """Raise ValueError unless a channel may have so many squares across."""
    if resolution < 4 or resolution % 2:
        raise ValueError(f"resolution = {resolution} must be an even number of squares across the channel, from 4 on")


def parabola(resolution: int) -> np.ndarray:
    """The benchmark's inflow with a mean of 1, at heights i H / (2 n), [2 n + 1]."""
    s = np.arange(2 * resolution + 1) / (2 * resolution)
    return 6 * s * (1 - s)


def channel_mesh(resolution: int) -> Mesh:
    """The channel's mesh of 7 n (n + 1) points."""
    return Mesh(7 * resolution * (resolution + 1), 2, partial(triangulation, resolution))


def triangulation(resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """The channel around the cylinder.

    A ring of n layers, of 4 n quadrilaterals each, leads from the cylinder to the square of the channel's height, and
    3 n columns of n quadrilaterals are behind it. All are cut in two.

    Args:
        resolution: n, even, so that points lie straight before and behind the cylinder's centre.

    Returns:
        Points [7 n (n + 1), 2], those on the cylinder first, and triangles [14 n², 3].
    """
    n = resolution
    angles = np.pi / 2 * np.arange(4 * n) / n - np.pi / 4
    inside = CENTRE + RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    up, highest = HEIGHT * np.arange(n) / n, np.full(n, HEIGHT)
    down, lowest = HEIGHT - up, np.zeros(n)
    outside = np.stack([np.r_[highest, down, lowest, up], np.r_[up, highest, down, lowest]], axis=1)
    fractions = _graded(n, RING_GROWTH)[:, None, None]
    ring = ((1 - fractions) * inside + fractions * outside).reshape(-1, 2)
    x = HEIGHT + (LENGTH - HEIGHT) * _graded(COLUMNS * n, CHANNEL_GROWTH)[1:]
    y = HEIGHT * np.arange(n + 1) / n
    behind = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)

    numbers = np.arange(len(ring)).reshape(n + 1, 4 * n)
    around = np.concatenate([numbers, numbers[:, :1]], axis=1)  # closes the ring
    columns = np.arange(len(behind)).reshape(COLUMNS * n, n + 1) + len(ring)
    columns = np.concatenate([around[-1:, : n + 1], columns])
    cells = np.concatenate([halves(quadrilaterals(around)), halves(quadrilaterals(columns))])
    return np.concatenate([ring, behind]), cells


def onto_rim(ends: np.ndarray) -> np.ndarray:
    """The midpoints [E, 2] of edges with these ends [E, 2, 2], on the circle where both ends are."""
    middles = ends.mean(axis=1)
    on_rim = is_rim(ends).all(axis=1)
    offsets = middles[on_rim] - CENTRE
    middles[on_rim] = CENTRE + RADIUS * offsets / np.linalg.norm(offsets, axis=1, keepdims=True)
    return middles


def is_rim(points: np.ndarray) -> np.ndarray:
    """Whether points [..., 2] lie on the cylinder."""
    return np.linalg.norm(points - CENTRE, axis=-1) < (1 + 1e-6) * RADIUS


def is_outlet(points: np.ndarray) -> np.ndarray:
    """Whether points [..., 2] lie at the channel's end."""
    return points[..., 0] > (1 - 1e-9) * LENGTH


def _graded(num_cells: int, growth: float) -> np.ndarray:
    """Fractions from 0 to 1, whose distances grow geometrically by about this factor."""
    return (growth ** (np.arange(num_cells + 1) / num_cells) - 1) / (growth - 1)
