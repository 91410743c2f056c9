"""What a run says and records of the learner's statuses."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import Any

from penstock.messages import Decision
from penstock.orchestrator.ledger.ledger import Ledger
from penstock.orchestrator.resources.forecast import Forecast
from penstock.orchestrator.store.failures import Failures
from penstock.orchestrator.store.journal import Journal
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.store.strategies import Choices, Families
from penstock.orchestrator.views.prometheus.metrics import Metrics
from penstock.orchestrator.views.sinks.sinks import Sinks
from penstock.orchestrator.views.terminal.screen import Screen
from penstock.record import Record
from penstock.status import LearnerStatus, Silence, WorkerStatus


class Reports:
    """Turns statuses into files, metrics, events, and lines on the console.

    It lasts as long as the run, whatever becomes of its learner: nothing is said twice. At the end of its `with` block
    the sinks are ended.

    Args:
        folder: the run folder.
        console: where lines are printed.
        metrics: the run's metrics.
        sinks: other programs that show the run.
        journal: makes and keeps the records.
        forecast: predicts the run's end.
    """

    def __init__(
        self,
        folder: RunFolder,
        console: Screen,
        metrics: Metrics,
        sinks: Sinks,
        *,
        journal: Journal,
        forecast: Forecast,
    ):
        self._folder = folder
        self._console = console
        self._metrics = metrics
        self._sinks = sinks
        self._forecast = forecast
        self._choices = Choices(folder)
        self._families = Families(folder.event)
        self._failures = Failures(folder.event, "ledger.json has the reasons of all that fail")
        self._warning: str | None = None
        self._notes: set[str] = set()  # a learner that takes another's place finds the same
        self.journal = journal
        self._metrics.choose(self.decisions)

    def __enter__(self) -> Reports:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._sinks.__exit__(*exception)

    @property
    def address(self) -> str:
        """Where the metrics are served."""
        return self._metrics.url

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What is known of strategies."""
        return self._choices.decisions

    def take(
        self,
        status: LearnerStatus,
        *,
        validation: Ledger,
        training: Ledger,
        workers: Sequence[WorkerStatus],
        silent: Sequence[Silence],
    ) -> Record:
        """Record a status, and say what is new.

        Args:
            status: the status.
            validation: ledger of the validation simulations, which knows the status.
            training: that of the training simulations.
            workers: each place of the workers.
            silent: workers that are silent for too long.

        Returns:
            What views show.

        Raises:
            PenstockError: a file can't be written.
        """
        news = status.news
        ahead = self._forecast.look(status, time.monotonic())
        num_workers = sum(worker.is_ready for worker in workers)
        record = self.journal.record(status, training, num_workers, silent, ahead)
        self._metrics.update(record, news.solves)
        self._metrics.processes.show(workers, status.ranks, self._disk())
        self._sinks.take(record, news.worst_cases)
        chosen = self._families.chosen(self._choices.take(news.decisions))
        failed = self._failures.news(validation=validation.failed, training=training.failed)
        restarted = self._failures.restarted(news.restarts)
        for line in (*chosen, *self._families.news(news.solves), *restarted, *failed):
            self.tell(line)
        self._metrics.choose(self.decisions)
        for note in dict.fromkeys(note for note in news.notes if note not in self._notes):
            self._notes.add(note)
            self.tell(f"note: {note}")
            self._folder.event("note", note=note)
        if record.warning not in (None, self._warning):
            self._warning = record.warning
            self.tell(f"warning: {record.warning}")
            self._folder.event("warning", warning=record.warning)
        return record

    def _disk(self) -> tuple[int, int] | None:
        try:
            total, _, free = shutil.disk_usage(self._folder.path)
        except OSError:  # which the next write reports
            return None
        return total, free

    def tell(self, line: str) -> None:
        """Print a line for the user."""
        self._console.tell(line)
