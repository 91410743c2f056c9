"""Logs of several processes as one, in the order of time."""

import os
import subprocess
import sys
import time

from typer.testing import CliRunner

from penstock.orchestrator.cli.app import app
from penstock.orchestrator.history.merged_logs import BLOCK_BYTES, LogFile, MergedLogs
from penstock.orchestrator.launch import launching
from penstock.orchestrator.run.logs import bound_log
from penstock.orchestrator.store import run_folder
from penstock.orchestrator.store.locks import hold


def texts(lines):
    return [(line.process, line.text) for line in lines]


def test_lines_of_all_processes_and_events_come_by_time(made):
    folder = made(
        "run",
        events=[(3, "worker died", {"worker": "solver-0", "pid": 9, "error": "killed"})],
        logs={
            "solver-0": "2026-11-30T21:15:01.000Z INFO a: one\n  more of one\n2026-11-30T21:15:04.500Z INFO a: five\n",
            "learner": "before any time\n2026-11-30T21:15:02.000Z ERROR b: two\nTraceback (most recent call last):\n",
            "driver": "",
        },
    )
    (folder.logs / "solver-0.log.1").write_text("2026-11-30T21:14:00.000Z INFO a: zero\n")
    (folder.logs / "ray-node").mkdir()
    lines = list(MergedLogs(folder).news(is_all=True))
    assert texts(lines) == [
        *[("solver-0", "INFO a: zero"), ("solver-0", "INFO a: one"), ("solver-0", "  more of one")],
        *[
            ("learner", "before any time"),
            ("learner", "ERROR b: two"),
            ("learner", "Traceback (most recent call last):"),
        ],
        *[("driver", "EVENT worker died: worker=solver-0, pid=9, error=killed"), ("solver-0", "INFO a: five")],
    ]
    assert [line.number for line in lines] == [1, 1, 2, 1, 2, 3, 1, 3]
    assert str(lines[1]) == "2026-11-30T21:15:01.000Z  solver-0 | INFO a: one" and str(lines[2])[:24].isspace()
    assert CliRunner().invoke(app, ["logs", str(folder.path)]).output == "".join(f"{line}\n" for line in lines)


def test_times_of_an_earlier_penstock_are_local(made, monkeypatch):
    monkeypatch.setenv("TZ", "Etc/GMT+5")  # five hours behind UTC
    time.tzset()
    try:
        folder = made("run", logs={"driver": "2026-11-30 16:15:01,250 INFO a: one\n"})
        assert str(next(MergedLogs(folder).news(is_all=True))).startswith("2026-11-30T21:15:01.250Z ")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_what_is_added_is_given_once_and_whole(made):
    folder = made("run", logs={"driver": "2026-11-30T21:15:01.000Z one\n2026-11-30T21:15:02.000Z tw"})
    log = folder.logs / "driver.log"
    logs = MergedLogs(folder)
    assert texts(logs.news(is_all=False)) == [("driver", "one")]
    with log.open("a") as file:
        file.write("o\n")
    (folder.logs / "solver-0.log").write_text("begun\n")  # of a process that has begun since
    assert sorted(texts(logs.news(is_all=False))) == [("driver", "two"), ("solver-0", "begun")]
    log.write_text("2026-11-30T21:15:09.000Z anew\n")  # its bound has emptied it
    assert texts(logs.news(is_all=True)) == [("driver", "anew")]
    log.unlink()
    assert list(logs.news(is_all=True)) == []


def test_a_log_that_its_bound_empties_is_followed_without_a_gap_or_a_repeat(made):
    """Also where lines, and a part of one, come between the last look and the move, or more than is kept of them."""
    folder = made("run", logs={"learner": ""})
    log, written = folder.logs / "learner.log", []

    def add(num, end="\n"):
        lines = [f"line {len(written) + number}" for number in range(num)]
        written.extend(("learner", line) for line in lines)
        with log.open("a") as file:
            file.write("".join(f"2026-11-30T21:15:{len(written) % 60:02d}.000Z {line}\n" for line in lines)[:-1] + end)

    add(1000)
    bound_log(log, 20_000)
    add(3)
    logs = MergedLogs(folder)
    given = texts(logs.news(is_all=False))
    assert given == written[-len(given) :] and 200 < len(given) < 1000
    first = len(written) - len(given)
    for _ in range(3):
        add(1000)
        add(2, end="")  # as of a line that is being written
        given += texts(logs.news(is_all=False))
        with log.open("a") as file:
            file.write("\n")
        add(40)
        bound_log(log, 20_000)
        add(3)
        given += texts(logs.news(is_all=False))
        assert given == written[first:]
    add(1)
    given += texts(logs.news(is_all=True))
    assert given == written[first:]
    add(2000)
    bound_log(log, 20_000)
    rest = texts(logs.news(is_all=True))
    assert rest == written[-len(rest) :] and 400 < len(rest) < 2000


def test_events_that_their_bound_thins_are_followed_without_a_gap_or_a_repeat(made, monkeypatch):
    monkeypatch.setattr(run_folder, "EVENT_BYTES", 20_000)
    folder = made("run", events=[])
    logs, given = MergedLogs(folder), []
    for number in range(1000):
        folder.event("note", note=f"note {number}")
        if number % 3 == 0:
            given += texts(logs.news(is_all=False))
    given += texts(logs.news(is_all=True))
    assert given == [("driver", f"EVENT note: note=note {number}") for number in range(1000)]
    assert len(folder.events.read_text().splitlines()) < 250


def test_a_log_without_any_time_has_that_of_its_last_change(tmp_path):
    path = tmp_path / "job.log"
    path.write_text("".join(f"line {number}\n" for number in range(1500)))
    os.utime(path, (1e9, 1e9))
    lines = list(LogFile(path).lines())
    assert [line.text for line in lines] == [f"line {number}" for number in range(1500)]
    assert {line.time for line in lines} == {1e9}


def test_lines_longer_than_a_block_and_control_characters(tmp_path):
    path = tmp_path / "solver-0.log"
    path.write_bytes(b"x" * (BLOCK_BYTES + 5) + b"\n\x1b[31mred\xff\n")
    long, red = LogFile(path).lines()
    assert len(long.text) == BLOCK_BYTES + 5
    assert str(red).endswith("\\x1b[31mred\ufffd") and "\x1b" not in str(red)


def test_a_run_is_followed_until_its_driver_is_gone(made):
    folder = made("run", state="running", logs={"driver": "2026-11-30T21:15:01.000Z one\n"})
    lock, said = hold(folder.path / "config.yaml"), []

    def write(text):
        said.append(text.partition("| ")[2])
        if len(said) == 1:  # what comes meanwhile, and with the end
            with (folder.logs / "driver.log").open("a") as log:
                log.write("two\nand the last without an end")
            lock.close()

    launching.follow(folder, write, to_the_end=True)
    assert said == ["one\n", "two\n", "and the last without an end\n"]


def test_a_reader_that_has_seen_enough_gets_no_error(made):
    text = "".join(f"2026-11-30T21:15:01.000Z line {number}\n" for number in range(20_000))  # more than a pipe holds
    folder = made("run", logs={"driver": text})
    command = f"{sys.executable} -m penstock logs {folder.path} | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert result.stdout.endswith("| line 0\n") and result.stderr == ""
