"""What an earlier life of a run has left is ended by the next one, and nothing else is."""

import signal
import subprocess
import sys
from contextlib import nullcontext

import pytest

from penstock.orchestrator.cluster.leftovers import end_leftovers, marked

PARENT = "import subprocess; subprocess.Popen(['sleep', '600'])"


def sleeper(where) -> subprocess.Popen:
    with where:
        process = subprocess.Popen(
            [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
    process.stdout.readline()
    return process


@pytest.fixture
def processes(tmp_path):
    wheres = {"ours": marked(tmp_path / "a"), "another run's": marked(tmp_path / "b"), "anybody's": nullcontext()}
    found = {name: sleeper(where) for name, where in wheres.items()}
    yield found
    for process in found.values():
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_runs_own_processes_are_ended_alone(tmp_path, processes):
    assert len(end_leftovers(tmp_path / "a")) == 1
    assert processes["ours"].wait(60) == -signal.SIGKILL
    assert processes["another run's"].poll() is None and processes["anybody's"].poll() is None
    assert end_leftovers(tmp_path / "a") == []


def test_what_a_marked_process_starts_is_marked_too(tmp_path):
    with marked(tmp_path):
        subprocess.run([sys.executable, "-c", PARENT], check=True)
    assert end_leftovers(tmp_path) == ["sleep"]
