"""What is said of failed simulations, while a run goes on and at its end."""

import json
from pathlib import Path

from penstock.messages import Restart
from penstock.orchestrator.store.failures import Failures
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.status import NUM_REASONS, Ended

TOO_MANY = "'points' holds {} points, and the geometry's max_points is 200"


REST = "ledger.json has the reasons of all that fail"


def test_the_first_failure_is_told_in_full_and_then_ten_times_as_many(tmp_path: Path):
    failures, lines, failed = Failures(RunFolder(tmp_path).event, REST), {}, {}
    for number in range(1, 301):
        failed[2 * number] = TOO_MANY.format(200 + number)
        for line in failures.news(training=failed):
            lines[number] = line
    assert lines == {
        1: f"simulation 2 failed: {TOO_MANY.format(201)}; {REST}",
        10: "10 simulations failed, the last of them is 20: as the first one",
        100: "100 simulations failed, the last of them is 200: as the first one",
    }
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["failed"] for event in events] == [1, 10, 100]
    assert events[1] | {"time": 0} == {
        "time": 0,
        "event": "simulation failed",
        "design": "training",
        "simulation": 20,
        "reason": TOO_MANY.format(210),
        "failed": 10,
    }


def test_many_that_fail_at_once_are_told_by_the_first_of_them_and_the_last_tenfold(tmp_path: Path):
    failures = Failures(RunFolder(tmp_path).event, REST)
    failed = {number: "diverged" if number < 50 else "torn" for number in range(344)}
    assert list(failures.news(training=failed)) == [
        f"simulation 0 failed: diverged; {REST}",
        "100 simulations failed, the last of them is 99: torn",
    ]
    assert list(failures.news(training=failed | {400: "torn"})) == []
    alike = Failures(RunFolder(tmp_path).event, REST).news(training=dict.fromkeys(range(13), "diverged"))
    assert list(alike) == [f"simulation 0 failed: diverged; {REST}"]


def test_failures_of_the_validation_set_are_told_apart(tmp_path: Path):
    failures = Failures(RunFolder(tmp_path).event, REST)
    assert list(failures.news(validation={}, training={})) == []
    validation = {4: "diverged", 2: "torn"}  # in the order in which they failed
    assert list(failures.news(validation=validation, training={7: "inside out"})) == [
        f"validation: simulation 4 failed: diverged; {REST}",
        f"simulation 7 failed: inside out; {REST}",
    ]
    assert list(failures.news(validation=validation, training={7: "inside out"})) == []


def test_programs_that_are_started_again_are_told_and_recorded_in_the_same_way(tmp_path: Path):
    failures, lines = Failures(RunFolder(tmp_path).event, REST), {}
    for number in range(1, 31):
        design = "validation" if number == 1 else "training"
        restart = Restart(design=design, simulation=2 * number, reason="./heat was ended by SIGKILL after step 3")
        for line in failures.restarted([restart]):
            lines[number] = line
    again = "./heat was ended by SIGKILL after step 3; the program is started again, and the simulation retried"
    assert lines == {1: f"validation: simulation 2: {again}", 10: f"simulation 20: {again} (10 times so far)"}
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [(event["event"], event["simulation"], event["restarts"]) for event in events] == [
        ("program restarted", 2, 1),
        ("program restarted", 20, 10),
    ]


def test_reasons_that_differ_in_numbers_alone_are_one():
    failed = {7: TOO_MANY.format(300), 3: "residual 1.2e-05 of solver-0", 5: "residual -0.5 of solver-11"}
    failed |= {i: TOO_MANY.format(200 + i) for i in range(20, 30)}
    assert Ended([], failed).failed_reasons() == [
        {"count": 11, "simulation": 7, "reason": TOO_MANY.format(300)},
        {"count": 2, "simulation": 3, "reason": "residual 1.2e-05 of solver-0"},
    ]
    assert Ended().failed_reasons() == []
    assert len(Ended([], {i: "x" * i for i in range(100)}).failed_reasons()) == NUM_REASONS
