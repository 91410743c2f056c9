"""What a driver writes into a run folder whose disk is full for a while, and what can't be read of one."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from penstock.errors import PenstockError
from penstock.orchestrator.cli.app import app
from penstock.orchestrator.run import driver
from penstock.orchestrator.store.run_folder import RunFolder

MADE = SimpleNamespace(cluster=SimpleNamespace(address=None), metrics=SimpleNamespace(port=0))
FULL = """
import json, subprocess, sys, threading, time
from pathlib import Path

from penstock.errors import DiskFault
from penstock.files.patience import Patience
from penstock.orchestrator.store.run_folder import RunFolder

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
folder, said = RunFolder(disk), []
folder.update_run(state="running", host="here")
folder.keep_room()
number = 0

def write_all():
    global number
    number += 1
    folder.append("metrics.jsonl", {"number": number, "text": "x" * 3000})
    folder.write("ledger.json", {"number": number, "text": "x" * 9000})
    folder.event("workers scaled", workers=number, before=0, why="x" * 500)

try:
    while True:  # until the disk is full, as where nobody has patience
        write_all()
except DiskFault as error:
    said.append(str(error))
(disk / "ledger.json").replace(disk / "first.json")  # whole, and before
first = json.loads((disk / "first.json").read_text())["number"]
filler = disk / "filler"

def fill():
    with filler.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 100)
        except OSError:
            pass

fill()
folder.fail("no space")
events = [json.loads(line) for line in folder.events.read_text().splitlines()]
last = folder.read("run.json"), {key: events[-1][key] for key in ("event", "cause")}
folder.events.write_text("".join(json.dumps(event) + chr(10) for event in events[:-1]))
fill()

def tell(line):
    said.append(line)
    if "tried again" in line:
        filler.unlink()
        (disk / "first.json").unlink()
        lines = (disk / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        assert all(json.loads(line) for line in lines)  # no part of a line
        (disk / "metrics.jsonl").write_bytes(lines[-1])

folder.patience = Patience(tell)
write_all()
lines = [json.loads(line)["number"] for line in (disk / "metrics.jsonl").read_text().splitlines()]
ledger = json.loads((disk / "ledger.json").read_text())["number"]
events = [json.loads(line)["workers"] for line in (disk / "events.jsonl").read_text().splitlines()]
print(json.dumps([said, first, number, lines, ledger, events, last]))
"""


def test_a_full_disk_leaves_no_part_of_a_line_and_what_waited_is_written(tmp_path):
    """A real one: a tmpfs of 1 MB, seen by the process alone."""
    command = ["unshare", "--map-root-user", "--mount", sys.executable, "-c", FULL, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    said, first, number, lines, ledger, events, last = json.loads(result.stdout)
    assert len(said) == 3 and "No space left on device" in said[0] and "resume from it" in said[0]
    assert first in (number - 2, number - 1)
    assert lines[-1] == ledger == events[-1] == number and lines == sorted(set(lines)) and events == sorted(set(events))
    failed = {"state": "failed", "cause": "no space"}  # in the room that was kept for it
    assert last == [{"host": "here"} | failed, {"event": "failed", "cause": "no space"}]


def damage(folder, run):
    """Give a folder a record that nobody can use; None is one that can't be read, by root neither."""
    if run is None:
        (folder / "run.json").mkdir()
    else:
        (folder / "run.json").write_text(run)


DAMAGED = [
    (None, r"run.json can't be read: Is a directory"),
    ('{"state": "fai', r"run.json is damaged: Unterminated string"),
    ("[]", r"run.json is damaged: it holds no mapping"),
]


@pytest.mark.parametrize(("run", "expected"), DAMAGED)
def test_a_record_that_can_not_be_read_is_told_in_a_line(tmp_path, run, expected):
    damage(tmp_path, run)
    (tmp_path / "config.yaml").write_text("name: a\n")
    with pytest.raises(PenstockError, match=expected):
        RunFolder(tmp_path).read("run.json")
    for command in (["compare", str(tmp_path), str(tmp_path)], ["logs", "--why", str(tmp_path)]):
        result = CliRunner().invoke(app, command)
        assert isinstance(result.exception, PenstockError) and "\n" not in str(result.exception)


@pytest.mark.parametrize(("run", "expected"), DAMAGED)
def test_a_record_that_can_not_be_read_hides_no_cause(tmp_path, run, expected):
    damage(tmp_path, run)
    folder = RunFolder(tmp_path)
    folder.fail("the first cause")
    event = json.loads(folder.events.read_text())
    assert (event["event"], event["cause"]) == ("failed", "the first cause")


def test_a_folder_that_can_not_be_looked_into_is_told_in_a_line(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.is_file", refuse)
    with pytest.raises(PenstockError, match="can't be read: Permission denied"):
        RunFolder.open(tmp_path)


def test_a_new_folder_that_another_one_holds_is_not_trained_in(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").touch()
    folder = RunFolder(tmp_path)
    monkeypatch.setattr(driver, "resolve", lambda config: SimpleNamespace(config=config))
    monkeypatch.setattr(driver, "require_startable", lambda plan: None)
    monkeypatch.setattr(driver, "set_environment", lambda address: None)
    monkeypatch.setattr(driver, "Metrics", lambda port: None)
    monkeypatch.setattr(driver.RunFolder, "create", lambda config: folder)
    with folder.hold(), pytest.raises(PenstockError, match="is running: stop it first"):
        driver.start(MADE, on_folder=lambda folder: None)
