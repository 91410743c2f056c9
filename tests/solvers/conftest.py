"""One core, scripts on several MPI ranks, a solver that is not ours."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # BLAS threads would fight over two cores


@pytest.fixture
def run_on_ranks():
    """A function that runs a script on several MPI ranks and returns its output.

    The MPI must be installed.
    """

    def run(num_ranks: int, script: str, *arguments: str) -> str:
        beside = Path(sys.executable).parent / "mpiexec"
        mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
        assert mpiexec is not None, "no mpiexec beside Python or on the path: the tests need the MPI that PETSc uses"
        done = subprocess.run(
            [mpiexec, "-n", str(num_ranks), sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def scipy_solve():
    """The `solve` that problems are given, by SciPy's sparse LU."""
    from scipy.sparse.linalg import spsolve  # after OMP_NUM_THREADS is set

    from tests.support.systems import to_scipy

    def solve(system):
        x = system.b.duplicate()
        x.array = spsolve(to_scipy(system.A).tocsc(), system.b.array_r)
        return SimpleNamespace(x=x)

    return solve
