"""What a scrape takes when there are many workers."""

from __future__ import annotations

import statistics
import time
import urllib.request
from dataclasses import dataclass

from penstock.messages import Decision, SolveRecord
from penstock.orchestrator.views.prometheus.metrics import Metrics
from penstock.record import Bottleneck, Record
from penstock.status import RankStatus, WorkerStatus

WORKERS, RANKS, PARAMETERS, STRATEGIES = 256, 8, 16, 4
SCRAPES = 50


@dataclass(frozen=True, kw_only=True)
class Scrape:
    """What scrapes took, client and endpoint in one process."""

    median_ms: float
    longest_ms: float
    processor_ms: float
    """Processor time of one, on average."""
    num_series: int


def scrape() -> Scrape:
    """Scrape the metrics of a made run with WORKERS workers SCRAPES times."""
    metrics = Metrics()
    record = Record(
        bias={
            "parameters": {f"p{n}": {"ks": 0.1, "mean": 0.5, "spread": 0.3} for n in range(PARAMETERS)},
            "age_p95": 9,
        },
        validation={"relative_l2": {"mean": 0.1, "p99": 0.2, "max": 0.3}, "fields": {"u": {"vrmse": 0.1}}},
        bottleneck=Bottleneck(side="learner", certainty=0.9, sentence="", learner_per_s=1.0, solvers_per_s=2.0),
        loss=0.1,
    )
    names = [f"strategy-{number}" for number in range(STRATEGIES)]
    metrics.choose([Decision(family="A", strategy=names[0], seconds=dict.fromkeys(names, 0.1), reason="")])
    metrics.update(
        record, [SolveRecord(strategy=each, seconds=0.01, iterations=3, relative_residual=0.0) for each in names]
    )
    workers = [
        WorkerStatus(place=place, is_ready=True, simulations=1000 + place, resident_bytes=10**8 + place)
        for place in range(WORKERS)
    ]
    ranks = [RankStatus(resident_bytes=10**9, device_bytes=10**9)] * RANKS
    metrics.processes.show(workers, ranks, (10**12, 10**11))
    seconds = []
    before = time.process_time()
    for _ in range(SCRAPES):
        began = time.perf_counter()
        with urllib.request.urlopen(metrics.url) as answer:
            text = answer.read()
        seconds.append(time.perf_counter() - began)
    return Scrape(
        median_ms=1e3 * statistics.median(seconds),
        longest_ms=1e3 * max(seconds),
        processor_ms=1e3 * (time.process_time() - before) / SCRAPES,
        num_series=sum(not line.startswith(b"#") for line in text.splitlines()),
    )
