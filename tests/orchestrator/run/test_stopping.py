"""What asks a run to end, in this process."""

import os
import signal

import pytest

from penstock.orchestrator.run import stopping
from penstock.orchestrator.run.stopping import StopRequests
from penstock.orchestrator.store.run_folder import RunFolder


@pytest.fixture
def clock(monkeypatch):
    """A list with the monotonic time, by which requests are made."""
    now = [1000.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture(autouse=True)
def handlers():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(("seconds", "margin"), [(86_400.0, 120.0), (600.0, 120.0), (300.0, 60.0), (30.0, 6.0)])
def test_time_asks_a_margin_before_it_is_over(tmp_path, clock, seconds, margin):
    requests = StopRequests(RunFolder(tmp_path), seconds)
    assert requests.due_in_s == seconds - margin
    clock[0] += seconds - margin - 0.1
    assert requests.look() is None
    clock[0] += 0.1
    request = requests.look()
    assert request is requests.first and request.exit_code == 75 and request.within_s == margin
    assert request.cause == f"cluster.walltime: the end, {margin:.0f} s before the time is over"


def test_the_first_request_counts_and_a_signal_after_time_ends_nothing_at_once(tmp_path, clock):
    requests = StopRequests(RunFolder(tmp_path), 600.0)
    requests.handle_signals(None)
    clock[0] += 600.0
    first = requests.look()
    os.kill(os.getpid(), signal.SIGTERM)  # as a batch system that warns its jobs
    assert requests.look() is first

    requests = StopRequests(RunFolder(tmp_path), 600.0)
    requests.handle_signals(None)
    os.kill(os.getpid(), signal.SIGTERM)
    clock[0] += 600.0
    request = requests.look()
    assert request.exit_code == 143 and request.cause == "stopped by SIGTERM" and request.within_s == 20.0


def test_without_a_limit_time_never_asks(tmp_path, clock):
    requests = StopRequests(RunFolder(tmp_path))
    clock[0] += 1e9
    assert requests.look() is None and requests.due_in_s is None
