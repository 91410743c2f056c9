"""Where runs stand, in folders made by hand: whole ones, odd ones, and runs that live or were killed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.machine import identity_of
from penstock.orchestrator.cli.app import app
from penstock.orchestrator.history.standing import STATES, standing, standings
from penstock.orchestrator.store.locks import hold, is_held
from penstock.orchestrator.store.run_folder import RunFolder

VALIDATION = {"relative_l2": {"mean": 0.025, "median": 0.01, "p99": 0.1, "max": 0.2}}
DRIVER = """
import os, sys, time
from pathlib import Path
from penstock.machine import identity_of
from penstock.orchestrator.store.run_folder import RunFolder

folder = RunFolder(Path(sys.argv[1]))
with folder.hold():
    folder.update_run(state="running", driver_pid=os.getpid(), driver_identity=identity_of(os.getpid()))
    print("runs", flush=True)
    time.sleep(600)
"""


def test_a_driver_that_is_killed_leaves_a_dead_run(made):
    folder = made("run", state="submitted")
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, folder.path], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout.readline() == "runs\n" and standing(folder.path).state == "running"
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    assert standing(folder.path).state == "dead"


def test_a_run_of_another_host_is_known_by_its_lock(made):
    folder = made("run", state="running", host="far")
    assert standing(folder.path).state == "dead" and not is_held(folder.path / "config.yaml")
    with hold(folder.path / "config.yaml"):
        assert standing(folder.path).state == "running" and standing(folder.path).host == "far"


def test_a_driver_of_this_host_is_known_without_a_lock(made):
    pid = os.getpid()
    assert (
        standing(made("run", state="running", driver_pid=pid, driver_identity=identity_of(pid)).path).state == "running"
    )


def test_what_a_run_says_of_itself(made):
    folder = made("tiny-20261130-211502-2", state="ended", cause="steps", records=[{"unique": 3, "validation": None}])
    run = standing(folder.path)
    assert (run.state, run.problem, run.model, run.host, run.samples) == ("ended", "darcy", "fno", "here", 3)
    assert (
        run.error is None
        and run.remark == "training.stop_after.steps is reached"
        and run.config["problem.options.resolution"] == 16
    )
    began = datetime(2026, 11, 30, 21, 15, 2, tzinfo=UTC).timestamp()
    assert abs(run.age_s - (time.time() - began)) < 60
    folder.write("summary.json", {"unique": 640, "validation": VALIDATION})
    assert (standing(folder.path).samples, standing(folder.path).error) == (640, 0.025)


def oddities(made):
    """Folders that are odd, with what is to be said of each."""
    half = made("half")
    (half.path / "config.yaml").write_text("name: tiny\nproblem: {na")
    (half.path / "run.json").write_text('{"state"')
    yield "half", "broken", "run.json is damaged"
    (made("no-config", cause="x").path / "config.yaml").unlink()
    yield "no-config", "failed", "config.yaml: no such file"
    (made("no-run").path / "run.json").unlink()
    yield "no-run", "broken", "there is no run.json"
    (made("list").path / "run.json").write_text("[1, 2]")
    yield "list", "broken", "holds no mapping"
    made("newer", state="paused")
    yield "newer", "broken", "'paused' is no state that this version knows"
    made("pid", state="running", driver_pid="x", driver_identity=1)
    yield "pid", "broken", "of another version"
    (made("deep").path / "run.json").write_text("[" * 100_000)
    yield "deep", "broken", "RecursionError"
    made("infinite", state="ended").write("summary.json", {"unique": float("inf")})
    yield "infinite", "ended", "OverflowError"
    made("old", state="ended", records=[{"loss": 1.0, "validation": {"error": 0.1}, "unique": 5}])
    yield "old", "ended", "a record is damaged or of another version (KeyError: 'relative_l2')"
    (made("record", state="ended").path / "metrics.jsonl").write_text('{"unique": "x"}\n{"un\n')
    yield "record", "ended", "a record is damaged"
    (made("binary", state="ended").path / "config.yaml").write_bytes(bytes(range(256)))
    yield "binary", "ended", "config.yaml is not text"
    Path("runs", "bare-20261130-211502").mkdir()
    yield "bare-20261130-211502", "broken", "config.yaml: no such file"
    Path("runs", "folders").mkdir()
    for name in ("config.yaml", "run.json", "metrics.jsonl", "summary.json"):
        Path("runs", "folders", name).mkdir()
    yield "folders", "broken", "Is a directory"


def test_odd_folders_are_a_line_each_and_hide_no_other(made):
    made("good", state="ended", cause="steps")
    expected = {name: (state, remark) for name, state, remark in oddities(made)}
    Path("runs", "latest").symlink_to("good")
    Path("runs", "not-a-run").mkdir()
    Path("runs", "file").write_text("")
    found = {run.name: run for run in standings(Path("runs"))}
    assert found.keys() == {"good", *expected}
    for name, (state, remark) in expected.items():
        assert found[name].state == state and remark in found[name].remark and "\n" not in found[name].remark, name
        assert f"{name}/" not in found[name].remark  # its name stands beside it
    lines = CliRunner().invoke(app, ["runs"]).output.splitlines()
    assert len(lines) == 2 + len(found)
    records = [json.loads(line) for line in CliRunner().invoke(app, ["runs", "--json"]).output.splitlines()]
    assert {record["name"]: record["state"] for record in records} == {name: run.state for name, run in found.items()}
    assert {run.state for run in found.values()} < STATES.keys()


def test_a_folder_that_is_deleted_meanwhile(made):
    folder = made("gone")
    shutil.rmtree(folder.path)
    run = standing(folder.path)
    assert run.state == "broken" and run.remark == "it is gone: it was deleted just now"


READ_ONLY = """
import subprocess, sys
from pathlib import Path
from penstock.orchestrator.history.standing import standing
from penstock.orchestrator.store.locks import hold
from penstock.orchestrator.store.run_folder import RunFolder

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], check=True)
folder = RunFolder(disk)
(disk / "config.yaml").write_text("name: a")
folder.update_run(state="running")
lock = hold(disk / "config.yaml")
subprocess.run(["mount", "-o", "bind", disk, disk], check=True)
subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)
print(standing(disk).state, standing(disk).remark)
lock.close()
print(standing(disk).state)
"""


def test_a_read_only_disk(tmp_path):
    """A real one, mounted for the process alone; who holds the lock got it where it can be written to."""
    command = ["unshare", "--map-root-user", "--mount", sys.executable, "-c", READ_ONLY, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "running None\ndead\n"


@pytest.mark.parametrize("name", ["absent", "file"])
def test_what_is_no_folder_is_one_line(made, name):
    Path("file").write_text("")
    result = CliRunner().invoke(app, ["runs", name])
    assert "give a folder that holds run folders" in str(result.exception)


def test_a_folder_without_runs(made):
    Path("runs").mkdir()
    assert CliRunner().invoke(app, ["runs"]).output == "there is no run under runs\n"
    assert RunFolder(Path("runs")).is_running() is False


def test_the_page_lists_the_states():
    page = (Path(__file__).parents[3] / "docs" / "runs.md").read_text()
    table = page.partition("| state | meaning |")[2].partition("\n\n")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.M)) == STATES
