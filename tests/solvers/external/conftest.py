"""Programs written on the fly, and compiled examples."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.solvers.problems.external import External

EXAMPLES = Path(__file__).parents[3] / "examples" / "external"
PREFIX = Path(sys.prefix)

# The protocol without the client, whose NumPy takes 0.1 s to import. What follows is done for each simulation.
BARE = """
import os, signal, sys, time
reading, writing, memory = map(int, os.environ["PENSTOCK_DESCRIPTORS"].split())
starts = open("starts", "a")
print(os.getpid(), file=starts, flush=True)
lines = os.fdopen(reading)
def say(line):
    os.write(writing, line.encode() + b"\\n")
while next(lines) != "begin\\n":
    pass
say("penstock 1")
for line in lines:
    number = line.split()[1]
"""


class Tried:
    """A problem whose program stands in a file, and what became of its processes."""

    def __init__(self, problem, folder):
        self.problem = problem
        self._starts = folder / "starts"

    def pids(self):
        return [int(pid) for pid in self._starts.read_text().split()] if self._starts.exists() else []

    def are_gone(self):
        return not any(Path(f"/proc/{pid}").exists() for pid in self.pids())


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """A function that makes a problem of a program's text, or of the body of `BARE`'s loop."""
    monkeypatch.chdir(tmp_path)
    made = []

    def make(text=None, *, body=None, timeout_s=20.0, outputs=None, **spec):
        program = tmp_path / "program.py"
        program.write_text(text or BARE + "".join(f"    {line}\n" for line in body.splitlines()))
        values = {"parameters": {"k": {"law": "uniform", "low": 1.0, "high": 2.0}}, "inputs": {"k": {}}} | spec
        values["geometries"] = {"line": {"kind": "grid", "shape": [8]}} | spec.get("geometries", {})
        values["outputs"] = outputs or {"u": {"geometry": "line"}}
        command = f"{sys.executable} {'' if text else '-I -S '}{program}"
        made.append(External(command=command, spec=values, timeout_s=timeout_s))
        return Tried(made[-1], tmp_path)

    yield make
    for problem in made:
        problem.program.stop()


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """A function that makes a target of examples/external/Makefile in a folder of the tests."""
    folder = tmp_path_factory.mktemp("external")

    def make(target, **variables):
        words = [f"{name}={value}" for name, value in ({"PYTHON": sys.executable, "BUILD": folder} | variables).items()]
        made = subprocess.run(
            ["make", "-C", EXAMPLES, *words, f"{folder}/{target}"], capture_output=True, text=True, env=os.environ
        )
        assert made.returncode == 0, made.stderr
        return str(folder / target)

    return make


@pytest.fixture
def heat_in_c(compiled):
    """The command of the example in C."""
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler `cc`")
    return compiled("heat", CFLAGS="-O3 -Wall -Wextra -Werror -Wno-unused-function")


@pytest.fixture
def heat_in_fortran(compiled):
    """The command of the example in Fortran."""
    if not shutil.which("gfortran"):
        pytest.skip("there is no Fortran compiler `gfortran`")
    return compiled("heat_fortran", CFLAGS="-O3 -Wall -Werror")


@pytest.fixture
def heat_on_ranks(compiled):
    """The command of the example in C on three MPI ranks.

    The wheel of MPICH has no mpicc.
    """
    if not shutil.which("cc") or not (PREFIX / "include" / "mpi.h").exists():
        pytest.skip("there is no C compiler, or no mpi.h beside this Python")
    libraries = f"-L{PREFIX}/lib -Wl,-rpath,{PREFIX}/lib -lmpi"
    program = compiled("heat_mpi", MPICC=f"cc -I{PREFIX}/include", LDLIBS=libraries)
    return f"{PREFIX}/bin/mpiexec -n 3 {program}"
