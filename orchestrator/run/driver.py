"""The main loop of a run: lease, watch, recover, stop."""

from __future__ import annotations

import logging
import math
import os
import platform
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version

from penstock import __version__
from penstock.errors import DiskFault, PenstockError, describe
from penstock.files.patience import Patience
from penstock.learner.checkpoints import checkpoint, staging
from penstock.machine import description, identity_of
from penstock.orchestrator.actors.learner_placing import place_learner
from penstock.orchestrator.actors.learner_process import LearnerDied, LearnerProcess
from penstock.orchestrator.actors.learner_ranks import LearnerRanks
from penstock.orchestrator.cluster.nodes import PLACE_WITHIN_S, renewed
from penstock.orchestrator.cluster.ray_session import set_environment
from penstock.orchestrator.cluster.walltime import seconds_left
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.launch.commands import resume_command
from penstock.orchestrator.ledger import conditions
from penstock.orchestrator.ledger.designs import InOrder
from penstock.orchestrator.ledger.ledger import Ledger
from penstock.orchestrator.plan import Plan, resolve
from penstock.orchestrator.resources.advice import Aims
from penstock.orchestrator.resources.bounds import (
    bytes_in_flight,
    few_simulations,
    num_weights,
    require_room,
    validation_size,
)
from penstock.orchestrator.resources.memory import size
from penstock.orchestrator.run.checks import require_startable
from penstock.orchestrator.run.logs import log_of_death
from penstock.orchestrator.run.on_ray import on_ray
from penstock.orchestrator.run.scaling import Scaling
from penstock.orchestrator.run.stopping import SIGNAL_WITHIN_S, StopRequests
from penstock.orchestrator.run.supervision import Idle, MemoryKills, Restarts
from penstock.orchestrator.run.workers import WorkerPool
from penstock.orchestrator.store.requests import asked_for_workers
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.store.strategies import Choices
from penstock.orchestrator.views.prometheus.metrics import Metrics
from penstock.orchestrator.views.reports import Reports
from penstock.orchestrator.views.terminal.monitor import Screen, View, summary_lines
from penstock.status import LearnerStatus, Prepared, Record

logger = logging.getLogger(__name__)

TICK_S = 1.0
END_RAY_WITHIN_S = 5.0
PLACE_SUCCESSOR_WITHIN_S = 60.0  # of a learner that died; a launcher may start the run again, in other places
WAITING = ("solving the validation set", "waiting for samples")  # states of a learner that waits for the solvers


def start(config: Config, *, on_folder: Callable[[RunFolder], None]) -> None:
    """Begin a run in a new folder and see it to its end.

    Args:
        config: the configuration.
        on_folder: called with the run folder once it exists.

    Raises:
        PenstockError: the run can't begin, or has failed.
        SystemExit: it was stopped, by a signal or because its time is over.
    """
    set_environment(config.cluster.address)  # before a user's file imports Ray
    plan = resolve(config)
    require_startable(plan)
    metrics = Metrics(config.metrics.port)
    folder = RunFolder.create(plan.config)
    on_folder(folder)
    with folder.hold():
        _Driver(plan, folder, metrics).run()


def resume(folder: RunFolder, overrides: tuple[str, ...], *, on_folder: Callable[[RunFolder], None]) -> None:
    """Go on with a run from its newest checkpoint and see it to its end.

    Args:
        folder: the run folder.
        overrides: `key=value`, changes of its configuration from here on.
        on_folder: called with the run folder once its configuration has been accepted.

    Raises:
        PenstockError: the run is running, can't go on, or has failed.
        SystemExit: it was stopped, by a signal or because its time is over.
    """
    with folder.hold():
        _resume(folder, overrides, on_folder)


