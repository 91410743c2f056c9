"""Export of a surrogate as ONNX, checked with onnxruntime.

To use the file in Python, without torch:

    session = onnxruntime.InferenceSession("darcy.onnx")
    outputs = session.run(None, {"coefficient": array})

Axes:  B batch, * the shape of a geometry: *grid of a grid, P points of others.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penstock.errors import PenstockError
from penstock.learner.copies import copied
from penstock.learner.export.card import described
from penstock.learner.export.program import least_sizes, meshes_of, traced, traced_shapes
from penstock.learner.export.trials import example, require_agreement
from penstock.learner.surrogate import Surrogate

CARD, MESHES = "card", "meshes"  # keys of the file's metadata
TOLERANCE = 1e-4  # difference in deviations between onnxruntime and torch, whose sums of float32 are in another order
NEEDS = "onnxruntime, or another ONNX runtime, without torch"


def contents_of(
    surrogate: Surrogate, card: Mapping, example_arrays: Mapping[str, np.ndarray | Tensor]
) -> tuple[bytes, dict]:
    """Return the bytes of an .onnx file, and its card.

    The file has the whole way from physical units to physical units. Sizes that the model lets vary stay free. What
    onnxruntime makes of it is compared with the surrogate on the example, and at other batch sizes and resolutions if
    these are free. The card and the meshes are in the file's metadata.

    Args:
        surrogate: the surrogate.
        card: what a user of the file should know. What `described` gives is added to it.
        example_arrays: arrays of at least one sample, from `Layout.pack`.

    Returns:
        The bytes of the file and the whole card.

    Raises:
        PenstockError: a package is missing, ONNX has no form for the model, or the file disagrees with it.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        _package(name)
    surrogate = copied(surrogate).cpu().eval()
    layout = surrogate.layout
    inputs = example(layout, example_arrays)
    program = traced(surrogate, inputs)
    shapes = traced_shapes(program, inputs)
    card = {**card, **described(layout, shapes, least_sizes(program, inputs, 1))}
    names = [entry["name"] for entry in card["outputs"]]
    try:
        with _quiet():
            model = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                output_names=names,
                custom_translation_table={torch.ops.aten.index_add.default: _index_add},
            ).model_proto
        _require_sums_in_order(model.graph)
        _name_sizes(model.graph, card)
        for key, value in ((CARD, card), (MESHES, meshes_of(layout))):
            model.metadata_props.add(key=key, value=json.dumps(value))
        contents = model.SerializeToString()
        session = Session(contents)
    except Exception as error:  # whatever torch.onnx and onnxruntime can't take, in a user's model too
        cause = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
        raise PenstockError(
            f"{type(surrogate.model).__name__} can't be written as ONNX: {reason}; take another format", exit_code=1
        ) from error
    require_agreement(surrogate, session, inputs, shapes, TOLERANCE)
    return contents, card


class Session:
    """An ONNX file, run by onnxruntime.

    Args:
        contents: the bytes of the file.

    Raises:
        PenstockError: onnxruntime is missing.
        Exception: onnxruntime can't take the file.
    """

    def __init__(self, contents: bytes):
        runtime = _package("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(contents, options, providers=["CPUExecutionProvider"])

    @property
    def card(self) -> dict:
        """The card in the file. Raises KeyError if there is none."""
        return json.loads(self._session.get_modelmeta().custom_metadata_map[CARD])

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Predict all outputs by name, from inputs by name, in physical units."""
        taken = (each.name for each in self._session.get_inputs())
        outputs = self._session.run(None, {name: inputs[name].numpy() for name in taken})
        names = (each.name for each in self._session.get_outputs())
        return {name: torch.from_numpy(values) for name, values in zip(names, outputs, strict=True)}


def _index_add(self: Any, dim: int, index: Any, source: Any, alpha: float = 1.0) -> Any:
    """Tensor.index_add as ScatterElements, which onnxruntime does in order.

    torch.onnx takes ScatterND. Where that meets an index twice, onnxruntime's threads overwrite each other's sums, now
    and then (github.com/microsoft/onnxruntime/issues/23396).
    """
    operators = _package("onnxscript").opset18
    rank = len(source.shape)
    if others := [axis for axis in range(rank) if axis != dim % rank]:
        index = operators.Unsqueeze(index, operators.Constant(value_ints=others))
        index = operators.Expand(index, operators.Shape(source))
    if alpha != 1:
        source = operators.Mul(source, operators.CastLike(alpha, source))
    return operators.ScatterElements(self, index, source, axis=dim, reduction="add")


def _require_sums_in_order(graph: Any) -> None:
    """Refuse what `_index_add` is there to avoid, in a user's model.

    Raises:
        ValueError: there is such a node.
    """
    for node in graph.node:
        if node.op_type == "ScatterND" and any(
            each.name == "reduction" and each.s != b"none" for each in node.attribute
        ):
            raise ValueError(
                "onnxruntime's threads lose summands of index_put(..., accumulate=True): take index_add or scatter_add"
            )


def _name_sizes(graph: Any, card: Mapping) -> None:
    """Call the free sizes of an ONNX graph's inputs and outputs as the card does."""
    names = {}
    inputs = {each.name: each for each in graph.input}
    for entry in card["inputs"]:
        for dim, size in zip(inputs[entry["name"]].type.tensor_type.shape.dim, entry["shape"], strict=True):
            name = str(size).partition(" ")[0]
            if isinstance(size, str) and name not in names.values():
                names.setdefault(dim.dim_param, name)
    for each in (*graph.input, *graph.output):
        for dim in each.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]
    del graph.value_info[:]  # shapes inside, by the former names; any runtime finds them again


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise PenstockError(f"ONNX needs the package {name}: pip install 'penstock[onnx]'", exit_code=1) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps from people what torch.onnx says of torchvision and of itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
