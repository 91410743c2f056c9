"""Parameter spaces and seeded draws, with the distributions of scalars."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any
from zlib import crc32

import numpy as np

from penstock.registry import nearest
from penstock.solvers.parameters.distribution import AtQuantiles, Distribution, Narrowable, WithQuantiles, can
from penstock.solvers.parameters.scalars import Discrete, LogUniform, Normal, TruncatedNormal, Uniform

__all__ = [
    "Discrete",
    "LogUniform",
    "Normal",
    "ParameterSpace",
    "TruncatedNormal",
    "Uniform",
    "generator_of",
]


def generator_of(seed: int, design: str, simulation: int) -> np.random.Generator:
    """The random generator of one simulation.

    It depends on nothing else, so any worker can redo the simulation.

    Args:
        seed: seed of the run.
        design: name of the design, such as "training" or "validation".
        simulation: number of the simulation.

    Returns:
        A fresh generator.
    """
    return np.random.default_rng(np.random.SeedSequence((seed, crc32(design.encode()), simulation)))


class ParameterSpace:
    """Named distributions, drawn in the order given.

    For instance ParameterSpace(wavenumber=Uniform(1, 5), ...).

    Args:
        **distributions: the distribution of each parameter, by its name.
    """

    def __init__(self, **distributions: Distribution):
        self.distributions = distributions

    def draw(self, generator: np.random.Generator) -> dict[str, Any]:
        """One value of every parameter, by name."""
        return {name: distribution.draw(generator) for name, distribution in self.distributions.items()}

    def features(self, parameters: dict[str, Any]) -> np.ndarray:
        """The features [F] of all parameters, in their order."""
        return np.concatenate(
            [distribution.features(parameters[name]) for name, distribution in self.distributions.items()]
        )

    @property
    def takes_quantiles(self) -> bool:
        """Whether `at_quantiles` works, because each distribution is `AtQuantiles`."""
        return all(can(distribution, AtQuantiles) for distribution in self.distributions.values())

    def at_quantiles(self, quantiles: np.ndarray, generator: np.random.Generator) -> dict[str, Any]:
        """The parameters with these quantiles, by name.

        Args:
            quantiles: numbers inside of (0, 1), in the order of `quantile_names`.
            generator: for what the quantiles leave open, such as the fine modes of a field.
        """
        values, first = {}, 0
        for name, distribution in self.distributions.items():
            end = first + len(distribution.quantile_names(name))
            values[name] = distribution.at_quantiles(quantiles[first:end], generator)
            first = end
        return values

    def narrowed(self, given: Mapping[str, Any]) -> ParameterSpace:
        """The space with some distributions narrowed or fixed.

        Args:
            given: what `narrowed` of a distribution takes, by the parameter's name.

        Raises:
            ValueError: a parameter is unknown, can't be narrowed, or not so; the message begins with its name.
        """
        distributions = dict(self.distributions)
        for name, part in given.items():
            if name not in distributions:
                raise ValueError(f"{name}: unknown parameter; {nearest(name, distributions)}")
            if not isinstance(distributions[name], Narrowable):
                raise ValueError(
                    f"{name} = {part!r}: its distribution can't be narrowed: {distributions[name].describe()}"
                )
            try:
                distributions[name] = distributions[name].narrowed(part)
            except ValueError as error:
                raise ValueError(f"{name} = {part!r}: {error}") from error
        return ParameterSpace(**distributions)

    @cached_property
    def quantile_names(self) -> tuple[str, ...]:
        """The names of `quantiles`; none if a distribution is not `WithQuantiles`."""
        distributions = self.distributions
        if not all(can(distribution, WithQuantiles) for distribution in distributions.values()):
            return ()
        return tuple(quantile for name in distributions for quantile in distributions[name].quantile_names(name))

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantiles [F] of the draw that this generator gives.

        They are in the order of `quantile_names`, independent and uniform on [0, 1].
        """
        if not self.quantile_names:
            return np.empty(0)
        return np.concatenate([distribution.quantiles(generator) for distribution in self.distributions.values()])

    def describe(self) -> dict[str, str]:
        """One line of prose per parameter, as an exported model's card prints it."""
        return {name: distribution.describe() for name, distribution in self.distributions.items()}
