"""What the documentation lists is what there is."""

import importlib
import re
import subprocess
import sys
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import pytest

from penstock.learner.buffers import UNITS
from penstock.learner.buffers.policies import POLICIES
from penstock.learner.losses.losses import LOSSES
from penstock.learner.models import MODELS
from penstock.record import Record
from penstock.registry import load_class
from penstock.solvers.linear import STRATEGIES
from penstock.solvers.measurement import measure
from penstock.solvers.problem import Problem
from penstock.solvers.problems import PROBLEMS

ROOT = Path(__file__).parents[2]


def test_readme_lists_every_problem_and_model():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 180
    assert all(re.search(rf"^\|.*\b{name}\b", text, re.M) for name in (*PROBLEMS, *MODELS))


def test_the_way_of_a_sample_leads_through_twelve_files():
    text = (ROOT / "docs" / "how-it-works.md").read_text()
    way = text.partition("## From draw to gradient")[2].partition("\n## ")[0]
    steps = re.split(r"^\d+\. ", way, flags=re.M)[1:]
    files = [re.search(r" in\s+`([a-z_/]+\.py)`", step)[1] for step in steps]
    assert len(files) == len(set(files)) == 12
    assert all((ROOT / file).exists() for file in files)


def test_the_reference_has_every_part_that_is_chosen_by_name():
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    modules = set(re.findall(r"^::: (\S+)$", pages, re.M))
    for registry in (PROBLEMS, STRATEGIES, MODELS, LOSSES, UNITS, POLICIES):
        assert modules >= {load_class(name, registry, "").__module__ for name in registry}
    for module in modules:
        importlib.import_module(module)


def test_metrics_page_lists_every_column():
    table = (ROOT / "docs" / "metrics.md").read_text().partition("## metrics.jsonl")[2].partition("## summary.json")[0]
    columns = {name for first in re.findall(r"^\| (`.*?) \|", table, re.M) for name in re.findall(r"`(\w+)`", first)}
    assert columns == {each.name for each in fields(Record)}


@pytest.mark.parametrize(
    ("page", "text"),
    [("tree", "tree.tree()"), ("configuration", "configuration.page()"), ("gallery", "gallery.page()")],
)
def test_written_pages_are_up_to_date(page, text, monkeypatch):
    monkeypatch.chdir(ROOT / "docs")
    monkeypatch.syspath_prepend(ROOT / "docs")
    names = {}
    exec(f"import {page}; text = {text}", names)
    assert (ROOT / "docs" / f"{page}.md").read_text() == names["text"], "call `make docs`"


def test_every_file_of_the_tree_has_a_docstring():
    assert not re.findall(r"^.*: $", (ROOT / "docs" / "tree.md").read_text(), re.M)


RUN_ELSEWHERE = {"training.md", "export.md"}  # the first below, the second in cli/test_export.py on a run
WRITTEN = (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "models").glob("*.md"))
PAGES = {page for page in WRITTEN if page.name not in RUN_ELSEWHERE}


@pytest.mark.parametrize("page", sorted(PAGES), ids=lambda page: page.name)
def test_every_python_block_runs(page, tmp_path, monkeypatch):
    """One after the other, as a reader would paste them; a class of one is there for the next.

    The problems among them solve two draws each.
    """
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "pasted"}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S):
        if find_spec("gmsh") or not re.search("gmsh|triangulate", block):
            exec(compile(block, str(page), "exec"), names)
    for cls in [each for each in names.values() if isinstance(each, type) and each.__module__ == "pasted"]:
        if issubclass(cls, Problem):
            assert measure(cls(), 2).failed == {}


def test_the_first_class_of_the_tutorial_has_the_lines_of_its_title():
    page = (ROOT / "docs" / "custom-problem.md").read_text()
    title, _, rest = page.partition("\n")
    code = rest[rest.index("\nclass ") :].partition("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= int(re.search(r"\d+", title)[0])


@pytest.mark.slow  # 300 simulations and their training, as the page has them
def test_what_trains_from_python_does():
    """In a separate process, without Ray in it, after the other blocks of the page."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "training.md").read_text(), re.S))
    code += "\nimport sys; assert 'ray' not in sys.modules"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    cause, error = ran.stdout.split("ended ")
    assert cause == "stream " and float(error) < 0.5  # untrained it is 1


def test_links_between_pages_lead_somewhere():
    for page in (*WRITTEN, *(ROOT / "benchmarks").rglob("*.md")):
        for target, _, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#([^)]+))?\)", page.read_text()):
            found = page.parent / target if target else page
            assert found.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(found), f"{page.name}: {target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """What links can say after # to lead to a heading of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_model_is_in_one_family_which_has_a_page_and_a_picture(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    families, folder = importlib.import_module("models").FAMILIES, ROOT / "docs" / "models"
    assert {page.stem for page in folder.glob("*.md")} == {*families, "index"}
    assert {picture.stem for picture in folder.glob("*.png")} == {*families}
    pages = {family: (folder / f"{family}.md").read_text() for family in families}
    assert all(f"]({family}.png)" in text for family, text in pages.items())
    index = (folder / "index.md").read_text()
    for name in {*MODELS} - {"mlp"}:
        (family,) = (each for each in families if re.search(rf"^\|.*\({each}\.md\).*`{name}`", index, re.M))
        assert re.search(rf"\b{name}\b", pages[family]), f"{family}.md has nothing on {name}"
