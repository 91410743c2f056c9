"""The state of a module as tensors and JSON: from its state_dict and back.

Beside parameters and buffers a state_dict may hold what `get_extra_state` returns, what a user's `state_dict` adds, and
the versions of the modules' formats. Of these a checkpoint keeps numbers, text, and lists, tuples and mappings of them,
with tensors anywhere inside. Nothing is pickled.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _EXTRA_STATE_KEY_SUFFIX as EXTRA_STATE

from penstock.errors import PenstockError

TREES = "state_dict"  # JSON of every entry of the state_dict that is not simply a tensor, by name
INSIDE = "in "  # prefix to the names of tensors inside such JSON
VERSIONS = "_metadata"  # an attribute of the state_dict; neuraloperator uses the word for an entry too


def weights_of(module: nn.Module) -> dict[str, Any]:
    """Return the state of a module for a checkpoint.

    What a user's `state_dict` adds is left out if it is neither tensors nor JSON: neuraloperator adds the functions
    that its constructor was given, and no `load_state_dict` of an outer module hands them back.

    Args:
        module: the module.

    Returns:
        Tensors, which are those in use and not copies, and JSON values, by name.

    Raises:
        PenstockError: a tensor is sparse, or extra state is neither tensors nor JSON.
    """
    state = module.state_dict()
    weights: dict[str, Any] = {}
    trees = {}
    for name, value in state.items():
        if isinstance(value, Tensor) and value.layout != torch.strided:
            raise PenstockError(
                f"model: {name.removeprefix('model.')} is sparse, which a checkpoint can't hold: if it never changes, "
                "give register_buffer(..., persistent=False)"
            )
        if _is_plain(value):
            weights[name] = value
            continue
        try:
            trees[name] = _to_json(f"{INSIDE}{name}", value, weights)
        except TypeError as error:
            if name.endswith(EXTRA_STATE):
                raise PenstockError(
                    f"model: get_extra_state ({name.removeprefix('model.')}) gives {error}, which a checkpoint can't "
                    "hold: give tensors, numbers, text, and lists and dicts of them"
                ) from error
    versions = _to_json("", dict(getattr(state, VERSIONS, {})), weights)
    return weights | {TREES: {"state": trees, "versions": versions}}


def load_weights(module: nn.Module, weights: Mapping[str, Any]) -> None:
    """Load a saved state into a module like the one it was taken from.

    A buffer takes the shape of the saved one, even if it is still None: a model may set it while it trains.

    Args:
        module: the module.
        weights: what `weights_of` returned.

    Raises:
        ValueError: names or shapes differ.
    """
    trees = weights.get(TREES, {"state": {}, "versions": {"items": []}})
    state = OrderedDict(
        (name, value) for name, value in weights.items() if name != TREES and not name.startswith(INSIDE)
    )
    state |= {name: _from_json(tree, weights) for name, tree in trees["state"].items()}
    setattr(state, VERSIONS, OrderedDict(_from_json(trees["versions"], weights)))
    _make_room(module, state)
    expected, saved = _shapes(module.state_dict()), _shapes(state)
    for name in sorted(expected.keys() | saved.keys()):
        if expected.get(name) != saved.get(name):
            was, is_now = saved.get(name, "absent"), expected.get(name, "absent")
            raise ValueError(f"{name} was {was} when it was saved and is {is_now} in this model")
    # Not strict, because what a user's state_dict adds may be unexpected.
    if missing := module.load_state_dict(state, strict=False).missing_keys:
        raise ValueError(f"{missing[0]} was not saved")


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}


def _make_room(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Give buffers the shapes of the saved ones."""
    modules = dict(module.named_modules())
    device = next((parameter.device for parameter in module.parameters()), None)
    for name, value in state.items():
        prefix, _, leaf = name.rpartition(".")
        buffers = modules[prefix]._buffers if prefix in modules else {}
        if isinstance(value, Tensor) and leaf in buffers and value.shape != getattr(buffers[leaf], "shape", None):
            setattr(modules[prefix], leaf, torch.empty_like(value, device=device))


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype != torch.complex128  # for which safetensors has no name


def _to_json(name: str, value: Any, tensors: dict[str, Any]) -> Any:
    """Turn a value into JSON and put its tensors into `tensors`.

    Raises:
        TypeError: a part of the value is neither a tensor nor JSON.
    """
    if isinstance(value, Tensor):
        tensors[name] = value if _is_plain(value) else torch.view_as_real(value.detach().resolve_conj())
        return {"tensor" if _is_plain(value) else "complex": name}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {"items": [[_to_json("", key, {}), _to_json(f"{name}.{key}", v, tensors)] for key, v in value.items()]}
    if isinstance(value, list | tuple):
        parts = [_to_json(f"{name}.{i}", part, tensors) for i, part in enumerate(value)]
        return parts if isinstance(value, list) else {"tuple": parts}
    raise TypeError(f"a {type(value).__name__}")


def _from_json(tree: Any, tensors: Mapping[str, Any]) -> Any:
    if isinstance(tree, list):
        return [_from_json(part, tensors) for part in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "complex":  # copied, because a complex128 at an odd multiple of 8 bytes in a file crashes torch
        return torch.view_as_complex(tensors[content].clone())
    parts = _from_json(content, tensors)
    return tuple(parts) if kind == "tuple" else dict(parts)
