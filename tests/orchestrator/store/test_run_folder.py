"""What a driver writes into a run folder whose disk is full for a while."""

import json
import subprocess
import sys

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
