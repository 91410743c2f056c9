"""Writing a surrogate as a file, in the format that its suffix says."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from penstock.errors import PenstockError
from penstock.learner.export import onnx_file, program, weights_file
from penstock.learner.surrogate import Surrogate

FORMATS = {"pt2": program, "onnx": onnx_file, "safetensors": weights_file}
NOT_WRITTEN = {"neuralop": {"onnx"}}
"""Formats without a form for a model of ours."""


def export(surrogate: Surrogate, card: Mapping, path: Path, example_arrays: Mapping[str, np.ndarray | Tensor]) -> Path:
    """Write a file and its card.

    The file gets its name once it was read back with the same bytes.

    Args:
        surrogate: the surrogate.
        card: what a user of the file should know (problem, ranges, validation errors, versions, seed). What
            `described` gives, and `file`, are added to it, and it travels inside the file too.
        path: path of the file. Its suffix is that of a key of FORMATS; without one, .pt2 is added.
        example_arrays: arrays of at least one sample, from `Layout.pack`.

    Returns:
        The path of the file.

    Raises:
        PenstockError: the model can't be written so, the file disagrees with it, or the disk refuses.
    """
    path = Path(path)
    path = path if path.suffix[1:] in FORMATS else path.with_name(f"{path.name}.pt2")
    kind = path.suffix[1:]
    form = {"format": kind, "needs": FORMATS[kind].NEEDS}
    contents, card = FORMATS[kind].contents_of(surrogate, {**card, "file": form}, example_arrays)
    temporary = path.with_name(f".{path.stem}.writing.{kind}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(contents)
        if temporary.read_bytes() != contents:
            raise OSError("other bytes were read back")
        card_path(path).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", "utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise PenstockError(f"can't write {path}: {error.strerror or error}", exit_code=1) from error
    finally:
        if temporary.exists():
            temporary.unlink()
    return path


def card_path(path: Path) -> Path:
    """The path of the card beside a file; files in several formats have one each."""
    return path.with_suffix(".card.json") if path.suffix == ".pt2" else path.with_name(f"{path.name}.card.json")
