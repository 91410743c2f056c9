"""Tables of the solvers, with the data needed to repeat them."""

from __future__ import annotations

import os
import platform

import numpy as np
import scipy

import benchmarks.report
from benchmarks.report import paragraph, write
from penstock.machine import processor
from penstock.report import markdown
from penstock.solvers import mpi

ONE_CORE = f"one of {os.cpu_count()} cores, one process"


def report(
    file: str,
    title: str,
    introduction: str,
    header: list[str],
    rows: list[list[str]],
    command: str,
    place: str = ONE_CORE,
) -> None:
    """Print a table, and write it to benchmarks/tables/.

    place: the part of the machine that was used.
    """
    table = markdown(rows, header)
    print(table)
    write(
        file,
        f"""# {title}

{paragraph(introduction)}

{table}

{footer(command, place)}
""",
    )


def footer(command: str, place: str = ONE_CORE) -> str:
    """The lines under a table: command, machine, versions and date."""
    machine = f"{processor()}, {place}"
    return benchmarks.report.footer(f"OMP_NUM_THREADS=1 python -m benchmarks {command}", machine, _versions())


def _versions() -> str:
    mpi.start()
    import dolfinx
    from petsc4py import PETSc

    petsc = ".".join(str(number) for number in PETSc.Sys.getVersion())
    return (
        f"Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}, "
        f"PETSc {petsc}, DOLFINx {dolfinx.__version__}"
    )
