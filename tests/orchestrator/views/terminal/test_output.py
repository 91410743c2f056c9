"""Output that fails or is not taken holds nobody up."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from rich.live import Live

from penstock.orchestrator.views.terminal.output import HELD_TEXTS, Output
from penstock.orchestrator.views.terminal.screen import Screen


@pytest.fixture
def pipe():
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as Python has it, unless a test before has loaded PETSc
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w", encoding="ascii") as writer:
        yield reader, writer


def test_what_is_printed_arrives_in_order_and_escaped_where_the_encoding_lacks_it(pipe):
    reader, writer = pipe
    output = Output(writer)
    for text in ("a\n", "λ\n", "\udcff\n"):
        assert output.write(text) == len(text)
    assert output.drain()
    assert (
        os.read(reader.fileno(), 100)
        == rb"""a
\u03bb
\udcff
"""
    )


def test_a_pipe_without_a_reader_is_written_to_in_vain(pipe):
    reader, writer = pipe
    output = Output(writer)
    assert output.has_reader
    reader.close()
    for _ in range(3):
        output.write("x")
        assert output.drain() and not output.has_reader


def test_a_full_disk_is_written_to_in_vain():
    with open("/dev/full", "w") as full:  # ENOSPC
        output = Output(full)
        output.write("x")
        assert output.drain()


def test_a_closed_terminal_is_written_to_in_vain():
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as terminal:
        output = Output(terminal)
        os.close(master)  # writes raise EIO from now on
        assert not output.isatty()
        output.write("x")
        assert output.drain()


def test_standard_streams_may_be_closed_from_the_start(tmp_path):
    command = [sys.executable, "-m", "penstock", "monitor", "nowhere"]
    closed = subprocess.run(command, cwd=tmp_path, preexec_fn=lambda: os.closerange(0, 3))
    assert closed.returncode == 2
    for name in ("config.yaml", "run.json", "metrics.jsonl"):
        (tmp_path / name).write_text('{"state": "ended", "cause": "steps"}' if name == "run.json" else "")
    closed = subprocess.run([*command[:-1], "."], cwd=tmp_path, preexec_fn=lambda: os.closerange(0, 3))
    assert closed.returncode == 0


def test_one_who_takes_nothing_is_not_waited_for_and_misses_what_is_too_much(pipe):
    reader, writer = pipe
    output = Output(writer)
    for _ in range(2 * HELD_TEXTS):
        output.write(1000 * "x")
    assert not output.drain(within_s=0.01)
    taken = threading.Thread(target=lambda: [None for _ in iter(lambda: reader.read(1_000_000), b"")], daemon=True)
    taken.start()
    assert output.drain(within_s=60.0)


def test_the_live_view_outlives_its_terminal(monkeypatch):
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        screen = Screen()
        assert screen.is_terminal
        with Live(console=screen) as live:
            os.close(master)
            live.update("frame", refresh=True)
            screen.print("a line")
        screen.drain()
