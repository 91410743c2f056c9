"""The watch over a decision, which sees when it no longer holds."""

from __future__ import annotations

from collections import deque
from statistics import median

# The median iterations of the last 20 systems are compared with those of the first 20 after the decision.
WATCHED = 20
# Iterations have drifted beyond 1.5 times those at the decision.
DRIFT = 1.5
# They must also have grown by more than 3.
DRIFT_ITERATIONS = 3
# The alarm is raised at 3 failures, or changes of a matrix taken to be constant, among the systems watched.
TOLERATED = 3


class Watch:
    """A watch that says when to decide again: iterations drift, or there is trouble."""

    def __init__(self):
        self._recent: deque[int | None] = deque(maxlen=WATCHED)
        self._usual: float | None = None

    def note(self, iterations: int) -> None:
        self._recent.append(iterations)

    def note_trouble(self) -> None:
        """Note a failure, or a change of a matrix that was taken to be constant."""
        self._recent.append(None)

    @property
    def is_alarmed(self) -> bool:
        if self._recent.count(None) >= TOLERATED:
            return True
        if len(self._recent) < WATCHED:
            return False
        iterations = median(entry for entry in self._recent if entry is not None)
        if self._usual is None:
            self._usual = iterations
        return iterations > max(DRIFT * self._usual, self._usual + DRIFT_ITERATIONS)
