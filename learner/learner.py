"""Training from a stream: from chunks to checkpoints. Used by the run's learner, notebooks, benches and tests alike."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from penstock.layout import Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.checkpoints.saver import Saver
from penstock.learner.checkpoints.store import PlainStore, Store
from penstock.learner.optimization import Optimization
from penstock.learner.rehearsal.rehearsal import try_export
from penstock.learner.settings import Settings
from penstock.learner.standing import Standing
from penstock.learner.stream.ingest import Ingest
from penstock.learner.stream.order import FreeRunning, Order
from penstock.learner.stream.stream import Stream
from penstock.learner.trainer import Trainer
from penstock.learner.validation.collect import Collector
from penstock.status import Account, LearnerStatus


class Learner:
    """Gathers the validation set, then trains while samples come, validates and saves.

    step: of a surrogate that is on its device.
    buffer: empty; its draws are what a row of a batch is.
    stream: whose chunks are samples of `layout`, the problem's.
    store: goes on from the newest checkpoint in it, and with its validation set; without one nothing is kept.
    quantile_names: of the parameters that ride with the samples, whose bias in the buffer a status has.
    tries_export: say in the notes why the surrogate can't be exported, if so.

    `run` may be called once, in any thread. Everything else returns at once and may be called meanwhile, by one thread.
    """

    def __init__(
        self,
        step: Optimization,
        buffer: Buffer,
        stream: Stream,
        layout: Layout,
        settings: Settings,
        *,
        store: Store | None = None,
        order: Order = FreeRunning(),  # noqa: B008 (frozen)
        quantile_names: Sequence[str] = (),
        tries_export: bool = False,
    ):
        limit = settings.stop_after.simulations
        ingest = Ingest(order.source(stream), buffer, layout, settings.rate_limiter(), limit)
        feed = order.batches(ingest, step.surrogate.device, settings.batch_size)
        self._store = store or PlainStore()
        self._saver: Saver | None = None
        if self._store.checkpoints is not None:
            keep, with_buffer = settings.checkpoints_kept, settings.saves_buffer
            self._saver = Saver(self._store.checkpoints, ingest, keep=keep, with_buffer=with_buffer)
        self.trainer = Trainer(step, feed, ingest, settings, saver=self._saver)
        self.ingest = ingest
        self._order = order
        self._validation_set = self._store.read_validation(layout)  # until there is a Validation of it
        ended = [] if self._validation_set is None else [self._validation_set.ended]
        self._collector = Collector(stream, layout, settings.validation_simulations, *ended)
        self._standing = Standing(self.trainer, self._collector, quantile_names)
        self._export_trial = threading.Thread(target=self._try_export, name="export trial", daemon=True)
        self._tries_export = tries_export
        self._stop = threading.Event()
        if self._saver is not None and (saved := self._saver.newest()) is not None:
            self.trainer.load_checkpoint(saved)

    @property
    def buffer(self) -> Buffer:
        return self.ingest.buffer

    def run(self) -> str | None:
        """Train to the end; returns its cause, see `Trainer.run`. None where the validation set did not come about."""
        try:
            if self._tries_export:
                self._export_trial.start()
            if self._gather_validation():
                self._train()
        finally:
            if self._saver is not None:
                self._saver.wait()  # a checkpoint that was begun is finished, whatever ended training
        return self.cause

    def _gather_validation(self) -> bool:
        """False when stopped before the set was whole, or when all its simulations failed."""
        layout, settings = self.ingest.layout, self.trainer.settings
        collected, self._validation_set = self._validation_set, None
        if collected is None and settings.validation_simulations:
            collected = self._collector.run(self._stop.is_set)
            if collected is None:
                return False
            self._store.write_validation(collected, layout)
        if self._tries_export and self._order.must_repeat:
            self._export_trial.join()  # both may draw random numbers
        if collected is not None:
            size, device = settings.validation_batch_size, self.trainer.feed.device
            validation = collected.validation(self.buffer.unit, layout, batch_size=size, device=device)
            self.trainer.course.validation = validation
        return True

    def _train(self) -> None:
        self._standing.is_training = True
        has_thread = not self.trainer.feed.takes_from_stream
        if has_thread:
            self.ingest.start(self._stop.is_set)
        try:
            self._standing.cause = self.trainer.run(self._stop.is_set)
        finally:
            self._stop.set()  # for the ingest
        if has_thread:
            self.ingest.join()

    def stop(self) -> None:
        """Checkpoint at the next step and end."""
        self._stop.set()

    def give_up(self, design: str, failed: Mapping[int, str]) -> None:
        """Write down simulations that no worker lives to finish, with the reason."""
        (self._collector if design == "validation" else self.ingest).give_up(failed)

    @property
    def cause(self) -> str | None:
        """Of the end of training."""
        return self._standing.cause

    def note(self, note: str) -> None:
        """A line for people, which the next status has."""
        self._standing.note(note)

    @property
    def account(self) -> Account:
        """What has come in, and how simulations ended."""
        return self._standing.account

    def status(self) -> LearnerStatus:
        """Where training stands. Solves, decisions, notes and ended leases come once."""
        return self._standing.status()

    def _try_export(self) -> None:
        """It takes 10 s of a core, while the first solves are under way."""
        if note := try_export(self.trainer.surrogate):
            self.note(note)
