"""A layout as JSON and back: files of samples and weights need no problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from penstock.geometry import Geometry, Grid, Mesh, Points
from penstock.layout import Derivative, FieldSpec, Layout

KINDS: dict[str, type[Geometry]] = {"grid": Grid, "mesh": Mesh, "points": Points}

Build = Callable[[], tuple[np.ndarray, np.ndarray]]


def as_json(layout: Layout) -> dict[str, Any]:
    """The layout, without the arrays of its meshes (`mesh_arrays`).

    Args:
        layout: the layout.

    Returns:
        What JSON can hold.
    """
    return {
        "geometries": [_of_geometry(geometry) for geometry in layout.geometries],
        "inputs": [_of_spec(spec, layout) for spec in layout.inputs],
        "outputs": [_of_spec(spec, layout) for spec in layout.outputs],
        **({"feeds": dict(layout.feeds)} if layout.feeds else {}),
        **({"tangents": [_of_spec(spec, layout) for spec in layout.tangents]} if layout.tangents else {}),
    }


def from_json(described: Mapping[str, Any], build: Callable[[int], Build]) -> Layout:
    """The layout that `as_json` described.

    Args:
        described: what it returned.
        build: gives the `build` of the mesh that is the geometry with this number.

    Returns:
        The layout.

    Raises:
        KeyError, TypeError, ValueError: it describes none.
    """
    geometries = []
    for number, entry in enumerate(described["geometries"]):
        options = dict(entry)
        cls = KINDS[options.pop("kind")]
        geometries.append(cls(**options, **({"build": build(number)} if cls is Mesh else {})))

    def specs(entries: list[Mapping[str, Any]]) -> tuple[FieldSpec, ...]:
        places = (None if entry["on"] is None else geometries[entry["on"]] for entry in entries)
        classes = (Derivative if "of" in entry else FieldSpec for entry in entries)
        described_on = zip(classes, entries, places, strict=True)
        return tuple(cls(**{**entry, "on": place}) for cls, entry, place in described_on)

    inputs, outputs, tangents = map(specs, (described["inputs"], described["outputs"], described.get("tangents", [])))
    return Layout(inputs, outputs, described.get("feeds", {}), tangents)


def mesh_arrays(layout: Layout) -> dict[str, np.ndarray]:
    """The points and cells of the layout's meshes, by `mesh_names`."""
    arrays = {}
    for number, geometry in enumerate(layout.geometries):
        if isinstance(geometry, Mesh):
            points, cells = mesh_names(number)
            arrays |= {points: geometry.arrays.points, cells: geometry.arrays.cells}
    return arrays


def mesh_names(number: int) -> tuple[str, str]:
    """The names of a mesh's points and cells; `number` is that of the geometry."""
    return f"mesh_{number}_points", f"mesh_{number}_cells"


def _of_geometry(geometry: Geometry) -> dict[str, Any]:
    (kind,) = (kind for kind, cls in KINDS.items() if cls is type(geometry))
    options = {field.name: getattr(geometry, field.name) for field in fields(geometry) if field.name != "build"}
    plain = {name: list(value) if type(value) is tuple else value for name, value in options.items()}
    return {"kind": kind} | plain


def _of_spec(spec: FieldSpec, layout: Layout) -> dict[str, Any]:
    on = None if spec.on is None else layout.geometries.index(spec.on)
    by = {"of": spec.of, "by": spec.by} if isinstance(spec, Derivative) else {}
    return {"name": spec.name, "on": on, "components": spec.components, "unit": spec.unit} | by
