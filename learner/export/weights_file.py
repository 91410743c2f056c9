"""A surrogate's weights in the safetensors format, with what builds it again.

Its metadata holds `card`, `layout` and `values`, the state that is no tensor, as JSON; among its tensors are the points
and cells of meshes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from penstock.errors import PenstockError
from penstock.geometry import Geometry, Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.checkpoints.weights import load_weights, weights_of
from penstock.learner.export.card import described
from penstock.learner.export.trials import example, tried_shapes
from penstock.learner.models import MODELS
from penstock.learner.normalization import Normalization
from penstock.learner.rehearsal.rehearsal import try_out
from penstock.learner.surrogate import Surrogate
from penstock.registry import build, load_class

KINDS: dict[str, type[Geometry]] = {"grid": Grid, "mesh": Mesh, "points": Points}
MESH = "mesh."  # prefix to the names of tensors of meshes
NEEDS = "penstock and the code of the model: penstock.load(file)"


def contents_of(
    surrogate: Surrogate, card: Mapping, example_arrays: Mapping[str, np.ndarray | Tensor]
) -> tuple[bytes, dict]:
    """Return the bytes of a .safetensors file, and its card.

    Nothing is traced, so any model can be written; to read the file takes the code of the model.

    Args:
        surrogate: the surrogate.
        card: what a user of the file should know, `model` with `name` and `options` at least. `inputs` and `outputs`
            are added to it.
        example_arrays: arrays of at least one sample, from `Layout.pack`.

    Returns:
        The bytes of the file and the whole card.

    Raises:
        PenstockError: the surrogate's state can't be saved.
    """
    layout = surrogate.layout
    card = {**card, **described(layout, tried_shapes(surrogate, example(layout, example_arrays)))}
    state = weights_of(surrogate)
    tensors = {
        name: value.detach().cpu().clone().contiguous() for name, value in state.items() if isinstance(value, Tensor)
    }
    values = {name: value for name, value in state.items() if name not in tensors}
    for number, geometry in enumerate(layout.geometries):
        if isinstance(geometry, Mesh):
            tensors[f"{MESH}{number}.points"] = torch.tensor(geometry.arrays.points)
            tensors[f"{MESH}{number}.cells"] = torch.tensor(geometry.arrays.cells)
    metadata = {"card": card, "layout": _layout_as_json(layout), "values": values}
    return save(tensors, {name: json.dumps(value) for name, value in metadata.items()}), card


def read(path: Path) -> tuple[Surrogate, dict]:
    """Build the surrogate of a file again.

    A model of a user's must lie beside it, or in an installed package.

    Args:
        path: the file.

    Returns:
        The surrogate, in evaluation mode, and the card.

    Raises:
        PenstockError: the file is none of ours, or the model's code is missing or another one.
        Exception: the file can't be read.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    if not {"card", "layout", "values"} <= metadata.keys():
        raise PenstockError(f"{path} holds tensors alone: give a file of `penstock export --format safetensors`")
    card, values = json.loads(metadata["card"]), json.loads(metadata["values"])
    layout = _layout_from_json(json.loads(metadata["layout"]), tensors)
    choice = card["model"]
    source, name = Path(choice["name"].rpartition(":")[0]), choice["name"]
    if source.suffix == ".py":
        name = str(path.parent / name)
        if not (path.parent / source).is_file():
            raise PenstockError(f"{path} needs {source}, which has the code of its model: put it beside")
    where = f"the model of {path}"
    model = build(load_class(name, MODELS, where), choice["options"], where, layout)
    surrogate = Surrogate(model, Normalization.identity(layout), layout)
    try_out(surrogate, choice["name"])  # gives lazy parameters their shapes
    try:
        load_weights(surrogate, {name: value for name, value in tensors.items() if name[: len(MESH)] != MESH} | values)
    except ValueError as error:
        raise PenstockError(
            f"{path} is from another {choice['name']}: {error}; it was written by penstock "
            f"{card.get('versions', {}).get('penstock', 'of another version')}"
        ) from error
    return surrogate.eval(), card


def _layout_as_json(layout: Layout) -> dict:
    geometries = []
    for geometry in layout.geometries:
        (kind,) = (name for name, cls in KINDS.items() if isinstance(geometry, cls))
        geometries.append({"kind": kind, **{f.name: getattr(geometry, f.name) for f in fields(geometry) if f.repr}})
    numbers = {geometry: number for number, geometry in enumerate(layout.geometries)}

    def as_json(spec: FieldSpec) -> dict:
        on = None if spec.on is None else numbers[spec.on]
        return {"name": spec.name, "on": on, "components": spec.components, "unit": spec.unit}

    return {
        "geometries": geometries,
        "inputs": [as_json(spec) for spec in layout.inputs],
        "outputs": [as_json(spec) for spec in layout.outputs],
    }


def _layout_from_json(content: Mapping, tensors: Mapping[str, Tensor]) -> Layout:
    geometries: list[Geometry] = []
    for number, given in enumerate(content["geometries"]):
        options = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        cls = KINDS[options.pop("kind")]
        if cls is Mesh:
            arrays = tuple(tensors[f"{MESH}{number}.{each}"].numpy() for each in ("points", "cells"))
            options["build"] = partial(tuple, arrays)
        geometries.append(cls(**options))

    def spec_of(given: Mapping) -> FieldSpec:
        return FieldSpec(**{**given, "on": None if given["on"] is None else geometries[given["on"]]})

    return Layout(tuple(map(spec_of, content["inputs"])), tuple(map(spec_of, content["outputs"])))
