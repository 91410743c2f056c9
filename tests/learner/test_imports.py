"""The learner runs where neither Ray nor a solver is installed."""

import subprocess
import sys

FOREIGN = ("ray", "petsc4py", "mpi4py", "dolfinx", "pydantic", "zarr", "penstock.solvers", "penstock.orchestrator")


def test_the_learner_imports_none_of_the_other_parts():
    program = f"""
import pkgutil, sys, penstock.learner
for module in pkgutil.walk_packages(penstock.learner.__path__, "penstock.learner."):
    __import__(module.name)
print([name for name in {FOREIGN} if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr
