"""A trained surrogate as one file that torch alone can load.

In Python:

    module = torch.export.load("darcy.pt2").module()
    outputs = module(coefficient=tensor)          # by the names that the card lists

Axes:  B batch, *grid the axes of the fields' grid.
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
from penstock.layout import FieldSpec, Layout
from penstock.learner.copies import copied
from penstock.learner.surrogate import Surrogate

CARD = "card.json"
TOLERANCE = 1e-5  # relative difference between the exported file and the surrogate
NUM_EXAMPLES = 2  # a batch of one would be taken for a constant of the model


def export(surrogate: Surrogate, card: Mapping, path: Path, example_arrays: Mapping[str, np.ndarray | Tensor]) -> Path:
    """Writes <path>.pt2 and <path>.card.json and returns the former; what the model lets vary in shape stays free.

    card: what a user of the file should know (problem, ranges, validation errors, versions, seed); `inputs` and
    `outputs` are added to it, and it travels inside the file too. example_arrays: `Layout.pack`'s arrays of a sample or
    more. On them, and on them at another batch and resolution where those are free, what is written is compared with
    the surrogate, and the file with what is written, before it gets its name.

    Raises PenstockError when the model can't be exported, the file disagrees, or the disk refuses.
    """
    path = Path(path)
    path = path if path.suffix == ".pt2" else path.with_name(f"{path.name}.pt2")
    contents, card = contents_of(surrogate, card, example_arrays)
    temporary = path.with_name(f".{path.stem}.writing.pt2")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(contents)
        if temporary.read_bytes() != contents:
            raise OSError("it reads back otherwise")
        path.with_suffix(".card.json").write_text(json.dumps(card, indent=2) + "\n")
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
    """The bytes that `export` writes, compared with the surrogate, and the whole card. Raises as it does."""
    surrogate = copied(surrogate).cpu().eval()
    layout = surrogate.layout
    inputs = _by_name(layout, example_arrays)
    program = _trace(surrogate, inputs)
    shapes = _traced_shapes(program, inputs)
    is_free = all(size is None for shape in shapes.values() for size in shape)
    # All fields share one grid, so the outputs' is that of the inputs; a model of scalars alone has one grid.
    output_shape = next((shape for shape in shapes.values() if len(shape) > 1), (None, *layout.outputs[0].shape))
    card = {
        **card,
        "inputs": [_describe(spec, shapes[spec.name]) for spec in layout.inputs],
        "outputs": [_describe(spec, output_shape) for spec in layout.outputs],
    }
    file = io.BytesIO()  # torch's own writer turns a full disk into a RuntimeError
    torch.export.save(program, file, extra_files={CARD: json.dumps(card, indent=2)})
    _compare(surrogate, file.getvalue(), inputs)
    if is_free:
        _compare(surrogate, file.getvalue(), {name: _elsewhere(values) for name, values in inputs.items()})
    return file.getvalue(), card


def _by_name(layout: Layout, arrays: Mapping[str, np.ndarray | Tensor]) -> dict[str, Tensor]:
    """Two samples as the exported module's arguments: fields [2, *grid], scalars [2]."""
    inputs = {}
    for group, specs in layout.groups.items():
        if group != "targets":
            values = torch.as_tensor(np.asarray(arrays[group]))
            rows = torch.arange(NUM_EXAMPLES) % len(values)
            inputs |= {spec.name: values[rows, channel].contiguous() for channel, spec in enumerate(specs)}
    return inputs


def _named(surrogate: Surrogate, names: Iterable[str]) -> nn.Module:
    """The surrogate with its inputs' names in the signature: the shape checks that torch.export saves go by it."""

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        return self.surrogate(**inputs)

    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *names)]
    forward.__signature__ = inspect.Signature(parameters)
    module = type("NamedSurrogate", (nn.Module,), {"forward": forward})()
    module.surrogate = surrogate
    return module


def _trace(surrogate: Surrogate, inputs: dict[str, Tensor]) -> torch.export.ExportedProgram:
    # A product of sizes that must be so and so much leaves each of them free in the program.
    grid = torch.export.Dim.AUTO if _takes_other_grids(surrogate, inputs) else torch.export.Dim.STATIC
    free = {
        name: {0: torch.export.Dim.AUTO, **dict.fromkeys(range(1, values.dim()), grid)}
        for name, values in inputs.items()
    }
    try:
        with torch.no_grad():
            return torch.export.export(_named(surrogate, inputs), args=(), kwargs=inputs, dynamic_shapes=free)
    except Exception as error:  # of the user's model, too: whatever torch.export can't follow
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PenstockError(f"{type(surrogate.model).__name__} can't be exported: {reason}", exit_code=1) from error


def _takes_other_grids(surrogate: Surrogate, inputs: dict[str, Tensor]) -> bool:
    try:
        with torch.no_grad():
            surrogate(**{name: _elsewhere(values) for name, values in inputs.items()})
    except Exception:  # whatever the user's model says to sizes that it was not made for
        return False
    return True


def _traced_shapes(program: torch.export.ExportedProgram, names: Iterable[str]) -> dict[str, tuple[int | None, ...]]:
    """Every input's shape in the program; None for a size that is free."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    shapes = {}
    for name, user_input in zip(names, program.graph_signature.user_inputs, strict=True):
        sizes = map(str, nodes[user_input].meta["val"].shape)  # a fixed size is a symbolic integer as well
        shapes[name] = tuple(int(size) if size.isdecimal() else None for size in sizes)
    return shapes


def _describe(spec: FieldSpec, shape: tuple[int | None, ...]) -> dict:
    """A line of the card; sizes that are free are named: "batch", or "n (64)" with the size that was trained on."""
    sizes = ["batch", *(f"n{axis} ({size})" for axis, size in enumerate(spec.shape))]
    return {
        "name": spec.name,
        "unit": spec.unit,
        "shape": [name if size is None else size for name, size in zip(sizes, shape, strict=True)],
        "dtype": "float32",
        **({"extent": list(spec.extent)} if spec.shape else {}),
    }


def _elsewhere(values: Tensor) -> Tensor:
    """The example at another batch and resolution: [3] or [3, *other grid]."""
    rows = values[torch.arange(NUM_EXAMPLES + 1) % NUM_EXAMPLES]
    if rows.dim() == 1:
        return rows
    # each axis by another amount, so that a size that was taken for another one shows
    grid = [size + size // 2 + axis for axis, size in enumerate(rows.shape[1:])]
    return F.interpolate(rows[:, None], size=grid, mode="nearest")[:, 0]


def _compare(surrogate: Surrogate, contents: bytes, inputs: dict[str, Tensor]) -> None:
    module = torch.export.load(io.BytesIO(contents)).module()
    with torch.no_grad():
        expected, exported = surrogate(**inputs), module(**inputs)
    for name, values in expected.items():
        difference = torch.linalg.vector_norm(exported[name] - values) / torch.linalg.vector_norm(values)
        if not (difference <= TOLERANCE or torch.equal(exported[name], values)):  # untrained, a model may give zeros
            raise PenstockError(
                f"the exported file disagrees with the model: {name} differs by {difference:.1e} (relative L2) at "
                f"shape {list(values.shape)}; nothing was written",
                exit_code=1,
            )
