"""A trained surrogate as a function of arrays by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penstock.arrays.conversion import as_numbers
from penstock.errors import PenstockError, Refused, text_of
from penstock.learner.export import onnx_file, program, weights_file
from penstock.learner.export.card import described
from penstock.learner.export.trials import example, tried_shapes
from penstock.learner.rehearsal.free_samples import free_samples
from penstock.learner.surrogate import Surrogate
from penstock.registry import nearest


class Loaded:
    """A surrogate from physical units to physical units.

    Called with every input by name, it gives every output by name. All arrays begin with the batch axis: fields are
    [B, *] or, with several components, [B, components, *], scalars [B]. What samples bring along for their geometries
    is among the inputs: points [B, P, d], weights [B, P], edges [B, E, 2].

    Args:
        card: what it was trained on, with `inputs` and `outputs`.
        predict: predicts tensors by name from tensors by name, on the host.
    """

    def __init__(self, card: Mapping[str, Any], predict: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]):
        self.card = card
        self._predict = predict

    @classmethod
    def of(cls, surrogate: Surrogate, card: Mapping[str, Any]) -> Loaded:
        """Of a surrogate itself.

        Args:
            surrogate: the surrogate, on the host and in evaluation mode.
            card: what it was trained on; `inputs` and `outputs` are added.
        """
        inputs = example(surrogate.layout, free_samples(surrogate.layout, 2, surrogate.device))
        shapes = described(surrogate.layout, tried_shapes(surrogate, inputs))
        return cls({**card, **shapes}, lambda arrays: surrogate(**arrays))

    def __repr__(self) -> str:
        def text(entry: Mapping) -> str:
            return f"{entry['name']} {_shape(entry['shape'])} in {entry['unit'] or '1'}"

        inputs, outputs = (", ".join(map(text, self.card[role])) for role in ("inputs", "outputs"))
        return f"surrogate({inputs}) -> {outputs}"

    def __call__(self, **inputs: Any) -> dict[str, np.ndarray]:
        """Predict.

        Args:
            **inputs: every input by its name in the card, as NumPy arrays, tensors or lists of real numbers, in the
                shapes that the card says.

        Returns:
            Every output by its name, float32 [B, *], [B, components, *] or [B].

        Raises:
            PenstockError: an input is missing, unknown, misshapen, or holds no finite real numbers.
        """
        entries = {entry["name"]: entry for entry in self.card["inputs"]}
        for name in inputs:
            if name not in entries:
                raise PenstockError(f"{name}: there is no such input; {nearest(name, entries)}")
        if missing := [name for name in entries if name not in inputs]:
            raise PenstockError(f"{missing[0]} is missing: give {', '.join(entries)} by name")
        arrays = {name: _array(entry, inputs[name]) for name, entry in entries.items()}
        _require_shapes(entries, arrays, self.card["free sizes"])
        try:
            with torch.no_grad():
                outputs = self._predict({name: torch.from_numpy(array) for name, array in arrays.items()})
        except Exception as error:  # of a model, or a program, that does not take these sizes after all
            shapes = ", ".join(f"{name} {_shape(array.shape)}" for name, array in arrays.items())
            raise PenstockError(f"the surrogate can't predict at {shapes}: {text_of(error)}") from error
        return {entry["name"]: outputs[entry["name"]].numpy() for entry in self.card["outputs"]}


def load_file(path: Path) -> Loaded:
    """Load a file that `penstock export` wrote.

    Args:
        path: a .pt2, an .onnx or a .safetensors file.

    Returns:
        The surrogate.

    Raises:
        PenstockError: there is no such file, it is damaged or none of ours, or what it needs is not there.
    """
    if path.suffix not in READERS:
        raise PenstockError(f"{path}: give a run folder, or a file that ends with {', '.join(READERS)}")
    try:
        return READERS[path.suffix](path)
    except PenstockError:
        raise
    except OSError as error:
        raise PenstockError(f"can't read {path}: {error.strerror or error}") from error
    except Exception as error:  # each library has its own for a file that it can't take
        raise PenstockError(f"{path} is damaged, or was not written by penstock: {error}") from error


def _read_program(path: Path) -> Loaded:
    files = {program.CARD: ""}
    with path.open("rb") as file:
        module = torch.export.load(file, extra_files=files).module()
    return Loaded(json.loads(files[program.CARD]), lambda arrays: module(**arrays))


def _read_onnx(path: Path) -> Loaded:
    session = onnx_file.Session(path.read_bytes())
    return Loaded(session.card, session)


def _read_weights(path: Path) -> Loaded:
    surrogate, card = weights_file.read(path)
    return Loaded(card, lambda arrays: surrogate(**arrays))


READERS: dict[str, Callable[[Path], Loaded]] = {
    ".pt2": _read_program,
    ".onnx": _read_onnx,
    ".safetensors": _read_weights,
}


def _array(entry: Mapping, value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype == torch.bfloat16 else value  # which NumPy lacks
    try:
        array = as_numbers(entry["name"], value.numpy() if isinstance(value, Tensor) else value)
    except Refused as error:
        raise PenstockError(str(error)) from error
    if entry["dtype"].startswith("int") and array.dtype.kind not in "iu":
        raise PenstockError(f"{entry['name']} has dtype {array.dtype} and must hold integers")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, entry["dtype"])
    if not np.isfinite(array).all():
        raise PenstockError(f"{entry['name']} holds values that are not finite in {entry['dtype']}")
    return array if array.flags.writeable else array.copy()


def _require_shapes(entries: Mapping[str, Mapping], arrays: Mapping[str, np.ndarray], least: Mapping[str, int]) -> None:
    """Check fixed sizes, and that free ones are the same in all arrays.

    That is within a batch, and on a geometry.
    """
    found: dict[str, tuple[int, str]] = {}
    for name, entry in entries.items():
        given, expected = arrays[name].shape, entry["shape"]
        what = f"{name} has shape {_shape(given)} and must have {_shape(expected)}"
        if len(given) == len(expected) - 1:
            raise PenstockError(f"{what}: give one sample as a batch of one, array[None]")
        if len(given) != len(expected):
            raise PenstockError(what)
        for size, known in zip(given, expected, strict=True):
            if size < 1 or (isinstance(known, int) and size != known):
                raise PenstockError(what)
            if isinstance(known, str):
                if size < least[known]:
                    raise PenstockError(f"{what}: {known} is at least {least[known]}")
                place = known if known == "batch" else f"{known} of {json.dumps(entry.get('on'))}"
                before, other = found.setdefault(place, (size, name))
                if before != size:
                    raise PenstockError(f"{what}: {known} is {before} in {other}")


def _shape(sizes: Any) -> str:
    return f"[{', '.join(map(str, sizes))}]"
