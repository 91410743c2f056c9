"""A surrogate's weights in the safetensors format, with what builds it again.

Its metadata holds `card`, `layout` and `values`, the state that is no tensor, as JSON; among its tensors are the points
and cells of meshes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from penstock.arrays import layout_json
from penstock.errors import PenstockError
from penstock.learner.checkpoints.weights import load_weights, weights_of
from penstock.learner.copies import copied
from penstock.learner.export.card import described
from penstock.learner.export.trials import example, require_agreement, tried_shapes
from penstock.learner.models import MODELS
from penstock.learner.normalization import Normalization
from penstock.learner.rehearsal.rehearsal import try_out
from penstock.learner.surrogate import Surrogate
from penstock.registry import build, load_class

TOLERANCE = 1e-5  # difference in deviations between what is read back and the surrogate
MESH = "mesh."  # prefix to the names of tensors of meshes
NEEDS = "penstock and the code of the model: penstock.load(file)"


def contents_of(
    surrogate: Surrogate, card: Mapping, example_arrays: Mapping[str, np.ndarray | Tensor]
) -> tuple[bytes, dict]:
    """Return the bytes of a .safetensors file, and its card.

    Nothing is traced, so any model that is a class can be written; to read the file takes its code. What is built again
    from the bytes is compared with the surrogate on the example, and at other batch sizes and resolutions if the model
    takes them.

    Args:
        surrogate: the surrogate.
        card: what a user of the file should know, `model` with `name` and `options` at least. `inputs` and `outputs`
            are added to it.
        example_arrays: arrays of at least one sample, from `Layout.pack`.

    Returns:
        The bytes of the file and the whole card.

    Raises:
        PenstockError: the surrogate's state can't be saved, or is not the surrogate once it is read back.
    """
    surrogate = copied(surrogate).cpu().eval()
    layout = surrogate.layout
    inputs = example(layout, example_arrays)
    shapes = tried_shapes(surrogate, inputs)
    card = {**card, **described(layout, shapes)}
    state = weights_of(surrogate)
    tensors = {
        name: value.detach().cpu().clone().contiguous() for name, value in state.items() if isinstance(value, Tensor)
    }
    values = {name: value for name, value in state.items() if name not in tensors}
    tensors |= {MESH + name: torch.tensor(array) for name, array in layout_json.mesh_arrays(layout).items()}
    content = {"card": card, "layout": layout_json.as_json(layout), "values": values}
    metadata = {name: json.dumps(value) for name, value in content.items()}
    contents = save(tensors, metadata)
    again = _surrogate_of(metadata, load(contents), _class_of(surrogate, card["model"]["name"]), "the exported file")
    require_agreement(surrogate, lambda trial: again(**trial), inputs, shapes, TOLERANCE)
    return contents, card


def read(path: Path) -> tuple[Surrogate, dict]:
    """Build the surrogate of a file again.

    A model of a user's must lie beside it, or in an installed package.

    Args:
        path: the file.

    Returns:
        The surrogate, in evaluation mode, and the card.

    Raises:
        PenstockError: the file is none of ours, the model's code is missing or another one, or its name is none of a
            model.
        Exception: the file can't be read.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    if not {"card", "layout", "values"} <= metadata.keys():
        raise PenstockError(f"{path} holds tensors alone: give a file of `penstock export --format safetensors`")
    card = json.loads(metadata["card"])
    return _surrogate_of(metadata, tensors, _class_named(card["model"]["name"], path), str(path)), card


def _surrogate_of(metadata: Mapping[str, str], tensors: Mapping[str, Tensor], cls: type, origin: str) -> Surrogate:
    """The surrogate of a file's metadata and tensors, in evaluation mode.

    Args:
        metadata: JSON of `card`, `layout` and `values`.
        tensors: the tensors by name, those of meshes among them.
        cls: class of the model.
        origin: the file, for messages.

    Raises:
        PenstockError: the class refuses its options, or has other weights.
    """
    card, values = json.loads(metadata["card"]), json.loads(metadata["values"])

    def mesh(number: int) -> layout_json.Build:
        return partial(tuple, [tensors[MESH + name].numpy() for name in layout_json.mesh_names(number)])

    layout = layout_json.from_json(json.loads(metadata["layout"]), mesh)
    choice = card["model"]
    model = build(cls, choice["options"], f"the model of {origin}", layout)
    surrogate = Surrogate(model, Normalization.identity(layout), layout)
    try_out(surrogate, choice["name"])  # gives lazy parameters their shapes
    try:
        load_weights(surrogate, {name: value for name, value in tensors.items() if name[: len(MESH)] != MESH} | values)
    except ValueError as error:
        raise PenstockError(
            f"{origin} is from another {choice['name']}: {error}; it was written by penstock "
            f"{card.get('versions', {}).get('penstock', 'of another version')}"
        ) from error
    return surrogate.eval()


def _class_of(surrogate: Surrogate, name: str) -> type:
    """The class that the model's name in a card will be read as.

    Raises PenstockError if the name is of a function that makes the model, which `_class_named` would refuse.
    """
    cls = MODELS.get(name, type(surrogate.model))
    if name not in MODELS and cls.__name__ != name.rpartition(":")[2]:
        raise PenstockError(
            f"model: {name} is no class of the name, it makes a {cls.__name__}: a .safetensors can hold a class of "
            "torch.nn.Module alone; take another format",
            exit_code=1,
        )
    return cls


def _class_named(name: str, path: Path) -> type[nn.Module]:
    """The class of a model by its name in the card of a file.

    The file may be a stranger's: its card chooses among classes of models that are installed or lie beside it.

    Args:
        name: a key of MODELS, `package.module:Class` or `file.py:Class`.
        path: the file.

    Raises:
        PenstockError: it names a file elsewhere, or nothing that is a model, or the code is missing.
    """
    source = name.rpartition(":")[0]
    if source.endswith(".py"):
        beside = Path(source).name
        if Path(source) != Path(beside):
            raise PenstockError(f"{path} wants its model from {source}: only a file beside it is taken, as {beside}")
        if not (path.parent / beside).is_file():
            raise PenstockError(f"{path} needs {beside}, which has the code of its model: put it beside")
        name = str(path.parent / name)
    cls = load_class(name, MODELS, f"the model of {path}")
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise PenstockError(f"{path} wants {name} as its model, which is no class of torch.nn.Module: it is not built")
    return cls
