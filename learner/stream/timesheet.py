"""Where the time of a thread goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timesheet:
    """Adds up the time that one thread spends on each of its activities.

    That thread alone says what it does; any thread may read. What goes on at the moment is counted up to the moment, so
    that a long wait is seen before it ends.

    Args:
        *activities: their names.
    """

    def __init__(self, *activities: str):
        # Replaced as a whole, so that a reader never sees half of a change.
        self._sheet: tuple[dict[str, float], str | None, float] = dict.fromkeys(activities, 0.0), None, 0.0

    def begin(self, activity: str | None) -> None:
        """End the activity at hand and begin another.

        Args:
            activity: its name; None for what counts nowhere.
        """
        now = time.monotonic()
        self._sheet = self._until(now), activity, now

    @contextmanager
    def during(self, activity: str) -> Iterator[None]:
        """Within the block the thread does this, and after it what it did before.

        Args:
            activity: its name.
        """
        before = self._sheet[1]
        self.begin(activity)
        try:
            yield
        finally:
            self.begin(before)

    def seconds(self) -> dict[str, float]:
        """The time of each activity so far, in seconds."""
        return self._until(time.monotonic())

    def _until(self, now: float) -> dict[str, float]:
        totals, activity, since = self._sheet
        return totals if activity is None else {**totals, activity: totals[activity] + now - since}
