"""The learner: trains a surrogate on a stream of chunks, up to checkpoints.

The actor of a run, notebooks, benches and tests all use this class.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from penstock.files.patience import Patience
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

    `run` may be called once, in any thread. Everything else may be called meanwhile, by one thread, and returns at
    once; only `give_up` and `status` may take 0.2 s, if simulations were given up while a checkpoint is being written.

    If the step has a group of several ranks, each rank has a learner with a separate stream, buffer and `settings`
    alike, and all must run at once. Rank 0 gathers the validation set, from its stream. The ranks share one folder of
    checkpoints. Whatever ends one of them ends the others.

    Args:
        step: optimisation step of a surrogate that is on its device already. Its group is the learner's.
        buffer: the buffer, empty. Its `unit` says what a row of a batch is.
        stream: source of the chunks.
        layout: layout of the problem, and so of the samples in the chunks.
        settings: the numbers that training goes by.
        store: where checkpoints and the validation set are kept; the learner resumes from the newest checkpoint in it
            and takes its validation set. Without a store nothing is kept.
        order: whether samples are taken and drawn as they come, or in an order that repeats.
        quantile_names: names of the parameters whose quantiles travel with the samples; a status reports the bias of
            each in the buffer.
        tries_export: whether to try an export before training, and to note why it fails, if it does.

    Raises:
        PenstockError: the newest checkpoint is damaged or belongs to another model or number of ranks, or the
            validation set is lost.
        ValueError: the buffer has fewer slots than a batch has rows.
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
        self._group = step.group
        limit = settings.stop_after.simulations if self._group.size == 1 else None  # ranks count together, see `Turns`
        ingest = Ingest(order.source(stream), buffer, layout, settings.rate_limiter(), limit)
        feed = order.batches(ingest, step.surrogate.device, settings.batch_size)
        self._store = store or PlainStore()
        self._patience = Patience(self.note)
        self._saver: Saver | None = None
        if self._store.checkpoints is not None:
            self._saver = Saver(
                self._store.checkpoints,
                ingest,
                keep=settings.checkpoints_kept,
                with_buffer=settings.saves_buffer,
                staging=self._store.staging,
                patience=self._patience,
                group=self._group.branch(),
            )
        self.trainer = Trainer(step, feed, ingest, settings, saver=self._saver)
        self.ingest = ingest
        self._order = order
        # until a Validation is made of it
        self._validation_set = self._store.read_validation(layout) if self._group.rank == 0 else None
        ended = [] if self._validation_set is None else [self._validation_set.ended]
        self._num_to_collect = settings.validation_simulations if self._group.rank == 0 else 0
        self._collector = Collector(stream, layout, self._num_to_collect, *ended)
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
        """Gather the validation set and train to the end.

        Returns:
            The cause of the end, as `Trainer.run` names it; None if the validation set was not completed.

        Raises:
            RankLost: another rank is gone.
        """
        try:
            if self._tries_export:
                self._export_trial.start()
            if self._gather_validation():
                self._train()
        finally:
            try:
                if self._saver is not None:
                    self._saver.wait()  # a checkpoint that was begun is finished, whatever ended training
            finally:
                self._group.close()
        return self.cause

    def _gather_validation(self) -> bool:
        """Return False if stopped before the set is whole, or if all of it failed.

        A rank that has nothing to gather waits for the one that has.
        """
        layout, settings = self.ingest.layout, self.trainer.settings
        collected, self._validation_set = self._validation_set, None
        stops = failed = False

        def stopped() -> bool:
            nonlocal stops
            _, stops = self._agree(waits=True)
            return stops

        if collected is None and self._num_to_collect:
            collected = self._collector.run(stopped)
            if stops:
                return False
            failed = collected is None
            if not failed:
                self._patience.write(lambda: self._store.write_validation(collected, layout))
        waits, stops = self._agree(waits=failed, stops=failed)
        while waits and not stops:
            waits, stops = self._agree(waits=False)
        if waits:
            return False
        if self._tries_export and self._order.must_repeat:
            self._export_trial.join()  # both may draw random numbers
        if collected is not None:
            size, device = settings.validation_batch_size, self.trainer.feed.device
            validation = collected.validation(self.buffer.unit, layout, batch_size=size, device=device)
            self.trainer.course.validation = validation
        return True

    def _agree(self, *, waits: bool, stops: bool = False) -> tuple[bool, bool]:
        """Whether any rank waits for the validation set, and whether any is to stop."""
        said = self._group.gather([waits, stops or self._stop.is_set()]).any(axis=0)
        return bool(said[0]), bool(said[1])

    def _train(self) -> None:
        self._standing.is_training = True
        has_thread = not self.trainer.feed.takes_from_stream
        if has_thread:
            self.ingest.start(self._stop.is_set)
        try:
            self._standing.cause = self.trainer.run(self._stop.is_set)
        finally:
            self._stop.set()  # ends the ingest thread
        if has_thread:
            self.ingest.join()
        if self._saver is not None:
            self._saver.finish(self.trainer.step, self.trainer.checkpoint_state)

    def stop(self) -> None:
        """Have training save a checkpoint at the next step and end."""
        self._stop.set()

    def give_up(self, design: str, failed: Mapping[int, str]) -> None:
        """Record as failed simulations that no worker is left to finish.

        Args:
            design: design that they belong to, "training" or "validation".
            failed: reason by simulation id.
        """
        (self._collector if design == "validation" else self.ingest).give_up(failed)

    @property
    def cause(self) -> str | None:
        """Cause of the end of training, as `Trainer.run` names it; None until then."""
        return self._standing.cause

    def note(self, note: str) -> None:
        """Add a line for people to the next status."""
        self._standing.note(note)

    @property
    def account(self) -> Account:
        """Samples that have come in, and how simulations ended."""
        return self._standing.account

    def status(self) -> LearnerStatus:
        """Return where training stands.

        Solves, decisions, notes and ended leases are reported once, in the first status after they happened.
        """
        return self._standing.status()

    def _try_export(self) -> None:
        """Note why the surrogate can't be exported, if so.

        It takes 10 s of a core, while the first solves are under way.
        """
        if note := try_export(self.trainer.surrogate):
            self.note(note)