def _resume(folder: RunFolder, overrides: tuple[str, ...], on_folder: Callable[[RunFolder], None]) -> None:
    recorded = folder.config()
    set_environment(recorded.cluster.address)  # before a user's file imports Ray
    before, plan = resolve(recorded), resolve(folder.config(overrides))
    config = plan.config
    plan.require_continues(before)
    set_environment(config.cluster.address)
    require_startable(plan)
    staging.revoke(folder.checkpoints)
    if checkpoint.latest(folder.checkpoints) is not None:
        checkpoint.load(folder.checkpoints, weights_only=True)  # damage is reported before anything is changed
    metrics = Metrics(config.metrics.port)
    if config != recorded:  # also if an earlier version recorded less
        folder.write_config(config)
    if config.solver != before.config.solver:  # the decisions were made for other options or another accuracy
        (folder.path / Choices.FILE).unlink(missing_ok=True)
    (folder.path / "summary.json").unlink(missing_ok=True)  # it described an end that is none now
    asked_for_workers(folder)  # by someone who saw other workers
    on_folder(folder)
    _Driver(plan, folder, metrics).run()


@dataclass(frozen=True)
class _Life:
    """A learner's life, with the ledgers as of its beginning."""

    learner: LearnerProcess
    validation: Ledger
    training: Ledger


