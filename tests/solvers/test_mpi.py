"""MPI in one process: under launchers, over leftover files, leaving none itself."""

import os
import signal
import subprocess
import sys

import pytest

from penstock.solvers import mpi

ALONE = "from penstock.solvers import mpi; mpi.start(); from mpi4py import MPI; print(MPI.COMM_WORLD.size)"
DEADLY = [  # each one ends MPI_Init of a process that the launcher does not know
    {"PMI_FD": "17", "PMI_RANK": "0", "PMI_SIZE": "1", "PMI_JOBID": "4.0", "SLURM_STEP_ID": "0"},  # srun --mpi=pmi2
    {"PMIX_NAMESPACE": "slurm.pmix.4.0", "PMIX_RANK": "0", "SLURM_PROCID": "0"},  # srun --mpi=pmix, Open MPI's mpirun
    {"PMI_PORT": "127.0.0.1:1", "PMI_ID": "0", "HYDI_CONTROL_FD": "9", "MPI_LOCALNRANKS": "2"},  # hydra by address
]


def python(script, **environment):
    """The finished process of a script; one that hangs fails the test."""
    return subprocess.run(
        [sys.executable, "-c", script], env=os.environ | environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("launcher", DEADLY, ids=lambda launcher: next(iter(launcher)))
def test_mpi_starts_alone_whatever_launched_the_process(launcher):
    answer = python(ALONE, **launcher)
    assert (answer.returncode, answer.stdout) == (0, "1\n"), answer.stderr


def test_those_launchers_are_deadly():
    """The variables are deadly for a plain MPI_Init.

    If they were not, the test above would show nothing.
    """
    assert python("from mpi4py import MPI", **DEADLY[0]).returncode != 0


def test_what_users_set_stays():
    """Variables of launchers are removed, those of users stay.

    The first name of each pair is a launcher's, the second a user's for MPI or for a script.
    """
    pairs = {
        "OMPI_COMM_WORLD_RANK": "OMPI_MCA_btl",
        "OMPI_MCA_orte_hnp_uri": "OMPI_MCA_pml",
        "PRTE_LAUNCHED": "PRTE_MCA_prte_base_help",
        "PMI2_FD": "MPICH_PMI_VERSION",
        "SLURM_STEPID": "SLURM_JOB_ID",
        "SLURM_LOCALID": "SLURM_NTASKS",
        "FLUX_TASK_RANK": "FLUX_URI",
        "I_MPI_HYDRA_HOST_FILE": "I_MPI_FABRICS",
        "PALS_RANKID": "MPIR_CVAR_CH4_NETMOD",
    }
    assert [name for name in pairs if not mpi.LAUNCHER.match(name)] == []
    assert [name for name in pairs.values() if mpi.LAUNCHER.match(name)] == []


def test_petsc_leaves_signals_alone():
    """PETSc must not end the process at SIGPIPE.

    By default it catches that signal, which Python ignores.
    """
    script = "from mpi4py import MPI; from petsc4py import PETSc; import signal; signal.raise_signal(signal.SIGPIPE)"
    assert python(f"from penstock.solvers import mpi; mpi.make_ready(); {script}").returncode == 0
    assert python(script, PETSC_OPTIONS="").returncode != 0


def test_a_file_left_by_a_dead_process_of_the_same_id_is_no_hindrance():
    """A file left by a process that died while it started.

    MPI_Init alone waits for it without end.
    """
    left = "import os; open(f'/dev/shm/mpich_shm_{os.getpid():x}_0', 'wb').write(bytes(1061440)); "
    answer = python(left + ALONE)
    assert (answer.returncode, answer.stdout) == (0, "1\n"), answer.stderr


def test_a_killed_process_leaves_nothing():
    begin = "import os; from penstock.solvers import mpi; print(os.getpid(), flush=True); "
    answer = python(begin + "mpi.start(); os.kill(os.getpid(), 9)")
    assert answer.returncode == -signal.SIGKILL
    assert list(mpi.SHARED_MEMORY.glob(f"mpich_*_{int(answer.stdout):x}_*")) == []


def test_only_files_that_nobody_has_open_are_removed():
    """Files in use stay: by a descriptor, or by a mapping alone, as MPICH's may be.

    The process ids in the names are nobody's.
    """
    holder = (
        "import mmap, os, sys\n"
        "opened, mapped = (open(f'/dev/shm/mpich_shm_7ffffff{i}_0', 'w+b') for i in (1, 2))\n"
        "mapped.write(bytes(4096)); mapped.flush()\n"
        "area = mmap.mmap(mapped.fileno(), 4096); mapped.close()\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    left = mpi.SHARED_MEMORY / "mpich_shm_7ffffff3_0"
    left.write_bytes(bytes(10))
    command = [sys.executable, "-c", holder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        mpi.make_ready()
        here = {path.name for path in mpi.SHARED_MEMORY.glob("mpich_shm_7ffffff*")}
        process.stdin.close()
    assert here == {"mpich_shm_7ffffff1_0", "mpich_shm_7ffffff2_0"}
    mpi.make_ready()
    assert list(mpi.SHARED_MEMORY.glob("mpich_shm_7ffffff*")) == []
