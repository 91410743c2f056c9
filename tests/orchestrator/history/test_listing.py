"""What `penstock runs` and `penstock compare` show of folders made by hand."""

import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from penstock.errors import PenstockError
from penstock.orchestrator.cli.app import app
from penstock.orchestrator.history import comparison, listing
from penstock.orchestrator.history.ages import age_of, seconds_of
from penstock.orchestrator.history.comparison import differing


def output(*arguments):
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 0, result
    return result.output


def names(*arguments):
    return [json.loads(line)["name"] for line in output("runs", "--json", *arguments).splitlines()]


@pytest.fixture
def three(made):
    a = made("a-20260101-000000", state="ended", cause="steps", config={"model": {"name": "fno", "width": 8}})
    b = made("b-20260301-000000", state="failed", cause="no", config={"model": {"name": "unet", "flag": True}})
    c = made("c-20260201-000000", state="ended", cause="steps", records=[{"unique": 7, "step": 3, "loss": 0.5}])
    for folder, error in ((a, 0.02), (b, 0.01)):
        folder.write("summary.json", {"unique": 5, "validation": {"relative_l2": {"mean": error}}, "step": 4})
    return a, b, c


def test_runs_are_sorted(three):
    assert [name[0] for name in names()] == ["b", "c", "a"]  # the newest first
    assert [name[0] for name in names("--sort", "name")] == ["a", "b", "c"]
    assert [name[0] for name in names("--sort", "error")] == ["b", "a", "c"]  # none comes last
    with pytest.raises(PenstockError, match="--sort eror: did you mean 'error'"):
        CliRunner().invoke(app, ["runs", "--sort", "eror"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["state=ended"], "ca"),
        (["name=b-*"], "b"),
        (["model=fno", "samples=7"], "c"),
        (["model.width=8"], "a"),
        (["model.flag=true"], "b"),
        (["problem.options.resolution=16"], "bca"),
        (["error=null"], "c"),
        (["state=running"], ""),
    ],
)
def test_runs_are_filtered(three, conditions, expected):
    assert "".join(name[0] for name in names(*(f"--where={each}" for each in conditions))) == expected


def test_a_condition_that_means_nothing_is_refused(three):
    for condition, message in (("state", "give key=value"), ("model.widht=8", "did you mean 'model.width'")):
        with pytest.raises(PenstockError, match=message):
            CliRunner().invoke(app, ["runs", "--where", condition], catch_exceptions=False)


def test_the_table_has_a_line_per_run(three):
    head, _, *rows = output("runs", "--sort", "name").splitlines()
    assert head.split() == ["run", "state", "age", "problem", "model", "error", "samples", "host", "remark"]
    assert [row.split()[0][0] for row in rows] == ["a", "b", "c"]
    assert rows[0].split()[4:] == ["darcy", "fno", "0.02", "5", "here", "training.stop_after.steps", "is", "reached"]


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize("host", ["here", "node017.cluster.example.org"])
@pytest.mark.parametrize("command", [("runs", "--sort", "name"), ("clean", "--older-than", "0s")])
def test_a_long_remark_is_cut_and_nothing_else(made, monkeypatch, width, host, command):
    """Whatever the width of the terminal; where the others do not fit, its lines break."""
    monkeypatch.setattr(listing, "console", lambda: Console(highlight=False, markup=False, width=width))
    cause = "the learner's process died (ActorDiedError); it died again before a checkpoint; " + "x" * 300
    made("darcy-20260101-000000", cause=cause, host=host)
    made("heat-20260102-000000", state="ended", cause="steps", records=[{"unique": 123456, "step": 3, "loss": 0.5}])
    head, _, *lines = CliRunner().invoke(app, list(command)).output.splitlines()[:4]
    assert head.split()[-9:] == ["run", "state", "age", "problem", "model", "error", "samples", "host", "remark"]
    assert {"darcy-20260101-000000", "failed", "darcy", "fno", host} <= set(lines[0].split())
    assert {"heat-20260102-000000", "ended", "darcy", "fno", "123456", "here"} <= set(lines[1].split())
    assert len(lines[0]) == width or (len(lines[0]) > width and lines[0].endswith(" the l…"))  # all that is left


def test_the_order_of_conditions_does_not_matter(three):
    conditions = ["--where", "name=c*", "--where", "model.width=8"]
    assert names(*conditions) == names(*conditions[2:], *conditions[:2]) == []


def test_what_differs_is_found_before_it_is_rounded():
    rows = differing([{"a": 0.004, "b": 1.0, "c": 12.56}, {"a": 0.0040001, "b": 1, "c": 12.9}])
    assert rows == {"a": ["0.004", "0.0040001"], "c": ["12.6", "12.9"]}
    assert differing([{"a": 0.1}, {"a": 0.1000001}, {"a": 2.0}]) == {"a": ["0.1", "0.1000001", "2"]}


def test_compare_shows_what_differs(three):
    a, _, c = three
    (c.path / "run.json").write_text(json.dumps({"state": "running", "versions": {"torch": "2.0"}, "host": "there"}))
    rows = {line.split()[0]: line.split()[1:] for line in output("compare", a.path, c.path).splitlines() if line}
    assert rows["configuration"] == [a.path.name, c.path.name] and rows["model.width"] == ["8", "-"]
    assert "problem.name" not in rows and "model.name" not in rows
    assert rows["versions.torch"] == ["-", "2.0"] and rows["host"] == ["here", "there"]
    assert rows["state"] == ["ended", "dead"] and rows["step"] == ["4", "3"] and rows["unique"] == ["5", "7"]
    assert rows["validation.relative_l2.mean"] == ["0.02", "-"]
    assert output("compare", a.path, a.path).count("no difference") == 3


def test_compare_needs_two_runs(three):
    with pytest.raises(PenstockError, match="two run folders or more"):
        CliRunner().invoke(app, ["compare", str(three[0].path)], catch_exceptions=False)
    with pytest.raises(PenstockError, match="absent is not a run folder"):
        CliRunner().invoke(app, ["compare", str(three[0].path), "absent"], catch_exceptions=False)


@pytest.mark.parametrize(("seconds", "age"), [(None, "-"), (-3, "0 s"), (59, "59 s"), (90, "1 min"), (9e4, "1 d")])
def test_ages_are_in_their_largest_unit(seconds, age):
    assert age_of(seconds) == age


def test_ages_are_read():
    assert [seconds_of(age) for age in ("7d", "1.5h", "90 min", "2s")] == [604800, 5400, 5400, 2]
    for bad in ("7", "d", "-1d", "7 weeks", ""):
        with pytest.raises(PenstockError, match="is no age: give a number with one of d, h, min, s"):
            seconds_of(bad)


def test_keys_are_whole_on_a_narrow_terminal(capsys, made, monkeypatch):
    monkeypatch.setattr(comparison, "console", lambda: Console(highlight=False, markup=False, width=40))
    keys = ("stop_after_so_many_minutes", "stop_after_so_many_steps")
    folders = [made(f"x-2026010{day}-000000", config={"model": dict.fromkeys(keys, day)}) for day in (1, 2)]
    comparison.show_differences(folders)
    columns = [line[:20].partition("  ")[0].strip() for line in capsys.readouterr().out.splitlines()]
    assert all(f"model.{key}" in "".join(columns) for key in keys)
