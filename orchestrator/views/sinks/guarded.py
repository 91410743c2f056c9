"""A sink in a thread, so that no fault or hang of it can hold up a run or end it."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque

from penstock.errors import describe
from penstock.orchestrator.views.sinks.sink import Point, Sink

logger = logging.getLogger(__name__)

HELD_POINTS = 60  # one per second; a few kB each, up to 16 MB with a picture
HANG_S = 60.0  # an import on a slow disk takes 20 s


class Guarded:
    """A sink whose calls return at once and never raise.

    Points wait in a queue, from which the oldest are dropped when it is full. What the sink raises ends it, as does a
    call that hangs.

    Args:
        sink: the sink.
        held_points: points that may wait.
        hang_s: seconds after which a call counts as hanging.
    """

    def __init__(self, sink: Sink, *, held_points: int = HELD_POINTS, hang_s: float = HANG_S):
        self._sink = sink
        self._hang_s = hang_s
        self._points: deque[Point] = deque(maxlen=held_points)
        self._changed = threading.Condition()
        self._called_at: float | None = None
        self._last_step: float = math.inf  # so that the first point begins
        self._ends_with: bool | None = None
        self._is_over = False
        self._reason: str | None = None
        threading.Thread(target=self._work, name=f"{sink.package} sink", daemon=True).start()

    def put(self, point: Point) -> None:
        """Queue a point.

        Args:
            point: the point. If its step is below that of the one before, the run has gone back to a checkpoint.
        """
        with self._changed:
            self._points.append(point)
            self._changed.notify_all()

    def end(self, *, has_failed: bool) -> None:
        """Have the sink end after what is queued.

        Args:
            has_failed: whether the run did.
        """
        with self._changed:
            self._ends_with = has_failed
            self._changed.notify_all()

    def wait(self, within_s: float) -> bool:
        """Wait until the sink has ended.

        Args:
            within_s: for how long, in seconds.

        Returns:
            Whether it has.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._is_over, within_s)

    def fault(self) -> str | None:
        """Why the sink gets no more, in a line; None if nothing is wrong with it."""
        with self._changed:
            called_at = self._called_at
            if self._reason is None and called_at is not None and time.monotonic() - called_at >= self._hang_s:
                self._reason = f"it has not answered for {self._hang_s:.0f} s"
                self._points.clear()  # if it answers after all, it ends
                self._ends_with = True
            return self._reason

    def _work(self) -> None:
        try:
            while (point := self._next()) is not None:
                self._show(point)
            if self._last_step < math.inf:
                self._sink.end(has_failed=self._ends_with)
        except BaseException as error:  # some programs call sys.exit
            logger.error("the sink %s ends", self._sink.package, exc_info=error)
            self._reason = self._reason or describe(error)
        finally:
            with self._changed:
                self._is_over, self._called_at = True, None
                self._changed.notify_all()

    def _next(self) -> Point | None:
        """Wait for a point, or for the end."""
        with self._changed:
            self._called_at = None
            self._changed.wait_for(lambda: self._points or self._ends_with is not None)
            self._called_at = time.monotonic()
            return self._points.popleft() if self._points else None

    def _show(self, point: Point) -> None:
        if point.step < self._last_step:
            self._sink.begin(point.step)
        self._last_step = point.step
        self._sink.take(point)
