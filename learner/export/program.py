"""Export of a surrogate with torch.export, compared with the original.

To use the file in Python:

    module = torch.export.load("darcy.pt2").module()
    outputs = module(coefficient=tensor)          # arguments have the names that the card lists

Axes:  B batch, * the shape of a geometry: *grid of a grid, P points of others.
"""

from __future__ import annotations

import inspect
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penstock.errors import PenstockError
from penstock.geometry import Grid, Mesh, Points
from penstock.layout import Block, FieldSpec, Layout
from penstock.learner.copies import copied
from penstock.learner.surrogate import Surrogate

CARD = "card.json"
MESHES = "meshes.json"  # points and cells of each mesh that fields sit on, by the geometry's name
TOLERANCE = 1e-5  # relative difference between the exported file and the surrogate
NUM_EXAMPLES = 2  # torch.export would take a batch of one for a constant of the model


def export(surrogate: Surrogate, card: Mapping, path: Path, example_arrays: Mapping[str, np.ndarray | Tensor]) -> Path:
    """Write <path>.pt2 and <path>.card.json.

    Sizes that the model lets vary stay free in the file. The exported program is compared with the surrogate on the
    example, and on the example at another batch and resolution if these are free. Then the file is read back, and gets
    its name if it holds the same bytes.

    Args:
        surrogate: the surrogate.
        card: what a user of the file should know (problem, ranges, validation errors, versions, seed). `inputs` and
            `outputs` are added to it, and it travels inside the file too.
        path: path of the file, with or without .pt2.
        example_arrays: arrays of at least one sample, from `Layout.pack`.

    Returns:
        The path of the .pt2 file.

    Raises:
        PenstockError: the model can't be exported, the program disagrees with it, or the disk refuses.
    """
    path = Path(path)
    path = path if path.suffix == ".pt2" else path.with_name(f"{path.name}.pt2")
    contents, card = contents_of(surrogate, card, example_arrays)
    temporary = path.with_name(f".{path.stem}.writing.pt2")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(contents)
        if temporary.read_bytes() != contents:
            raise OSError("other bytes were read back")
        path.with_suffix(".card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", "utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise PenstockError(f"can't write {path}: {error.strerror or error}", exit_code=1) from error
    finally:
        if temporary.exists():
            temporary.unlink()
    return path


def contents_of(
    surrogate: Surrogate, card: Mapping, example_arrays: Mapping[str, np.ndarray | Tensor]
) -> tuple[bytes, dict]:
    """Return the bytes and the card that `export` writes, without writing them.

    The arguments are those of `export`.

    Returns:
        The bytes of the file, compared with the surrogate, and the whole card.

    Raises:
        PenstockError: the model can't be exported, or the program disagrees with it.
    """
    surrogate = copied(surrogate).cpu().eval()
    layout = surrogate.layout
    inputs = _by_name(layout, example_arrays)
    program = _trace(surrogate, inputs)
    shapes = _traced_shapes(program, inputs)
    card = {
        **card,
        "inputs": [_describe(block, spec, shapes[spec.name]) for block, spec in arguments(layout)],
        "outputs": [
            _describe(block, spec, _output_shape(block, spec, layout, shapes))
            for block in layout.output_blocks
            for spec in block.specs
        ],
    }
    file = io.BytesIO()  # torch, when it writes to a path, turns a full disk into a RuntimeError
    extra_files = {CARD: json.dumps(card, indent=2), MESHES: json.dumps(_meshes(layout))}
    torch.export.save(program, file, extra_files=extra_files)
    _compare(surrogate, file.getvalue(), inputs)
    elsewhere = _elsewhere(layout, inputs)
    sizes = ((size, other) for name in inputs for size, other in zip(shapes[name], elsewhere[name].shape, strict=True))
    if all(size is None or size == other for size, other in sizes):
        _compare(surrogate, file.getvalue(), elsewhere)
    return file.getvalue(), card


def arguments(layout: Layout) -> list[tuple[Block, FieldSpec]]:
    """The arguments of the exported module: inputs, and arrays of varying geometries."""
    return [(block, spec) for block in (*layout.input_blocks, *layout.geometry_blocks) for spec in block.specs]


def _by_name(layout: Layout, arrays: Mapping[str, np.ndarray | Tensor]) -> dict[str, Tensor]:
    """Arguments of the exported module for two samples, fields [2, *], scalars [2]."""
    inputs = {}
    for block, spec in arguments(layout):
        values = torch.as_tensor(np.asarray(arrays[block.name]))
        if block.is_ragged and values.shape[-1] < NUM_EXAMPLES:  # fewer would be taken for a constant, as of a batch
            values = F.pad(values, (0, NUM_EXAMPLES - values.shape[-1]))
        rows = torch.arange(NUM_EXAMPLES) % len(values)
        inputs[spec.name] = block.by_name(values[rows])[spec.name].contiguous()
    return inputs


def _meshes(layout: Layout) -> dict[str, dict]:
    meshes = [geometry for geometry in layout.geometries if isinstance(geometry, Mesh)]
    return {mesh.name: {"points": mesh.arrays.points.tolist(), "cells": mesh.arrays.cells.tolist()} for mesh in meshes}


def _named(surrogate: Surrogate, names: Iterable[str]) -> nn.Module:
    """Wrap the surrogate in a module whose signature has the inputs' names.

    The shape checks that torch.export saves go by the signature.
    """

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        return self.surrogate(**inputs)

    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *names)]
    forward.__signature__ = inspect.Signature(parameters)
    module = type("NamedSurrogate", (nn.Module,), {"forward": forward})()
    module.surrogate = surrogate
    return module


