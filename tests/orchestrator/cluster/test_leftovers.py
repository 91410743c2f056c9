"""What writes files of a session folder is ended with the session, and nothing else is."""

import shutil
import signal
import subprocess
import sys

import pytest

from penstock.orchestrator.cluster.leftovers import end_leftovers

SLEEPER = "import sys, time; file = open(*sys.argv[1:]); print(flush=True); time.sleep(600)"


@pytest.fixture
def processes(tmp_path):
    found = []
    for name, mode in (("penstock-1-a", "w"), ("penstock-1-ab", "w"), ("penstock-1-a", "r")):
        (tmp_path / name).mkdir(exist_ok=True)
        command = [sys.executable, "-c", SLEEPER, str(tmp_path / name / "agent.log"), mode]
        found.append(subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True))
        found[-1].stdout.readline()
    yield found
    for process in found:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("is_removed", [False, True])
def test_the_processes_of_a_session_are_ended_alone(tmp_path, processes, is_removed):
    ours, others, reader = processes
    if is_removed:
        shutil.rmtree(tmp_path / "penstock-1-a")
    with (tmp_path / "penstock-1-ab" / "own.log").open("w"):
        assert len(end_leftovers(tmp_path / "penstock-1-a")) == 1
        assert ours.wait(60) == -signal.SIGKILL and others.poll() is None and reader.poll() is None
        assert len(end_leftovers(tmp_path / "penstock-1-ab")) == 1  # and not this process
    assert end_leftovers(tmp_path / "penstock-1-a") == []
