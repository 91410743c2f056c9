"""Decisions of strategy auto, shared and kept."""

from pathlib import Path

from penstock.messages import MAX_FAMILIES, Decision, SolveRecord
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.store.strategies import Choices, Families
from penstock.orchestrator.views.card import systems_solved


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


def test_a_family_for_every_draw_does_not_make_the_choices_grow(tmp_path: Path):
    choices = Choices(RunFolder(tmp_path))
    for number in range(3 * MAX_FAMILIES):
        choices.take([decision(f"draw {number}"), decision("met again and again", number)])
    assert len(choices.decisions) == len(Choices(RunFolder(tmp_path)).decisions) == MAX_FAMILIES
    assert choices.decisions[-1] == decision("met again and again", 3 * MAX_FAMILIES - 1)


def solve(family: str, reason: str = "", **others) -> SolveRecord:
    common = {"strategy": "direct", "seconds": 0.1, "iterations": 0, "relative_residual": 1e-12}
    return SolveRecord(**common | others, family=family, reason=reason)


def test_the_first_reason_of_each_family_is_told_once(tmp_path: Path):
    families = Families(RunFolder(tmp_path).event)
    assert list(families.news([solve("flow"), solve("heat", "cg: breakdown"), solve("heat", "cg: stagnation")])) == [
        "heat: cg: breakdown"
    ]
    assert list(families.news([solve("heat", "again"), solve("flow", "lu: breakdown")])) == ["flow: lu: breakdown"]
    events = (tmp_path / "events.jsonl").read_text().splitlines()
    assert len(events) == 2 and '"reason": "cg: breakdown"' in events[0]


def test_what_failed_its_simulation_is_told_with_that_and_not_here():
    assert list(Families(lambda event: None).news([solve("flow", "singular", converged=False)])) == []


def test_at_the_end_the_strategy_of_the_configuration_is_named_with_its_share():
    assert systems_solved({"cg": 12, "direct": 884}) == "cg solved 12 of 896 systems, direct the rest"
    assert systems_solved({"cg": 0, "direct": 3, "lu": 5}) == "cg solved 0 of 8 systems, lu 5, direct 3"
    assert systems_solved({"cg": 7, "direct": 0}) == "systems: 7 by cg"
    assert systems_solved({"auto": 6, "direct (petsc)": 53}) == "systems: 53 by direct (petsc), 6 while auto chose"


def test_a_family_for_every_draw_is_told_once_and_does_not_flood_the_console(tmp_path: Path):
    families = Families(RunFolder(tmp_path).event)
    lines = [line for number in range(1000) for line in families.news([solve(f"draw {number}", "lu: breakdown")])]
    assert lines[:6] == [f"draw {number}: lu: breakdown" for number in range(6)]
    assert lines[6].startswith("more than 6 families of systems: no more lines") and "not by the draw" in lines[6]
    assert [line.split(":")[0] for line in lines[7:]] == [f"more than {MAX_FAMILIES} families of systems"]
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == MAX_FAMILIES
    chosen = list(families.chosen([decision("draw 3", 1), decision("draw 7")]))
    assert chosen == [f"draw 3: {decision('draw 3', 1).reason}"]


def test_choices_for_a_family_per_draw_end_with_what_to_do():
    families = Families(lambda event, **values: None)
    lines = [line for number in range(30) for line in families.chosen([decision(f"draw {number}")])]
    assert len(lines) == 7 and lines[-1].endswith("name a family by the kind of its systems, and not by the draw")
