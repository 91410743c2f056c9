"""What other programs are shown of a run, from its records alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from penstock.layout import Layout
from penstock.orchestrator.config.config import ELSEWHERE, Config
from penstock.orchestrator.history.standing import flat
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.views.sinks.by_name import SINKS
from penstock.orchestrator.views.sinks.guarded import Guarded
from penstock.orchestrator.views.sinks.scalars import scalars_of, scalars_of_errors
from penstock.orchestrator.views.sinks.sink import Picture, Point
from penstock.record import Record
from penstock.status import WorstCase

# Points lie as far apart as a part of the time that was trained, so their number grows by its logarithm: after a day
# there are about 5,500, and about 200 pictures of 50 to 150 kB.
POINTS, PICTURES = 1000, 25
PICTURE_EVERY_S = 100.0  # of training at least: a picture takes 0.15 s, and the learner may want that core
END_WITHIN_S = 10.0


class Sinks:
    """What other programs are shown of a run, from its records alone.

    A point is sent once a later step has been seen, so there is one per step, with the latest values known at it. A
    sink that fails is reported once; the run and the other sinks go on.

        with Sinks(...) as sinks:
            sinks.take(record, worst_cases)  # once per second

    Args:
        config: the configuration.
        folder: the run folder.
        layout: layout of batches.
        tell: prints a line for the user.
    """

    def __init__(self, config: Config, folder: RunFolder, layout: Layout, tell: Callable[[str], None]):
        self._folder = folder
        self._layout = layout
        self._tell = tell
        parameters = flat(config.model_dump(mode="json", exclude=ELSEWHERE))
        self._sinks = {name: Guarded(SINKS[name](folder.path, parameters)) for name in dict.fromkeys(config.monitor)}
        self._record: Record | None = None  # not sent yet
        self._worst: WorstCase | None = None  # likewise
        self._sent: Record | None = None
        self._drawn_at = -math.inf  # in seconds of training

    def __enter__(self) -> Sinks:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Send what was held back, and wait for the sinks, but not for long."""
        if self._record is not None:
            self._send(is_last=True)
        has_failed = kind is not None and not issubclass(kind, SystemExit)  # by which a run ends that was stopped
        for sink in self._sinks.values():
            sink.end(has_failed=has_failed)
        deadline = time.monotonic() + END_WITHIN_S
        late = {name for name, sink in self._sinks.items() if not sink.wait(max(0.0, deadline - time.monotonic()))}
        self._report_faults()
        for name in late & self._sinks.keys():
            self._report(name, f"it had not ended {END_WITHIN_S:.0f} s after the run, and may lack its last points")

    def take(self, record: Record, worst_cases: Sequence[WorstCase]) -> None:
        """Show a record.

        Args:
            record: the record.
            worst_cases: those of validations since the record before.

        Raises:
            PenstockError: it can't be recorded that a sink has failed.
        """
        self._report_faults()
        if not self._sinks:
            return
        if self._record is not None and record.step != self._record.step:
            self._send()
            if record.step < self._record.step:  # another learner goes on from a checkpoint
                self._sent, self._drawn_at = None, -math.inf
        self._record = record
        self._worst = worst_cases[-1] if worst_cases else self._worst

    def _send(self, *, is_last: bool = False) -> None:
        record, sent, seconds = self._record, self._sent, self._record.train_seconds
        has_errors = record.validation is not None and (sent is None or record.validation != sent.validation)
        pause = max(PICTURE_EVERY_S, seconds / PICTURES)
        draws = self._worst is not None and (is_last or seconds - self._drawn_at >= pause)
        is_due = is_last or sent is None or record.elapsed_seconds - sent.elapsed_seconds >= seconds / POINTS
        if not (is_due or has_errors or draws):
            return
        scalars = scalars_of(record) | (scalars_of_errors(record.validation) if has_errors else {})
        picture = None
        if draws:
            picture, self._worst, self._drawn_at = Picture(self._worst, self._layout), None, seconds
        self._sent = record
        for sink in self._sinks.values():
            sink.put(Point(step=record.step, time_s=record.time, scalars=scalars, picture=picture))

    def _report_faults(self) -> None:
        for name, sink in list(self._sinks.items()):
            if (reason := sink.fault()) is not None:
                self._report(name, reason)
                del self._sinks[name]

    def _report(self, name: str, reason: str) -> None:
        self._tell(f"{name} gets no more of this run, which goes on: {reason}")
        self._folder.event("sink failed", sink=name, reason=reason)
