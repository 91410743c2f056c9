"""The learner's process, as a plain class that driver.py wraps for Ray.

The actor only owns the thread; what it runs is the `Learner` in learner/learner.py.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from penstock.errors import PenstockError, describe, file_of, raised_by_signal, text_of
from penstock.learner.learner import Learner
from penstock.learner.ranks.group import ALONE, Group, keep_to_this_machine
from penstock.messages import Lease
from penstock.orchestrator.cluster.receiving import receiver_on
from penstock.orchestrator.ledger import conditions
from penstock.orchestrator.plan import Plan
from penstock.orchestrator.resources.placement import device_of, rank_status
from penstock.orchestrator.run.logs import begin_actor, learner_log
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.store.run_store import RunStore
from penstock.status import LearnerStatus, News, Prepared, Word

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Seat:
    """The place of a learner's process among the run's learner ranks."""

    rank: int = 0
    """Its number."""
    size: int = 1
    """Number of ranks."""
    address: str | None = None
    """Where they meet, see `Group.join`; None for one that is alone."""

    @property
    def log(self) -> str:
        """Name of its log."""
        return learner_log(self.rank)

    def group(self, device: torch.device) -> Group:
        """Meet the other ranks."""
        return ALONE if self.address is None else Group.join(self.address, self.rank, self.size, device)


class LearnerActor:
    """A `Learner` in a thread, and methods that return at once.

    Args:
        plan: the plan of the run.
        folder: the run folder.
        num_threads: torch's threads.
        staging: where it writes checkpoints; once this folder is gone, another learner has taken over.
        session_folder: where it receives samples, see `receiver_on`.
        seat: its place among the learner ranks.
        stream: where chunks come from instead, with the methods of a `Receiver`; then nothing is logged.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        num_threads: int,
        staging: Path | None = None,
        session_folder: Path | None = None,
        seat: Seat = Seat(),
        stream: Any = None,
    ):
        if stream is None:
            begin_actor(folder / "logs" / seat.log)
            stream = receiver_on(session_folder)
        if seat.size > 1 and session_folder is not None:
            keep_to_this_machine()
        self._plan = plan
        self._folder = RunFolder(folder)
        self._num_threads = num_threads
        self._staging = staging
        self._seat = seat
        self._stream = stream
        self._heard = 0
        self._num_statuses = 0
        self._news = News()
        self._learner: Learner | None = None  # until it is prepared
        self._prepared: Prepared | None = None
        self._is_done = threading.Event()
        self._error: Exception | None = None

    def prepare(self) -> Prepared:
        """Build the learner, restored from the newest checkpoint if there is one.

        Returns:
            Its sizes, place and state.

        Raises:
            PenstockError: the model does not pass the rehearsal, or the learner can't be built.
        """
        try:
            self._prepared = self._prepared or self._prepare()  # it may be asked again, if its answer got lost
            return self._prepared
        except BaseException as error:
            if raised_by_signal(error):
                raise
            raise self._logged(error) from error

    def _prepare(self) -> Prepared:
        self._plan.order.set_up_torch()
        torch.set_num_threads(self._num_threads)  # Ray starts a 1-CPU actor with OMP_NUM_THREADS=1
        torch.manual_seed(self._plan.config.seed)
        notes = self._plan.rehearse(self._folder.path) if not self._seat.rank else []
        group = self._seat.group(device_of(self._plan.config, self._seat.rank))
        self._learner = learner = self._plan.learner(self._stream, RunStore(self._folder, self._staging), group)
        for note in notes:
            learner.note(note)
        device, storage, account = learner.trainer.feed.device, learner.buffer.storage, learner.account
        device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
        return Prepared(
            pid=os.getpid(),
            conditions=conditions.of_this_process()
            | {"torch": torch.__version__, "torch threads": self._num_threads, "device": device_name},
            device=device_name,
            buffer_bytes=storage.num_bytes,
            buffer_place=storage.place,
            weight_bytes=learner.trainer.surrogate.weight_bytes,
            step=learner.trainer.step,
            training=account.training,
            validation=account.validation,
            endpoint=self._stream.endpoint,
        )

    def hear(self, *words: Word) -> None:
        """Do what the driver says, each once and in the order of the numbers.

        Args:
            *words: calls of methods of this object. Those heard before are passed over, as is what follows a gap: it
                will be said again.
        """
        for word in words:
            if word.number == self._heard + 1:
                self._heard = word.number
                getattr(self, word.method)(*word.arguments)

    def start(self) -> None:
        """Begin training; leases may be given from here on."""
        threading.Thread(target=self._work, name="training", daemon=True).start()

    def lease(self, lease: Lease, worker: Any) -> None:
        """Queue a lease at a worker.

        Args:
            lease: the lease.
            worker: what the stream knows the worker by.
        """
        self._stream.submit(lease, worker)

    def bury(self, worker: str, error: str) -> None:
        """Let the stream of a worker that has died end.

        Args:
            worker: its name.
            error: how it died.
        """
        self._stream.bury(worker, error)

    def give_up(self, design: str, failed: Mapping[int, str]) -> None:
        """Record simulations that failed because their workers died.

        Args:
            design: design of their lease.
            failed: reason by id.
        """
        self._learner.give_up(design, failed)

    def stop(self) -> None:
        """Checkpoint at the next step and end."""
        self._learner.stop()

    def status(self, num_seen: int | None = None) -> LearnerStatus:
        """The learner's status; news in it is drained, so each item is reported once.

        Args:
            num_seen: number of the last status that has reached the driver; the news of those that were lost on the
                way is reported again. None if all have.

        Returns:
            The status.

        Raises:
            PenstockError: the training thread failed, with this error.
        """
        is_done = self._is_done.is_set()  # read before the error: a failure in between is reported next time
        if self._error is not None:
            raise self._error
        if num_seen in (None, self._num_statuses):
            self._news = News()
        status = self._learner.status()
        self._news += status.news
        self._num_statuses += 1
        return replace(
            status,
            news=self._news,
            silences=self._stream.silences(),
            ranks=(rank_status(),),
            is_done=is_done,
            number=self._num_statuses,
            heard=self._heard,
        )

    def _work(self) -> None:
        try:
            self._learner.run()
        except BaseException as error:  # `status` raises it in the driver, which ends the run
            self._error = self._logged(error)
        finally:
            self._stream.close()
            self._is_done.set()

    def _logged(self, error: BaseException) -> PenstockError:
        """Log the error with its traceback; returns it as one line for the user."""
        logger.error("the learner ends", exc_info=error)
        if isinstance(error, PenstockError):
            return error
        log = self._folder.logs / self._seat.log
        if self._plan.config.training.compile and isinstance(error, torch._dynamo.exc.TorchDynamoException):
            reason = text_of(error)
            return PenstockError(
                f"training.compile: torch can't do it here ({reason}): give false; see {log}", exit_code=1
            )
        learner = self._learner
        parts = () if learner is None else (learner.trainer.surrogate.model, learner.buffer.policy)
        return PenstockError(f"{describe(error, *map(file_of, parts))}; full traceback in {log}", exit_code=1)
