"""Samples in a Zarr store: the validation set of a run, and what `predict` writes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from penstock.errors import PenstockError
from penstock.sample import Layout


def write(path: Path, arrays: dict[str, np.ndarray], attributes: dict[str, Any]) -> None:
    """Write named arrays [N, ...] and attributes as one store, replacing what is at `path`. Raises PenstockError."""
    temporary = path.with_name(f".{path.name}")
    try:
        if temporary.exists():
            shutil.rmtree(temporary)
        group = zarr.open_group(str(temporary), mode="w")
        for name, array in arrays.items():
            group.create_array(name, data=array)
        group.attrs.update(attributes)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    except OSError as error:
        raise PenstockError(f"can't write {path}: {error.strerror}", exit_code=1) from error


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and attributes of a store. Raises PenstockError when it can't be read."""
    try:
        group = zarr.open_group(str(path), mode="r")
        return {name: np.asarray(array[:]) for name, array in group.arrays()}, dict(group.attrs)
    except (OSError, KeyError, ValueError) as error:
        raise PenstockError(f"{path} can't be read: {error}; remove it and resume: it is solved again") from error


def by_field(arrays: dict[str, np.ndarray], layout: Layout) -> dict[str, np.ndarray]:
    """`fields`, `scalars` and `targets` split into one array [N, *grid] or [N] for each quantity."""
    return {
        spec.name: arrays[group][:, channel]
        for group, specs in layout.groups.items()
        for channel, spec in enumerate(specs)
    }


def by_group(arrays: dict[str, np.ndarray], layout: Layout) -> dict[str, np.ndarray]:
    """The inverse of `by_field`."""
    return {group: np.stack([arrays[spec.name] for spec in specs], axis=1) for group, specs in layout.groups.items()}
