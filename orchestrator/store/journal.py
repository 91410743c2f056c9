"""What a run writes down about itself: metrics.jsonl, ledger.json and, at the end, summary.json."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict
from typing import Any

from penstock.orchestrator.ledger.ledger import Ledger
from penstock.orchestrator.run.supervision import Silence
from penstock.orchestrator.store.run_folder import RunFolder

RATES_OVER_S = 5.0
LEDGER_EVERY_S = 5.0

RECORDED = [
    *("state", "step", "progress", "unique", "trained", "dropped", "buffer_samples", "buffer_capacity", "loss"),
    *(
        "bias",
        "learning_rate",
        "warning",
        "validation",
        "learner_wait_seconds",
        "solver_blocked_seconds",
        "train_seconds",
    ),
]
SUMMARISED = [
    *("step", "elapsed_seconds", "train_seconds", "delivered", "failed", "retried", "unique", "trained", "dropped"),
    *(
        "loss",
        "warning",
        "learner_wait_seconds",
        "solver_blocked_seconds",
        "iterations_per_system",
        "seconds_per_system",
    ),
]


class Journal:
    """Turns the learner's statuses into records."""

    def __init__(self, folder: RunFolder):
        self._folder = folder
        self._started = time.monotonic()
        self._counts: deque[tuple[float, int, int]] = deque()  # time, unique, trained
        self._num_solves = 0
        self._iterations = 0
        self._seconds = 0.0
        self._ledger_at = -LEDGER_EVERY_S

    def record(self, status: dict[str, Any], ledger: Ledger, num_workers: int, silent: list[Silence]) -> dict[str, Any]:
        """One line of metrics.jsonl: everything that views and metrics show."""
        now = time.monotonic()
        self._counts.append((now, status["unique"], status["trained"]))
        while now - self._counts[0][0] > RATES_OVER_S:
            self._counts.popleft()
        since, unique, trained = self._counts[0]
        seconds = max(now - since, 1e-9)
        self._num_solves += len(status["solves"])
        self._iterations += sum(solve.iterations for solve in status["solves"])
        self._seconds += sum(solve.seconds for solve in status["solves"])
        record = {key: status[key] for key in RECORDED} | {
            "time": time.time(),
            "elapsed_seconds": now - self._started,
            "delivered": len(ledger.delivered),
            "failed": len(ledger.failed),
            "retried": status["retried"] + ledger.num_lost,
            "unique_per_s": (status["unique"] - unique) / seconds,
            "trained_per_s": (status["trained"] - trained) / seconds,
            "iterations_per_system": self._iterations / self._num_solves if self._num_solves else None,
            "seconds_per_system": self._seconds / self._num_solves if self._num_solves else None,
            "workers": num_workers,
            "silent": [asdict(silence) for silence in silent],
        }
        self._folder.append("metrics.jsonl", record)
        if now - self._ledger_at >= LEDGER_EVERY_S:
            self._ledger_at = now
            self._folder.write("ledger.json", ledger.to_json())
        return record

    def finish(self, record: dict[str, Any], status: dict[str, Any], ledger: Ledger, cause: str) -> None:
        """The last state of the ledger, and summary.json from the last record and status."""
        self._folder.write("ledger.json", ledger.to_json())
        seconds = record["train_seconds"]
        summary = {key: record[key] for key in SUMMARISED} | {
            "cause": cause,
            "reuse": record["trained"] / record["unique"] if record["unique"] else None,
            "unique_per_train_s": record["unique"] / seconds if seconds else None,
            "trained_per_train_s": record["trained"] / seconds if seconds else None,
        }
        if record["validation"]:
            summary["validation"] = {
                "simulations": sum(end - start for start, end in status["validation_delivered"]),
                **record["validation"],
            }
        self._folder.write("summary.json", summary)
