"""What a learner reports: where training stands, what has come in, what is new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from queue import SimpleQueue

from penstock.learner.buffers.bias import BiasWatch
from penstock.learner.trainer import Trainer
from penstock.learner.validation.collect import Collector
from penstock.messages import BLOCKED, UNLEASED
from penstock.status import Account, BufferStatus, IntakeTimes, LearnerStatus, TrainingStatus, TrainingTimes


class Standing:
    """The status of a learner, put together from its parts.

    Args:
        trainer: the learner's trainer.
        collector: what gathers its validation set.
        quantile_names: names of the parameters whose bias in the buffer a status reports.
    """

    def __init__(self, trainer: Trainer, collector: Collector, quantile_names: Sequence[str]):
        self.is_training = False
        """Whether training has begun, after the validation set was gathered."""
        self.cause: str | None = None
        """Cause of the end of training, as `Trainer.run` names it; None until then."""
        self._trainer = trainer
        self._collector = collector
        self._bias = BiasWatch(trainer.buffer, quantile_names)
        self._notes: SimpleQueue[str] = SimpleQueue()

    def note(self, note: str) -> None:
        """Keep a line for people for the next status."""
        self._notes.put(note)

    @property
    def account(self) -> Account:
        """Samples that have come in, and how simulations ended."""
        ingest = self._trainer.ingest
        counts, waits = ingest.counts, ingest.waits()
        return Account(
            training=ingest.deliveries.ended,
            validation=self._collector.deliveries.ended,
            unique=counts.unique,
            dropped=counts.dropped,
            retried=counts.retried,
            solver_blocked_seconds=waits[BLOCKED],
            solver_seconds=counts.solver_seconds,
            solver_unleased_seconds=waits[UNLEASED],
            intake=IntakeTimes(**ingest.times.seconds()),
        )

    def status(self) -> LearnerStatus:
        """Return where training stands.

        Solves, decisions, restarts, notes and ended leases are reported once, in the first status after they happened.
        """
        trainer = self._trainer
        trainer.ingest.give_up({})  # records those given up while a checkpoint was being written
        # Read before the ids: the status that reports the end of a lease must have all its deliveries.
        news = self._collector.drain_news() + trainer.ingest.drain_news()
        buffer, view = trainer.buffer, trainer.view
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
                times=TrainingTimes(**trainer.times),
                samples=view.samples,
                steps_left=view.left,
            ),
            account=self.account,
            buffer=BufferStatus(samples=len(buffer), capacity=buffer.capacity, bias=self._bias.look()),
            news=replace(
                news,
                notes=(
                    *(self._notes.get_nowait() for _ in range(self._notes.qsize())),
                    *(trainer.remarks.pop(0) for _ in range(len(trainer.remarks))),
                ),
                worst_cases=trainer.course.take_worst(),
            ),
            cause=self.cause,
        )
