"""The learner runs where neither Ray nor a solver is installed, its bench where there are torch and NumPy alone."""

import subprocess
import sys
from pathlib import Path

IMPORT_ALL = """
import importlib.abc, pkgutil, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {absent} or name.startswith(("penstock.solvers", "penstock.orchestrator")):
            raise ModuleNotFoundError(name + " is not installed", name=name)
sys.meta_path.insert(0, Refuse())
import {package}
for module in pkgutil.walk_packages({package}.__path__, "{package}."):
    __import__(module.name)
    print(module.name)
"""
ROOT = Path(__file__).parents[2]
FOREIGN = ("ray", "petsc4py", "mpi4py", "dolfinx", "pydantic", "zarr", "scipy", "typer", "rich", "yaml", "psutil")


def imported(package: str, absent: tuple[str, ...]) -> list[str]:
    program = IMPORT_ALL.format(package=package, absent=absent)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_the_learner_imports_none_of_the_other_parts():
    modules = imported("penstock.learner", FOREIGN)
    assert {"penstock.learner.trainer", "penstock.learner.export.program", "penstock.learner.models.mlp"} <= set(
        modules
    )


def test_the_bench_imports_torch_and_numpy_alone():
    assert "benchmarks.learner.page" in imported("benchmarks.learner", (*FOREIGN, "safetensors", "matplotlib"))
