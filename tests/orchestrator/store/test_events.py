"""Events: all who write one use the vocabulary, and the page lists the same."""

import ast
import re
from pathlib import Path

import pytest

from penstock.orchestrator.store.events import EVENTS, KEYS
from penstock.orchestrator.store.run_folder import RunFolder

ROOT = Path(__file__).parents[3]
WRITERS = {"event", "_note"}  # the method of the folder, and what others take it as


def written() -> list[tuple[str, set[str], bool]]:
    """Name and keys of every event that the orchestrator records, and whether keys are in a mapping besides."""
    found = []
    for path in (ROOT / "orchestrator").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WRITERS:
                keys = {keyword.arg for keyword in node.keywords}
                found.append((node.args[0].value, keys - {None}, None in keys))
    return found


def test_every_event_is_written_by_someone_with_its_keys():
    calls = written()
    assert {name for name, _, _ in calls} == set(EVENTS)
    for name, keys, has_more in calls:
        assert keys == set(EVENTS[name].keys) or (has_more and keys < set(EVENTS[name].keys)), name


def test_every_key_has_a_meaning_and_is_used():
    assert {"time", "event"}.union(*(event.keys for event in EVENTS.values())) == set(KEYS)


def test_the_page_lists_the_vocabulary():
    rows = re.findall(r"^\| (.*?) \|$", (ROOT / "docs" / "events.md").read_text(), re.M)
    events = [
        f"`{name}` | {', '.join(f'`{key}`' for key in event.keys)} | {event.about}" for name, event in EVENTS.items()
    ]
    assert [row for row in rows if row.count(" | ") == 2][1:] == events
    assert [row for row in rows if row.count(" | ") == 1][1:] == [f"`{key}` | {text}" for key, text in KEYS.items()]


def test_what_is_not_in_the_vocabulary_is_refused(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(ValueError, match="there is no event 'worker lost'"):
        folder.event("worker lost", worker="solver-0")
    with pytest.raises(ValueError, match=r"'worker died' has the keys \('worker', 'pid', 'error'\), not"):
        folder.event("worker died", worker="solver-0")
    assert not folder.events.exists()
