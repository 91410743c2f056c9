"""The main loop of a run: lease, watch, recover, stop."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import psutil

from penstock import __version__
from penstock.errors import PenstockError, describe
from penstock.learner.allocator import KEEP_FREED_MEMORY
from penstock.learner.checkpoints import checkpoint
from penstock.orchestrator.actors.learner_actor import LearnerActor
from penstock.orchestrator.cluster.joined import LEARNER, cores_kept_for_learner
from penstock.orchestrator.cluster.ray_session import set_environment
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.ledger import conditions
from penstock.orchestrator.ledger.designs import InOrder
from penstock.orchestrator.ledger.ledger import Ledger
from penstock.orchestrator.plan import Plan, resolve
from penstock.orchestrator.resources.bounds import (
    bytes_in_flight,
    few_simulations,
    num_weights,
    validation_size,
)
from penstock.orchestrator.resources.cores import Split
from penstock.orchestrator.resources.memory import size
from penstock.orchestrator.run.checks import require_startable
from penstock.orchestrator.run.on_ray import StopSignals, on_ray
from penstock.orchestrator.run.supervision import Idle, MemoryKills
from penstock.orchestrator.run.workers import Taker, WorkerPool
from penstock.orchestrator.store.failures import Failures
from penstock.orchestrator.store.journal import Journal
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.store.strategies import Choices, Families
from penstock.orchestrator.views.monitor import Screen, View, program, summary_lines
from penstock.orchestrator.views.prometheus import Metrics
from penstock.status import LearnerStatus, Prepared, Record

logger = logging.getLogger(__name__)

TICK_S = 1.0
STOP_WITHIN_S = 20.0
WAITING = ("solving the validation set", "waiting for samples")  # states of a learner that waits for the solvers


def start(config: Config, *, on_folder: Callable[[RunFolder], None]) -> None:
    """Begin a run in a new folder and see it to its end.

    Args:
        config: the configuration.
        on_folder: called with the run folder once it exists.

    Raises:
        PenstockError: the run can't begin, or has failed.
        SystemExit: it was stopped by a signal.
    """
    set_environment(config.cluster.address)  # before a user's file imports Ray
    plan = resolve(config)
    require_startable(plan)
    metrics = Metrics(config.metrics.port)
    folder = RunFolder.create(plan.config)
    on_folder(folder)
    with folder.hold():  # never None, because the folder is new
        _Driver(plan, folder, metrics).run()


def resume(folder: RunFolder, overrides: tuple[str, ...], *, on_folder: Callable[[RunFolder], None]) -> None:
    """Go on with a run from its newest checkpoint and see it to its end.

    Args:
        folder: the run folder.
        overrides: `key=value`, changes of its configuration from here on.
        on_folder: called with the run folder once its configuration has been accepted.

    Raises:
        PenstockError: the run is running, can't go on, or has failed.
        SystemExit: it was stopped by a signal.
    """
    if (lock := folder.hold()) is None:
        raise PenstockError(f"{folder.path} is running: stop it first, or watch it with `{program()} monitor`")
    with lock:
        _resume(folder, overrides, on_folder)


def _resume(folder: RunFolder, overrides: tuple[str, ...], on_folder: Callable[[RunFolder], None]) -> None:
    recorded = folder.config()
    set_environment(recorded.cluster.address)  # before a user's file imports Ray
    before, plan = resolve(recorded), resolve(folder.config(overrides))
    config = plan.config
    plan.require_continues(before)
    set_environment(config.cluster.address)
    require_startable(plan)
    checkpoint.recover(folder.checkpoints)
    if checkpoint.latest(folder.checkpoints) is not None:
        checkpoint.load(folder.checkpoints, weights_only=True)  # damage is reported before anything is changed
    metrics = Metrics(config.metrics.port)
    if config != recorded:  # also if an earlier version recorded less
        folder.write_config(config)
    if config.solver != before.config.solver:  # the decisions were made for other options or another accuracy
        (folder.path / Choices.FILE).unlink(missing_ok=True)
    (folder.path / "summary.json").unlink(missing_ok=True)  # it described an end that is none now
    on_folder(folder)
    _Driver(plan, folder, metrics).run()


class _Driver:
    """Owns every actor and the ledger; draws nothing and touches no sample."""

    def __init__(self, plan: Plan, folder: RunFolder, metrics: Metrics):
        self.plan = plan
        self.config = plan.config
        self.folder = folder
        self.console = Screen()  # made here, because `on_ray` redirects sys.stdout
        self.signals = StopSignals(folder)
        self.memory_kills = MemoryKills()
        self.metrics = metrics
        self.split = Split.of(self.config.solver)
        self.bytes_in_flight = bytes_in_flight(plan, self.split.workers)

    def run(self) -> None:
        """See the run to its end, and record how it ended."""
        self.folder.update_run(
            state="running",
            driver_pid=os.getpid(),
            driver_created=psutil.Process().create_time(),
            metrics=f"http://127.0.0.1:{self.metrics.port}/metrics",
            penstock=__version__,
            versions={"python": platform.python_version()} | {n: version(n) for n in ("ray", "torch", "numpy")},
            cause=None,
        )
        try:
            with on_ray(
                self.config.cluster.address,
                self.folder,
                self.signals,
                num_cpus=self.split.workers * self.config.solver.ranks + 1,
                tell=self._tell,
            ) as self.session:
                cause = self._run_watched()
        except SystemExit:
            self.folder.update_run(state="stopped", cause="stopped before the first lease")
            raise
        except BaseException as error:
            cause = str(error) if isinstance(error, PenstockError) else describe(error)
            with suppress(PenstockError):  # on a full disk the first fault is the one to report
                self.folder.update_run(state="failed", cause=cause)
                self.folder.event("failed", cause=cause)
            raise
        self.folder.update_run(state="stopped" if self.signals.received else "ended", cause=cause)
        self.folder.event("ended", cause=cause)
        if self.signals.received:
            self.console.print(f"{cause}; go on with: {program()} resume {self._relative()}", soft_wrap=True)
            raise SystemExit(128 + self.signals.received)
        for line in summary_lines(self.folder):
            self.console.print(line, soft_wrap=True)

    def _run_watched(self) -> str:
        """`_run`, where the death of a process of Ray is reported as such.

        Whatever error it leads to is only its consequence.
        """
        try:
            return self._run()
        except Exception as error:
            fault = self.session.watch.fault
            if fault and self.signals.received:  # `timeout` and batch systems send the signal to Ray's processes too
                how = f"stopped by {self.signals.received.name}"
                return f"{how}, which ended Ray's processes before a checkpoint: the last one is valid"
            if fault:
                self._tell(f"{fault}: the run ends")  # now, because Ray's shutdown may take 5 s
                logs = f"Ray's logs are in {self.folder.logs / 'ray'}; " if self.session.folder is not None else ""
                cause = f"{fault}, and the run with it; {logs}go on with: {program()} resume {self._relative()}"
                with suppress(PenstockError):  # a full disk is reported when the run ends
                    self.folder.update_run(state="failed", cause=cause)
                raise PenstockError(cause, exit_code=1) from error
            raise

    def _run(self) -> str:
        """The loop: from the first lease to the cause of the end."""
        import ray

        self.ray = ray
        config = self.config
        environment = {"env_vars": KEEP_FREED_MEMORY}
        kept = cores_kept_for_learner(ray)
        place = {LEARNER: kept} if kept else None
        actor = ray.remote(num_cpus=1, resources=place, max_restarts=0, runtime_env=environment)(LearnerActor)
        self.learner_threads = kept or self.split.learner_threads
        self.learner = actor.remote(self.plan, self.folder.path, self.learner_threads, self.session.folder)
        learner = self.learner
        taker = Taker(learner.lease.remote, learner.bury.remote, learner.give_up.remote, bytes_in_flight(self.plan, 1))
        workers = WorkerPool(
            *(ray, self.plan.solving, self.folder, taker, self.split.workers),
            session_folder=self.session.folder,
            memory_kills=self.memory_kills,
            tell=self._tell,
        )
        prepared = self._wait_for(self.learner.prepare.remote())
        if self.plan.order.must_repeat:
            conditions.require_same(self.folder, "learner", prepared.conditions)
        self.folder.update_run(learner_pid=prepared.pid)
        taker.endpoint = prepared.endpoint
        self._announce(prepared)
        validation = Ledger(InOrder("validation"), config.validation.simulations, prepared.validation)
        limit, saved = config.training.stop_after.simulations, self.folder.read("ledger.json")
        training = Ledger(InOrder("training"), limit, prepared.training, saved)
        journal, choices = Journal(self.folder, self.plan.strategy().name), Choices(self.folder)
        families = Families(self.folder.event)
        failures = Failures(self.folder.event, "ledger.json has the reasons of all that fail")
        self.metrics.choose(choices.decisions)
        self.learner.start.remote()
        pending, warning = None, None
        idle = Idle(config.training.stop_after.minutes, validation.num_ended + training.num_ended)
        with View(self.console, self.folder.path.name).shown() as view:
            while not self.signals.received:
                tick = time.monotonic()
                self.session.watch.check()
                workers.look_after_starting()
                # An unanswered call is kept and not repeated, because a status drains the news that it reports.
                pending = pending or self.learner.status.remote()
                if ray.wait([pending], timeout=TICK_S)[0]:
                    status, pending = self._get(pending), None
                    account, news = status.account, status.news
                    validation.settle(account.validation)
                    training.settle(account.training, status.training.validation)
                    workers.close_leases(news.lease_ends)
                    workers.look_after_serving()
                    num_ended = validation.num_ended + training.num_ended
                    done = (account.unique, status.training.seconds)
                    is_over = idle.is_over(num_ended, done, time.monotonic()) and status.training.state in WAITING
                    workers.watch(status.silences, has_progress=idle.has_progress)
                    record = journal.record(status, training, workers.num_ready, workers.silent)
                    self.metrics.update(record, news.solves)
                    for decision in choices.take(news.decisions):
                        self.console.print(f"{decision.family}: {decision.reason}", soft_wrap=True)
                    failed = failures.news(validation=validation.failed, training=training.failed)
                    for line in (*families.news(news.solves), *failed):
                        self.console.print(line, soft_wrap=True)
                    self.metrics.choose(choices.decisions)
                    for note in news.notes:
                        self.console.print(f"note: {note}", soft_wrap=True)
                        self.folder.event("note", note=note)
                    if record.warning not in (None, warning):
                        warning = record.warning
                        self.console.print(f"warning: {warning}", soft_wrap=True)
                        self.folder.event("warning", warning=warning)
                    view.show(record)
                    if fault := validation.fault(1.0) or training.fault(config.solver.max_failed_fraction):
                        raise PenstockError(f"{fault}; the workers' logs are in {self.folder.logs}", exit_code=3)
                    if status.is_done:
                        return self._end(record, status, training, journal)
                    if is_over:
                        self._stop(None, training, journal, "training.stop_after.minutes")
                        raise PenstockError(self._idle_cause(record, workers), exit_code=1)
                    ledger = training if validation.is_complete() else validation
                    workers.lease_ahead(ledger, config.solver.window, choices.decisions)
                time.sleep(max(0.0, TICK_S - (time.monotonic() - tick)))
        self._tell(f"{self.signals.received.name}: writing a checkpoint (again to end at once)")
        return self._stop(pending, training, journal, f"stopped by {self.signals.received.name}")

    def _end(self, record: Record, status: LearnerStatus, training: Ledger, journal: Journal) -> str:
        journal.finish(record, status, training, status.cause)
        if record.step == 0:
            raise PenstockError(
                f"the stream ended with {record.unique} samples and nothing was trained: "
                "raise training.stop_after.simulations",
                exit_code=1,
            )
        return status.cause

    def _idle_cause(self, record: Record, workers: WorkerPool) -> str:
        silent = "".join(f"; {silence}" for silence in workers.silent)
        return (
            f"training.stop_after.minutes: for {self.config.training.stop_after.minutes:g} minutes nothing was solved, "
            f"and {record.unique} samples were too few to begin training (buffer.watermark: "
            f"{self.config.buffer.watermark}){silent}; go on with: {program()} resume {self._relative()}"
        )

    def _stop(self, pending: Any | None, training: Ledger, journal: Journal, cause: str) -> str:
        """Have the learner write a checkpoint, and wait for it for up to 15 s.

        Returns the cause of the end.
        """
        self.learner.stop.remote()
        deadline = time.monotonic() + STOP_WITHIN_S - 5.0  # ending Ray takes up to 5 s
        pending = pending or self.learner.status.remote()
        while (left := deadline - time.monotonic()) > 0 and self.ray.wait([pending], timeout=left)[0]:
            status = self._get(pending)
            if status.is_done:
                training.settle(status.account.training, status.training.validation)
                journal.finish(journal.record(status, training, 0, []), status, training, cause)
                return cause
            time.sleep(0.1)
            pending = self.learner.status.remote()
        return f"{cause}, but the learner wrote no checkpoint within {STOP_WITHIN_S - 5:.0f} s: the last one is valid"

    def _tell(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)

    def _wait_for(self, preparing: Any) -> Prepared:
        """What the learner's `prepare` returns; a joined cluster may be slow to place it."""
        began, is_reported = time.monotonic(), False
        while not self.ray.wait([preparing], timeout=TICK_S)[0]:
            if self.signals.received:
                raise SystemExit(128 + self.signals.received)
            self.session.watch.check()
            if not is_reported and time.monotonic() - began > 30.0:
                is_reported = True
                self.console.print("waiting for the learner: it rehearses the model, or Ray has no CPU free")
        return self._get(preparing)

    def _get(self, reference: Any) -> Any:
        """ray.get, with errors as the learner raised them, its death as PenstockError."""
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self.ray.exceptions.RayError as error:
            is_for_memory = self.memory_kills.is_recent(time.monotonic()) or "low on memory" in str(error)
            how = "memory ran out" if is_for_memory else type(error).__name__
            raise PenstockError(
                f"the learner's process died ({how}); see {self.folder.logs / 'learner.log'}, then "
                f"go on with: {program()} resume {self._relative()}",
                exit_code=1,
            ) from error

    def _announce(self, prepared: Prepared) -> None:
        """Print the split of the cores and the memory bound, before anything is solved."""
        num_rows, row_bytes = validation_size(self.plan)
        parts = {
            f"buffer in {prepared.buffer_place}": prepared.buffer_bytes,
            "in flight": self.bytes_in_flight,
            f"validation set of {num_rows} rows": num_rows * row_bytes,
            "weights, gradients, optimizer and their copies": num_weights(self.config) * prepared.weight_bytes,
        }
        data_bytes = sum(parts.values())
        self.folder.update_run(data_bytes=data_bytes)
        plural = "s" if self.split.workers > 1 else ""
        ranks = self.config.solver.ranks
        on_ranks = f" of {ranks} MPI ranks" if ranks > 1 else ""
        self.console.print(f"run folder: {self.folder.path}", soft_wrap=True)
        self.console.print(
            f"{self.split.cores} cores: {self.split.workers} solver worker{plural}{on_ranks}, "
            f"{self.learner_threads} learner threads on {prepared.device}"
        )
        self.console.print(
            f"memory: the run's data take at most {size(data_bytes)} ("
            + ", ".join(f"{name} {size(num_bytes)}" for name, num_bytes in parts.items())
            + "); the programs and a training step need more",
            soft_wrap=True,
        )
        checkpoint_bytes = (3 if self.config.training.ema_decay is None else 4) * prepared.weight_bytes
        checkpoint_bytes += prepared.buffer_bytes if self.config.checkpoint.buffer else 0
        if remark := few_simulations(self.plan):
            self.console.print(remark, soft_wrap=True)
        for note in self.plan.notes:
            self.console.print(note, soft_wrap=True)
        self.console.print(f"disk: the newest checkpoint takes about {size(checkpoint_bytes)}", soft_wrap=True)
        if prepared.training.delivered:
            self.console.print(f"resumed at step {prepared.step}")

    def _relative(self) -> str:
        return os.path.relpath(self.folder.path)
