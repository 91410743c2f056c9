"""The main loop of a run: lease, watch, recover, stop. The only place where the parts meet."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from importlib.metadata import version
from operator import attrgetter
from typing import Any

import psutil
from rich.console import Console

from penstock import __version__
from penstock.errors import PenstockError
from penstock.orchestrator.blueprint import Blueprint
from penstock.orchestrator.cluster import ray_session
from penstock.orchestrator.config import Config
from penstock.orchestrator.learner_actor import LearnerActor, make_model, pick_device
from penstock.orchestrator.ledger import Ledger
from penstock.orchestrator.logs import log_to
from penstock.orchestrator.metrics import Metrics
from penstock.orchestrator.monitor import View, summary_lines
from penstock.orchestrator.run_folder import RunFolder
from penstock.orchestrator.solver_actor import SolverActor
from penstock.orchestrator.stream import CHUNKS_AHEAD
from penstock.solvers.worker import CHUNK_BYTES

logger = logging.getLogger(__name__)

TICK_S = 1.0
LEASES_AHEAD = 2
STOP_WITHIN_S = 20.0
DEATHS_IN_A_ROW = 5  # workers that die before anything is delivered: the solver crashes, replacing it goes nowhere
RATES_OVER_S = 5.0
PROGRAM_BYTES = 2_200_000_000  # of driver, Ray's services and learner, torch's working memory included; seen: 1.5 GB
WORKER_BYTES = 300_000_000  # of one solver process on a small problem; seen: 0.15 GB
LEDGER_EVERY_S = 5.0
FIXED = ("seed", "problem", "model", "buffer.kind", "buffer.capacity", "validation.simulations")  # on resume


def start(config: Config, *, on_folder: Callable[[RunFolder], None]) -> None:
    """Begin a run in a new folder and see it to its end. Raises PenstockError; SystemExit on a signal."""
    blueprint = _checked(config)
    metrics = Metrics(config.metrics.port)
    folder = RunFolder.create(config)
    on_folder(folder)
    _Driver(blueprint, folder, metrics).run()


def resume(folder: RunFolder, overrides: tuple[str, ...], *, on_folder: Callable[[RunFolder], None]) -> None:
    """Go on with the run in `folder`; `overrides` change its configuration from here on."""
    pid = folder.read("run.json").get("driver_pid")
    if folder.read("run.json").get("state") == "running" and pid and psutil.pid_exists(pid):
        raise PenstockError(f"{folder.path} is running (pid {pid}): stop it first, or watch it with `penstock monitor`")
    before, config = folder.config(), folder.config(overrides)
    for key in FIXED:
        if attrgetter(key)(config) != attrgetter(key)(before):
            raise PenstockError(f"{key} can't change on resume: the checkpoint depends on it; start a new run")
    blueprint = _checked(config)
    metrics = Metrics(config.metrics.port)
    if overrides:
        folder.write_config(config)
    on_folder(folder)
    _Driver(blueprint, folder, metrics).run()


def _checked(config: Config) -> Blueprint:
    """The blueprint, with all that can be known to be wrong before a process is started. Raises PenstockError."""
    blueprint = Blueprint.of(config)
    blueprint.strategy()
    make_model(blueprint, blueprint.problem().layout)
    if config.cluster.address is None:  # elsewhere the learner's machine may have what this one lacks
        pick_device(config.training.device)
    return blueprint


def _leave(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


@dataclass(frozen=True)
class Split:
    """How the cores are shared: solvers leave one, the learner takes what is left but never less than two."""

    cores: int
    workers: int
    learner_threads: int

    @classmethod
    def of(cls, workers: int | str) -> Split:
        cores = len(os.sched_getaffinity(0))
        workers = max(1, cores - 1) if workers == "auto" else workers
        # Solvers wait whenever the stream is ahead; with a single thread the learner would then leave a core idle.
        return cls(cores, workers, min(cores, max(2, cores - workers)))


@dataclass(eq=False)
class _Worker:
    name: str
    actor: Any
    pid: int
    leases: dict[int, Ledger] = field(default_factory=dict)
    """Open leases by number, with the ledger that each one is of."""
    ended: int = 0
    """Leases that ended since the last tick."""


class _Driver:
    """Owns every actor and the ledger; draws nothing and touches no sample."""

    def __init__(self, blueprint: Blueprint, folder: RunFolder, metrics: Metrics):
        self.blueprint = blueprint
        self.config = blueprint.config
        self.sample_bytes = blueprint.problem().layout.sample_bytes
        self.folder = folder
        self.console = Console(file=sys.stdout, highlight=False)  # kept: sys.stdout is redirected in `run`
        self.metrics = metrics
        self.split = Split.of(self.config.solver.workers)
        self.bytes_in_flight = self.split.workers * (CHUNKS_AHEAD + 1) * (CHUNK_BYTES + self.sample_bytes)
        self.workers: list[_Worker] = []
        self.num_started = 0
        self.num_leases = 0
        self.deaths_in_a_row = 0
        self.stop_signal: signal.Signals | None = None

    def run(self) -> None:
        log_to(self.folder.logs / "driver.log", redirect=False)
        self.folder.update_run(
            state="running",
            driver_pid=os.getpid(),
            metrics=f"http://127.0.0.1:{self.metrics.port}/metrics",
            penstock=__version__,
            versions={"python": platform.python_version()} | {n: version(n) for n in ("ray", "torch", "numpy")},
            cause=None,
        )
        for number in (signal.SIGINT, signal.SIGTERM):  # until there is a loop that can stop in order
            signal.signal(number, _leave)
        try:
            with (
                (self.folder.logs / "driver.log").open("a") as log,
                redirect_stdout(log),  # Ray prints when an actor dies, whatever it was told; the console is ours
                redirect_stderr(log),
                ray_session(
                    self.config.cluster.address,
                    num_cpus=self.split.workers + 1,
                    bytes_in_flight=self.bytes_in_flight,
                    logs=self.folder.logs,
                ) as self.session_folder,
            ):
                self._handle_signals()  # after ray.init, which sets its own
                cause = self._run()
        except SystemExit as error:
            self.folder.update_run(state="stopped", cause="stopped before the first lease")
            # ray.init puts a handler of its own for SIGTERM, which exits with the signal's bare number.
            raise SystemExit(143 if error.code == signal.SIGTERM else error.code) from None
        except BaseException as error:
            self.folder.update_run(state="failed", cause=str(error) or type(error).__name__)
            self.folder.event("failed", cause=str(error))
            raise
        self.folder.update_run(state="stopped" if self.stop_signal else "ended", cause=cause)
        self.folder.event("ended", cause=cause)
        if self.stop_signal:
            self.console.print(f"stopped by {self.stop_signal.name}; go on with: penstock resume {self._relative()}")
            raise SystemExit(128 + self.stop_signal)
        for line in summary_lines(self.folder.read("summary.json"), self.folder):
            self.console.print(line, soft_wrap=True)

    def _run(self) -> str:
        """The loop: from the first lease to the cause of the end."""
        import ray

        self.ray = ray
        facts = self._start_actors()
        self._announce(facts)
        validation = Ledger("validation", self.config.validation.simulations)
        training = Ledger("training", self.config.training.stop_after.simulations, facts["delivered"], facts["failed"])
        journal = _Journal(self.folder, self.config)
        pending = None
        stream_ended = False
        with View(self.console, self.folder.path.name).shown() as view:
            while True:
                tick = time.monotonic()
                # A learner that does not answer keeps its question: what a status drains is told only once.
                pending = pending or self.learner.status.remote()
                answered, _ = ray.wait([pending], timeout=TICK_S)
                if answered:
                    status, pending = self._get(pending), None
                    validation.settle(status["validation_delivered"], status["validation_failed"])
                    training.settle(status["delivered"], status["failed"])
                    self._close_leases(status["lease_ends"])
                    record = journal.record(status, training, len(self.workers))
                    self.metrics.update(record, status["solves"])
                    view.show(record)
                    if fault := validation.fault(1.0) or training.fault(self.config.solver.max_failed_fraction):
                        raise PenstockError(f"{fault}; the traceback is in {self.folder.logs}", exit_code=3)
                    if status["done"]:
                        break
                    if not self.stop_signal:
                        self._lease_ahead(training if validation.is_complete() else validation)
                    if training.is_complete() and not stream_ended:
                        self.learner.end_stream.remote()
                        stream_ended = True
                if self.stop_signal:
                    return self._stop(journal, training)
                time.sleep(max(0.0, TICK_S - (time.monotonic() - tick)))
        journal.finish(training, status)
        if status["cause"] == "stream ended" and status["step"] == 0:
            raise PenstockError(
                f"the stream ended with {status['unique']} samples, before the buffer's watermark of "
                f"{self.config.buffer.watermark}: nothing was trained; lower buffer.watermark or raise "
                "training.stop_after.simulations",
                exit_code=1,
            )
        return status["cause"]

    # -- actors ----------------------------------------------------------------------------------------------------

    def _start_actors(self) -> dict[str, Any]:
        actor = self.ray.remote(num_cpus=1, max_restarts=0)(LearnerActor)
        self.learner = actor.remote(self.blueprint, self.folder.path, self.split.learner_threads)
        starting = [self._begin_worker() for _ in range(self.split.workers)]
        facts = self._get(self.learner.prepare.remote())
        for name, actor in starting:
            self._add_worker(name, actor)
        self.folder.update_run(learner_pid=facts["pid"])
        self.learner.start.remote()
        return facts

    def _begin_worker(self) -> tuple[str, Any]:
        name = f"solver-{self.num_started}"
        self.num_started += 1
        actor = self.ray.remote(num_cpus=1, max_restarts=0)(SolverActor)
        return name, actor.remote(self.blueprint, self.folder.logs / f"{name}.log")

    def _add_worker(self, name: str, actor: Any) -> None:
        worker = _Worker(name, actor, self._get(actor.prepare.remote()))
        self.workers.append(worker)
        self.folder.update_run(solver_pids={worker.name: worker.pid for worker in self.workers})

    def _get(self, reference: Any) -> Any:
        """ray.get, with our own errors as they were raised and a dead process as one of ours."""
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self.ray.exceptions.RayError as error:
            logger.exception("an actor is gone")
            raise PenstockError(
                f"a process of the run died ({type(error).__name__}); see {self.folder.logs}, then go on with: "
                f"penstock resume {self._relative()}",
                exit_code=1,
            ) from error

    # -- leases ----------------------------------------------------------------------------------------------------

    def _lease_ahead(self, ledger: Ledger) -> None:
        """Give every worker the leases it will end until the next tick, and two more."""
        for worker in self.workers:
            while len(worker.leases) < LEASES_AHEAD + worker.ended:
                lease = ledger.lease(self.num_leases, self.config.solver.window)
                if lease is None:
                    return
                self.num_leases += 1
                worker.leases[lease.number] = ledger
                self.learner.lease.remote(lease, worker.actor)
            worker.ended = 0

    def _close_leases(self, ends: list[tuple[int, str | None]]) -> None:
        """Book the leases that ended; replace workers that died, whose simulations are given out again."""
        for number, error in ends:
            worker = next((w for w in self.workers if number in w.leases), None)
            if worker is None:
                continue  # of a worker that was buried with all its leases
            ledger = worker.leases.pop(number)
            ledger.end_lease(number)
            worker.ended += 1
            if error is None:
                self.deaths_in_a_row = 0
            else:
                self._replace(worker, error)

    def _replace(self, worker: _Worker, error: str) -> None:
        lost = sum(len(ledger.end_lease(number)) for number, ledger in worker.leases.items())
        self.workers.remove(worker)
        self.deaths_in_a_row += 1
        logger.warning("%s (pid %d) died: %s; %d simulations are done again", worker.name, worker.pid, error, lost)
        self.folder.event("worker died", worker=worker.name, pid=worker.pid, error=error)
        if self.deaths_in_a_row >= DEATHS_IN_A_ROW:
            raise PenstockError(
                f"{self.deaths_in_a_row} solver workers died one after another, the last one so: {error}; "
                f"see {self.folder.logs / worker.name}.log",
                exit_code=3,
            )
        self._add_worker(*self._begin_worker())
        self.folder.event("worker started", worker=self.workers[-1].name, pid=self.workers[-1].pid)

    # -- the end ---------------------------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        def stop(number: int, frame: Any) -> None:
            if self.stop_signal:  # the second one: end at once, the newest checkpoint is whole whatever happens
                for process in psutil.Process().children(recursive=True):
                    process.kill()
                if self.session_folder is not None:
                    shutil.rmtree(self.session_folder, ignore_errors=True)
                self.folder.update_run(state="stopped", cause="stopped twice, at once")
                os._exit(128 + number)
            self.stop_signal = signal.Signals(number)

        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)

    def _stop(self, journal: _Journal, training: Ledger) -> str:
        """Have the learner checkpoint at its next step and wait for it, 20 s at most."""
        self.console.print(f"{self.stop_signal.name}: writing a checkpoint (again to end at once)")
        self.learner.stop.remote()
        deadline = time.monotonic() + STOP_WITHIN_S - 5.0  # ending Ray takes up to 5 s
        while time.monotonic() < deadline:
            status = self._get(self.learner.status.remote())
            if status["done"]:
                training.settle(status["delivered"], status["failed"])
                journal.finish(training, status)
                return f"stopped by {self.stop_signal.name}"
            time.sleep(0.1)
        return f"stopped by {self.stop_signal.name}; the learner did not reach a checkpoint in time"

    # -- words -----------------------------------------------------------------------------------------------------

    def _announce(self, facts: dict[str, Any]) -> None:
        """The split of the cores and the memory bound, before anything is solved."""
        validation_bytes = self.config.validation.simulations * self.sample_bytes
        parts = {
            "buffer": facts["buffer_bytes"],
            "in flight": self.bytes_in_flight,
            "validation set": validation_bytes,
            "weights, gradients, optimizer": 4 * facts["weight_bytes"],
        }
        stream_bytes = sum(parts.values())
        program_bytes = PROGRAM_BYTES + self.split.workers * WORKER_BYTES
        self.folder.update_run(stream_bytes=stream_bytes, memory_bound_bytes=stream_bytes + program_bytes)
        plural = "s" if self.split.workers > 1 else ""
        self.console.print(f"run folder: {self.folder.path}", soft_wrap=True)
        self.console.print(
            f"{self.split.cores} cores: {self.split.workers} solver worker{plural}, "
            f"{self.split.learner_threads} learner threads on {facts['device']}"
        )
        self.console.print(
            f"memory: at most {(stream_bytes + program_bytes) / 1e9:.1f} GB, of which the stream holds "
            f"{stream_bytes / 1e6:.0f} MB ("
            + ", ".join(f"{name} {size / 1e6:.0f}" for name, size in parts.items())
            + ") and the programs the rest",
            soft_wrap=True,
        )
        checkpoint = facts["weight_bytes"] * 3 + (facts["buffer_bytes"] if self.config.checkpoint.buffer else 0)
        self.console.print(f"disk: the newest checkpoint takes about {checkpoint / 1e6:.0f} MB", soft_wrap=True)
        if facts["step"]:
            self.console.print(f"resumed at step {facts['step']}")

    def _relative(self) -> str:
        return os.path.relpath(self.folder.path)


class _Journal:
    """Turns statuses into records: metrics.jsonl, ledger.json and, at the end, summary.json."""

    def __init__(self, folder: RunFolder, config: Config):
        self._folder = folder
        self._config = config
        self._started = time.monotonic()
        self._rates: deque[tuple[float, int, int]] = deque()
        self._num_solves = 0
        self._iterations = 0
        self._seconds = 0.0
        self._ledger_at = -LEDGER_EVERY_S

    def record(self, status: dict[str, Any], ledger: Ledger, num_workers: int) -> dict[str, Any]:
        """One line of metrics.jsonl: everything that views and metrics show."""
        now = time.monotonic()
        self._rates.append((now, status["unique"], status["trained"]))
        while now - self._rates[0][0] > RATES_OVER_S:
            self._rates.popleft()
        self._num_solves += len(status["solves"])
        self._iterations += sum(solve.iterations for solve in status["solves"])
        self._seconds += sum(solve.seconds for solve in status["solves"])
        record = {key: status[key] for key in _RECORDED} | {
            "time": time.time(),
            "elapsed_seconds": now - self._started,
            "delivered": len(ledger.delivered),
            "failed": len(ledger.failed),
            "retried": status["retried"] + ledger.num_lost,
            "unique_per_s": self._rate(1),
            "trained_per_s": self._rate(2),
            "iterations_per_system": self._iterations / self._num_solves if self._num_solves else None,
            "seconds_per_system": self._seconds / self._num_solves if self._num_solves else None,
            "workers": num_workers,
        }
        self._folder.append_metrics(record)
        if now - self._ledger_at >= LEDGER_EVERY_S:
            self._ledger_at = now
            self._folder.write("ledger.json", ledger.to_json())
        self._last = record
        return record

    def _rate(self, column: int) -> float:
        (t0, *first), (t1, *last) = self._rates[0], self._rates[-1]
        return (last[column - 1] - first[column - 1]) / (t1 - t0) if t1 > t0 else 0.0

    def finish(self, ledger: Ledger, status: dict[str, Any]) -> None:
        """The last state of the ledger, and summary.json."""
        self._folder.write("ledger.json", ledger.to_json())
        record = self.record(status, ledger, 0)
        summary = {key: record[key] for key in _SUMMARISED} | {
            "cause": status["cause"],
            "reuse": record["trained"] / record["unique"] if record["unique"] else None,
            "unique_per_train_s": record["unique"] / record["train_seconds"] if record["train_seconds"] else None,
            "trained_per_train_s": record["trained"] / record["train_seconds"] if record["train_seconds"] else None,
        }
        if record["validation"]:
            summary["validation"] = {
                "simulations": sum(end - start for start, end in status["validation_delivered"]),
                "relative_l2": record["validation"],
            }
        self._folder.write("summary.json", summary)


_RECORDED = [
    *("state", "step", "progress", "unique", "trained", "buffer_samples", "buffer_capacity", "loss", "learning_rate"),
    *("validation", "learner_wait_seconds", "solver_blocked_seconds", "train_seconds"),
]
_SUMMARISED = [
    *("step", "elapsed_seconds", "train_seconds", "delivered", "failed", "retried", "unique", "trained", "loss"),
    *("learner_wait_seconds", "solver_blocked_seconds", "iterations_per_system", "seconds_per_system"),
]
