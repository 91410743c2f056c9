import pytest

from penstock.errors import PenstockError
from penstock.registry import build, load_class, read_source
from penstock.solvers.problems import PROBLEMS
from penstock.solvers.problems.darcy import Darcy


def test_registered_and_dotted_names():
    assert load_class("darcy", PROBLEMS, "problem.name") is Darcy
    assert load_class("penstock.solvers.problems.darcy:Darcy", PROBLEMS, "problem.name") is Darcy


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("darci", "problem.name: there is no 'darci'; did you mean 'darcy'?"),
        ("penstock.solvers.problems.darcy:Darcie", "there is no class 'Darcie'; did you mean 'Darcy'?"),
        ("not_a_package:Thing", "can't be imported"),
        ("./absent.py:Thing", "can't read ./absent.py"),
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
