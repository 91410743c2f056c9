"""MPI in a single process, apart from any launcher and from dead processes."""

from __future__ import annotations

import fcntl
import os
import re
import signal
from contextlib import suppress
from pathlib import Path

# Environment variables that mpirun, srun and their like set for the processes that they start. Our processes are not
# those: an MPI that reads the variables looks for a launcher that does not know it, and ends the process. Variables
# that the user sets (OMPI_MCA_btl, ...) stay.
LAUNCHER = re.compile(
    r"PMI\w*_|HYDI_|MPI_LOCAL(NRANKS|RANKID)|MPISPAWN_|MV2_COMM_WORLD_|I_MPI_(HYDRA|MPIRUN)|PALS_|ALPS_APP_|JSM_"
    r"|OMPI_(?!MCA_)|OMPI_MCA_(ess|orte|pmix|prte)|PRTE_(?!MCA_)|FLUX_(JOB|TASK|PMI)_|SLURM_(STEP|PROCID|LOCALID)"
)
SHARED_MEMORY = Path("/dev/shm")
# PETSc's signal handler ends the process at a closed pipe, and prints a page about a crash at a SIGTERM.
QUIET = "-no_signal_handler"
# MPICH's UCX listens on every interface for ranks of other machines, and those of a worker are on one.
OWN_MACHINE = {"UCX_TLS": "self,sm"}


def start() -> None:
    """Start MPI, before petsc4py and dolfinx, which would otherwise load another one.

    MPICH 5 keeps a file of 1 MB in /dev/shm under the process's id, and a process that is killed leaves it. Nobody else
    opens the file of a single process, so it is unlinked at once.

    Raises:
        ImportError: there is no mpi4py.
    """
    make_ready()
    from mpi4py import MPI  # noqa: F401

    _remove_own_files()


def make_ready() -> None:
    """Prepare this process for MPI and PETSc, which a user's file may start.

    MPICH takes a file that is there already for that of a process that is starting too, and waits for it without end:
    so files of this process's id and those that were left over are removed.
    """
    for name in filter(LAUNCHER.match, list(os.environ)):
        del os.environ[name]
    options = os.environ.get("PETSC_OPTIONS", "")
    if QUIET not in options:
        os.environ["PETSC_OPTIONS"] = f"{options} {QUIET}".lstrip()
    for name, value in OWN_MACHINE.items():
        os.environ.setdefault(name, value)
    _remove_own_files()
    for path in SHARED_MEMORY.glob("mpich_*"):
        with suppress(OSError):
            _remove_unless_open(path)


def _remove_own_files() -> None:
    for path in SHARED_MEMORY.glob(f"mpich_*_{os.getpid():x}_*"):
        with suppress(OSError):
            path.unlink()


def _remove_unless_open(path: Path) -> None:
    """Remove a file that no process has open or mapped.

    Raises OSError where one has, or where it is another user's. The kernel refuses a read lease on a file that is open
    for writing anywhere, in other process namespaces (containers that share /dev/shm) too, where process ids say
    nothing.
    """
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        # A process that opens the file meanwhile must not end us, as SIGIO would.
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        path.unlink()
    finally:
        os.close(file)
