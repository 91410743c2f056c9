"""Whether a decision still holds."""

from __future__ import annotations

from collections import deque
from statistics import median

WATCHED = 20  # systems whose median is compared with that of the first ones after the decision
DRIFT = 1.5  # times the iterations at the decision, and at least
DRIFT_ITERATIONS = 3  # more of them
TOLERATED = 3  # failures, or changes of a matrix taken to be constant, among the systems watched


class Watch:
    """Tells when a decision is to be made anew: iterations that drift, or trouble."""

    def __init__(self):
        self._recent: deque[int | None] = deque(maxlen=WATCHED)
        self._usual: float | None = None

    def note(self, iterations: int) -> None:
        self._recent.append(iterations)

    def note_trouble(self) -> None:
        """A failure, or a matrix that was taken to be constant and changed."""
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
