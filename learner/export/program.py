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
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from penstock.errors import PenstockError
from penstock.geometry import Mesh
from penstock.layout import Layout
from penstock.learner.copies import copied
from penstock.learner.export.card import Shapes, arguments, described, varying_axes
from penstock.learner.export.trials import NUM_EXAMPLES, alone, example, require_agreement, takes_other_sizes
from penstock.learner.surrogate import Surrogate

CARD = "card.json"
MESHES = "meshes.json"  # points and cells of each mesh that fields sit on, by the geometry's name
TOLERANCE = 1e-5  # difference in deviations between the exported file and the surrogate
NEEDS = "torch: torch.export.load(file).module()"


def contents_of(
    surrogate: Surrogate, card: Mapping, example_arrays: Mapping[str, np.ndarray | Tensor]
) -> tuple[bytes, dict]:
    """Return the bytes of a .pt2 file, and its card.

    Sizes that the model lets vary stay free in the file. The exported program is compared with the surrogate on the
    example, and at other batch sizes and resolutions if these are free.

    Args:
        surrogate: the surrogate.
        card: what a user of the file should know. What `described` gives is added to it, and it is in the file too.
        example_arrays: arrays of at least one sample, from `Layout.pack`.

    Returns:
        The bytes of the file and the whole card.

    Raises:
        PenstockError: the model can't be exported, or the program disagrees with it.
    """
    surrogate = copied(surrogate).cpu().eval()
    inputs = example(surrogate.layout, example_arrays)
    program = traced(surrogate, inputs)
    shapes = traced_shapes(program, inputs)
    least_batch = 1 if _takes_one_sample(program, inputs) else NUM_EXAMPLES
    card = {**card, **described(surrogate.layout, shapes, least_sizes(program, inputs, least_batch))}
    file = io.BytesIO()  # torch, when it writes to a path, turns a full disk into a RuntimeError
    extra_files = {CARD: json.dumps(card, indent=2), MESHES: json.dumps(meshes_of(surrogate.layout))}
    torch.export.save(program, file, extra_files=extra_files)
    module = torch.export.load(io.BytesIO(file.getvalue())).module()
    require_agreement(surrogate, lambda trial: module(**trial), inputs, shapes, TOLERANCE, least_batch)
    return file.getvalue(), card


def meshes_of(layout: Layout) -> dict[str, dict]:
    """Return the points and cells of each mesh, by the geometry's name."""
    meshes = [geometry for geometry in layout.geometries if isinstance(geometry, Mesh)]
    return {mesh.name: {"points": mesh.arrays.points.tolist(), "cells": mesh.arrays.cells.tolist()} for mesh in meshes}


def traced(surrogate: Surrogate, inputs: dict[str, Tensor]) -> torch.export.ExportedProgram:
    """Trace a surrogate, with all sizes free that its model lets vary.

    Args:
        surrogate: the surrogate, on the host and in evaluation mode.
        inputs: an example.

    Returns:
        The program, whose arguments have the inputs' names.

    Raises:
        PenstockError: torch.export can't follow the model.
    """
    # torch.export alone can't decide this: a constraint on a product of sizes still leaves each size free.
    takes_others = takes_other_sizes(surrogate, inputs)
    free = {}
    for block, spec in arguments(surrogate.layout):
        num_axes = inputs[spec.name].dim()
        varying = varying_axes(block, num_axes) if takes_others else range(0)
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


def traced_shapes(program: torch.export.ExportedProgram, names: Iterable[str]) -> Shapes:
    """Return the shape of every input in a program."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    shapes = {}
    for name, user_input in zip(names, program.graph_signature.user_inputs, strict=True):
        sizes = map(str, nodes[user_input].meta["val"].shape)  # even a fixed size is a symbolic integer
        shapes[name] = tuple(int(size) if size.isdecimal() else None for size in sizes)
    return shapes


def least_sizes(
    program: torch.export.ExportedProgram, names: Iterable[str], least_batch: int
) -> dict[str, tuple[int, ...]]:
    """Return the least sizes that every input can have in a program.

    What a model checks before it predicts, as that a grid has two points for each mode, is such a bound.

    Args:
        program: the program.
        names: the inputs' names.
        least_batch: the least batch, of which the trace says 2 even where it takes 1.
    """
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    bounds = {str(symbol): int(values.lower) for symbol, values in program.range_constraints.items()}
    return {
        name: (least_batch, *(bounds.get(str(size), 1) for size in nodes[user_input].meta["val"].shape[1:]))
        for name, user_input in zip(names, program.graph_signature.user_inputs, strict=True)
    }


def _takes_one_sample(program: torch.export.ExportedProgram, inputs: Mapping[str, Tensor]) -> bool:
    """Whether what a trace takes for granted of strides holds for a batch of one, too."""
    try:
        program.module()(**alone(inputs))
    except Exception:  # torch's, of a guard, or of a batch size that the model has fixed
        return False
    return True


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
