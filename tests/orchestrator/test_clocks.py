"""What a run measures and waits for goes by clocks that nobody sets: the time of day is for stamps."""

import os
import re
import time

import psutil
import pytest

from penstock.machine import age_s, identity_of
from penstock.orchestrator.cluster.walltime import seconds_left
from penstock.orchestrator.run.stopping import StopRequests
from penstock.orchestrator.store.run_folder import RunFolder
from tests.orchestrator.test_packaging import PARTS, ROOT

STAMPS = {
    "orchestrator/cli/app.py": "when a command failed, in a run's log",
    "orchestrator/cli/export.py": "when a card was written",
    "orchestrator/cluster/walltime.py": "the end of a Slurm job, which Slurm gives by the calendar",
    "orchestrator/history/standing.py": "how long ago a run began, for people",
    "orchestrator/launch/launching.py": "when a run was launched",
    "orchestrator/run/driver.py": "when a run will end, for people",
    "orchestrator/store/journal.py": "when a record was taken",
    "orchestrator/store/run_folder.py": "the name of a folder, and when an event happened",
}


def test_the_time_of_day_is_read_for_stamps_alone():
    files = [path for part in PARTS for path in (ROOT / part).rglob("*.py")]
    reads = re.compile(r"time\.time(_ns)?\(|datetime\.(now|today|utcnow)\(")
    assert {str(path.relative_to(ROOT)) for path in files if reads.search(path.read_text())} == set(STAMPS)


@pytest.fixture(params=[3600.0, -3600.0], ids=["forwards", "backwards"])
def step_the_clock(request, monkeypatch):
    """A function that sets the clock by an hour, as the kernel shows it: it moves the time of the boot with it."""
    now, boot = time.time, psutil._pslinux.boot_time

    def step():
        monkeypatch.setattr(time, "time", lambda: now() + request.param)
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot() + request.param)
        assert abs(psutil.Process().create_time() - before) > 3000

    before = psutil.Process().create_time()
    return step


def test_a_walltime_is_not_over_sooner_nor_later(step_the_clock, monkeypatch, tmp_path):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert age_s() == pytest.approx(time.time() - psutil.Process().create_time(), abs=2.0)
    requests, left = StopRequests(RunFolder(tmp_path), 1000.0), seconds_left(10_000)
    step_the_clock()
    assert seconds_left(10_000) == pytest.approx(left, abs=60.0)
    assert requests.due_in_s == pytest.approx(880.0, abs=60.0) and requests.look() is None


def test_a_driver_is_found_by_others(step_the_clock, tmp_path):
    folder = RunFolder(tmp_path)
    folder.update_run(state="running", driver_pid=os.getpid(), driver_identity=identity_of(os.getpid()))
    step_the_clock()
    assert folder.driver_here().pid == os.getpid()
    folder.update_run(driver_pid=os.getppid())
    assert folder.driver_here() is None
