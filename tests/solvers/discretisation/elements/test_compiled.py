"""Processes that compile forms at the same time, and one that is killed while it does."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import wait_until

SOLVERS = Path(__file__).parents[4] / "solvers"
COMPILERS = {  # what of DOLFINx compiles what it is given
    *("form", "mixed_topology_form", "compile_form", "Expression", "LinearProblem", "NonlinearProblem", "ffcx_jit"),
}
MODULE = re.compile(r"(dolfinx\.)?(fem|fem\.\w+|jit)")

COMPILE = """
import sys

from penstock.solvers import mpi

mpi.start()
import dolfinx
import ufl
from mpi4py import MPI

from penstock.solvers.discretisation.elements.compiled import form

mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
print("ready", flush=True)
sys.stdin.readline()
form(ufl.TrialFunction(space) * ufl.TestFunction(space) * ufl.dx)
print(f"{dolfinx.fem.assemble_scalar(form(1.0 * ufl.dx(mesh))):.3f}")
"""


@pytest.fixture
def start(tmp_path):
    """A function that starts a process with a cold cache, and a compiler that first runs a line."""
    (tmp_path / "dolfinx").mkdir()
    (tmp_path / "dolfinx" / "dolfinx_jit_options.json").write_text(json.dumps({"timeout": 1}))
    compiler = tmp_path / "cc"

    def begin(first: str) -> subprocess.Popen:
        compiler.write_text(f'#!/bin/sh\n{first}\nexec cc "$@"\n')
        compiler.chmod(0o755)
        folders = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_CONFIG_HOME": str(tmp_path)}
        process = subprocess.Popen(
            [sys.executable, "-c", COMPILE],
            env=os.environ | folders | {"CC": str(compiler)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # the compiler is to die with it
        )
        assert process.stdout.readline() == "ready\n"
        return process

    return begin


def sources(folder: Path) -> int:
    cache = folder / "cache" / "fenics"
    assert len(list(cache.glob("*.c"))) == len(list(cache.glob("*.c.cached")))
    return len(list(cache.glob("*.c")))


def test_processes_wait_for_the_one_that_compiles_however_long_that_takes(start, tmp_path):
    """DOLFINx waits for 1 s here, and the compiler takes longer."""
    processes = [start("sleep 2") for _ in range(4)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in processes] == 4 * ["1.000\n"]
    assert sources(tmp_path) == 2


def test_what_a_killed_process_was_compiling_is_compiled_by_the_next_one(start, tmp_path):
    killed = start(f"touch {tmp_path}/begun; sleep 600")
    killed.stdin.write("go\n")
    killed.stdin.flush()
    wait_until((tmp_path / "begun").exists)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert start("").communicate("go\n")[0] == "1.000\n"
    assert sources(tmp_path) == 2


def compilers(source: str) -> set[str]:
    """The names of DOLFINx that compile, as a module uses them."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dolfinx"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and MODULE.fullmatch(ast.unparse(node.value)):
            found.add(ast.unparse(node))
    return {name for name in found if name.rpartition(".")[2] in COMPILERS}


def test_nothing_compiles_beside_the_lock():
    for use in ("from dolfinx.fem import form", "dolfinx.fem.Expression(u, p)", "fem.petsc.LinearProblem(a, L)"):
        assert compilers(use)
    found = {str(path.relative_to(SOLVERS)): compilers(path.read_text()) for path in SOLVERS.rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {
        "discretisation/elements/compiled.py": {"dolfinx.fem.form", "dolfinx.fem.Expression"}
    }
