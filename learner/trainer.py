"""The training loop: steps on batches from the feed as long as the run lasts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from penstock.errors import PenstockError
from penstock.learner.buffers.buffer import Batch, Buffer
from penstock.learner.checkpoints.checkpoint import Checkpoint
from penstock.learner.checkpoints.saver import Saver
from penstock.learner.feed.feed import BatchSource
from penstock.learner.loss_watch import RunningLoss
from penstock.learner.optimization import Optimization
from penstock.learner.ranks.turns import Turns, View
from penstock.learner.settings import Settings
from penstock.learner.stream.ingest import Ingest
from penstock.learner.surrogate import Surrogate
from penstock.learner.validation.course import Diverged, ValidationCourse

LOSS_READ_EVERY_S = 1.0  # to read it waits until the device has finished the queued steps


class Trainer:
    """Trains on the feed's batches until a limit of the settings' stop_after.

    Between two steps, when it is due, a slice of the validation set is evaluated or a checkpoint is saved. Checkpoints
    are saved at their interval and at the end: first every batch that was drawn is trained on and, unless the run is
    being stopped, the errors of the weights to be saved are measured. While a checkpoint is being written the next is
    put off, so that training does not wait for a slow disk.

    Where the step is shared by several ranks, each has a trainer, and all run at once. They do the same steps, save at
    the same ones and end after the same one; a limit counts the samples and simulations of all. Rank 0 alone validates,
    and its clock says when; the other ranks wait meanwhile.

    The attributes may be read from other threads at any time.

    Args:
        step: the optimisation step.
        feed: source of the batches.
        ingest: what fills the buffer; it counts what comes in, and has the statistics that fix the normalisation.
        settings: the limits, the schedule and the intervals.
        course: the validations. Its set may be given later, once its samples are known.
        saver: what saves the checkpoints; None saves none.
    """

    def __init__(
        self,
        step: Optimization,
        feed: BatchSource,
        ingest: Ingest,
        settings: Settings,
        *,
        course: ValidationCourse | None = None,
        saver: Saver | None = None,
    ):
        self.feed = feed
        self.ingest = ingest
        self.settings = settings
        self.course = course or ValidationCourse(keeps_worst=settings.keeps_worst)
        self.saver = saver
        self._step = step

        self.state = "waiting for samples"
        """What training does at the moment, for people."""
        self.num_trained = 0
        """Samples of this rank trained on, with repetition."""
        self.warning: str | None = None
        """What is wrong although training goes on, with advice; None if nothing is."""
        self.learning_rate = step.learning_rate
        """Learning rate of the last step; before the first one, that which the schedule's factors multiply."""
        self.remarks: list[str] = []
        """Lines for people on odd statistics that the normalisation was fixed from. Whoever shows them removes them."""
        self._turns = Turns(feed, ingest, settings.stop_after, step.group)
        self._loss = RunningLoss()
        self._normalization_is_fixed = False

    @property
    def buffer(self) -> Buffer:
        return self.ingest.buffer

    @property
    def loss(self) -> float | None:
        """Mean training loss of the last steps, as it was read last; None before that."""
        return self._loss.value

    @property
    def validation_errors(self) -> dict | None:
        """`Errors.as_dict()` of the last complete validation; None before the first."""
        return self.course.errors

    @property
    def step(self) -> int:
        """Number of steps done."""
        return self._step.num_steps

    @property
    def surrogate(self) -> Surrogate:
        """The surrogate to validate, save and export.

        It has averaged weights if the step averages them.
        """
        return self._step.averaged

    @property
    def view(self) -> View:
        """Where all ranks stand: this one now, the others at the last turn."""
        return self._turns.now()

    @property
    def progress(self) -> float:
        """The fraction of the run that is done, in [0, 1]."""
        return self.settings.stop_after.progress(**self.view.done(self.step))

    @property
    def train_seconds(self) -> float:
        """Wall time since the watermark was reached, without that of compiling."""
        return self._turns.seconds

    @property
    def times(self) -> dict[str, float]:
        """What the time since `run` began went to, in seconds.

        By the names in `TrainingTimes`.
        """
        return self._turns.times.seconds()

    @property
    def learner_wait_seconds(self) -> float:
        """Time that training waited for batches, from the watermark on."""
        return self.feed.wait_seconds

    def run(self, should_stop: Callable[[], bool]) -> str:
        """Train until a limit is reached, the stream is drained, or should_stop().

        Args:
            should_stop: asked between two steps, and while waiting for samples.

        Returns:
            The cause of the end: "minutes", "steps", "samples", "error", "stream ended" or "stopped".

        Raises:
            PenstockError: no output varies; the loss, a validation error or the weights are not finite; or a checkpoint
                can't be written.
        """
        self._wait_for_population(should_stop)
        seconds_before, started = self.train_seconds, time.monotonic()
        last_reading, last_validation, last_checkpoint = -math.inf, started, started

        with closing(self.feed):
            self.feed.start(self._num_steps_left())
            self._turns.times.begin("training")
            while True:
                is_due = time.monotonic() - last_checkpoint >= self.settings.checkpoint_every_s
                view = self._turns.next(
                    self.step, should_stop, reached=self._is_good_enough(), saves=self._may_save(is_due)
                )
                if (cause := self._turns.cause_to_end(view, self.step)) is not None:
                    break
                self._train_on(view)
                now = time.monotonic()
                self._turns.seconds = seconds_before + now - started - self.times["compiling"]
                if now - last_reading >= LOSS_READ_EVERY_S and self._read_loss():
                    last_reading = now
                if view.saves:
                    self._complete_and_save(should_stop)
                    self.feed.release(self._num_steps_left())
                    last_validation = last_checkpoint = time.monotonic()
                elif self.course.is_running:
                    self._validate_a_slice()
                    last_validation = now
                elif now - last_validation >= self.settings.validation_every_s:
                    self.course.begin(self.surrogate, self.step)
            self._complete_and_save(should_stop)
            self._turns.times.begin(None)
        self.state = "ended"
        return cause

    def _num_steps_left(self) -> int | None:
        limit = self.settings.stop_after.steps
        return None if limit is None else limit - self.step

    def _is_good_enough(self) -> bool:
        """Whether the validation error is as low as it need be."""
        target, errors = self.settings.stop_after.error, self.validation_errors
        return target is not None and errors is not None and errors["relative_l2"]["mean"] <= target

    def _wait_for_population(self, should_stop: Callable[[], bool]) -> None:
        """Wait for the watermark of every rank.

        The samples so far then fix the normalisation.
        """
        last = time.monotonic()
        while True:
            is_due = time.monotonic() - last >= self.settings.checkpoint_every_s
            view = self._turns.before_training(should_stop, self._may_save(is_due))
            if not view.waits:
                break
            if view.stops:
                return
            if view.saves:
                self._save()  # samples of expensive simulations must survive a long warm-up
                self.state = "waiting for samples"
                last = time.monotonic()
        # A buffer that an error has closed is exhausted, too: a resumed run waits for the whole population again.
        if not self._normalization_is_fixed and view.has_batch and not view.breaks:
            self._fix_normalization()

    def _fix_normalization(self) -> None:
        """Fix the normalisation by the samples so far, and what the model takes from them.

        Raises:
            PenstockError: no output varies.
        """
        normalization, remarks = self.ingest.normalization(self._step.group)
        surrogate = self._step.surrogate
        surrogate.normalization = normalization.to(self.feed.device)
        if surrogate.num_samples_to_fit:
            if len(next(iter((samples := self.buffer.earliest(surrogate.num_samples_to_fit)).values()))):
                surrogate.fit(samples)
            self._step.group.copy_first(surrogate.buffers())  # those of the first rank's samples
        self.remarks += remarks
        self._normalization_is_fixed = True

    def _train_on(self, view: View) -> None:
        """Do a step on the batches in hand, if every rank has one or never will."""
        if not view.may_step:
            self.state = "waiting for samples"
            return
        batch, done = self._turns.take(), view.done(self.step)
        of_run = self.settings.stop_after.progress(**done)
        progress = self.settings.schedule.progress(
            steps=done["steps"], samples=done["samples"], minutes=done["minutes"], of_run=of_run
        )
        self.learning_rate = self._step.learning_rate * self.settings.schedule(progress)
        self._loss.add(self._step_or_compile(batch))
        if batch is not None:
            self.num_trained += batch.num_samples
            if self.buffer.policy.observes:
                self.buffer.observe(batch, self._step.row_losses)

    def _step_or_compile(self, batch: Batch | None) -> Tensor:
        """Do the step, without rows of this rank if it has no batch, and return its loss.

        Compiling does not count as training time: limits and schedules in minutes leave it out.
        """
        compiles = self._step.compiles_next
        self.state = "compiling the step" if compiles else "training"
        arrays, weights = ({}, None) if batch is None else (batch.arrays, batch.weights)
        with self._turns.times.during("compiling" if compiles else "training"):
            return self._step(arrays, self.learning_rate, weights)

    def _read_loss(self) -> bool:
        """Bring `loss` and `warning` up to date; False before the first step.

        Raises:
            PenstockError: the loss is not finite.
        """
        loss = self._loss.read(self.step)
        if loss is None:
            return False
        if not math.isfinite(loss):
            raise self._diverged(f"the training loss is {loss} at step {self.step}")
        if self._loss.warning is not None:
            self.warning = (
                f"{self._loss.warning}; begin again with a lower training.learning_rate (it is "
                f"{self._step.learning_rate:g}) or with training.clip_norm; export takes the best weights saved"
            )
        elif self.learning_rate == 0.0:
            self.warning = "training.schedule is over and the learning rate 0: give it the length of the run"
        else:
            self.warning = None
        return True

    def _validate_a_slice(self) -> None:
        try:
            with self._turns.times.during("aside"):
                self.course.advance()
        except Diverged as error:
            raise self._diverged(str(error)) from error

    def _validate_now(self, should_stop: Callable[[], bool]) -> None:
        """Measure the errors of the present weights at once, unless should_stop()."""
        self.state = "validating"
        self.course.begin(self.surrogate, self.step)
        while self.course.is_running and not should_stop():
            self._validate_a_slice()

    def _complete_and_save(self, should_stop: Callable[[], bool]) -> None:
        """Train on every batch drawn, measure the weights' errors, and save.

        The feed is left held.
        """
        self.feed.hold()
        while (view := self._turns.next(self.step, should_stop, draws=False)).waits or view.has_batch:
            self._train_on(view)
        self._read_loss()
        self._validate_now(should_stop)
        self._save()

    def _may_save(self, is_due: bool) -> bool:
        """Whether a checkpoint is due or owed, and none is being written.

        Rank 0 says what is due.
        """
        is_due = is_due or self._step.group.rank > 0
        if self.saver is None:
            return is_due
        return not self.saver.is_writing and (is_due or self.saver.owes())

    def _save(self) -> None:
        if self.saver is None:
            return
        self.state = "saving a checkpoint"
        if not self._step.is_finite():
            raise self._diverged(f"weights or their moments are not finite at step {self.step}")
        with self._turns.times.during("aside"):
            self.saver.save(self.step, self.checkpoint_state)

    def _diverged(self, what: str) -> PenstockError:
        return PenstockError(f"{what}: lower training.learning_rate (it was {self._step.learning_rate:g})", exit_code=1)

    # Checkpoints

    def checkpoint_state(self, *, with_buffer: bool = True) -> dict[str, Any]:
        """Return what a checkpoint consists of.

        Ingest must be paused before, and until the buffer is written.

        Args:
            with_buffer: whether the buffer is part of it.

        Returns:
            "weights", "optimizer", "buffer" (None without it) and "meta".
        """
        is_first = self._step.group.rank == 0  # it saves what is the same on all ranks
        optimizer = {**(self._step.state() if is_first else {}), "random.cpu": torch.get_rng_state()}
        if self.feed.device.type == "cuda":
            optimizer["random.cuda"] = torch.cuda.get_rng_state(self.feed.device)
        return {
            "weights": self._step.saved_weights() if is_first else {},
            "optimizer": optimizer,
            "buffer": self.buffer.state() if with_buffer else None,
            "meta": {
                "training": {
                    "num_trained": self.num_trained,
                    "loss": self.loss,
                    **self.course.state(),
                    "learner_wait_seconds": self.learner_wait_seconds,
                    "train_seconds": self.train_seconds,
                    "normalization_is_fixed": self._normalization_is_fixed,
                },
                # errors of the weights that are saved, or None
                "validation": self.course.errors_at(self.step),
                "ingest": self.ingest.state(with_buffer=with_buffer),
                "lanes": self.feed.state(),
            },
        }

    def load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Restore a checkpoint, so that training continues as it would have after it.

        Args:
            checkpoint: the checkpoint.

        Raises:
            PenstockError: it belongs to another model.
        """
        checkpoint.load_into(self.surrogate)
        self._step.load_state(checkpoint.optimizer)
        torch.set_rng_state(checkpoint.optimizer["random.cpu"])
        if self.feed.device.type == "cuda" and "random.cuda" in checkpoint.optimizer:
            torch.cuda.set_rng_state(checkpoint.optimizer["random.cuda"], self.feed.device)
        if checkpoint.buffer is not None:
            self.buffer.load_state(checkpoint.buffer)
        self.ingest.load_state(checkpoint.meta["ingest"])
        self.feed.load_state(checkpoint.meta.get("lanes"))
        training = checkpoint.meta["training"]
        self.num_trained = training["num_trained"]
        self._loss.restore(training["loss"], self.step, self.feed.device)
        self.course.load_state(training)
        self.feed.wait_seconds = training["learner_wait_seconds"]
        self._turns.seconds = training["train_seconds"]
        self._normalization_is_fixed = training["normalization_is_fixed"]
