"""The learner's process, as a plain class that `run.py` wraps for Ray; the sense is in learner/."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from copy import deepcopy
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch

from penstock.errors import PenstockError, describe, raised_by_signal, text_of
from penstock.id_set import IdSet
from penstock.learner.buffers.bias import bias
from penstock.learner.buffers.storage import Storage
from penstock.learner.checkpoints import checkpoint
from penstock.learner.models import MODELS
from penstock.learner.rehearsal import file_of, try_export
from penstock.learner.stream.ingest import Stream
from penstock.learner.trainer import Trainer
from penstock.learner.validation.validation import Validation
from penstock.orchestrator.actors.ray_stream import RayStream
from penstock.orchestrator.assembly import make_draw, make_trainer, make_validation, rehearse_model
from penstock.orchestrator.blueprint import Blueprint
from penstock.orchestrator.ledger import conditions
from penstock.orchestrator.ledger.lanes import Lanes
from penstock.orchestrator.run.logs import log_to
from penstock.orchestrator.store import zarr_store
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.sample import Layout, Lease, LeaseEnd
from penstock.status import Account, BufferStatus, Ended, LearnerStatus, News, Prepared, TrainingStatus

logger = logging.getLogger(__name__)

BIAS_EVERY_S = 5.0  # it sorts the buffer's ranks


class LearnerActor:
    """The learner's process: an ingest thread, a training thread, and methods that return at once.

    stream: where chunks come from; absent, the RayStream of this process.
    """

    def __init__(self, blueprint: Blueprint, folder: Path, num_threads: int, stream: Stream | None = None):
        if stream is None:
            log_to(folder / "logs" / "learner.log")
        self._blueprint = blueprint
        self._folder = RunFolder(folder)
        self._num_threads = num_threads
        self._stream = stream or RayStream()
        self._lanes: Lanes | None = None  # of a deterministic run
        self._stop = threading.Event()
        self._done = threading.Event()
        self._writer = checkpoint.Writer()
        self._validation: Validation | None = None
        self._validation_delivered: list[list[int]] = []  # replaced as wholes, for `status` reads them meanwhile
        self._validation_failed: dict[int, str] = {}
        self._validation_given_up: SimpleQueue[dict[int, str]] = SimpleQueue()
        self._given_up: dict[int, str] = {}  # not written down yet
        self._lease_ends: SimpleQueue[LeaseEnd] = SimpleQueue()
        self._notes: SimpleQueue[str] = SimpleQueue()
        self._num_remarked = 0
        self._export_trial = threading.Thread(target=self._try_export, name="export trial", daemon=True)
        self._model_file: str | None = None
        self._bias, self._bias_at = None, -math.inf
        self._cause: str | None = None
        self._error: Exception | None = None

    def prepare(self) -> Prepared:
        """Build model, buffer and trainer, restored from the newest checkpoint if there is one.

        Returns what the driver announces, and where both designs stand. Raises PenstockError.
        """
        try:
            return self._prepare()
        except BaseException as error:
            if raised_by_signal(error):
                raise
            raise self._told(error) from error

    def _prepare(self) -> Prepared:
        config = self._blueprint.config
        if config.deterministic:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # torch asks for it
            torch.use_deterministic_algorithms(True)
        torch.set_num_threads(self._num_threads)  # Ray starts a 1-CPU actor with OMP_NUM_THREADS=1
        torch.manual_seed(config.seed)
        if config.deterministic:
            self._lanes = Lanes(
                self._stream,
                num_lanes=config.solver.workers,
                window=config.solver.window,
                limit=config.training.stop_after.simulations,
            )
        self._rank_names = self._blueprint.problem().rank_names
        for note in rehearse_model(self._blueprint, self._folder.path):
            self._notes.put(note)
        self._trainer = trainer = make_trainer(
            self._blueprint, self._lanes or self._stream, self._save, lambda: self._writer.is_writing
        )
        self._ingest, buffer, device = trainer.ingest, trainer.feed.buffer, trainer.feed.device
        self._model_file = file_of(trainer.surrogate)
        self._restore()
        device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
        return Prepared(
            pid=os.getpid(),
            conditions=conditions.of_this_process()
            | {"torch": torch.__version__, "torch threads": self._num_threads, "device": device_name},
            device=device_name,
            buffer_bytes=buffer.storage.num_bytes,
            buffer_place=_place(buffer.storage),
            weight_bytes=trainer.surrogate.weight_bytes,
            step=trainer.step,
            training=Ended(delivered=self._ingest.delivered_intervals, failed=self._ingest.failed),
            validation=Ended(delivered=self._validation_delivered, failed=self._validation_failed),
        )

    def start(self) -> None:
        """Begin: first the validation set, then training. Leases may be given from here on."""
        self._export_trial.start()
        threading.Thread(target=self._work, name="training", daemon=True).start()

    def lease(self, lease: Lease, worker: Any) -> None:
        """Have a worker solve a lease, after those that it has already."""
        self._stream.submit(lease, worker)

    def end_stream(self) -> None:
        """Nothing more will be leased: the buffer is drained, then training ends."""
        self._trainer.feed.buffer.end_of_stream()

    def give_up(self, design: str, failed: dict[int, str]) -> None:
        """Write down simulations that no worker lives to finish."""
        if design == "validation":
            self._validation_given_up.put(failed)
        else:
            self._given_up |= failed
            self._write_given_up()

    def _write_given_up(self) -> None:
        if self._given_up and self._ingest.give_up(self._given_up):
            self._given_up = {}

    def stop(self) -> None:
        """Checkpoint at the next step and end."""
        self._stop.set()

    def status(self) -> LearnerStatus:
        """Where training stands. Solves, decisions, notes and ended leases come once. Raises what ended a thread."""
        done = self._done.is_set()  # before the error is looked at: what fails in between is told next time
        if self._error is not None:
            raise self._error
        self._write_given_up()  # what came while a checkpoint was being written
        trainer, ingest, buffer = self._trainer, self._ingest, self._trainer.feed.buffer
        remarks = trainer.remarks[self._num_remarked :]
        self._num_remarked += len(remarks)
        if time.monotonic() - self._bias_at >= BIAS_EVERY_S:
            self._bias, self._bias_at = bias(buffer, self._rank_names), time.monotonic()
        is_training = self._validation is not None
        # Before the ids are read: a lease that has ended must find all its deliveries in the same status.
        lease_ends = _drain(self._lease_ends) + ingest.drain_lease_ends()
        return LearnerStatus(
            training=TrainingStatus(
                state=trainer.state if is_training else "solving the validation set",
                step=trainer.step,
                progress=trainer.progress,
                trained=trainer.num_trained,
                loss=trainer.loss,
                learning_rate=trainer.learning_rate,
                warning=trainer.warning,
                validation=trainer.validation_errors,
                wait_seconds=trainer.learner_wait_seconds,
                seconds=trainer.train_seconds,
            ),
            account=Account(
                training=Ended(delivered=ingest.delivered_intervals, failed=dict(ingest.failed)),
                validation=Ended(delivered=self._validation_delivered, failed=self._validation_failed),
                unique=ingest.num_unique,
                dropped=ingest.num_dropped,
                retried=ingest.num_retried,
                solver_blocked_seconds=ingest.solver_blocked_seconds,
            ),
            buffer=BufferStatus(samples=len(buffer), capacity=buffer.capacity, bias=self._bias),
            news=News(
                solves=tuple(ingest.drain_solves()),
                decisions=tuple(ingest.drain_decisions()),
                lease_ends=tuple(lease_ends),
                notes=(*_drain(self._notes), *remarks),
            ),
            silences=self._stream.silences(),
            is_done=done,
            cause=self._cause,
        )

    def _work(self) -> None:
        try:
            try:
                self._train()
            finally:
                self._writer.wait()  # a checkpoint that was begun is finished, whatever ended training
        except BaseException as error:  # told to the driver by `status`, which ends the run
            self._error = self._told(error)
        finally:
            self._stream.close()
            self._done.set()

    def _try_export(self) -> None:
        """Of a user's model; it takes 10 s of a core, while the first solves are under way."""
        if self._blueprint.config.model.name in MODELS:
            return
        if note := try_export(self._trainer.surrogate):
            self._notes.put(note)

    def _train(self) -> None:
        rows = self._validation_rows()
        if self._lanes is not None:
            self._export_trial.join()  # both may draw random numbers
        if rows is not None:
            arrays, _, steps = rows
            self._validation = self._trainer.validation = make_validation(
                self._blueprint, arrays, self._trainer.feed.device, steps
            )
            if self._lanes is None:  # else the training thread takes from the stream
                self._ingest.start(self._stop.is_set)
            self._cause = self._trainer.run(self._stop.is_set)
            self._stop.set()
            if self._lanes is None:
                self._ingest.join()

    def _validation_rows(self) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray] | None:
        """The validation set, from the run folder or from the stream, as `Draw.all_rows` gives it; None when stopped
        before it was whole."""
        layout = self._blueprint.problem().layout
        if not self._folder.validation.exists() and not self._solve_validation(layout):
            return None
        stored, _ = zarr_store.read(self._folder.validation)
        arrays = zarr_store.by_group(stored, layout)
        return make_draw(self._blueprint).all_rows(arrays, layout, stored["simulation"], stored["step"])

    def _solve_validation(self, layout: Layout) -> bool:
        """Gather the validation simulations and write them; False when stopped before, or when all of them failed."""
        delivered, failed, chunks = IdSet(), {}, []
        while len(delivered) + len(failed) < self._blueprint.config.validation.simulations:
            if self._stop.is_set():
                return False
            failed |= {i: why for more in _drain(self._validation_given_up) for i, why in more.items()}
            item = self._stream.next(timeout_s=0.2)
            if isinstance(item, LeaseEnd):
                self._lease_ends.put(item)
            elif item is not None and item.design == "validation":
                chunks.append(deepcopy(item))  # its arrays lie in Ray's object store, which is small and would fill
                failed |= {i: reason for i, reason in item.failed.items() if i not in delivered}
                for simulation in item.finished:
                    delivered.add(simulation)
            self._validation_delivered, self._validation_failed = delivered.to_intervals(), dict(failed)
        if not chunks:  # every worker died of every simulation
            return False
        keys = np.concatenate([np.stack([chunk.simulations, chunk.steps], axis=1) for chunk in chunks])
        # By simulation and step; what a worker that died had sent comes a second time from its successor.
        _, rows = np.unique(keys, axis=0, return_index=True)
        rows = rows[[int(simulation) in delivered for simulation in keys[rows, 0]]]
        if not len(rows):
            return False
        arrays = {name: np.concatenate([chunk.arrays[name] for chunk in chunks])[rows] for name in layout.shapes}
        named = zarr_store.by_field(arrays, layout) | {"simulation": keys[rows, 0], "step": keys[rows, 1]}
        ends = {"delivered": delivered.to_intervals(), "failed": {str(i): reason for i, reason in failed.items()}}
        zarr_store.write(self._folder.validation, named, ends)
        return True

    def _save(self, trainer: Trainer) -> None:
        config = self._blueprint.config.checkpoint
        self._writer.wait()  # here, while ingestion goes on
        self._ingest.pause()  # until the buffer is written: what is saved as delivered is in the buffer that is saved
        try:
            state = trainer.checkpoint_state(with_buffer=config.buffer)
            state["meta"]["ingest"] = self._ingest.state(with_buffer=config.buffer)
            state["meta"]["lanes"] = None if self._lanes is None else self._lanes.state()
        except BaseException:
            self._ingest.resume()
            raise
        self._writer.save(
            self._folder.checkpoints, trainer.step, **state, keep=config.keep, release=self._ingest.resume
        )

    def _restore(self) -> None:
        if checkpoint.latest(self._folder.checkpoints) is not None:
            saved = checkpoint.load(self._folder.checkpoints)
            self._trainer.load_checkpoint(saved)
            self._ingest.load_state(saved.meta["ingest"])
            if self._lanes is not None:
                self._lanes.load_state(saved.meta["lanes"])
        if self._folder.validation.exists():
            _, attributes = zarr_store.read(self._folder.validation)
            self._validation_failed = {int(i): reason for i, reason in attributes["failed"].items()}
            self._validation_delivered = attributes["delivered"]

    def _told(self, error: BaseException) -> PenstockError:
        """The error with its traceback in this process's log, as one line for the user."""
        logger.error("the learner ends", exc_info=error)
        if isinstance(error, PenstockError):
            return error
        log = self._folder.logs / "learner.log"
        if self._blueprint.config.training.compile and isinstance(error, torch._dynamo.exc.TorchDynamoException):
            reason = text_of(error)
            return PenstockError(
                f"training.compile: torch can't do it here ({reason}): give false; see {log}", exit_code=1
            )
        return PenstockError(f"{describe(error, self._model_file)}; full traceback in {log}", exit_code=1)


def _place(storage: Storage) -> str:
    """Where its samples lie, for people."""
    if storage.device.type == "cuda":
        return "the GPU's memory"
    return "pinned host memory" if storage.is_pinned else "host memory"


def _drain(items: SimpleQueue) -> list:
    return [items.get_nowait() for _ in range(items.qsize())]
