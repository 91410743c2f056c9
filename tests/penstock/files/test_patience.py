"""A disk that is full, or out of order, for a while, by a clock of the tests' own."""

import errno
import json
import os
import subprocess
import sys

import pytest

from penstock.errors import DiskFault, PenstockError
from penstock.files import patience
from penstock.files.patience import WITHIN_S, Patience


class Disk:
    """Refuses until a time; a wait for it takes no time but the clock's."""

    def __init__(self, monkeypatch):
        self.now, self.number, self.until, self.tries = 1000.0, errno.ENOSPC, 1000.0, []
        monkeypatch.setattr(patience.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(patience.time, "sleep", self.sleep)

    def sleep(self, seconds):
        self.now += seconds

    def write(self):
        self.tries.append(self.now)
        if self.now < self.until:
            raise OSError(self.number, os.strerror(self.number))
        return "written"

    def write_or_explain(self):
        try:
            return self.write()
        except OSError as error:
            raise PenstockError(f"can't write: {error.strerror}") from error


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("how", ["write", "write_or_explain"])
def test_a_minute_is_borne_with_growing_pauses_and_two_lines(disk, number, how):
    said, disk.number, disk.until = [], number, disk.now + 60.0
    assert Patience(said.append).write(getattr(disk, how)) == "written"
    assert len(said) == 2 and os.strerror(number) in said[0] and said[0].endswith("it is tried again for 120 s")
    assert said[1].startswith("the disk takes what is written again, after 6")
    pauses = [later - earlier for earlier, later in zip(disk.tries, disk.tries[1:], strict=False)]
    assert pauses == sorted(pauses) and max(pauses) <= 4.0 and len(pauses) < 25


def test_what_lasts_longer_is_a_disk_fault_with_the_cause(disk):
    said, disk.until = [], float("inf")
    with pytest.raises(DiskFault, match="^can't write: No space left on device$") as raised:
        Patience(said.append).write(disk.write_or_explain)
    assert raised.value.exit_code == 1 and len(said) == 1
    assert WITHIN_S <= disk.now - 1000.0 <= WITHIN_S + 5.0


def test_nothing_is_tried_again_where_that_would_not_help_or_the_end_was_asked_for(disk):
    said, disk.until, disk.number = [], float("inf"), errno.EFBIG
    with pytest.raises(OSError, match="File too large"):
        Patience(said.append).write(disk.write)
    disk.number = errno.ENOSPC
    ended = Patience(said.append)
    ended.end()
    with pytest.raises(DiskFault):
        ended.write(disk.write)
    assert said == [] and disk.now == 1000.0


FULL = """
import json, subprocess, sys, threading, time
from pathlib import Path

from penstock.errors import DiskFault
from penstock.files.patience import Patience
from penstock.orchestrator.store.run_folder import RunFolder

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
folder, said = RunFolder(disk), []
number = 0

def write_all():
    global number
    number += 1
    folder.append("metrics.jsonl", {"number": number, "text": "x" * 3000})
    folder.write("ledger.json", {"number": number, "text": "x" * 9000})
    folder.event("something", number=number, text="x" * 500)

try:
    while True:  # until the disk is full, as where nobody has patience
        write_all()
except DiskFault as error:
    said.append(str(error))
(disk / "ledger.json").replace(disk / "first.json")  # whole, and before
first = json.loads((disk / "first.json").read_text())["number"]
filler, room = disk / "filler", disk / "room"
with filler.open("wb", buffering=0) as file:
    try:
        while True:
            file.write(b"x" * 100)
    except OSError:
        pass

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
events = [json.loads(line)["number"] for line in (disk / "events.jsonl").read_text().splitlines()]
print(json.dumps([said, first, number, lines, ledger, events]))
"""


def test_a_full_disk_leaves_no_part_of_a_line_and_what_waited_is_written(tmp_path):
    """A real one: a tmpfs of 1 MB, seen by the process alone."""
    command = ["unshare", "--map-root-user", "--mount", sys.executable, "-c", FULL, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    said, first, number, lines, ledger, events = json.loads(result.stdout)
    assert len(said) == 3 and "No space left on device" in said[0] and "resume from it" in said[0]
    assert first in (number - 2, number - 1)
    assert lines[-1] == ledger == events[-1] == number and lines == sorted(set(lines)) and events == sorted(set(events))
