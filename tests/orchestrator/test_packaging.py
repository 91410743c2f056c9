"""The package list, the wheel, the tree and the directions of import say the same."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("penstock", "solvers", "learner", "orchestrator", "deploy")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def tree() -> set[str]:
    """Every module of the tree, as a path under the import name `penstock`."""
    modules = set()
    for part in PARTS:
        for path in (ROOT / part).rglob("*.py"):
            relative = path.relative_to(ROOT)
            modules.add(str(relative if part == "penstock" else Path("penstock") / relative))
    return modules


def test_package_list_is_the_tree():
    folders = {str(Path(module).parent).replace("/", ".") for module in tree()}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == folders


def test_wheel_holds_the_tree(tmp_path):
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    copy = tmp_path / "tree"  # setuptools leaves a build folder behind
    copy.mkdir()
    for part in PARTS:
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    environment = os.environ | {"CC": "false"}  # the optional kernels take 6 s to compile, and are no module of Python
    command = [sys.executable, "-c", build, str(tmp_path)]
    subprocess.run(command, cwd=copy, env=environment, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if name.endswith(".py")} == tree()
    assert {f"penstock/solvers/external/penstock.{kind}" for kind in ("h", "f90")} < names
    assert {"penstock/deploy/kuberay/rayjob.yaml", "penstock/deploy/Containerfile"} < names
    assert {"penstock/deploy/slurm/job.sh", "penstock/deploy/site.yaml"} < names
    monitoring = {path for folder in ("prometheus", "grafana") for path in (ROOT / "deploy" / folder).rglob("*.*")}
    assert {f"penstock/{path.relative_to(ROOT)}" for path in monitoring if path.is_file()} < names


def test_folders_and_files_stay_small():
    """So that the list of folders shows the architecture, and a file is read in one sitting."""
    files = [path for part in (*PARTS, "benchmarks") for path in (ROOT / part).rglob("*.py")]
    full = {path.parent for path in files if len(list(path.parent.glob("*.py"))) > 12}
    long = {path for path in files if len(path.read_text().splitlines()) > 450}
    assert not full | long


MANY_IMPORTS = {  # of ours: each composes the parts of a process, and nothing else does
    *("orchestrator/plan.py", "orchestrator/run/driver.py", "learner/learner.py"),
}


def test_modules_import_few_of_ours():
    many = set()
    for part in PARTS:
        for path in (ROOT / part).rglob("*.py"):
            modules = {
                node.module
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("penstock.")
            }
            if len(modules) > 12:
                many.add(str(path.relative_to(ROOT)))
    assert many == MANY_IMPORTS


def test_classes_have_few_attributes():
    many = set()
    for part in PARTS:
        for path in (ROOT / part).rglob("*.py"):
            for cls in ast.walk(ast.parse(path.read_text())):
                if isinstance(cls, ast.ClassDef) and len(attributes_of(cls)) > 15:
                    many.add(cls.name)
    assert not many


def mentions(word: str, *kinds: type[ast.AST]) -> set[str]:
    """Product files in which a name, an attribute, an argument or a literal is that word."""
    found = set()
    for part in PARTS:
        for path in (ROOT / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                texts = (getattr(node, key, None) for key in ("id", "attr", "arg", "value"))
                if isinstance(node, kinds) and word in texts:
                    found.add(str(path.relative_to(ROOT)))
    return found


def test_a_thing_is_decided_in_one_place():
    """The names of arrays by the layout; determinism by the order, for which the plan reads the configuration."""
    assert mentions("targets", ast.Constant) == {"penstock/layout.py"}
    in_code = mentions("deterministic", ast.Name, ast.Attribute, ast.arg, ast.keyword)
    assert in_code <= {"orchestrator/config/config.py", "orchestrator/solving.py"}


def test_the_first_line_of_a_docstring_stands_alone():
    """It is all that the tree, a hover box and an index of the reference show."""
    poor = []
    for part in PARTS:
        for path in (ROOT / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                    first, _, rest = ast.get_docstring(node).partition("\n")
                    if len(first) > 80 or not first.endswith(".") or (rest and not rest.startswith("\n")):
                        poor.append(f"{path.relative_to(ROOT)}: {first}")
    assert not poor


def attributes_of(cls: ast.ClassDef) -> set[str]:
    """What its methods assign to self."""
    return {
        node.attr
        for node in ast.walk(cls)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if isinstance(node.value, ast.Name) and node.value.id == "self"
    }


def test_makefile_offers_the_pythons_of_requires_python():
    lowest, upper = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["project"]["requires-python"]).groups()
    versions = re.search(r"^PYTHON_VERSIONS := (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split()
    assert versions == [f"3.{minor}" for minor in reversed(range(int(lowest), int(upper)))]


def imports_of(part: str) -> set[str]:
    """Top-level packages, and sub-packages of penstock, that any module of a part imports anywhere."""
    found = set()
    for path in (ROOT / part).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in names:
                found.add(".".join(name.split(".")[: 2 if name.startswith("penstock") else 1]))
    return found


def test_directions_of_import():
    solvers, learner = imports_of("solvers"), imports_of("learner")
    assert not solvers & {"torch", "ray", "penstock.learner", "penstock.orchestrator"}
    assert not learner & {"ray", "petsc4py", "dolfinx", "mpi4py", "penstock.solvers", "penstock.orchestrator"}
    vocabulary = imports_of("penstock") - {"penstock.orchestrator"}  # which __main__ calls
    assert not vocabulary & {"penstock.solvers", "penstock.learner", "torch", "ray", "petsc4py", "dolfinx", "mpi4py"}


def test_help_imports_nothing_heavy():
    """What makes `penstock --help` answer in under a second."""
    code = "import sys; import penstock.orchestrator.cli.app; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "ray", "dolfinx", "petsc4py", "numpy", "zarr", "matplotlib"} & set(answer)
