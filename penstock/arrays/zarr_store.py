"""Samples in a Zarr store: a run's validation set, and what commands write.

The group's attribute "crc32" holds one checksum per array, because Zarr reads a chunk whose file is gone as zeros.
"""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from penstock.errors import PenstockError
from penstock.layout import Layout

CHECKSUMS = "crc32"
CHUNK_BYTES = 4_000_000  # of a file, before it is compressed


def write(path: Path, arrays: dict[str, np.ndarray], attributes: dict[str, Any]) -> None:
    """Write arrays and attributes as one store.

    Args:
        path: the store; what is there is replaced.
        arrays: arrays [N, ...] by name.
        attributes: what JSON can hold, by name.

    Raises:
        PenstockError: it can't be written.
    """
    temporary = path.with_name(f".{path.name}")
    try:
        if temporary.exists():
            shutil.rmtree(temporary)
        group = zarr.open_group(str(temporary), mode="w")
        for name, array in arrays.items():
            group.create_array(name, data=array, chunks=_chunks(array))
        group.attrs.update(attributes | {CHECKSUMS: {name: _crc32(array) for name, array in arrays.items()}})
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    except OSError as error:
        raise PenstockError(f"can't write {path}: {error.strerror or error}", exit_code=1) from error


def read(
    path: Path, *, remedy: str = "remove it and resume: it is solved again"
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `write` has written.

    Args:
        path: the store.
        remedy: what to do about a damaged one, for messages.

    Returns:
        Arrays and attributes.

    Raises:
        PenstockError: the store is damaged, or can't be read.
    """
    arrays, part = {}, "its metadata"
    try:
        group = zarr.open_group(str(path), mode="r")
        attributes = dict(group.attrs)
        checksums = attributes.pop(CHECKSUMS)
        for name in checksums:
            part = f"the array {name}"
            arrays[name] = np.asarray(group[name][:])
    except PermissionError as error:
        raise PenstockError(f"can't read {path}: {error.strerror}", exit_code=1) from error
    except Exception as error:  # damage makes Zarr and its codecs raise RuntimeError, TypeError, KeyError, ...
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise PenstockError(f"{path} is damaged: {part} can't be read ({reason}); {remedy}") from error
    for name, array in arrays.items():
        if _crc32(array) != checksums[name]:
            raise PenstockError(f"{path} is damaged: the array {name} was changed; {remedy}")
    return arrays, attributes


def by_name(arrays: dict[str, np.ndarray], layout: Layout) -> dict[str, np.ndarray]:
    """A layout's arrays split into one array per quantity.

    Args:
        arrays: packed samples, by block.
        layout: their layout.

    Returns:
        Arrays [N, *], [N, components, *], or [N] for a scalar, by quantity. What samples bring along of their
        geometries keeps its names: points [N, P, d], weights [N, P], edges [N, E, 2]; in the padding of a sample the
        weights are 0.
    """
    named = [block.by_name(arrays[block.name]) for block in layout.blocks.values()]
    return {name: values for quantities in named for name, values in quantities.items()}


def by_block(arrays: dict[str, np.ndarray], layout: Layout) -> dict[str, np.ndarray]:
    """The inverse of `by_name`.

    Args:
        arrays: arrays by quantity.
        layout: the layout.

    Returns:
        Packed samples, by block.
    """
    return {block.name: np.concatenate(block.channels_of(arrays), axis=1) for block in layout.blocks.values()}


def _chunks(array: np.ndarray) -> tuple[int, ...]:
    """Some whole rows: Zarr by itself would cut a field to pieces."""
    row_bytes = max(1, array[:1].nbytes)
    rows = min(len(array), CHUNK_BYTES // row_bytes)
    return (max(1, rows), *(max(1, size) for size in array.shape[1:]))


def _crc32(array: np.ndarray) -> int:
    """A checksum of values, type and shape."""
    return zlib.crc32(np.ascontiguousarray(array), zlib.crc32(f"{array.dtype.str}{array.shape}".encode()))
