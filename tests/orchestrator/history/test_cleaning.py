"""What `penstock clean` removes, and what it never does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.errors import PenstockError
from penstock.machine import identity_of
from penstock.orchestrator.cli.app import app
from penstock.orchestrator.history import cleaning
from penstock.orchestrator.history.standing import standing
from penstock.orchestrator.store.locks import hold


def clean(*arguments):
    return CliRunner().invoke(app, ["clean", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def four(made):
    made("fails", state="failed")
    made("dies", state="running", host=socket.gethostname())
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


@pytest.fixture
def launched(made, tmp_path, monkeypatch):
    """A function that makes the folder of a run whose Slurm job is in a state, as a stand-in of squeue says."""
    config = {"problem": {"name": "darcy", "resolution": 16}, "training": {"stop_after": {"steps": 2}}}
    (tmp_path / "bin").mkdir()
    squeue = tmp_path / "bin" / "squeue"
    monkeypatch.setenv("PATH", str(squeue.parent), prepend=os.pathsep)

    def make(name, state, words, **run):
        folder = made(name, state=state, config=config, **run)
        folder.write("job.json", {"launcher": "slurm", "id": name, "submitted": "2026-11-30T21:15:00+00:00"})
        old = squeue.read_text() if squeue.exists() else "#!/bin/sh\n"
        squeue.write_text(f'{old}[ "$2" != --jobs={name} ] || {{ {words}; }}\n')
        squeue.chmod(0o755)
        return folder

    return make


@pytest.mark.parametrize("state", ["stopped", "failed", "running"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("echo PENDING", "its job waits: stop it first with `penstock stop"),
        ("echo RUNNING", "its job runs: stop it first with `penstock stop"),
        ("echo down >&2; exit 1", "stays, as its job may wait: Slurm's squeue refuses: down"),
        ("true", None),
    ],
)
def test_a_run_whose_job_waits_stays(launched, state, words, message):
    """As after a requeue: the run is not going, and its job will go on with it."""
    folder = launched("run", state, words, host=socket.gethostname())
    if message is None:
        clean("run", "--yes")
    else:
        with pytest.raises(PenstockError, match=f"^run.* {message}"):
            clean("run", "--yes")
    assert folder.path.exists() == (message is not None)


def test_a_broken_run_whose_job_waits_stays(launched):
    (launched("run", "failed", "echo PENDING").path / "run.json").write_text("[]")
    with pytest.raises(PenstockError, match="run: its job waits"):
        clean("run", "--yes")
    Path("runs/run/job.json").write_text('{"launcher"')
    with pytest.raises(PenstockError, match=r"run stays, as its job may wait: .*job.json is damaged"):
        clean("run", "--yes")


def test_the_script_of_a_job_array_stays_while_a_run_needs_it(launched):
    folders = [launched("first", "failed", "true"), launched("second", "submitted", "echo PENDING")]
    (folders[0].path / "seeds").mkdir()
    for index, folder in enumerate(folders):
        (folders[0].path / "seeds" / str(index)).symlink_to(folder.path)
    with pytest.raises(PenstockError, match="first has the script of a job array, so it stays: second is submitted"):
        clean("--failed", "--yes")
    folders[1].update_run(state="stopped")
    with pytest.raises(PenstockError, match="so it stays: second: its job waits"):
        clean("--failed", "--yes")
    (folders[1].path / "run.json").write_text(json.dumps({"state": "ended"}))
    assert "removed 1 of 1" in clean("--failed", "--yes").output and folders[1].path.exists()


def test_a_dead_run_of_another_host_stays_until_it_is_silent(made):
    """As on NFS with locks that are local to a host, where no lock is seen."""
    path = made("far", state="running", host="far", records=[{}]).path
    with pytest.raises(PenstockError, match=r"far may run on far, where it wrote .* s ago: it stays"):
        clean("--failed", "--yes")
    for file in path.glob("*.*"):
        os.utime(file, (1e9, 1e9))
    assert "removed 1 of 1" in clean("--failed", "--yes").output


def refuse(path):
    raise OSError(38, "Function not implemented")


@pytest.mark.parametrize(("text", "message"), [(None, "dies may run on"), ("[]", "dies may run on another host")])
def test_where_there_are_no_locks_what_may_run_stays(four, monkeypatch, text, message):
    monkeypatch.setattr(cleaning, "hold", refuse)
    if text:
        Path("runs/dies/run.json").write_text(text)
    with pytest.raises(PenstockError, match=message):
        clean("dies", "--yes")
    assert "removed 1 of 1" in clean("ends", "--yes").output


@pytest.mark.parametrize("has_locks", [True, False])
def test_one_that_was_resumed_since_it_was_shown_stays(made, monkeypatch, has_locks):
    folder = made("run", state="failed")
    run = standing(folder.path)
    folder.update_run(state="running", driver_pid=os.getpid(), driver_identity=identity_of(os.getpid()))
    if not has_locks:
        monkeypatch.setattr(cleaning, "hold", refuse)
    with pytest.raises(PenstockError, match="run is running now: it stays"):
        cleaning.remove(run)
    assert folder.path.exists()


def test_names_from_a_pattern_are_filtered_first(four):
    Path("runs/latest").symlink_to("waits")
    names = [f"runs/{name}" for name in sorted(os.listdir("runs"))]
    assert "removed 2 of 2" in clean("--failed", "--yes", *names, "fails").output
    assert four() == {"ends", "waits", "latest"}


def test_a_run_that_is_named_twice_is_one(four):
    assert "removed 1 of 1" in clean("ends", "runs/ends", Path("runs/ends").resolve(), "--yes").output
