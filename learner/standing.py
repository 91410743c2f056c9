"""What a learner says of itself: where training stands, what came in, what is news."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from queue import SimpleQueue

from penstock.learner.buffers.bias import BiasWatch
from penstock.learner.trainer import Trainer
from penstock.learner.validation.collect import Collector
from penstock.status import Account, BufferStatus, LearnerStatus, TrainingStatus


class Standing:
    """The status of a learner, put together from its parts.

    Args:
        trainer: of the learner.
        collector: of its validation set.
        quantile_names: of the parameters whose bias in the buffer a status has.
    """

    def __init__(self, trainer: Trainer, collector: Collector, quantile_names: Sequence[str]):
        self.is_training = False
        """Whether the validation set is whole."""
        self.cause: str | None = None
        """Of the end of training."""
        self._trainer = trainer
        self._collector = collector
        self._bias = BiasWatch(trainer.buffer, quantile_names)
        self._notes: SimpleQueue[str] = SimpleQueue()

    def note(self, note: str) -> None:
        """Keep a line for people, which the next status has."""
        self._notes.put(note)

    @property
    def account(self) -> Account:
        """What has come in, and how simulations ended."""
        ingest = self._trainer.ingest
        counts = ingest.counts
        return Account(
            training=ingest.deliveries.ended,
            validation=self._collector.deliveries.ended,
            unique=counts.unique,
            dropped=counts.dropped,
            retried=counts.retried,
            solver_blocked_seconds=counts.solver_blocked_seconds,
        )

    def status(self) -> LearnerStatus:
        """Where training stands. Solves, decisions, notes and ended leases come once."""
        trainer = self._trainer
        trainer.ingest.give_up({})  # what came while a checkpoint was being written
        # Before the ids are read: a lease that has ended must find all its deliveries in the same status.
        lease_ends, news = self._collector.drain_lease_ends(), trainer.ingest.drain_news()
        buffer = trainer.buffer
        return LearnerStatus(
            training=TrainingStatus(
                state=trainer.state if self.is_training else "solving the validation set",
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
            account=self.account,
            buffer=BufferStatus(samples=len(buffer), capacity=buffer.capacity, bias=self._bias.look()),
            news=replace(
                news,
                lease_ends=(*lease_ends, *news.lease_ends),
                notes=(
                    *(self._notes.get_nowait() for _ in range(self._notes.qsize())),
                    *(trainer.remarks.pop(0) for _ in range(len(trainer.remarks))),
                ),
            ),
            cause=self.cause,
        )
