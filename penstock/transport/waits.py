"""How long workers have waited, with the waits that go on."""

from __future__ import annotations

from collections.abc import Hashable

from penstock.messages import BLOCKED, UNLEASED


class Waits:
    """Adds up the waits of workers, by what they wait for.

    A wait that goes on is counted up to the moment, so that a long one is seen before it ends. Not for several threads
    at once.
    """

    def __init__(self):
        self._ended = {BLOCKED: 0.0, UNLEASED: 0.0}
        self._open: dict[Hashable, tuple[str, float]] = {}
        self._highest = dict(self._ended)

    def begin(self, worker: Hashable, what: str, now: float) -> None:
        """A worker begins to wait.

        Args:
            worker: what it is known by.
            what: BLOCKED or UNLEASED.
            now: the time, in seconds.
        """
        self._open[worker] = what, now

    def end(self, worker: Hashable, now: float, seconds: float | None = None) -> None:
        """A worker waits no longer, if it did.

        Args:
            worker: what it is known by.
            now: the time, in seconds.
            seconds: how long it waited, where it has said so itself.
        """
        if worker in self._open:
            what, since = self._open.pop(worker)
            self._ended[what] += now - since if seconds is None else seconds

    def seconds(self, now: float) -> dict[str, float]:
        """The waits up to now, summed over workers, by what they were for.

        It never falls, although a worker may have known better how long it waited.
        """
        seconds = dict(self._ended)
        for what, since in self._open.values():
            seconds[what] += now - since
        self._highest = {what: max(highest, seconds[what]) for what, highest in self._highest.items()}
        return self._highest
