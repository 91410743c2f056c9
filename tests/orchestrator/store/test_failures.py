"""What is said of failed simulations, while a run goes on and at its end."""

import json
from pathlib import Path

from penstock.orchestrator.ledger.designs import InOrder
from penstock.orchestrator.ledger.ledger import Ledger
from penstock.orchestrator.store.failures import Failures
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.status import NUM_REASONS, Ended

TOO_MANY = "'points' holds {} points, and the geometry's max_points is 200"


def test_the_first_failure_is_told_and_then_ten_times_as_many(tmp_path: Path):
    failures, ledger = Failures(RunFolder(tmp_path)), Ledger(InOrder("training"))
    lines = {}
    for number in range(300):
        ledger.settle(Ended([], {i: TOO_MANY.format(201 + i) for i in range(number)}))
        for line in failures.news(ledger):
            lines[number] = line
    assert list(lines) == [1, 10, 100]
    told = (
        "'points' holds {} points, and the geometry's max_points is 200; ledger.json has the reasons of all that fail"
    )
    assert lines[1] == f"simulation 0 failed: {told.format(201)}"
    assert lines[100] == f"100 simulations failed, the last one is 99: {told.format(300)}"
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["failed"] for event in events] == [1, 10, 100]
    assert events[1] | {"time": 0} == {
        "time": 0,
        "event": "simulation failed",
        "design": "training",
        "simulation": 9,
        "reason": TOO_MANY.format(210),
        "failed": 10,
    }


def test_failures_of_the_validation_set_are_told_apart(tmp_path: Path):
    failures = Failures(RunFolder(tmp_path))
    validation, training = Ledger(InOrder("validation")), Ledger(InOrder("training"))
    assert list(failures.news(validation, training)) == []
    validation.settle(Ended([], {4: "diverged", 2: "torn"}))  # in the order in which they failed
    training.settle(Ended([], {7: "inside out"}))
    of_validation, of_training = failures.news(validation, training)
    assert of_validation.startswith("validation: 2 simulations failed, the last one is 2: torn; ")
    assert of_training.startswith("simulation 7 failed: inside out; ")
    assert list(failures.news(validation, training)) == []


def test_reasons_that_differ_in_numbers_alone_are_one():
    failed = {7: TOO_MANY.format(300), 3: "residual 1.2e-05 of solver-0", 5: "residual -0.5 of solver-11"}
    failed |= {i: TOO_MANY.format(200 + i) for i in range(20, 30)}
    assert Ended([], failed).failed_reasons() == [
        {"count": 11, "simulation": 7, "reason": TOO_MANY.format(300)},
        {"count": 2, "simulation": 3, "reason": "residual 1.2e-05 of solver-0"},
    ]
    assert Ended().failed_reasons() == []
    assert len(Ended([], {i: "x" * i for i in range(100)}).failed_reasons()) == NUM_REASONS
