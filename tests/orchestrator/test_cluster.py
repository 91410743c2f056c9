"""What a run does around Ray, without Ray."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.orchestrator import cluster
from penstock.orchestrator.cluster import noted_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_whatever_its_handler_does(number):
    before = signal.signal(number, lambda *_: None)  # as one whose exception a callback of Python's forgot
    try:
        with noted_signals() as noted:
            assert noted() is None
            os.kill(os.getpid(), number)
            assert noted() == number and noted() is None
    finally:
        signal.signal(number, before)
    assert signal.set_wakeup_fd(-1) == -1


OWNER = """
import os, sys
from penstock.orchestrator import cluster
with cluster._session_folder() as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def owner():
    """A process that has a session folder, and the folder."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", OWNER], stdin=pipe, stdout=pipe, text=True)
    return process, Path(process.stdout.readline().strip())


def test_the_sweep_takes_the_session_folders_of_dead_drivers_alone(tmp_path, monkeypatch):
    """Whatever their names say: the live one has the process id of nobody, as one of another namespace may have."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(cluster.tempfile, "tempdir", None)
    (live, live_folder), (dead, dead_folder) = owner(), owner()
    foreign = live_folder.rename(tmp_path / "penstock-4194305-live")
    unmade = tmp_path / "penstock-4194305-unmade"  # between its making and its lock
    unmade.mkdir()
    (dead_folder / "session_x").mkdir()
    dead.kill()
    dead.communicate()
    cluster._sweep()
    assert {path.name for path in tmp_path.iterdir()} == {foreign.name, unmade.name}
    live.kill()
    live.communicate()
    cluster._sweep()
    assert list(tmp_path.iterdir()) == [unmade]


def test_a_session_folder_is_removed_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.tempfile, "tempdir", str(tmp_path))
    with cluster._session_folder() as folder:
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []
