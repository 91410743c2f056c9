"""What `penstock clean` removes, and what it never does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.errors import PenstockError
from penstock.orchestrator.cli.app import app
from penstock.orchestrator.history import cleaning
from penstock.orchestrator.history.standing import standing
from penstock.orchestrator.store.locks import hold


def clean(*arguments):
    return CliRunner().invoke(app, ["clean", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def four(made):
    made("fails", state="failed")
    made("dies", state="running")
    made("ends", state="ended")
    made("waits", state="submitted")
    return lambda: {path.name for path in Path("runs").iterdir()}


def test_failed_runs_are_removed_after_they_are_shown(four):
    with pytest.raises(PenstockError, match=r"^2 runs, .* nothing is removed without --yes"):
        clean("--failed")
    result = clean("--failed", "--yes")
    assert "fails" in result.output and "dies" in result.output and " kB" in result.output
    assert "removed 2 of 2 runs, " in result.output and four() == {"ends", "waits"}


@pytest.mark.parametrize("answer", ["y", "n", ""])
def test_a_terminal_is_asked(four, answer):
    """A real one, of a command in a process."""
    terminal, end = os.openpty()
    command = [sys.executable, "-m", "penstock", "clean", "ends"]
    process = subprocess.Popen(command, stdin=end, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    os.write(terminal, f"{answer}\n".encode())
    output = process.communicate(timeout=120)[0]
    os.close(terminal)
    os.close(end)
    assert process.returncode == 0 and "remove 1 run, " in output, output
    assert ("removed 1 of 1 run," in output) == (answer == "y") == ("ends" not in four())


@pytest.mark.parametrize("text", ['{"state"', "[]", '{"state": "running", "driver_pid": "x", "driver_identity": 1}'])
def test_a_broken_one_is_removed_too(four, text):
    Path("runs/ends/run.json").write_text(text)
    assert "removed 1 of 1 run," in clean("ends", "--yes").output and "ends" not in four()


def test_only_old_ones(four):
    for path in (*Path("runs/ends").iterdir(), *Path("runs/waits").iterdir()):
        os.utime(path, (1e9, 1e9))
    assert "removed 1 of 1 run," in clean("--older-than", "7d", "--yes").output and "ends" not in four()
    assert "nothing is removed" in clean("--older-than", "7d", "--failed", "--yes").output


def test_a_run_that_goes_is_never_removed(four):
    with hold(Path("runs/dies/config.yaml")):
        with pytest.raises(PenstockError, match="dies is running: stop it first"):
            clean("dies", "--yes")
        assert "removed 1 of 1 run," in clean("--failed", "--yes").output
    assert four() == {"dies", "ends", "waits"}
    with pytest.raises(PenstockError, match="waits is submitted: stop it first"):
        clean("runs/waits", "--yes")


def test_one_that_has_begun_since_it_was_shown_stays(four):
    run = standing(Path("runs/dies"))
    with hold(Path("runs/dies/config.yaml")), pytest.raises(PenstockError, match="dies is running now"):
        cleaning.remove(run)
    assert "config.yaml" in os.listdir("runs/dies")


def test_what_is_outside_is_refused(four, tmp_path):
    outside = tmp_path / "other" / "data"
    outside.mkdir(parents=True)
    (outside / "config.yaml").write_text("")
    (tmp_path / "runs" / "link").symlink_to(outside)
    (tmp_path / "runs" / "latest").symlink_to("ends")
    (tmp_path / "runs" / "photos").mkdir()
    (tmp_path / "runs" / "ends" / "deep").mkdir()
    (tmp_path / "runs" / "ends" / "deep" / "run.json").write_text("{}")
    for path, message in (
        (outside, "is not in .*runs, which holds the runs"),
        ("runs/../other/data", "a path with `..`"),
        ("..", "a path with `..`"),
        (".", "is not in"),
        ("runs", "there is no such run folder"),
        ("link", "is a link to"),
        ("runs/link", "is a link to"),
        ("latest", "is a link to ends"),
        ("photos", "is not a run folder"),
        ("runs/ends/deep", "is not in"),
        ("absent", "there is no such run folder"),
        (tmp_path / "runs" / "ends" / "config.yaml", "there is no such run folder"),
    ):
        with pytest.raises(PenstockError, match=message):
            clean(path, "--yes")
    assert (outside / "config.yaml").exists() and four() >= {"fails", "dies", "ends", "waits"}


def test_links_in_a_run_folder_are_not_followed(four, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious").write_text("")
    (tmp_path / "runs" / "ends" / "checkpoints").symlink_to(tmp_path / "data")
    (tmp_path / "runs" / "ends" / "logs" / "link").symlink_to(tmp_path / "data")
    (tmp_path / "runs" / "latest").symlink_to("ends")
    assert "removed 1 of 1" in clean(tmp_path / "runs" / "ends", "--yes").output
    assert (tmp_path / "data" / "precious").exists() and four() == {"fails", "dies", "waits"}  # nor a link to nothing


def test_what_is_left_of_a_removal_can_be_removed(four, monkeypatch):
    """Where it is broken off, files that make it a run folder are the last."""
    rmtree = cleaning.shutil.rmtree
    monkeypatch.setattr(cleaning.shutil, "rmtree", lambda path: (_ for _ in ()).throw(OSError(30, "Read-only", path)))
    with pytest.raises(PenstockError, match=r"ends can't be removed wholly: .*logs: Read-only"):
        clean("ends", "--yes")
    monkeypatch.setattr(cleaning.shutil, "rmtree", rmtree)
    assert "removed 1 of 1" in clean("ends", "--yes").output


def test_nothing_asked_for_is_refused(four):
    with pytest.raises(PenstockError, match="name run folders, or give --failed or --older-than"):
        clean("--yes")
    with pytest.raises(PenstockError, match="'a week' is no age"):
        clean("--older-than", "a week", "--yes")
