"""Writes a page to a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from penstock.errors import PenstockError
from penstock.orchestrator.resources.memory import size
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.views.report.page import page, sections_of
from penstock.orchestrator.views.report.several import compared_sections

NAME = "report.html"


def write(folders: Sequence[RunFolder], output: Path | None) -> None:
    """Write the report of a run, or the comparison of several, and print where it is.

    Args:
        folders: their folders, one at least.
        output: the file; None for report.html in the folder of a single run, else in the current one.

    Raises:
        PenstockError: the records can't be read, or the file can't be written.
    """
    path = output or (folders[0].path / NAME if len(folders) == 1 else Path(NAME))
    _require_writable(path)
    if len(folders) == 1:
        text = page(folders[0].path.name, sections_of(folders[0]))
    else:
        text = page(f"{len(folders)} runs compared", compared_sections(folders))
    _replace(path, text)
    print(f"wrote {os.path.relpath(path)} ({size(len(text.encode()))}): open it in a browser")


def _require_writable(path: Path) -> None:
    """Refuse a file that can't be written, before anything is drawn for it."""
    if path.is_dir():
        raise PenstockError(f"{path} is a folder: give --output a file")
    if path.parent.is_dir() and os.access(path.parent, os.W_OK):
        return
    reason = "it can't be written to" if path.parent.is_dir() else "there is no such folder"
    raise PenstockError(f"can't write {path.name} to {path.parent}: {reason}: give --output a file elsewhere")


def _replace(path: Path, text: str) -> None:
    """Write a file as a whole, so that a browser never loads half of it."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise PenstockError(f"can't write {path}: {error.strerror}: give --output a file elsewhere") from error
