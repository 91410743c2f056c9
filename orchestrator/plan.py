"""From a configuration to the parts of a run, chosen, checked and spelt out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from penstock.errors import PenstockError
from penstock.layout import Layout
from penstock.learner.buffers import UNITS
from penstock.learner.buffers.policies import POLICIES, Policy
from penstock.learner.buffers.units import Samples, Unit
from penstock.learner.checkpoints.store import Store
from penstock.learner.learner import Learner
from penstock.learner.losses.losses import LOSSES, OwnLoss, TotalLoss
from penstock.learner.models import MODELS, preferred, refused_geometry
from penstock.learner.normalization import Normalization
from penstock.learner.optimization import Optimization
from penstock.learner.optimizers import OPTIMIZERS, PLAIN, recipe_of
from penstock.learner.ranks.group import ALONE, Group
from penstock.learner.rehearsal.free_samples import free_samples
from penstock.learner.rehearsal.rehearsal import rehearse, try_out
from penstock.learner.rollout.unrolling import Unrolling
from penstock.learner.schedules import Schedule
from penstock.learner.settings import Settings, StopAfter
from penstock.learner.stream.order import OVERRIDE
from penstock.learner.stream.stream import Stream
from penstock.learner.surrogate import DifferentiatedSurrogate, Surrogate, argument, geometry_arguments
from penstock.learner.validation.rollouts import rollouts_along
from penstock.learner.validation.validation import BATCH_SIZE, Validation
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.config.sections import AsksClock, Named, OnResume, marked
from penstock.orchestrator.resources.placement import device_of, make_buffer
from penstock.orchestrator.solving import Solving
from penstock.registry import build, is_plain, load_class, plain, read_source, with_defaults
from penstock.solvers import mpi
from penstock.solvers.linear import STRATEGIES
from penstock.solvers.problems import PROBLEMS


@dataclass(frozen=True, kw_only=True)
class Plan(Solving):
    """A configuration, resolved once by `resolve`, and the parts of its run."""

    policy_source: str | None
    """Text of the file that `buffer.kind` points into, if it does."""
    model_source: str | None
    """Text of the file that `model.name` points into, if it does."""

    @property
    def solving(self) -> Solving:
        """The half that goes to the solvers' processes."""
        sources = {"problem_source": self.problem_source, "strategy_source": self.strategy_source}
        return Solving(config=self.config, **sources)

    @cached_property
    def unit(self) -> Unit:
        """The draw: what a row of a batch is.

        Raises:
            PenstockError: the problem has no such rows.
        """
        choice = self.config.buffer.draw
        cls = load_class(choice.name, UNITS, "buffer.draw", takes_files=False)
        arguments = () if cls is Samples else (self.problem.num_steps,)
        unit = build(cls, choice.options, "buffer.draw", *arguments)
        try:
            unit = unit.fitted(self.problem.layout)
        except ValueError as error:
            raise PenstockError(f"buffer.draw: {error}") from error
        try:
            return unit.unrolled(1 + self.config.training.rollout.pushforward)
        except ValueError as error:
            raise PenstockError(f"training.rollout.pushforward: {error}") from error

    def policy(self) -> Policy:
        """A new one of `buffer.kind`, for one buffer. Raises PenstockError."""
        choice = self.config.buffer.kind
        cls = load_class(choice.name, POLICIES, "buffer.kind", self.policy_source)
        policy = build(cls, choice.options, "buffer.kind")
        if not isinstance(policy, Policy):
            raise PenstockError(
                f"buffer.kind: {choice.name!r} must be a subclass of penstock.learner.buffers.policies.Policy"
            )
        return policy

    @cached_property
    def batch_layout(self) -> Layout:
        """The layout of batches, which model, training and validation see.

        Raises:
            PenstockError: the problem's samples can't be drawn so.
        """
        try:
            layout = self.unit.layout(self.problem.layout)
        except ValueError as error:  # a name, or an array of a geometry, would be there twice
            raise PenstockError(f"buffer.draw: {error}") from error
        if self.problem.tangents and not layout.tangents:
            raise PenstockError(
                f"buffer.draw: {self.config.buffer.draw.name} leaves out the derivatives of inputs, without which "
                "those of outputs can't be compared: draw samples, or give derivatives as outputs"
            )
        return layout

    @cached_property
    def settings(self) -> Settings:
        """The learner's numbers."""
        training, validation, checkpoint = self.config.training, self.config.validation, self.config.checkpoint
        return Settings(
            batch_size=training.batch_size,
            stop_after=StopAfter(**training.stop_after.model_dump()),
            schedule=Schedule(**training.schedule.model_dump()),
            batches_per_simulation=self.config.buffer.batches_per_simulation,
            validation_simulations=validation.simulations,
            # No more at once than a forward pass of training takes.
            validation_batch_size=min(BATCH_SIZE, training.micro_batch_size or training.batch_size),
            validation_every_s=validation.every_s,
            keeps_worst=bool(self.config.monitor) and any(spec.on is not None for spec in self.problem.outputs),
            checkpoint_every_s=checkpoint.every_s,
            checkpoints_kept=checkpoint.keep,
            saves_buffer=checkpoint.buffer,
        )

    def surrogate(self) -> Surrogate:
        """A new surrogate with an untrained model.

        A user's file is executed again for each, as in a resumed run.

        Raises:
            PenstockError: the model does not exist, refuses its options, or does not suit the problem's fields.
        """
        choice = self.config.model
        cls, layout = load_class(choice.name, MODELS, "model.name", self.model_source), self.batch_layout
        if refusal := refused_geometry(choice.name, cls, layout.of_model):
            raise PenstockError(f"model: {refusal}")
        if layout.tangents and self.config.training.compile:
            raise PenstockError(
                "training.compile: torch.compile can't differentiate a model forwards, which derivatives_as: tangents "
                "needs: leave one of them out"
            )
        model = build(cls, choice.options, "model", layout.of_model)
        ragged = {argument("weights", each, layout) for each in layout.geometries if each.is_ragged}
        if lacking := ragged - geometry_arguments(model, layout):
            raise PenstockError(
                f"model: {choice.name} must take {', '.join(sorted(lacking))} in forward(): samples of "
                f"{self.config.problem.name} have points of their own, padded, and of padding the weight is 0"
            )
        kind = DifferentiatedSurrogate if layout.tangents else Surrogate
        surrogate = kind(model, Normalization.identity(layout), layout)
        try_out(surrogate, choice.name)
        return surrogate

    def model_without_memory(self) -> nn.Module | None:
        """The model on torch's device "meta".

        Returns:
            The model; None for a user's, which may do anything when it is built.

        Raises:
            PenstockError: the model refuses its options.
        """
        choice = self.config.model
        if choice.name not in MODELS:
            return None
        with torch.device("meta"):
            return build(MODELS[choice.name], choice.options, "model", self.batch_layout.of_model)

    def loss(self) -> TotalLoss | OwnLoss:
        """The loss over all outputs, or that of the model.

        Raises:
            PenstockError: the loss does not exist, refuses its options, or the outputs' geometries do not allow it.
        """
        choice = self.config.training.loss
        cls = load_class(choice.name, LOSSES, "training.loss", takes_files=False)
        if cls is OwnLoss:
            model = load_class(self.config.model.name, MODELS, "model.name", self.model_source)
            if not hasattr(model, "loss"):
                raise PenstockError(f"training.loss: of_model, and {self.config.model.name} has no method loss")
            if self.config.training.output_weights:
                raise PenstockError("training.output_weights: of_model weighs outputs itself: leave them out")
            return OwnLoss()
        layout = self.batch_layout
        try:
            loss = TotalLoss(
                layout,
                lambda geometry: build(cls, choice.options, "training.loss", geometry),
                self.config.training.output_weights,
            )
        except ValueError as error:
            raise PenstockError(f"training.output_weights: {error}") from error
        arrays = free_samples(layout, 1, torch.device("cpu"))
        try:
            loss(arrays, arrays, Normalization.identity(layout))
        except (TypeError, ValueError) as error:
            raise PenstockError(f"training.loss: {error}") from error
        return loss

    def _optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer of groups of parameters.

        Raises:
            PenstockError: it does not exist, or refuses its options.
        """
        choice = self.config.training.optimizer
        cls = load_class(choice.name, OPTIMIZERS, "training.optimizer", takes_files=False)
        return build(cls, choice.options, "training.optimizer", groups)

    def step(self, surrogate: Surrogate, group: Group = ALONE) -> Optimization:
        """The optimisation step.

        Args:
            surrogate: the surrogate, on its device.
            group: the learner ranks that share it.

        Returns:
            The step.

        Raises:
            PenstockError: see `loss`; or no input is fed, for a rollout.
        """
        training = self.config.training
        return Optimization(
            surrogate,
            loss=self.loss(),
            learning_rate=training.learning_rate,
            optimizer=self._optimizer,
            precision=training.precision,
            compile=training.compile,
            micro_batch_size=training.micro_batch_size,
            clip_norm=training.clip_norm,
            ema_decay=training.ema_decay,
            unrolling=self._unrolling(),
            group=group,
        )

    def _unrolling(self) -> Unrolling | None:
        rollout = self.config.training.rollout
        if not (rollout.pushforward or rollout.noise):
            return None
        try:
            return Unrolling(self.batch_layout, pushforward=rollout.pushforward, noise=rollout.noise)
        except ValueError as error:
            raise PenstockError(f"training.rollout: {error}") from error

    def validation(
        self,
        arrays: Mapping[str, np.ndarray],
        device: torch.device | str,
        origins: Sequence[np.ndarray] | None = None,
    ) -> Validation:
        """Validation on rows of a validation set.

        Args:
            arrays: the rows, as batches have them.
            device: the device to validate on.
            origins: simulation and step of each row; None if rows have none, and then there are no rollouts.

        Returns:
            The validation.
        """
        steps = rollouts = None
        if origins is not None:
            steps, rollouts = origins[1], rollouts_along(self.unit, self.problem.layout, *origins)
        size = self.settings.validation_batch_size
        return Validation(arrays, self.batch_layout, steps=steps, rollouts=rollouts, batch_size=size, device=device)

    def learner(self, stream: Stream, store: Store | None = None, group: Group = ALONE) -> Learner:
        """The learner of a run.

        Args:
            stream: where its chunks come from.
            store: its checkpoints and validation set, from which it is restored; None keeps nothing.
            group: the learner ranks that train together, of which this is one.

        Returns:
            The learner, ready to run.

        Raises:
            PenstockError: a part can't be built, or does not fit into memory.
        """
        device = device_of(self.config, group.rank)
        surrogate = self.surrogate().to(device)
        if group.rank:
            torch.manual_seed(self.config.seed + group.rank)  # a dropout should differ
        return Learner(
            self.step(surrogate, group),
            make_buffer(self, device, surrogate.weight_bytes, group.rank),
            stream,
            self.problem.layout,
            self.settings,
            store=store,
            order=self.order,
            quantile_names=self.problem.quantile_names,
            tries_export=self.config.model.name not in MODELS and not group.rank,  # ours are known to export
        )

    def rehearse(self, folder: Path) -> list[str]:
        """Put the model through everything that a run does with it, on random samples.

        Args:
            folder: where a checkpoint may be written and is removed again.

        Returns:
            Notes on the model for the user.

        Raises:
            PenstockError: a run of this model would fail or be wrong.
        """
        training = self.config.training
        device = device_of(self.config)
        drains = training.stop_after.simulations is not None  # then the last batch may be of any size
        notes = rehearse(
            lambda: self.surrogate().to(device),
            self.step,
            lambda arrays: self.validation(arrays, device),
            batch_sizes=(training.batch_size, 1) if drains else (training.batch_size,),
            folder=folder,
            must_repeat=self.order.must_repeat,
        )
        if device.type == "cuda":
            torch.cuda.empty_cache()  # what is free decides where the buffer goes
        return notes

    def asks_clock(self) -> Iterator[str]:
        """The choices that depend on a clock, or on anything else that does not repeat.

        Yields:
            The key, with what to give instead.
        """
        for key, value, mark in marked(self.config, AsksClock):
            if mark.when(value):
                yield f"{key}{mark.why}"
        if why := self.strategy().asks_clock:
            yield f"solver.strategy: {why}"

    def require_continues(self, before: Plan) -> None:
        """Check that a run can go on by this plan.

        Args:
            before: the plan that it was run by.

        Raises:
            PenstockError: a key has changed on which its checkpoints, or its order, depend.
        """
        self.order.require_continues(before.order)
        for key, value, mark in marked(self.config, OnResume):
            applies = mark is OnResume.FIXED or self.order.must_repeat
            if applies and value != attrgetter(key)(before.config):
                start = "start" if mark is OnResume.FIXED else f"give {OVERRIDE} too, or start"
                raise PenstockError(f"{key} can't change on resume: the checkpoint depends on it; {start} a new run")


def resolve(config: Config) -> Plan:
    """The plan of a configuration, with the defaults of all of its parts.

    So `config.yaml`, which is written from it, repeats the run.

    Args:
        config: the configuration.

    Returns:
        The plan.

    Raises:
        PenstockError: a part does not exist or refuses its options, or a run that must repeat can't have it.
    """
    sources = {
        "problem_source": read_source(config.problem.name, "problem.name"),
        "strategy_source": read_source(config.solver.strategy.name, "solver.strategy"),
        "policy_source": read_source(config.buffer.kind.name, "buffer.kind"),
        "model_source": read_source(config.model.name, "model.name") if config.model else None,
    }
    mpi.make_ready()  # a user's file may import mpi4py
    chosen = config.model or Named(name=preferred(Plan(config=config, **sources).batch_layout.of_model))

    def spelt_out(choice: Named, cls: type, **kinds: Any) -> Named:
        # A class may have an option `name`, which a configuration can't give: it keeps its default.
        keys = {key: getattr(choice, key) for key in type(choice).model_fields}
        return type(choice)(**(with_defaults(cls, choice.options, **kinds) | keys))

    def without_rate(choice: Named) -> Named:
        return Named(name=choice.name, **{name: value for name, value in choice.options.items() if name != "lr"})

    solver, buffer, training = config.solver, config.buffer, config.training
    draw = load_class(buffer.draw.name, UNITS, "buffer.draw", takes_files=False)
    problem = load_class(config.problem.name, PROBLEMS, "problem.name", sources["problem_source"])
    policy = load_class(buffer.kind.name, POLICIES, "buffer.kind", sources["policy_source"])
    model = load_class(chosen.name, MODELS, "model.name", sources["model_source"])
    strategy = load_class(solver.strategy.name, STRATEGIES, "solver.strategy", sources["strategy_source"])
    loss = load_class(training.loss.name, LOSSES, "training.loss", takes_files=False)
    chosen = spelt_out(chosen, model, given=1)
    recipe = recipe_of(model, chosen.options)
    optimized = training.optimizer or Named(name=recipe.optimizer)
    optimizer = load_class(optimized.name, OPTIMIZERS, "training.optimizer", takes_files=False)
    if "lr" in optimized.options:
        raise PenstockError("training.optimizer: lr goes by the schedule: give training.learning_rate")
    changes = {
        "problem": spelt_out(config.problem, problem),
        "model": chosen,
        "solver": solver.model_copy(update={"strategy": spelt_out(solver.strategy, strategy)}),
        "buffer": buffer.model_copy(
            update={
                "kind": spelt_out(buffer.kind, policy),
                "draw": spelt_out(buffer.draw, draw, given=draw is not Samples),
            }
        ),
        "training": training.model_copy(
            update={
                "loss": spelt_out(training.loss, loss, given=1),
                "optimizer": without_rate(spelt_out(optimized, optimizer, given=1)),
                "learning_rate": training.learning_rate
                or (recipe if optimized.name == recipe.optimizer else PLAIN).learning_rate,
            }
        ),
    }
    plan = Plan(config=config.model_copy(update=changes), **sources)
    plan.order.require_possible(plan.asks_clock())
    return _with_model_as_taken(plan)


def _with_model_as_taken(plan: Plan) -> Plan:
    """The plan with null options of our models replaced by what the model took.

    A built model has that as an attribute of the option's name.
    """
    choice = plan.config.model
    open_options = [name for name, value in choice.options.items() if value is None]
    if choice.name not in MODELS or not open_options:
        return plan
    try:
        model = plan.model_without_memory()
    except PenstockError:  # it is refused once it is asked for, with the names of models that suit
        return plan
    taken = {name: getattr(model, name, None) for name in open_options}
    options = choice.options | {name: plain(value) for name, value in taken.items() if is_plain(value)}
    return replace(plan, config=plan.config.model_copy(update={"model": Named(name=choice.name, **options)}))