def _trace(surrogate: Surrogate, inputs: dict[str, Tensor]) -> torch.export.ExportedProgram:
    # torch.export alone can't decide this: a constraint on a product of sizes still leaves each size free.
    takes_others = _takes_other_sizes(surrogate, inputs)
    free = {}
    for block, spec in arguments(surrogate.layout):
        num_axes = inputs[spec.name].dim()
        varying = _varying_axes(block, num_axes) if takes_others else range(0)
        free[spec.name] = {
            axis: torch.export.Dim.AUTO if axis == 0 or axis in varying else torch.export.Dim.STATIC
            for axis in range(num_axes)
        }
    try:
        with torch.no_grad():
            return torch.export.export(_named(surrogate, inputs), args=(), kwargs=inputs, dynamic_shapes=free)
    except Exception as error:  # whatever torch.export can't follow, in a user's model too
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PenstockError(f"{type(surrogate.model).__name__} can't be exported: {reason}", exit_code=1) from error


def _varying_axes(block: Block, num_axes: int) -> range:
    """Axes of an argument that may have another size than in training."""
    if block.is_rows:
        return range(1, 2)
    is_fixed = block.on is None or isinstance(block.on, Mesh)
    return range(num_axes if is_fixed else num_axes - len(block.shape[1:]), num_axes)


def _takes_other_sizes(surrogate: Surrogate, inputs: dict[str, Tensor]) -> bool:
    try:
        with torch.no_grad():
            surrogate(**_elsewhere(surrogate.layout, inputs))
    except Exception:  # whatever a user's model raises for sizes that it was not made for
        return False
    return True


def _traced_shapes(program: torch.export.ExportedProgram, names: Iterable[str]) -> dict[str, tuple[int | None, ...]]:
    """Shape of every input in the program, with None for each size that is free."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    shapes = {}
    for name, user_input in zip(names, program.graph_signature.user_inputs, strict=True):
        sizes = map(str, nodes[user_input].meta["val"].shape)  # even a fixed size is a symbolic integer
        shapes[name] = tuple(int(size) if size.isdecimal() else None for size in sizes)
    return shapes


def _output_shape(
    block: Block, spec: FieldSpec, layout: Layout, shapes: Mapping[str, tuple[int | None, ...]]
) -> tuple[int | None, ...]:
    """Shape of an output, with None for each size that is free.

    Its points are those of an input on the same geometry, so the same sizes are free.
    """
    own = (spec.components,) if spec.components > 1 else ()
    num_axes = len(block.shape) - 1
    like = [shapes[other.name] for by, other in arguments(layout) if by.on == block.on and not by.is_rows and num_axes]
    return (None, *own, *(like[0][-num_axes:] if like else block.shape[1:]))


def _describe(block: Block, spec: FieldSpec, shape: tuple[int | None, ...]) -> dict:
    """Entry of the card for an input or output.

    Free sizes are named, as in "batch", or "n0 (64)" with the size that was trained on.
    """
    sizes = [f"n{axis} ({size})" for axis, size in enumerate(block.shape[1:])]
    if block.is_ragged:
        what = "edges" if block.dtype.kind == "i" else "points"
        sizes = [f"{block.on.named(what)} (at most {block.shape[-1]})"]
    if block.is_rows:
        sizes = ["batch", *sizes, spec.components]
    else:
        sizes = ["batch", *([spec.components] if spec.components > 1 else []), *sizes]
    return {
        "name": spec.name,
        "unit": spec.unit,
        "shape": [name if size is None else size for name, size in zip(sizes, shape, strict=True)],
        "dtype": block.dtype.name,
        **({"on": block.on.describe()} if block.on is not None else {}),
    }


def _elsewhere(layout: Layout, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The example at another batch size and resolution, or number of points."""
    elsewhere = {}
    for block, spec in arguments(layout):
        values = inputs[spec.name]
        rows = values[torch.arange(NUM_EXAMPLES + 1) % NUM_EXAMPLES]
        if isinstance(block.on, Points):
            axis = 1 if block.is_rows else rows.dim() - 1
            size = rows.shape[axis]
            rows = rows.index_select(axis, torch.arange(size + size // 2 + 1) % size)
        elif isinstance(block.on, Grid):
            # each axis grows by a different amount, so that a mix-up of sizes shows
            grid = [size + size // 2 + axis for axis, size in enumerate(rows.shape[-block.on.dimension :])]
            channels = rows if spec.components > 1 else rows[:, None]
            channels = F.interpolate(channels, size=grid, mode="nearest")
            rows = channels if spec.components > 1 else channels[:, 0]
        elsewhere[spec.name] = rows
    return elsewhere


def _compare(surrogate: Surrogate, contents: bytes, inputs: dict[str, Tensor]) -> None:
    module = torch.export.load(io.BytesIO(contents)).module()
    with torch.no_grad():
        expected, exported = surrogate(**inputs), module(**inputs)
    for name, values in expected.items():
        difference = torch.linalg.vector_norm(exported[name] - values) / torch.linalg.vector_norm(values)
        if not (difference <= TOLERANCE or torch.equal(exported[name], values)):  # an untrained model may give zeros
            raise PenstockError(
                f"the exported file disagrees with the model: {name} differs by {difference:.1e} (relative L2) at "
                f"shape {list(values.shape)}; nothing was written",
                exit_code=1,
            )
