"""Optimizers by name, which change the weights by their gradients.

An optimizer is called as `Optimizer(groups, **options)` with torch's parameter groups, as those of torch.optim are. The
learning rate is given to its groups before each step. A group of the weights of convolutions has `kernels=True`: they
are [C, C', *kernel]. What it keeps for a parameter must be tensors in `state`, so that checkpoints can hold it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.learner.optimizers.adamw import AdamW
from penstock.learner.optimizers.muon import Muon

OPTIMIZERS: dict[str, type] = {"adamw": AdamW, "muon": Muon}


@dataclass(frozen=True)
class Recipe:
    """What trains a model well where a configuration says nothing."""

    optimizer: str
    """A key of OPTIMIZERS."""
    learning_rate: float
    """The highest learning rate, for this optimizer."""


PLAIN = Recipe("adamw", 4e-3)


def recipe_of(model: type, options: Mapping[str, Any]) -> Recipe:
    """Return what trains a model well where a configuration says nothing.

    Args:
        model: its class. One around another model has `inside`, the classes by the name that its option `model` takes.
        options: its options, defaults among them.

    Returns:
        The attribute `recipe` of the class, or of the one inside; PLAIN if it has none.
    """
    inside = getattr(model, "inside", {}).get(options.get("model"))
    return getattr(inside or model, "recipe", PLAIN)
