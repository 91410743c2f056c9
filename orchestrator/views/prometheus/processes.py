"""Series of single workers, of learner ranks and of the disk, as of one moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from penstock.status import RankStatus, WorkerStatus


class Processes(Collector):
    """What the processes of a run do and use, by the places that they fill.

    A place keeps its number whichever worker fills it, so there are no more series than there are workers at a time.
    Everything is replaced as a whole: a scrape, in another thread, sees one moment, and no place that is gone.
    """

    def __init__(self):
        self._shown: tuple[Sequence[WorkerStatus], Sequence[RankStatus], tuple[int, int] | None] = (), (), None

    def show(self, workers: Sequence[WorkerStatus], ranks: Sequence[RankStatus], disk: tuple[int, int] | None) -> None:
        """Show these in place of what was shown before.

        Args:
            workers: each place of the workers.
            ranks: each learner rank, by number.
            disk: bytes of the file system of the run folder, and those of them that are free to this user; None if they
                are not known.
        """
        self._shown = workers, ranks, disk

    def collect(self) -> Iterator[Metric]:
        """The series, for the registry."""
        statuses, of_ranks, disk = self._shown
        workers = [(str(worker.place), worker) for worker in statuses]
        for kind, name, text, field in (
            (GaugeMetricFamily, "ready", "1 while a worker is ready, 0 while one starts", "is_ready"),
            (
                GaugeMetricFamily,
                "silent_seconds",
                "Silence of a worker; 0 while not longer than usual",
                "silent_seconds",
            ),
            (CounterMetricFamily, "simulations", "Simulations that have ended, by worker", "simulations"),
            (CounterMetricFamily, "restarts", "Workers that were replaced", "restarts"),
            (GaugeMetricFamily, "resident_bytes", "Resident memory of a worker", "resident_bytes"),
        ):
            values = ((label, getattr(worker, field)) for label, worker in workers)
            yield _family(kind, f"penstock_worker_{name}", text, "worker", values)
        ranks = [(str(number), rank) for number, rank in enumerate(of_ranks)]
        for name, text, field in (
            ("resident_bytes", "Resident memory of a learner rank", "resident_bytes"),
            ("device_bytes", "Memory of a learner rank's GPU that torch holds", "device_bytes"),
        ):
            values = ((label, getattr(rank, field)) for label, rank in ranks)
            yield _family(GaugeMetricFamily, f"penstock_learner_{name}", text, "rank", values)
        size, free = disk or (None, None)
        yield GaugeMetricFamily("penstock_disk_size_bytes", "Size of the run folder's file system", size)
        yield GaugeMetricFamily("penstock_disk_free_bytes", "Free bytes of it for the run's user", free)


def _family(kind: Any, name: str, text: str, label: str, values: Any) -> Metric:
    """A family by one label, without the values that are not known."""
    family = kind(name, text, labels=[label])
    for value_of_label, value in values:
        if value is not None:
            family.add_metric([value_of_label], value)
    return family
