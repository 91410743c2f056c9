"""Where a thread's time goes, by a clock of the tests' own."""

import pytest

from penstock.learner.stream import timesheet
from penstock.learner.stream.timesheet import Timesheet


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(timesheet, "time", Clock())
    return timesheet.time


def test_activities_follow_each_other_and_lie_in_each_other(clock):
    sheet = Timesheet("work", "wait")
    assert sheet.seconds() == {"work": 0.0, "wait": 0.0}
    clock.now += 1  # nothing was begun
    sheet.begin("work")
    clock.now += 2
    assert sheet.seconds() == {"work": 2.0, "wait": 0.0}  # what goes on counts
    with pytest.raises(KeyError), sheet.during("wait"):
        clock.now += 4
        raise KeyError
    clock.now += 8
    assert sheet.seconds() == {"work": 10.0, "wait": 4.0}
    sheet.begin(None)
    clock.now += 16
    with sheet.during("wait"):
        clock.now += 32
    clock.now += 64
    assert sheet.seconds() == {"work": 10.0, "wait": 36.0}
