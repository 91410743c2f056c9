"""Values counted in bulk, against prometheus_client's histograms, which count them one by one."""

import numpy as np
from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, generate_latest

from penstock.orchestrator.views.prometheus.histograms import BulkHistogram

BOUNDS = (0, 0.002, 0.5, 1, 5000)


def test_the_text_is_that_of_values_counted_one_by_one():
    disable_created_metrics()
    registries = CollectorRegistry(), CollectorRegistry()
    reference = Histogram("name", "what it is", ["strategy"], buckets=BOUNDS, registry=registries[0])
    histogram = BulkHistogram("name", "what it is", "strategy", BOUNDS)
    registries[1].register(histogram)
    generator = np.random.default_rng(0)
    for label in ('cg + "multigrid"', "direct", 'cg + "multigrid"'):
        # The bounds themselves are among the values. Eighths are summed without rounding, in whatever order.
        values = [0.0, 0.5, 1.0, 5000.0, *(generator.integers(0, 80_000, 1000) / 8)]
        histogram.observe(label, values)
        for value in values:
            reference.labels(label).observe(value)
    expected, text = map(generate_latest, registries)
    assert text == expected and b'le="+Inf"' in text


def test_before_the_first_value_there_is_no_series():
    (family,) = BulkHistogram("name", "what it is", "strategy", BOUNDS).collect()
    assert (family.name, family.type, family.samples) == ("name", "histogram", [])
