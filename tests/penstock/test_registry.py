"""Classes by name and from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import pytest

from penstock.errors import PenstockError
from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.models.grids.fourier.fno import FNO
from penstock.registry import build, load_class, read_source, summary_of
from penstock.solvers.linear import STRATEGIES
from penstock.solvers.problems import PROBLEMS
from penstock.solvers.problems.steady.darcy import Darcy

if TYPE_CHECKING:
    from nowhere import Absent


def test_registered_and_dotted_names():
    assert load_class("darcy", PROBLEMS, "problem.name") is Darcy
    assert load_class("penstock.solvers.problems.steady.darcy:Darcy", PROBLEMS, "problem.name") is Darcy


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("darci", "problem.name: there is no 'darci'; did you mean 'darcy'?"),
        ("penstock.solvers.problems.steady.darcy:Darcie", "there is no class 'Darcie'; did you mean 'Darcy'?"),
        ("not_a_package:Thing", "can't be imported"),
        ("./absent.py:Thing", "can't read ./absent.py"),
        (
            ":Thing",
            f"there is no ':Thing'; known: {', '.join(PROBLEMS)} (your own: ./file.py:Class or package.module:Class)",
        ),
    ],
)
def test_unknown_names(name, expected):
    with pytest.raises(PenstockError) as caught:
        load_class(name, PROBLEMS, "problem.name")
    assert expected in str(caught.value)


def test_a_class_from_a_file_and_from_its_text_elsewhere(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("class Mine:\n    '''A problem.'''\n")
    name = f"{path}:Mine"
    assert load_class(name, PROBLEMS, "problem.name").__doc__ == "A problem."
    source = read_source(name, "problem.name")
    path.unlink()
    assert load_class(name, PROBLEMS, "problem.name", source).__name__ == "Mine"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\nclass Mine(\n", "line 2: SyntaxError"),
        ("x = 1\ny = 1 / 0\n", "line 2: ZeroDivisionError"),
        ("class Other: pass\n", "there is no class 'Mine'"),
    ],
)
def test_broken_files_are_told_with_their_line(tmp_path, text, expected):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(PenstockError) as caught:
        load_class(f"{path}:Mine", PROBLEMS, "problem.name")
    assert expected in str(caught.value)


def test_options_are_checked_against_the_signature():
    assert build(Darcy, {"resolution": 8}, "problem").resolution == 8
    with pytest.raises(PenstockError, match=r"problem.resolutoin: unknown key; did you mean 'resolution'\?"):
        build(Darcy, {"resolutoin": 8}, "problem")
    with pytest.raises(PenstockError, match="problem: resolution = 1 is too small"):
        build(Darcy, {"resolution": 1}, "problem")
    with pytest.raises(PenstockError, match="model: RuntimeError: "):
        build(FNO, {"width": 10**12, "modes": 4}, "model", LAYOUT)
    with pytest.raises(PenstockError, match="problem: <class 'int'> can't be built from options"):
        build(int, {}, "problem")


LAYOUT = Layout((FieldSpec(name="a", on=Grid((8, 8))),), (FieldSpec(name="u", on=Grid((8, 8))),))


@pytest.mark.parametrize(
    ("cls", "where", "options", "expected"),
    [
        (Darcy, "problem", {"resolution": 16.5}, "problem.resolution = 16.5: must be an integer"),
        (Darcy, "problem", {"resolution": "abc"}, "problem.resolution = 'abc': must be an integer"),
        (Darcy, "problem", {"resolution": True}, "problem.resolution = True: must be an integer"),
        (Darcy, "problem", {"resolution": None}, "problem.resolution = None: must be an integer"),
        (FNO, "model", {"width": 2.5}, "model.width = 2.5: must be an integer"),
        (FNO, "model", {"width": [2, 3]}, "model.width = [2, 3]: must be an integer"),
        ("gcrodr", "solver.strategy", {"recycle": 3}, "solver.strategy.recycle = 3: must be true or false"),
        ("gcrodr", "solver.strategy", {"m": "40"}, "solver.strategy.m = '40': must be an integer"),
        ("krylov", "solver.strategy", {"pc": 3}, "solver.strategy.pc = 3: must be text or null"),
        ("krylov", "solver.strategy", {"options": "a"}, "solver.strategy.options = 'a': must be a mapping or null"),
        ("krylov", "solver.strategy", {"max_iterations": 1.5}, "max_iterations = 1.5: must be an integer"),
    ],
)
def test_values_of_another_type_are_one_line(cls, where, options, expected):
    if type(cls) is str:
        cls = load_class(cls, STRATEGIES, where)
    with pytest.raises(PenstockError) as caught:
        build(cls, options, where, *[LAYOUT] * (cls is FNO))
    assert str(caught.value).endswith(expected) and str(caught.value).startswith(where)


class Mine:
    """A class with hints of every kind, one of them unresolvable."""

    def __init__(
        self,
        *,
        number: float = 0.5,
        count: Optional[int] = None,  # noqa: UP045
        either: int | str = 1,
        table: Mapping[str, Any] | None = None,
        plain: dict[str, int] | None = None,
        items: Sequence[int] = (),
        mixed: int | Sequence[int] = 1,
        absent: Absent = None,
        nothing=None,
    ):
        self.values = {key: value for key, value in locals().items() if key != "self"}


class Heir(Mine):
    pass


@dataclass
class Data:
    count: int = 1


class Bare:
    pass


@pytest.mark.parametrize("cls", [Mine, Heir])
@pytest.mark.parametrize(
    ("key", "taken", "expected"),
    [
        ("number", [1, 0.25, 1e30], {"0.5": "a number", True: "a number", None: "a number"}),
        ("count", [1, None], {1.0: "an integer or null", False: "an integer or null", "1": "an integer or null"}),
        ("either", [1, "one"], {1.5: "an integer or text", None: "an integer or text"}),
        ("table", [{}, {"a": 1}, None], {3: "a mapping or null"}),
        ("plain", [{"a": 1}, None], {"a": "a mapping or null"}),
        ("items", [(1,), "abc", 3], {}),
        ("mixed", [1, [1], "abc"], {}),
        ("absent", [1, "abc", None], {}),
        ("nothing", [1, "abc", None], {}),
    ],
)
def test_every_kind_of_annotation(cls, key, taken, expected):
    for value in taken:
        assert build(cls, {key: value}, "model").values[key] is value
    for value, must_be in expected.items():
        with pytest.raises(PenstockError) as caught:
            build(cls, {key: value}, "model")
        assert str(caught.value) == f"model.{key} = {value!r}: must be {must_be}"


def test_dataclasses_functions_and_classes_without_a_constructor():
    def make(count: int = 2) -> int:
        return count

    assert build(Data, {"count": 3}, "model").count == build(make, {"count": 3}, "model") == 3
    for target in (Data, make):
        with pytest.raises(PenstockError, match=r"^model\.count = 'x': must be an integer$"):
            build(target, {"count": "x"}, "model")
    assert isinstance(build(Bare, {}, "model"), Bare)
    with pytest.raises(PenstockError, match=r"model\.count: unknown key"):
        build(Bare, {"count": 3}, "model")


@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"])
def test_a_class_from_a_file_is_checked(tmp_path, future):
    path = tmp_path / "mine.py"
    path.write_text(f"{future}class Mine:\n    def __init__(self, *, width: int = 3):\n        self.width = width\n")
    cls = load_class(f"{path}:Mine", {}, "model.name")
    assert build(cls, {"width": 4}, "model").width == 4
    with pytest.raises(PenstockError, match=r"^model\.width = 4\.5: must be an integer$"):
        build(cls, {"width": 4.5}, "model")


def test_a_file_without_a_class_is_answered_by_the_classes_in_it(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("class Helper: pass\nclass Flow(Problem): pass\nclass _Base(Problem): pass\nclass Heat(P): 1 / 0\n")
    for name, said in (
        (str(path), f"problem.name: '{path}' names no class: give {path}:Flow, {path}:Heat"),
        ("run.yaml", "problem.name: 'run.yaml' is a configuration: give a name, or your own as ./file.py:Class"),
    ):
        with pytest.raises(PenstockError) as caught:
            load_class(name, PROBLEMS, "problem.name")
        assert str(caught.value) == said


def test_a_file_that_imports_its_neighbour_is_told_why_it_can_t(tmp_path):
    (tmp_path / "beside.py").touch()
    for module, hint in (("beside", True), ("nowhere_at_all", False)):
        (tmp_path / "mine.py").write_text(f"import {module}\n")
        with pytest.raises(PenstockError, match=f"line 1: ModuleNotFoundError: No module named '{module}'") as caught:
            load_class(f"{tmp_path / 'mine.py'}:Mine", PROBLEMS, "problem.name")
        assert ("files beside it can't be imported, because a run copies this one" in str(caught.value)) is hint


def test_the_summary_of_a_class_is_its_docstring_up_to_the_arguments():
    assert summary_of(Darcy).startswith("Darcy flow") and "Args:" not in summary_of(Darcy)
    assert "Args:" in Darcy.__doc__
