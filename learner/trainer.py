"""The training loop: batches from the buffer as long as the run lasts.

Axes:  B batch, C channels, *grid the axes of the fields' grid.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from penstock.errors import PenstockError
from penstock.learner.buffers import Batch, Buffer
from penstock.learner.checkpoint import Checkpoint
from penstock.learner.losses import LOSSES
from penstock.learner.normalization import Normalization
from penstock.learner.rate_limiter import RateLimiter
from penstock.learner.surrogate import Surrogate
from penstock.learner.validation import Validation
from penstock.sample import Layout

WARM_UP = 0.04  # of the run, in which the learning rate rises
DRAW_TIMEOUT_S = 0.2  # how soon a trainer without samples sees should_stop()
LOSS_MEMORY = 0.98  # the reported loss is a mean over about 50 steps


@dataclass(frozen=True, kw_only=True)
class StopAfter:
    """When training ends: at whichever limit is reached first."""

    minutes: float | None = None
    """Wall time since the first batch could be drawn, waits included; carried over on resume."""
    steps: int | None = None
    simulations: int | None = None
    """Delivered or failed. The owner ends the stream after them, and the buffer is drained before training ends."""
    error: float | None = None
    """Mean validation error. The learning rate can't be planned by it, so one of the others is needed too."""

    def __post_init__(self):
        limits = {"minutes": self.minutes, "steps": self.steps, "simulations": self.simulations}
        if all(limit is None for limit in limits.values()):
            raise ValueError("stop_after needs one of minutes, steps, simulations: the learning rate follows it")
        for name, limit in {**limits, "error": self.error}.items():
            if limit is not None and not limit > 0:
                raise ValueError(f"stop_after.{name} must be above 0, not {limit}")

    def fractions(self, *, minutes: float, steps: int, simulations: float) -> dict[str, float]:
        """What part of each limit is done, for the limits that are set."""
        done = {"minutes": minutes, "steps": steps, "simulations": simulations}
        return {name: done[name] / getattr(self, name) for name in done if getattr(self, name) is not None}

    def progress(self, *, minutes: float, steps: int, simulations: float) -> float:
        """The largest done part, in [0, 1]."""
        return min(1.0, max(self.fractions(minutes=minutes, steps=steps, simulations=simulations).values()))


def schedule(progress: float) -> float:
    """The learning rate's factor at a progress in [0, 1]: a linear warm-up, then half a cosine down to 0."""
    if progress < WARM_UP:
        # Starts at a tenth: a run that is limited by time does not know how many steps the warm-up has.
        return 0.1 + 0.9 * progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


