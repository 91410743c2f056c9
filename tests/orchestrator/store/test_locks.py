"""Locks of files: who looks is waited for, who holds is not."""

import fcntl

import pytest

from penstock.orchestrator.store import locks
from penstock.orchestrator.store.locks import hold, is_held


@pytest.fixture
def looked_at(tmp_path):
    """A file, and that of one who looks at it."""
    path = tmp_path / "config.yaml"
    path.touch()
    with path.open() as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        yield path, look


def test_a_look_makes_no_hold_fail(looked_at, monkeypatch):
    path, look = looked_at
    monkeypatch.setattr(locks.time, "sleep", lambda _: look.close())
    with hold(path):
        assert is_held(path)
    assert not is_held(path)


def test_a_look_without_an_end_is_given_up(looked_at, monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(locks.time, "monotonic", lambda: 0.3 * next(now))
    monkeypatch.setattr(locks.time, "sleep", lambda _: None)
    assert hold(looked_at[0]) is None and next(now) == 5


def test_who_holds_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(locks.time, "sleep", None)
    with hold(tmp_path / "lock"):
        assert hold(tmp_path / "lock") is None
