"""Checking and packing what a sample brings along of its fields' geometries.

Axes:  P points, E edges, d dimensions of space, C channels, * the shape of a geometry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from penstock.arrays.conversion import DTYPE, as_numbers, require_kept
from penstock.errors import Refused
from penstock.geometry import Geometry, Points

INDEX = np.dtype(np.int32)  # of edges
ROUNDING = 1e-6  # of the box's largest coordinate; float32 has 1.2e-7


def brought_along(geometry: Geometry, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays that a geometry has each sample bring along.

    Args:
        geometry: of some of the sample's fields.
        given: what the sample has, by name: points [P, d], weights [P] or [*grid], edges [E, 2].

    Returns:
        Points [d, P], weights [1, P] or [1, *grid], edges [2, E]; nothing where nothing travels.

    Raises:
        Refused: an array is missing or misshapen, not finite, or not what it is to be; the message gives its name and
            the number of the point or edge.
    """
    arrays = {}
    for name, shape in geometry.travelling.items():
        if name not in given:
            raise Refused(f"the sample's geometry lacks {name!r}")
        value = as_numbers(name, given[name])
        value = _as_rows(name, value, geometry, shape) if isinstance(geometry, Points) else _as_grid(name, value, shape)
        is_edges = name == geometry.named("edges")
        if not np.isfinite(value).all():
            where = _at(np.argwhere(~np.isfinite(value))[0][1:], "edge" if is_edges else "point")
            raise Refused(f"{name!r} is not finite at {where}")
        arrays[name] = np.ascontiguousarray(value, INDEX if is_edges else DTYPE)
        if is_edges:
            _check_edges(name, value, arrays[geometry.named("points")].shape[1])
            continue
        for channel, packed in zip(value, arrays[name], strict=True):
            require_kept(name, channel, packed)
    if isinstance(geometry, Points):
        _check_points(geometry, arrays)
    elif arrays:
        _check_mask(geometry.named("weights"), arrays[geometry.named("weights")][0])
    return arrays


def _as_grid(name: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if value.shape != shape[1:]:
        raise Refused(f"{name!r} has shape {value.shape}, and the geometry's is {shape[1:]}")
    return value[None]


def _as_rows(name: str, value: np.ndarray, geometry: Points, shape: tuple[int, ...]) -> np.ndarray:
    channels, most = shape
    if name == geometry.named("weights"):
        if value.ndim != 1:
            raise Refused(f"{name!r} has shape {value.shape}: give one number per point, [P]")
        value = value[:, None]
    if value.ndim != 2 or value.shape[1] != channels:
        raise Refused(f"{name!r} has shape {value.shape}: give rows of {channels}")
    is_edges = name == geometry.named("edges")
    what, option, least = ("edges", "max_edges", 0) if is_edges else ("points", "max_points", 1)
    if not least <= len(value) <= most:
        raise Refused(
            f"{name!r} holds {len(value)} {what}, and the geometry's {option} is {most}: raise it, or take a coarser "
            "mesh"
        )
    return value.T


def _check_mask(name: str, weights: np.ndarray) -> None:
    if (weights < 0).any():
        where = _at(np.argwhere(weights < 0)[0])
        raise Refused(f"{name!r} is negative at {where}: quadrature weights are above 0, or 0 outside the domain")
    if not weights.any():
        raise Refused(f"{name!r} is 0 everywhere: the domain has no point")


def _check_points(geometry: Points, arrays: Mapping[str, np.ndarray]) -> None:
    name = geometry.named("points")
    points, weights = arrays[name], arrays[geometry.named("weights")][0]
    if len(weights) != points.shape[1]:
        raise Refused(f"{geometry.named('weights')!r} are of {len(weights)} points, and there are {points.shape[1]}")
    if not (weights > 0).all():
        index = int(np.argmin(weights > 0))
        raise Refused(
            f"{geometry.named('weights')!r} is {weights[index]:g} at point {index}: quadrature weights are above 0, as "
            "the lumped masses of P1 elements are; a point that belongs to no cell has 0, so leave it out"
        )
    lowest, highest = geometry.box
    beyond = np.maximum(lowest - points.T, points.T - highest).max(axis=1) > ROUNDING * np.abs(geometry.box).max()
    if beyond.any():
        index = int(np.argmax(beyond))
        raise Refused(
            f"{name!r} has point {index} at {points[:, index].tolist()}, and the box that holds all samples is from "
            f"{lowest.tolist()} to {highest.tolist()}: give its origin and extent to Points"
        )


def _check_edges(name: str, edges: np.ndarray, num_points: int) -> None:
    is_edge = (edges == np.trunc(edges)).all(axis=0)
    is_edge &= (edges[0] >= 0) & (edges[0] < edges[1]) & (edges[1] < num_points)
    if not is_edge.all():
        index = int(np.argmin(is_edge))
        raise Refused(
            f"{name!r} has {edges[:, index].tolist()} as edge {index}: give each edge once as (i, j), "
            f"i < j < {num_points}"
        )
    _, first, counts = np.unique(edges, axis=1, return_index=True, return_counts=True)
    if (counts > 1).any():
        index = int(first[counts > 1][0])
        raise Refused(f"{name!r} has {edges[:, index].tolist()} more than once: give each edge once")


def _at(index: np.ndarray, what: str = "point") -> str:
    return f"{what} {index[0]}" if len(index) == 1 else f"{index.tolist()}"