class Trainer:
    """Trains a model on what the buffer gives.

    loss: a key of LOSSES. validation may be set later, once its samples are known. checkpoint(trainer) is called every
    checkpoint_every_s and at the end. ended() is the number of simulations delivered or failed so far.

    The attributes may be read from other threads at any time.
    """

    def __init__(
        self,
        model: nn.Module,
        layout: Layout,
        buffer: Buffer,
        *,
        batch_size: int,
        learning_rate: float,
        loss: str,
        stop_after: StopAfter,
        device: torch.device | str = "cpu",
        rate_limiter: RateLimiter | None = None,
        validation: Validation | None = None,
        validation_every_s: float = 10.0,
        checkpoint: Callable[[Trainer], None] | None = None,
        checkpoint_every_s: float = 60.0,
        ended: Callable[[], int] = lambda: 0,
        weight_decay: float = 1e-4,
    ):
        if not 1 <= batch_size <= buffer.capacity:
            raise ValueError(
                f"batch_size must be between 1 and the buffer's capacity {buffer.capacity}, not {batch_size}"
            )
        self.buffer = buffer
        self.batch_size = batch_size
        self.peak_learning_rate = learning_rate
        self.stop_after = stop_after
        self.device = torch.device(device)
        self.rate_limiter = rate_limiter
        self.validation = validation
        self.validation_every_s = validation_every_s
        self.checkpoint = checkpoint
        self.checkpoint_every_s = checkpoint_every_s
        self.ended = ended

        self.surrogate = Surrogate(model, Normalization.identity(layout), layout).to(self.device)
        self._loss = LOSSES[loss]
        self._optimizer = torch.optim.AdamW(
            self.surrogate.parameters(), learning_rate, weight_decay=weight_decay, fused=True
        )

        self.state = "waiting for samples"
        self.step = 0
        self.num_trained = 0
        """Samples trained on, with repetition."""
        self.loss: float | None = None
        """Mean training loss of the last steps."""
        self.learning_rate = 0.0
        self.validation_errors: dict[str, float] | None = None
        self.best_error: float | None = None
        """Least mean validation error so far."""
        self.learner_wait_seconds = 0.0
        """Time without a batch, from the watermark on."""
        self.train_seconds = 0.0
        """Wall time from the watermark on."""
        self._normalization_is_fixed = False
        self._validated_step = 0

    def run(self, should_stop: Callable[[], bool]) -> str:
        """Trains until a limit of stop_after is reached, the stream is drained, or should_stop().

        Returns the cause: "minutes", "steps", "error", "stream ended" or "stopped".
        """
        self._wait_for_population(should_stop)
        seconds_before, started = self.train_seconds, time.monotonic()
        last_validation = last_checkpoint = started

        while (cause := self._cause_to_end(should_stop)) is None:
            if (batch := self._next_batch(should_stop)) is not None:
                self.state = "training"
                self._train_step(batch)
            now = time.monotonic()
            self.train_seconds = seconds_before + now - started
            if now - last_checkpoint >= self.checkpoint_every_s:
                self._validate(should_stop)  # so that the best checkpoint is known by its own error
                self._save()
                last_validation = last_checkpoint = time.monotonic()
            elif now - last_validation >= self.validation_every_s:
                self._validate(should_stop)
                last_validation = time.monotonic()

        if cause != "stopped":
            self._validate(should_stop)
        self._save()
        self.state = "ended"
        return cause

    @property
    def progress(self) -> float:
        """The part of the run that is done, in [0, 1]."""
        return self.stop_after.progress(**self._done())

    def _wait_for_population(self, should_stop: Callable[[], bool]) -> None:
        """Until the watermark is reached; the samples that are in then fix the normalisation."""
        last_checkpoint = time.monotonic()
        while not self.buffer.wait_for_watermark(DRAW_TIMEOUT_S):
            if should_stop():
                return
            if time.monotonic() - last_checkpoint >= self.checkpoint_every_s:
                self._save()  # the samples of dear simulations must survive a long warm-up
                self.state = "waiting for samples"
                last_checkpoint = time.monotonic()
        if not self._normalization_is_fixed and len(self.buffer):
            population = self.buffer.population()
            self.surrogate.normalization = Normalization.from_arrays(population).to(self.device)
            self._normalization_is_fixed = True

    def _next_batch(self, should_stop: Callable[[], bool]) -> Batch | None:
        """The next batch on the device; None when there is none yet."""
        before = time.monotonic()
        if self.rate_limiter is not None:
            self.rate_limiter.wait_to_train(
                lambda: self.buffer.put_is_waiting or self.buffer.stream_ended or should_stop()
            )
        batch = self.buffer.draw(self.batch_size, 0.0)
        if batch is None:
            self.state = "waiting for samples"
            batch = self.buffer.draw(self.batch_size, DRAW_TIMEOUT_S)
        if batch is not None and self.rate_limiter is not None:
            self.rate_limiter.add_batch()
        self.learner_wait_seconds += time.monotonic() - before
        return batch

    def _train_step(self, batch: Batch) -> None:
        self.learning_rate = self.peak_learning_rate * schedule(self.progress)
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        arrays = {name: array.to(self.device, non_blocking=True) for name, array in batch.arrays.items()}
        in_stds = self.surrogate.normalization.in_stds
        prediction, target = self.surrogate.predict(arrays), arrays["targets"]
        loss = self._loss(in_stds("targets", prediction), in_stds("targets", target)).mean()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self.step += 1
        self.num_trained += len(batch)
        self.loss = _running_mean(self.loss, loss.item())
        if not math.isfinite(self.loss):
            raise PenstockError(
                f"the training loss is {self.loss} at step {self.step}: lower training.learning_rate "
                f"(it was {self.peak_learning_rate:g})",
                exit_code=1,
            )

    def _validate(self, should_stop: Callable[[], bool]) -> None:
        if self.validation is None or self._validated_step == self.step:
            return
        self.state = "validating"
        errors = self.validation.errors(self.surrogate, should_stop)
        if errors is not None:
            if not math.isfinite(errors["max"]):
                raise PenstockError(
                    f"the validation error is not finite at step {self.step}: lower training.learning_rate "
                    f"(it was {self.peak_learning_rate:g}), then resume from the last checkpoint",
                    exit_code=1,
                )
            self.validation_errors = errors
            self._validated_step = self.step
            self.best_error = errors["mean"] if self.best_error is None else min(self.best_error, errors["mean"])

    def _save(self) -> None:
        if self.checkpoint is not None:
            self.state = "saving a checkpoint"
            self.checkpoint(self)

    def _cause_to_end(self, should_stop: Callable[[], bool]) -> str | None:
        if should_stop():
            return "stopped"
        for name, fraction in self.stop_after.fractions(**self._done()).items():
            if fraction >= 1 and name != "simulations":
                return name
        target = self.stop_after.error
        if target is not None and self.validation_errors is not None and self.validation_errors["mean"] <= target:
            return "error"
        return "stream ended" if self.buffer.exhausted else None

    def _done(self) -> dict[str, float]:
        # Simulations count once their samples were drawn: a learning rate of 0 must not meet a buffer of unseen ones.
        drawn = 1 - self.buffer.num_unseen / max(1, self.buffer.num_put)
        return {"minutes": self.train_seconds / 60, "steps": self.step, "simulations": self.ended() * drawn}

    # Checkpoints

    def checkpoint_state(self, *, with_buffer: bool = True) -> dict:
        """What `checkpoint.save` takes: weights, optimizer, buffer, meta. Hold ingestion until it is written."""
        optimizer: dict[str, Tensor] = {}
        for name, parameter in self.surrogate.named_parameters():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                optimizer[f"{key}.{name}"] = value
        optimizer["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            optimizer["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "weights": self.surrogate.state_dict(),
            "optimizer": optimizer,
            "buffer": self.buffer.state() if with_buffer else None,
            "meta": {
                "training": {
                    "step": self.step,
                    "num_trained": self.num_trained,
                    "loss": self.loss,
                    "validation_errors": self.validation_errors,
                    "best_error": self.best_error,
                    "learner_wait_seconds": self.learner_wait_seconds,
                    "train_seconds": self.train_seconds,
                    "normalization_is_fixed": self._normalization_is_fixed,
                },
                # of these very weights
                "validation": self.validation_errors if self._validated_step == self.step else None,
            },
        }

    def load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Restores a `Checkpoint`: the next steps are those that would have followed it.

        Raises PenstockError when it is of another model.
        """
        checkpoint.load_into(self.surrogate)
        for name, parameter in self.surrogate.named_parameters():
            # absent before the first step
            state = {key: checkpoint.optimizer.get(f"{key}.{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
            if state["step"] is not None:
                self._optimizer.state[parameter] = {key: value.to(self.device) for key, value in state.items()}
        torch.set_rng_state(checkpoint.optimizer["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in checkpoint.optimizer:
            torch.cuda.set_rng_state(checkpoint.optimizer["random.cuda"], self.device)
        if checkpoint.buffer is not None:
            self.buffer.load_state(checkpoint.buffer)
        training = checkpoint.meta["training"]
        self.step = training["step"]
        self.num_trained = training["num_trained"]
        self.loss = training["loss"]
        self.best_error = training["best_error"]
        self.learner_wait_seconds = training["learner_wait_seconds"]
        self.train_seconds = training["train_seconds"]
        self.validation_errors = training["validation_errors"]
        self._normalization_is_fixed = training["normalization_is_fixed"]


def _running_mean(mean: float | None, value: float) -> float:
    return value if mean is None else LOSS_MEMORY * mean + (1 - LOSS_MEMORY) * value
