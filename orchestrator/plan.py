"""From a configuration to what a run is built from: every part chosen, every option of it spelt out."""

from __future__ import annotations

from typing import Any

import torch

from penstock.learner.buffers.units import DRAWS, Samples
from penstock.learner.losses.losses import LOSSES
from penstock.learner.models import MODELS
from penstock.orchestrator.assembly import OF_THE_PROBLEM, make_draw
from penstock.orchestrator.blueprint import Blueprint
from penstock.orchestrator.config.config import Config, Named
from penstock.registry import build, is_plain, load_class, plain, read_source, with_defaults
from penstock.solvers import mpi
from penstock.solvers.linear import STRATEGIES
from penstock.solvers.problems import PROBLEMS


def resolve(config: Config) -> Blueprint:
    """The blueprint of a configuration, with the defaults of all parts in it: so `config.yaml` repeats the run.

    Raises PenstockError for a part that does not exist or refuses its options.
    """
    problem_source = read_source(config.problem.name, "problem.name")
    model_source = read_source(config.model.name, "model.name")
    mpi.make_ready()  # a user's file may import mpi4py

    def spelt_out(choice: Named, cls: type, **kinds: Any) -> Named:
        # A class may have an option `name`, which a configuration can't give: it keeps its default.
        return Named(**{**with_defaults(cls, choice.options, **kinds), "name": choice.name})

    solver, buffer, training = config.solver, config.buffer, config.training
    draw = load_class(buffer.draw.name, DRAWS, "buffer.draw", takes_files=False)
    problem = load_class(config.problem.name, PROBLEMS, "problem.name", problem_source)
    model = load_class(config.model.name, MODELS, "model.name", model_source)
    strategy = load_class(solver.strategy.name, STRATEGIES, "solver.strategy", takes_files=False)
    loss = load_class(training.loss.name, LOSSES, "training.loss", takes_files=False)
    changes = {
        "problem": spelt_out(config.problem, problem),
        "model": spelt_out(config.model, model, given=1),
        "solver": solver.model_copy(update={"strategy": spelt_out(solver.strategy, strategy)}),
        "buffer": buffer.model_copy(update={"draw": spelt_out(buffer.draw, draw, given=draw is not Samples)}),
        "training": training.model_copy(update={"loss": spelt_out(training.loss, loss, leave_out=OF_THE_PROBLEM)}),
    }
    blueprint = Blueprint(
        config=config.model_copy(update=changes), problem_source=problem_source, model_source=model_source
    )
    return _with_model_as_taken(blueprint)


def _with_model_as_taken(blueprint: Blueprint) -> Blueprint:
    """With what one of our models takes for an option that is null, which the built one has by the option's name."""
    choice = blueprint.config.model
    open_options = [name for name, value in choice.options.items() if value is None]
    if choice.name not in MODELS or not open_options:
        return blueprint
    layout = make_draw(blueprint).layout(blueprint.problem().layout)
    with torch.device("meta"):
        model = build(MODELS[choice.name], choice.options, "model", layout)
    taken = {name: getattr(model, name, None) for name in open_options}
    options = choice.options | {name: plain(value) for name, value in taken.items() if is_plain(value)}
    config = blueprint.config.model_copy(update={"model": Named(name=choice.name, **options)})
    return Blueprint(config=config, problem_source=blueprint.problem_source, model_source=blueprint.model_source)
