"""The records of a run: metrics.jsonl, ledger.json and, at the end, summary.json."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable

from penstock.orchestrator.ledger.ledger import Ledger
from penstock.orchestrator.resources.advice import Aims, Standing
from penstock.orchestrator.resources.bottleneck import BottleneckWatch
from penstock.orchestrator.resources.energy import EnergyMeter
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.store.thinning import RECORD_BYTES, bound_lines, thinned_records
from penstock.record import Ahead, Record, Summary
from penstock.status import LearnerStatus, Silence

RATES_OVER_S = 5.0
LEDGER_EVERY_S = 5.0


class Journal:
    """Turns the learner's statuses into records.

    Args:
        folder: the run folder.
        strategy: name of the strategy that the configuration gives.
        aims: what the configuration says of reuse.
    """

    def __init__(self, folder: RunFolder, strategy: str, aims: Aims = Aims()):  # noqa: B008 (frozen)
        self._folder = folder
        self._started = time.monotonic()
        self._counts: deque[tuple[float, int, int]] = deque()  # time, unique, trained
        self._num_solves = 0
        self._solved_by: Counter[str] = Counter({strategy: 0})
        self._iterations = 0
        self._seconds = 0.0
        self._ledger_at = -LEDGER_EVERY_S
        self._num_failed = 0
        self._watch = BottleneckWatch(aims)
        self._worker_seconds = 0.0
        self._energy = EnergyMeter()

    def record(
        self,
        status: LearnerStatus,
        ledger: Ledger,
        num_workers: int,
        silent: Iterable[Silence],
        ahead: Ahead | None = None,
    ) -> Record:
        """Append one line to metrics.jsonl, and rewrite ledger.json if that is due.

        The first is kept within its bound. The second is due every few seconds, and when simulations have failed.

        Args:
            status: the learner's status.
            ledger: ledger of the training simulations.
            num_workers: workers that are ready.
            silent: workers that are silent for too long.
            ahead: what lies ahead; None where it is not known.

        Returns:
            The line: everything that views and metrics show.

        Raises:
            PenstockError: a file can't be written.
        """
        now = time.monotonic()
        training, account, solves = status.training, status.account, status.news.solves
        if self._counts and (account.unique < self._counts[-1][1] or training.trained < self._counts[-1][2]):
            self._counts.clear()  # another learner goes on from a checkpoint
        before = self._counts[-1][0] if self._counts else now
        self._counts.append((now, account.unique, training.trained))
        while now - self._counts[0][0] > RATES_OVER_S:
            self._counts.popleft()
        since, unique, trained = self._counts[0]
        seconds = max(now - since, 1e-9)
        self._solved_by.update(solve.strategy for solve in solves if solve.converged)
        self._num_solves += len(solves)
        self._iterations += sum(solve.iterations for solve in solves)
        self._seconds += sum(solve.seconds for solve in solves)
        self._worker_seconds += num_workers * (now - before)
        if not ledger.num_left:
            self._watch.pause()  # what is left to be trained on waits for nobody
        standing = Standing.of(status, seconds=now, worker_seconds=self._worker_seconds)
        record = Record(
            state=training.state,
            step=training.step,
            progress=training.progress,
            unique=account.unique,
            trained=training.trained,
            dropped=account.dropped,
            buffer_samples=status.buffer.samples,
            buffer_capacity=status.buffer.capacity,
            loss=training.loss,
            bias=status.buffer.bias,
            learning_rate=training.learning_rate,
            warning=training.warning,
            validation=training.validation,
            learner_wait_seconds=training.wait_seconds,
            solver_blocked_seconds=account.solver_blocked_seconds,
            train_seconds=training.seconds,
            time=time.time(),
            elapsed_seconds=now - self._started,
            delivered=len(ledger.delivered),
            failed=len(ledger.failed),
            retried=account.retried + ledger.num_lost,
            unique_per_s=(account.unique - unique) / seconds,
            trained_per_s=(training.trained - trained) / seconds,
            iterations_per_system=self._iterations / self._num_solves if self._num_solves else None,
            seconds_per_system=self._seconds / self._num_solves if self._num_solves else None,
            workers=num_workers,
            silent=tuple(silent),
            bottleneck=self._watch.look(standing),
            ahead=ahead,
            solved_by=dict(self._solved_by),
            worker_seconds=self._worker_seconds,
            solver_seconds=account.solver_seconds,
            solver_unleased_seconds=account.solver_unleased_seconds,
            aside_seconds=training.times.aside,
            compiling_seconds=training.times.compiling,
            energy_joules=self._energy.joules(),
        )
        self._folder.append("metrics.jsonl", record.to_json())
        bound_lines(self._folder.metrics, RECORD_BYTES, thinned_records)
        num_failed = len(account.training.failed) + len(account.validation.failed)
        # A line on the console names ledger.json for the reasons, and too many failures end the run at once.
        if num_failed != self._num_failed or now - self._ledger_at >= LEDGER_EVERY_S:
            self._ledger_at, self._num_failed = now, num_failed
            self._write_ledger(ledger, status)
        return record

    def finish(self, record: Record, status: LearnerStatus, ledger: Ledger, cause: str) -> None:
        """Write the ledger's last state and summary.json.

        Args:
            record: the last record.
            status: the last status.
            ledger: ledger of the training simulations.
            cause: what ended the run.

        Raises:
            PenstockError: a file can't be written.
        """
        self._write_ledger(ledger, status)
        summary = Summary.of(record, status, cause, self._solved_by, self._watch.overall())
        self._folder.write("summary.json", summary.to_json())

    def _write_ledger(self, ledger: Ledger, status: LearnerStatus) -> None:
        validation_failed = {str(i): reason for i, reason in sorted(status.account.validation.failed.items())}
        self._folder.write("ledger.json", ledger.to_json() | {"validation_failed": validation_failed})
