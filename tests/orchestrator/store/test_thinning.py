"""The bounds on metrics.jsonl and events.jsonl, and what their readers see meanwhile."""

import json
import threading

import numpy as np
import pytest

from penstock.orchestrator.store import run_folder
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.store.thinning import bound_lines, thinned_events, thinned_records
from penstock.orchestrator.views.terminal.monitor import last_record

MOST_BYTES = 20_000


def line(time: float) -> bytes:
    return json.dumps({"time": time, "step": int(time), "state": "training"}).encode() + b"\n"


def times_of(lines) -> np.ndarray:
    return np.array([json.loads(each)["time"] for each in lines])


def run_of(times, most_bytes: int = MOST_BYTES) -> np.ndarray:
    """The times that are left of a run's records."""
    lines = []
    for time in times:
        lines.append(line(float(time)))
        if sum(map(len, lines)) > most_bytes:
            lines = thinned_records(lines)
            assert sum(map(len, lines)) <= 0.8 * most_bytes
    return times_of(lines)


def test_the_newer_half_stays_and_the_older_one_lies_evenly_in_time():
    times = run_of(1e9 + 1.001 * np.arange(30_000))
    assert times[0] == 1e9 and times[-1] == 1e9 + 1.001 * 29_999
    gaps = np.diff(times)
    assert np.all(gaps[-100:] < 1.01)
    old = gaps[times[1:] < times[-1] - 2000]
    assert old.max() < 4 * np.median(old) and len(old) > 50  # from the beginning to the end


def test_a_pause_of_a_week_costs_no_records_of_the_time_before():
    seconds = np.arange(3000.0)
    times = run_of(np.concatenate([seconds, seconds + 7 * 86400]))
    assert np.sum(times < 3000) > 40 and np.diff(times[times < 3000]).max() < 128


@pytest.mark.parametrize("step", [0.0, -1.0])
def test_a_clock_that_stands_or_goes_back_still_leaves_a_bounded_file(step):
    times = run_of(1e6 + step * np.arange(3000))
    assert times[0] == 1e6 and times[-1] == 1e6 + step * 2999


ODD = [b'{"time": 1.0, "st', b"{}", b"5", b"[]", b'{"time": null}', b'{"time": NaN}', b'{"time": Infinity}', b"\0\0"]


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_record_is_left_out(odd):
    lines = [line(0.0), odd + b"\n", *map(line, np.arange(2.0, 8.0))]
    assert times_of(thinned_records(lines))[0] == 0.0 and lines[1] not in thinned_records(lines)


def test_a_reader_sees_whole_records_while_they_are_thinned(tmp_path):
    folder, is_over, faults = RunFolder(tmp_path), threading.Event(), []

    def read() -> None:
        newest = 0
        while not is_over.is_set():
            record = last_record(folder)
            if record is not None and record.step < newest:
                faults.append((record.step, newest))
            newest = record.step if record else newest

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(3000):
        folder.append("metrics.jsonl", {"time": 1e9 + step, "step": step})
        bound_lines(folder.metrics, MOST_BYTES, thinned_records)
        assert folder.metrics.stat().st_size <= MOST_BYTES
    is_over.set()
    reader.join()
    assert not faults and last_record(folder).step == 2999
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def event(kind: str, number: int) -> bytes:
    return json.dumps({"time": "2026-11-30T12:00:00.000+00:00", "event": kind, "number": number}).encode() + b"\n"


def test_what_happens_often_is_thinned_and_what_happened_seldom_stays():
    """A worker that dies over and over hides neither the beginning, nor the learner's death, nor what is new."""
    lines = [event("started", 0), event("worker started", 1)]
    for number in range(2, 20_000):
        kind = "learner died" if number in (500, 900) else ("worker silent", "worker died")[number % 2]
        lines.append(event(kind, number))
        if sum(map(len, lines)) > MOST_BYTES:
            lines = thinned_events(lines)
            assert sum(map(len, lines)) <= 0.8 * MOST_BYTES
    events = [json.loads(each) for each in lines]
    numbers = [each["number"] for each in events]
    assert numbers == sorted(numbers) and numbers[-60:] == list(range(19_940, 20_000))
    assert {0, 1, 2, 3, 500, 900} <= set(numbers)
    for kind in ("worker silent", "worker died"):
        assert sum(each["event"] == kind for each in events[: len(events) // 2]) > 5


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_event_is_left_out(odd):
    lines = [odd + b"\n", *(event("note", number) for number in range(1, 9))]
    assert thinned_events(lines)[0] == lines[1] and lines[-1] in thinned_events(lines)


def test_events_whose_first_ones_alone_are_old_stay():
    lines = [event(kind, 0) for kind in ("started", "note", "warning", "ended")]
    assert thinned_events(lines) == lines


def test_a_folder_keeps_its_events_within_their_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "EVENT_BYTES", MOST_BYTES)
    folder = RunFolder(tmp_path)
    for number in range(1000):
        folder.event("note", note=f"note {number}")
        assert folder.events.stat().st_size <= MOST_BYTES
    notes = [json.loads(each)["note"] for each in folder.events.read_text().splitlines()]
    assert (notes[0], notes[-1]) == ("note 0", "note 999") and [path.name for path in tmp_path.iterdir()] == [
        "events.jsonl"
    ]
