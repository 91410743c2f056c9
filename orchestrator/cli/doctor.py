"""`penstock doctor`: what is installed, what is missing, and how to get it."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock import __version__
from penstock.solvers import mpi

FENICS_HINT = "pip install '.[fenics]' in penstock's folder, or conda-forge's or Debian's fenics-dolfinx"
SHM_NEEDED = 256 * 2**20  # for Ray's object store, in a small run


def examine() -> int:
    """Print one line per part of the installation.

    Returns:
        The exit code: 1 if a part that `penstock train` needs is missing, else 0.
    """
    checks: list[tuple[str, Callable[[], str], str]] = [
        ("Python", lambda: sys.version.split()[0], ""),
        ("penstock", lambda: __version__, ""),
        (
            *("C compiler", lambda: _compiler(os.environ.get("CC") or "cc", "gcc", "clang")),
            "DOLFINx compiles forms at run time: apt install gcc, or conda install c-compiler",
        ),
        ("MPI", _mpi, FENICS_HINT),
        ("PETSc", _petsc, FENICS_HINT),
        ("DOLFINx", lambda: importlib.import_module("dolfinx").__version__, FENICS_HINT),
        ("kernels", _kernels, "install gcc and Python's headers (apt install gcc python3-dev), then penstock again"),
        ("torch", lambda: importlib.import_module("torch").__version__, "pip install torch"),
        ("Ray", lambda: version("ray"), "pip install 'ray>=2.60,<2.61'"),
        ("/dev/shm", _shared_memory, "give the machine or container more (docker run --shm-size=1g)"),
    ]
    table = Table(show_header=False, box=None, padding=(0, 2))
    missing = 0
    for name, check, hint in checks:
        try:
            table.add_row(Text("ok", "green"), name, Text(check()))
        except (ImportError, OSError, PackageNotFoundError, AttributeError) as error:
            missing += 1
            table.add_row(Text("missing", "red"), name, Text(f"{error}. {hint}"))
    table.add_row("", "C++ compiler", Text(_cpp_compiler()))
    table.add_row("", "gmsh", Text(_gmsh()))
    table.add_row("", "GPU", _gpu())
    table.add_row("", "cores", f"{len(os.sched_getaffinity(0))}")
    Console(soft_wrap=True, highlight=False).print(table)
    return 1 if missing else 0


def _compiler(*commands: str) -> str:
    path = next(filter(None, map(shutil.which, commands)), None)
    if path is None:
        raise OSError("none on the path")
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    return answer.splitlines()[0] if answer else path


def _cpp_compiler() -> str:
    try:
        return _compiler(os.environ.get("CXX") or "g++", "clang++")
    except OSError as error:
        return f"{error}, which only training.compile on a CPU needs: apt install g++"


def _mpi() -> str:
    mpi.start()
    from mpi4py import MPI

    return MPI.Get_library_version().splitlines()[0].strip()


def _petsc() -> str:
    mpi.start()
    from petsc4py import PETSc

    scalars = "complex" if PETSc.ScalarType().dtype.kind == "c" else "real"
    if scalars == "complex":
        raise ImportError("this PETSc computes in complex numbers, penstock's problems need real ones")
    packages = [name for name in ("mumps", "superlu_dist", "hypre") if PETSc.Sys.hasExternalPackage(name)]
    return f"{'.'.join(map(str, PETSc.Sys.getVersion()))}, {scalars}, with {', '.join(packages) or 'no direct solver'}"


def _kernels() -> str:
    importlib.import_module("penstock.solvers.linear.kernels._kernels")
    return "compiled"


def _gmsh() -> str:
    try:
        return importlib.import_module("gmsh").__version__
    except (ImportError, OSError) as error:  # the latter where a library is missing that gmsh is linked to
        return f"none, which only problems with its meshes need: pip install 'penstock[geometry]' ({error})"


def _gpu() -> str:
    try:
        import torch
    except ImportError:
        return "unknown: torch is missing"
    if not torch.cuda.is_available():
        return "none: training runs on the CPU"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def _shared_memory() -> str:
    free = shutil.disk_usage("/dev/shm").free
    if free < SHM_NEEDED:
        raise OSError(f"{free / 1e6:.0f} MB free, Ray's object store needs {SHM_NEEDED / 1e6:.0f} MB")
    return f"{free / 1e9:.1f} GB free"
