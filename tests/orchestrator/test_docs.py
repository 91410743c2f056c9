"""What the documentation lists is what there is."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from penstock.learner.buffers.policies import POLICIES
from penstock.learner.buffers.units import DRAWS
from penstock.learner.losses.losses import LOSSES
from penstock.learner.models import MODELS
from penstock.orchestrator.config.config import Config, Named
from penstock.orchestrator.views.prometheus import Metrics
from penstock.registry import load_class
from penstock.solvers.linear import STRATEGIES
from penstock.solvers.problems import PROBLEMS

ROOT = Path(__file__).parents[2]
PRINT_TREE = "import tree; print(tree.tree(), end='')"


def keys_of(section: type[BaseModel], prefix: str = "") -> set[str]:
    """The dotted keys of a configuration; a section chosen by name counts as one key."""
    keys = set()
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if inspect.isclass(annotation) and issubclass(annotation, BaseModel) and not issubclass(annotation, Named):
            keys |= keys_of(annotation, f"{prefix}{name}.")
        else:
            keys.add(f"{prefix}{name}")
    return keys


def test_configuration_page_lists_every_key():
    rows = re.findall(r"^\| `([a-z_.]+)` \|", (ROOT / "docs" / "configuration.md").read_text(), re.M)
    listed = {row.removesuffix(".name") for row in rows}
    assert listed >= keys_of(Config)
    assert {row for row in listed if row.split(".")[0] in Config.model_fields} <= keys_of(Config)


@pytest.mark.parametrize("registry", [PROBLEMS, STRATEGIES, MODELS, LOSSES])
def test_configuration_page_lists_every_option(registry):
    text = (ROOT / "docs" / "configuration.md").read_text()
    for name in registry:
        for parameter in inspect.signature(load_class(name, registry, "")).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                assert re.search(rf"^\|.*`{parameter.name}`", text, re.M), f"{name}: {parameter.name}"
                if registry is PROBLEMS:
                    assert re.search(rf"^\| {name} \|.*`{parameter.name}`", text, re.M), f"{name}: {parameter.name}"


def test_readme_lists_every_problem():
    text = (ROOT / "README.md").read_text()
    assert all(re.search(rf"^\|.*\b{name}\b", text, re.M) for name in PROBLEMS)


def test_the_reference_has_every_part_that_is_chosen_by_name():
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    modules = set(re.findall(r"^::: (\S+)$", pages, re.M))
    for registry in (PROBLEMS, STRATEGIES, MODELS, LOSSES, DRAWS, POLICIES):
        assert modules >= {load_class(name, registry, "").__module__ for name in registry}
    for module in modules:
        importlib.import_module(module)


def test_metrics_page_lists_every_metric():
    text = (ROOT / "docs" / "metrics.md").read_text()
    for family in Metrics("auto").registry.collect():
        assert f"`{family.name}{'_total' if family.type == 'counter' else ''}" in text


def test_the_tree_is_that_of_the_files():
    made = subprocess.run(
        [sys.executable, "-c", PRINT_TREE], cwd=ROOT / "docs", capture_output=True, text=True, check=True
    )
    assert (ROOT / "docs" / "tree.md").read_text() == made.stdout, "call `make tree`"
    assert not re.findall(r"^.*: $", made.stdout, re.M), "a file without a docstring"


PAGES = {ROOT / "README.md", *(ROOT / "docs").glob("*.md")} - {ROOT / "docs" / "training.md"}  # which is run below


@pytest.mark.parametrize("page", sorted(PAGES), ids=lambda page: page.name)
def test_every_python_block_runs(page, tmp_path, monkeypatch):
    """One after the other, as a reader would paste them; a class of one is there for the next."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "pasted"}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.slow  # 300 simulations and their training, as the page has them
def test_what_trains_from_python_does():
    """In a process of its own, without Ray in it, after the other blocks of the page."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "training.md").read_text(), re.S))
    code += "\nimport sys; assert 'ray' not in sys.modules"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    cause, error = ran.stdout.split("ended ")
    assert cause == "stream " and float(error) < 0.3


def test_links_between_pages_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").rglob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
