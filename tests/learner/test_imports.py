"""The learner runs where neither Ray nor a solver is installed, its bench where there are torch and NumPy alone."""

import subprocess
import sys

IMPORT_ALL = """
import importlib.abc, pkgutil, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {absent} or name.startswith(("penstock.solvers", "penstock.orchestrator")):
            raise ModuleNotFoundError(name + " is not installed", name=name)
sys.meta_path.insert(0, Refuse())
import penstock.learner
for module in pkgutil.walk_packages(penstock.learner.__path__, "penstock.learner."):
    if module.name.startswith({prefix!r}):
        __import__(module.name)
        print(module.name)
"""
FOREIGN = ("ray", "petsc4py", "mpi4py", "dolfinx", "pydantic", "zarr", "scipy", "typer", "rich", "yaml", "psutil")


def imported(prefix: str, absent: tuple[str, ...]) -> list[str]:
    program = IMPORT_ALL.format(prefix=prefix, absent=absent)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_the_learner_imports_none_of_the_other_parts():
    modules = imported("penstock.learner.", FOREIGN)
    assert {"penstock.learner.trainer", "penstock.learner.export", "penstock.learner.models.mlp"} <= set(modules)


def test_the_bench_imports_torch_and_numpy_alone():
    assert "penstock.learner.bench.page" in imported("penstock.learner.bench.", (*FOREIGN, "safetensors", "matplotlib"))
