"""Boundary functions on the unit square, and the fluxes that they cause.

Axes:  L boundary functions; arrays of values at the vertices of n x n squares are [L, n + 1, n + 1], indexed [x, y].
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec
from penstock.solvers.problem import LinearSystem, Solve
from penstock.solvers.problems.steady.poisson_boundary import SIDES


def check_functions(num_functions: int) -> None:
    """Check the number of boundary functions.

    Raises:
        ValueError: there is none.
    """
    if num_functions < 1:
        raise ValueError(f"num_functions = {num_functions} is too small: a flux needs at least 1 boundary function")


def plane_waves(resolution: int, num_functions: int, wavenumber: float) -> np.ndarray:
    """The boundary functions cos(ω (x cos θ + y sin θ)), zero inside.

    The angles are θ_l = π (l + 1/2) / L, because θ + π gives the function of θ.

    Args:
        resolution: n.
        num_functions: L.
        wavenumber: ω.
    """
    angles = (np.arange(num_functions) + 0.5)[:, None, None] * pi / num_functions
    x, y = np.ix_(*2 * [np.arange(resolution + 1) / resolution])
    values = np.cos(wavenumber * (x * np.cos(angles) + y * np.sin(angles)))
    values[:, 1:-1, 1:-1] = 0.0
    return values


def flux_specs(resolution: int, num_functions: int) -> tuple[FieldSpec, ...]:
    """The fluxes on the four sides.

    Each is on the grid [n - 1, L] of the side's inner vertices and the angles.
    """
    inner = Grid.of_inner_vertices((resolution - 1,))
    grid = Grid(
        (resolution - 1, num_functions), extent=(*inner.extent, pi), origin=(*inner.origin, 0.0), name="boundary"
    )
    return tuple(FieldSpec(name=side, on=grid) for side in SIDES)


def by_side(flows: np.ndarray) -> dict[str, np.ndarray]:
    """The fluxes [n - 1, L] on each side, from those at all vertices."""
    inner = slice(1, -1)
    sides = (flows[:, 0, inner], flows[:, -1, inner], flows[:, inner, 0], flows[:, inner, -1])
    return {name: np.ascontiguousarray(side.T) for name, side in zip(SIDES, sides, strict=True)}


def fluxes(
    product: Callable[[np.ndarray], np.ndarray],
    with_load: Callable[[np.ndarray], LinearSystem],
    boundary_values: np.ndarray,
    solve: Solve,
) -> np.ndarray:
    """The fluxes a ∂u/∂n out of the square.

    The flux at a vertex is the balance of the part of the square around it. This is of second order, and the map from
    values to fluxes keeps the symmetry of the matrix.

    Args:
        product: gives the product of the matrix of all vertices with values at them, [n + 1, n + 1].
        with_load: gives the system of the inner vertices for a right-hand side [n - 1, n - 1]; its matrix stays.
        boundary_values: L functions g, zero inside.
        solve: solves a system.

    Returns:
        Fluxes at the vertices, 0 inside. At a corner it is the sum over half an edge on each of its sides, over h.
    """
    all_flows = np.zeros_like(boundary_values)
    inner = (slice(1, -1), slice(1, -1))
    for values, flows in zip(boundary_values, all_flows, strict=True):
        u, load = values.copy(), -product(values)[inner]
        u[inner] = solve(with_load(load)).x.array_r.reshape(load.shape)
        flows[:] = (len(u) - 1) * product(u)
        flows[inner] = 0.0  # rounding
    return all_flows
