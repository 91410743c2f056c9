"""Histograms for Prometheus that count many values at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class BulkHistogram(Collector):
    """A histogram by one label, with the series of `prometheus_client.Histogram`.

    That one takes a lock and searches the bounds in Python for each value, which was most of what a driver did for a
    solve. Here an array is counted at once, and text is made when it is asked for, in another thread: the counts of a
    label are replaced as a whole, so that it never sees half of an update.

    Args:
        name: name of the metric.
        text: what it is, for people.
        label: name of the label.
        bounds: upper bounds of the buckets, which belong to them, in rising order. A last bucket has the values beyond.
    """

    def __init__(self, name: str, text: str, label: str, bounds: Sequence[float]):
        self._name = name
        self._text = text
        self._label = label
        self._bounds = np.array(bounds, float)
        self._found: dict[str, tuple[np.ndarray, float]] = {}  # by label: values in each bucket, and their sum

    def observe(self, label: str, values: Sequence[float]) -> None:
        """Count values.

        Args:
            label: value of the label.
            values: the values.
        """
        counts, total = self._found.get(label, (0, 0.0))
        values = np.asarray(values, float)
        buckets = np.searchsorted(self._bounds, values, side="left")
        new = np.bincount(buckets, minlength=len(self._bounds) + 1)
        self._found[label] = (counts + new, total + float(values.sum()))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The series of all labels, for the registry."""
        family = HistogramMetricFamily(self._name, self._text, labels=[self._label])
        names = [floatToGoString(bound) for bound in (*self._bounds, np.inf)]
        for label, (counts, total) in list(self._found.items()):
            family.add_metric([label], list(zip(names, np.cumsum(counts).tolist(), strict=True)), total)
        yield family
