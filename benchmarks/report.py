"""Tables of the benches, for the terminal and for benchmarks/tables/."""

from __future__ import annotations

import sys
import tempfile
import textwrap
from datetime import UTC, datetime
from pathlib import Path

from penstock.errors import PenstockError

FOLDER = Path("benchmarks") / "tables"


def require_folder() -> None:
    """Raise PenstockError unless benchmarks/tables/ can be written to."""
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=FOLDER):
            pass
    except OSError as error:
        raise PenstockError(f"{FOLDER.absolute()} can't be written to: {error.strerror}") from error


def write(file: str, text: str) -> None:
    """Write a file to benchmarks/tables/ of the current folder, in one piece."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    partial = FOLDER / f"{file}.part"
    partial.write_text(text)
    partial.replace(FOLDER / file)
    print(f"written to {FOLDER / file}", file=sys.stderr)


def paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120)


def footer(command: str, machine: str, versions: str) -> str:
    """The lines under a table: command, machine, versions and date."""
    return f"""- Command: `{command}`
- Machine: {machine}
- Versions: {versions}
- Date: {datetime.now(UTC):%Y-%m-%d}"""
