"""Tables for the terminal and for benchmarks/, with what it takes to repeat them."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import scipy

from penstock.errors import PenstockError

FOLDER = Path("benchmarks")


def report(file: str, title: str, introduction: str, header: list[str], rows: list[list[str]], command: str) -> None:
    """Print a table, and write it to benchmarks/."""
    table = markdown(rows, header)
    print(table)
    write(
        file,
        f"""# {title}

{paragraph(introduction)}

{table}

{footer(command)}
""",
    )


def require_folder() -> None:
    """Raises PenstockError unless benchmarks/ can be written to."""
    try:
        FOLDER.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=FOLDER):
            pass
    except OSError as error:
        raise PenstockError(f"{FOLDER.absolute()} can't be written to: {error.strerror}") from error


def write(file: str, text: str) -> None:
    """Whole or not at all."""
    FOLDER.mkdir(exist_ok=True)
    partial = FOLDER / f"{file}.part"
    partial.write_text(text)
    partial.replace(FOLDER / file)
    print(f"written to {FOLDER / file}", file=sys.stderr)


def paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120)


def footer(command: str) -> str:
    """What a table was made by, with, on and when."""
    return f"""- Command: `OMP_NUM_THREADS=1 python -m penstock.solvers.bench {command}`
- Machine: {machine()}
- Versions: {versions()}
- Date: {today()}"""


def markdown(rows: list[list[str]], header: list[str]) -> str:
    """A table whose columns line up in plain text too."""
    table = [header, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in table
    ]
    lines.insert(1, "|-" + "-|-".join("-" * width for width in widths) + "-|")
    return "\n".join(lines)


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, one of {os.cpu_count()} cores, one process"


def versions() -> str:
    from mpi4py import MPI  # noqa: F401, before dolfinx and petsc4py, which would else load another MPI

    # isort: split
    import dolfinx
    from petsc4py import PETSc

    petsc = ".".join(str(number) for number in PETSc.Sys.getVersion())
    return (
        f"Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}, "
        f"PETSc {petsc}, DOLFINx {dolfinx.__version__}"
    )


def today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"
