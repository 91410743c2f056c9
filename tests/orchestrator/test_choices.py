from pathlib import Path

from penstock.orchestrator.choices import Choices
from penstock.orchestrator.run_folder import RunFolder
from penstock.sample import Decision


def decision(family: str = "darcy", number: int = 0, strategy: str = "direct") -> Decision:
    seconds = {"direct": 0.002, "cg": None}
    return Decision(family=family, number=number, strategy=strategy, seconds=seconds, reason=f"{strategy}: fastest")


def test_a_later_decision_replaces_an_earlier_one_and_no_other(tmp_path: Path):
    choices = Choices(RunFolder(tmp_path))
    assert choices.decisions == ()
    assert choices.take([decision(), decision("pressure")]) == [decision(), decision("pressure")]
    assert choices.take([decision(strategy="cg")]) == []  # of a worker that had not heard of the first one
    assert choices.take([decision(number=1, strategy="cg")]) == [decision(number=1, strategy="cg")]
    assert {d.family: d.strategy for d in choices.decisions} == {"darcy": "cg", "pressure": "direct"}


def test_a_resumed_run_knows_what_was_decided(tmp_path: Path):
    first = Choices(RunFolder(tmp_path))
    first.take([decision(), decision(number=2, strategy="cg")])
    again = Choices(RunFolder(tmp_path))
    assert again.decisions == first.decisions == (decision(number=2, strategy="cg"),)
    events = (tmp_path / "events.jsonl").read_text().splitlines()
    assert len(events) == 2 and '"strategy": "cg"' in events[1]
