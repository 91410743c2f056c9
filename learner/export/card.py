"""What the card of a file says of its inputs, its outputs and their sizes.

Axes:  B batch, * the shape of a geometry: *grid of a grid, P points of others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.geometry import Mesh
from penstock.layout import Block, FieldSpec, Layout

Shapes = Mapping[str, tuple[int | None, ...]]
"""Shape of every argument by name, with None for each size that is free."""


def arguments(layout: Layout) -> list[tuple[Block, FieldSpec]]:
    """The arguments of a file: inputs, and arrays of varying geometries."""
    return [(block, spec) for block in (*layout.input_blocks, *layout.geometry_blocks) for spec in block.specs]


def varying_axes(block: Block, num_axes: int) -> range:
    """Axes of an argument that may have another size than in training.

    Args:
        block: the array that it is a part of.
        num_axes: number of its axes, the batch among them.
    """
    if block.is_rows:
        return range(1, 2)
    is_fixed = block.on is None or isinstance(block.on, Mesh)
    return range(num_axes if is_fixed else num_axes - len(block.shape[1:]), num_axes)


def described(layout: Layout, shapes: Shapes, least: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, Any]:
    """The entries `inputs`, `outputs` and `free sizes` of a card.

    Args:
        layout: layout of batches.
        shapes: shapes of the arguments.
        least: the least sizes that the file can have for each argument, in place of what the model checks.

    Returns:
        For each quantity its name, unit, shape, dtype and, of a field, geometry. In a shape free sizes are named, as in
        "batch", or "n0 (64)" with the size that was trained on; `free sizes` has the least of each.
    """
    inputs = [_entry(block, spec, shapes[spec.name]) for block, spec in arguments(layout)]
    outputs = [
        _entry(block, spec, _output_shape(block, spec, layout, shapes))
        for block in layout.output_blocks
        for spec in block.specs
    ]
    free = {size: 1 for entry in (*inputs, *outputs) for size in entry["shape"] if isinstance(size, str)}
    for entry in inputs if least else ():
        for size, known in zip(entry["shape"], least[entry["name"]], strict=True):
            if size in free:
                free[size] = max(free[size], known)
    return {"inputs": inputs, "outputs": outputs, "free sizes": free}


def _output_shape(block: Block, spec: FieldSpec, layout: Layout, shapes: Shapes) -> tuple[int | None, ...]:
    """Shape of an output, with None for each size that is free.

    Its points are those of an input on the same geometry, so the same sizes are free.
    """
    own = (spec.components,) if spec.components > 1 else ()
    num_axes = len(block.shape) - 1
    like = [shapes[other.name] for by, other in arguments(layout) if by.on == block.on and not by.is_rows and num_axes]
    return (None, *own, *(like[0][-num_axes:] if like else block.shape[1:]))


def _entry(block: Block, spec: FieldSpec, shape: tuple[int | None, ...]) -> dict:
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
