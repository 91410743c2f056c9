"""A stencil summed face by face, and the angles of triangles."""

import numpy as np
import pytest


@pytest.fixture
def five_point():
    """A function that assembles a five-point matrix from conductances.

    From n and conductance(i, j) it makes the matrix [n², n²] of Σ conductance(i, j) (u_i - u_j). The sum is over faces,
    on n x n inner points with zero outside.
    """

    def assemble(n, conductance):
        A = np.zeros((n**2, n**2))
        for x in range(n):
            for y in range(n):
                for neighbour in ((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)):
                    value = conductance((x, y), neighbour)
                    A[x * n + y, x * n + y] += value
                    if min(neighbour) >= 0 and max(neighbour) < n:
                        A[x * n + y, neighbour[0] * n + neighbour[1]] -= value
        return A

    return assemble


@pytest.fixture
def angles():
    """A function from points and triangles to all angles, in degrees [T, 3]."""

    def of(points, cells):
        corners = points[cells]
        before, after = np.roll(corners, 1, axis=1) - corners, np.roll(corners, -1, axis=1) - corners
        lengths = np.linalg.norm(before, axis=2) * np.linalg.norm(after, axis=2)
        return np.degrees(np.arccos((before * after).sum(axis=2) / lengths))

    return of