class _Driver:
    """Owns every actor and the ledger; draws nothing and touches no sample."""

    def __init__(self, plan: Plan, folder: RunFolder, metrics: Metrics):
        self.plan = plan
        self.config = plan.config
        self.folder = folder
        self.console = Screen()  # made here, because `on_ray` redirects sys.stdout
        folder.patience = Patience(self._tell)
        self.requests = StopRequests(folder, seconds_left(plan.config.cluster.walltime))
        self.memory_kills = MemoryKills()
        self.restarts = Restarts()
        self.metrics = metrics

    def run(self) -> None:
        """See the run to its end, and record how it ended."""
        self.folder.update_run(
            state="running",
            host=socket.gethostname(),
            driver_pid=os.getpid(),
            driver_identity=identity_of(os.getpid()),
            metrics=f"http://127.0.0.1:{self.metrics.port}/metrics",
            penstock=__version__,
            versions={"python": platform.python_version()} | {n: version(n) for n in ("ray", "torch", "numpy")},
            cause=None,
        )
        self.folder.event("started", pid=os.getpid(), host=socket.gethostname(), penstock=__version__)
        self.folder.keep_room()
        try:
            with on_ray(self.config, self.folder, self.requests, tell=self._tell) as self.session:
                self.split = self.session.split
                require_room(self.plan, self.split.most)
                cause = self._run_watched()
        except SystemExit:
            self._stopped(f"{self.requests.first.cause if self.requests.first else 'stopped'} at the start")
            raise
        except BaseException as error:
            cause = str(error) if isinstance(error, PenstockError) else describe(error)
            self.folder.fail(cause)
            raise
        finally:
            self.folder.free_room()
        if self.requests.first:
            self._stopped(cause)
            raise SystemExit(self.requests.first.exit_code)
        self.folder.update_run(state="ended", cause=cause)
        self.folder.event("ended", cause=cause)
        for line in summary_lines(self.folder):
            self._tell(line)

    def _stopped(self, cause: str) -> None:
        self.folder.update_run(state="stopped", cause=cause)
        self.folder.event("ended", cause=cause)
        self._tell(f"{cause}; go on with: {resume_command(self.folder)}")

    def _run_watched(self) -> str:
        """`_run`, where the death of the learner or of Ray is reported as such.

        Whatever error Ray's death leads to is only its consequence.
        """
        try:
            return self._run()
        except Exception as error:
            fault = self.session.watch.fault
            request = self.requests.look()
            if fault and request:  # `timeout` and batch systems send the signal to Ray's processes too
                return f"{request.cause}, and Ray's processes ended before a checkpoint: the last one is valid"
            if fault:
                self._tell(f"{fault}: the run ends")  # now, because Ray's shutdown may take 5 s
                logs = f"Ray's logs are in {self.folder.logs / 'ray'}; " if self.session.folder is not None else ""
                cause = f"{fault}, and the run with it; {logs}go on with: {resume_command(self.folder)}"
                with suppress(PenstockError):  # a full disk is reported when the run ends
                    self.folder.event("ray died", fault=fault)
                    self.folder.update_run(state="failed", cause=cause)
                raise PenstockError(cause, exit_code=1) from error
            resume = f"go on with: {resume_command(self.folder)}"
            if isinstance(error, LearnerDied):
                log = self.folder.logs / log_of_death(str(error))
                raise PenstockError(f"{error}; see {log}, then {resume}", exit_code=1) from error
            if isinstance(error, DiskFault):
                raise PenstockError(f"{error}; {resume}", exit_code=1) from error
            raise
        finally:
            with suppress(OSError):
                staging.revoke(self.folder.checkpoints)  # whoever still writes

    def _run(self) -> str:
        """The lives of the learner, from the first lease to the cause of the end.

        It has one as a rule. The workers outlive them.
        """
        import ray

        self.ray = ray
        learner = self._placed_learner()
        if self.session.folder is None:  # solvers could take the CPUs of its node
            self._wait_for(learner, learner.placed)
        self.workers = WorkerPool(
            *(ray, self.plan.solving, self.folder, self.split.workers),
            most=self.split.most,
            session_folder=self.session.folder,
            memory_kills=self.memory_kills,
            tell=self._tell,
        )
        self.scaling = Scaling(self.plan, self.folder, self.workers, self.split, self._tell)
        aims = Aims.of(self.config)
        self.reports = Reports(self.folder, self.console, self.metrics, self.plan.strategy().name, aims)
        is_first = True
        while True:
            try:
                if (prepared := self._prepared(learner)) is None:
                    return f"{self.requests.first.cause} before the learner was ready"
                if is_first:
                    self._announce(prepared)
                else:
                    self.folder.event("learner restarted", pid=prepared.pid, step=prepared.step)
                is_first = False
                return self._live(learner, prepared)
            except LearnerDied as death:
                if request := self.requests.look():
                    return f"{request.cause}, but {death} before its checkpoint: the last one is valid"
                learner.kill()
                learner = self._successor(death)

    def _placed_learner(self) -> LearnerProcess | LearnerRanks:
        return place_learner(
            *(self.ray, self.plan, self.folder, self.split),
            session_folder=self.session.folder,
            memory_kills=self.memory_kills,
        )

    def _successor(self, death: LearnerDied) -> LearnerProcess:
        """Another learner in place of one that died, which takes the newest checkpoint.

        Raises LearnerDied where that would not help.
        """
        self.session.watch.check()  # of the death of Ray that of the learner is only a consequence
        self.folder.patience.write(lambda: staging.revoke(self.folder.checkpoints))  # it may live, out of reach
        newest = checkpoint.latest(self.folder.checkpoints)
        self.folder.event("learner died", error=str(death), checkpoint=newest)
        if reason := self.restarts.refused(newest):
            raise LearnerDied(f"{death} {reason}") from death
        place = "the beginning, without any checkpoint" if newest is None else f"the checkpoint of step {newest}"
        self._tell(f"{death}: another one goes on from {place}, and the solvers wait for it")
        if self.session.folder is not None:
            return self._placed_learner()
        try:
            split = renewed(self.ray, self.split, self.config)
        except PenstockError as error:
            raise LearnerDied(f"{death}, and {error}") from death
        self.workers.make_room(split.most if split is not self.split else self.workers.num_workers)
        self.split = split
        learner = self._placed_learner()
        self._wait_for(learner, learner.placed, within_s=PLACE_SUCCESSOR_WITHIN_S)
        return learner

    def _live(self, learner: LearnerProcess, prepared: Prepared) -> str:
        """The loop: from the state that the learner has to the cause of the run's end.

        Raises LearnerDied if it dies before.
        """
        config, workers = self.config, self.workers
        validation = Ledger(InOrder("validation"), config.validation.simulations, prepared.validation)
        limit, saved = config.training.stop_after.simulations, self.folder.read("ledger.json")
        training = Ledger(InOrder("training"), limit, prepared.training, saved)
        life = _Life(learner, validation, training)
        workers.connect(learner.taker(bytes_in_flight(self.plan, 1), prepared.endpoint))
        learner.start()
        idle = Idle(config.training.stop_after.minutes, validation.num_ended + training.num_ended)
        with View(self.console, self.folder.path.name).shown() as view:
            while (request := self.requests.look()) is None:
                tick = time.monotonic()
                self.session.watch.check()
                workers.look_after_starting()
                if (status := learner.status(TICK_S)) is not None:
                    self._settle(life, status)
                    workers.close_leases(status.news.lease_ends)
                    workers.look_after_serving()
                    num_ended = validation.num_ended + training.num_ended
                    done = (status.account.unique, status.training.seconds)
                    is_over = idle.is_over(num_ended, done, time.monotonic()) and status.training.state in WAITING
                    workers.watch(status.silences, has_progress=idle.has_progress)
                    record = self._record(life, status)
                    view.show(record)
                    if fault := validation.fault(1.0) or training.fault(config.solver.max_failed_fraction):
                        raise PenstockError(f"{fault}; the workers' logs are in {self.folder.logs}", exit_code=3)
                    if status.is_done:
                        return self._end(life, record, status)
                    if is_over:
                        self._stop(life, "training.stop_after.minutes", SIGNAL_WITHIN_S)
                        raise PenstockError(self._idle_cause(record), exit_code=1)
                    self.scaling.look(record, is_steady=status.training.trained > 0 and training.num_left > 0)
                    ledger = training if validation.is_complete() else validation
                    workers.lease_ahead(ledger, config.solver.window, self.reports.decisions)
                time.sleep(max(0.0, TICK_S - (time.monotonic() - tick)))
        self._tell(f"{request.cause}: writing a checkpoint (a second signal ends the run at once)")
        return self._stop(life, request.cause, request.within_s)

    def _settle(self, life: _Life, status: LearnerStatus) -> None:
        life.validation.settle(status.account.validation)
        life.training.settle(status.account.training, status.training.validation)

    def _record(self, life: _Life, status: LearnerStatus) -> Record:
        ledgers = {"validation": life.validation, "training": life.training}
        return self.reports.take(status, **ledgers, num_workers=self.workers.num_ready, silent=self.workers.silent)

    def _end(self, life: _Life, record: Record, status: LearnerStatus) -> str:
        self.reports.journal.finish(record, status, life.training, status.cause)
        if record.step == 0:
            raise PenstockError(
                f"the stream ended with {record.unique} samples and nothing was trained: "
                "raise training.stop_after.simulations",
                exit_code=1,
            )
        return status.cause

    def _idle_cause(self, record: Record) -> str:
        silent = "".join(f"; {silence}" for silence in self.workers.silent)
        return (
            f"training.stop_after.minutes: for {self.config.training.stop_after.minutes:g} minutes nothing was solved, "
            f"and {record.unique} samples were too few to begin training (buffer.watermark: "
            f"{self.config.buffer.watermark}){silent}; go on with: {resume_command(self.folder)}"
        )

    def _stop(self, life: _Life, cause: str, within_s: float) -> str:
        """Have the learner write a checkpoint, and leave time to end Ray.

        Returns the cause of the end.
        """
        life.learner.stop()
        within_s = max(within_s - END_RAY_WITHIN_S, within_s / 2)
        deadline = time.monotonic() + within_s
        try:
            while (left := deadline - time.monotonic()) > 0 and (status := life.learner.status(left)) is not None:
                if status.is_done:
                    self._settle(life, status)
                    self.reports.journal.finish(self._record(life, status), status, life.training, cause)
                    return cause
                time.sleep(0.1)
        except LearnerDied as death:
            return f"{cause}, but {death} before its checkpoint: the last one is valid"
        return f"{cause}, but the learner wrote no checkpoint within {within_s:.0f} s: the last one is valid"

    def _tell(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)

    def _wait_for[Answer](
        self, learner: LearnerProcess, ask: Callable[[float], Answer], within_s: float = math.inf
    ) -> Answer | None:
        """What the learner is waited for, asked once per second.

        A joined cluster may be slow to place it. None where the run is asked to end before. Raises LearnerDied if it
        takes longer than within_s.
        """
        began, is_reported = time.monotonic(), False
        while not (answer := ask(TICK_S)):
            if self.requests.look():
                return None
            self.session.watch.check()
            if time.monotonic() - began > within_s:
                raise LearnerDied(f"the learner died, and there is no place for another: {learner.waits_for()}")
            if not is_reported and time.monotonic() - began > PLACE_WITHIN_S:
                is_reported = True
                self._tell(f"waiting for the learner: {learner.waits_for() or 'it rehearses the model'}")
        return answer

    def _prepared(self, learner: LearnerProcess) -> Prepared | None:
        """What the learner reports when it is ready.

        None where the run is asked to end before.
        """
        if (prepared := self._wait_for(learner, learner.prepared)) is None:
            return None
        if self.plan.order.must_repeat:
            conditions.require_same(self.folder, "learner", prepared.conditions)
        self.folder.update_run(learner_pid=prepared.pid, learner_pids=prepared.pids or (prepared.pid,))
        return prepared

    def _announce(self, prepared: Prepared) -> None:
        """Print the split of the cores and the memory bound, before anything is solved."""
        num_rows, row_bytes = validation_size(self.plan)
        parts = {
            f"buffer in {prepared.buffer_place}": prepared.buffer_bytes,
            "in flight": bytes_in_flight(self.plan, self.split.most),
            f"validation set of {num_rows} rows": num_rows * row_bytes,
            "weights, gradients, optimizer and their copies": num_weights(self.config) * prepared.weight_bytes,
        }
        data_bytes = sum(parts.values())
        learner = self.split.learner_part(prepared.device, self.config.training.ranks)
        self.folder.update_run(data_bytes=data_bytes, machine=description(), learner=learner)
        ranks, least, most = self.config.solver.ranks, self.split.workers, self.split.most
        number, plural = f"{least} to {most}" if most > least else most, "s" if most > 1 else ""
        on_ranks = f" of {ranks} MPI ranks" if ranks > 1 else ""
        self.console.print(f"run folder: {self.folder.path}", soft_wrap=True)
        self.console.print(
            f"{self.split}: {number} solver worker{plural}{on_ranks}, "
            f"{self.split.learner_threads} learner threads on {prepared.device}"
        )
        self.console.print(
            f"memory: the run's data take at most {size(data_bytes)} ("
            + ", ".join(f"{name} {size(num_bytes)}" for name, num_bytes in parts.items())
            + "); the programs and a training step need more",
            soft_wrap=True,
        )
        checkpoint_bytes = (3 if self.config.training.ema_decay is None else 4) * prepared.weight_bytes
        checkpoint_bytes += prepared.buffer_bytes if self.config.checkpoint.buffer else 0
        if (seconds := self.requests.due_in_s) is not None:
            end = datetime.now() + timedelta(seconds=seconds)
            self._tell(f"walltime: the run writes a checkpoint and ends at {end:%H:%M:%S on %d %B}")
        if remark := few_simulations(self.plan):
            self.console.print(remark, soft_wrap=True)
        for note in self.plan.notes:
            self.console.print(note, soft_wrap=True)
        self.console.print(f"disk: the newest checkpoint takes about {size(checkpoint_bytes)}", soft_wrap=True)
        if prepared.step or prepared.training.delivered:  # all may have gone with a buffer that was not saved
            self.console.print(f"resumed at step {prepared.step}")
