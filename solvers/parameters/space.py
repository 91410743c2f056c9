"""Parameter spaces and seeded draws."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, Protocol, runtime_checkable
from zlib import crc32

import numpy as np
from scipy.special import ndtr


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


class Distribution(Protocol):
    """One random quantity of a problem."""

    def draw(self, generator: np.random.Generator) -> Any:
        """One value."""
        ...

    def features(self, value: Any) -> np.ndarray:
        """The vector [F] to sort values by, scaled so that draws spread by about 1."""
        ...

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        ...


@runtime_checkable
class WithQuantiles(Protocol):
    """A distribution that can be tested for bias in a stream of its draws.

    The quantile of a scalar x with cumulative distribution F is F(x), the probability integral transform: uniform on
    [0, 1] over draws, whatever the distribution. So one measure serves all parameters.
    """

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The names of the quantiles of the quantity `name`."""
        ...

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The independent quantiles [F] of what `draw` returns for this generator.

        Args:
            generator: a generator in the state that `draw` would be given; it is left as `draw` leaves it.

        Returns:
            Quantiles that are uniform on [0, 1] over draws. They are computed from the random numbers, because the
            drawn value may show less than was drawn: the sign of a field hides its modes.
        """
        ...


@dataclass(frozen=True)
class Uniform:
    """A scalar, uniform on [low, high].

    Raises:
        ValueError: `low` is not below `high`.
    """

    low: float
    """The smallest value."""
    high: float
    """The largest value."""
    unit: str = "1"
    """Physical unit, for people; "1" when dimensionless."""

    def __post_init__(self):
        if not self.low < self.high:
            raise ValueError(f"low = {self.low} must be below high = {self.high}")

    def draw(self, generator: np.random.Generator) -> float:
        """One value."""
        return float(generator.uniform(self.low, self.high))

    def features(self, value: float) -> np.ndarray:
        """The value, scaled to [0, 1]."""
        return np.array([(value - self.low) / (self.high - self.low)])

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The name itself, because there is one quantile."""
        return (name,)

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantile of the value that `draw` returns for this generator, [1]."""
        return np.array([generator.random()])

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return f"uniform on [{self.low:g}, {self.high:g}] {self.unit}"


@dataclass(frozen=True)
class LogUniform:
    """A scalar whose logarithm is uniform on [log low, log high].

    Raises:
        ValueError: `low` is not above 0 and below `high`.
    """

    low: float
    """The smallest value."""
    high: float
    """The largest value."""
    unit: str = "1"
    """Physical unit, for people; "1" when dimensionless."""

    def __post_init__(self):
        if not 0 < self.low < self.high < inf:
            raise ValueError(f"low = {self.low} must be above 0 and below high = {self.high}, which must be finite")

    def draw(self, generator: np.random.Generator) -> float:
        """One value."""
        return float(np.exp(generator.uniform(np.log(self.low), np.log(self.high))))

    def features(self, value: float) -> np.ndarray:
        """The logarithm of the value, scaled to [0, 1]."""
        return np.array([np.log(value / self.low) / np.log(self.high / self.low)])

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The name itself, because there is one quantile."""
        return (name,)

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantile of the value that `draw` returns for this generator, [1]."""
        return np.array([generator.random()])

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return f"log-uniform on [{self.low:g}, {self.high:g}] {self.unit}"


@dataclass(frozen=True)
class Normal:
    """A scalar, normal with this mean and standard deviation.

    Raises:
        ValueError: `deviation` is not above 0.
    """

    mean: float = 0.0
    """The mean."""
    deviation: float = 1.0
    """The standard deviation."""
    unit: str = "1"
    """Physical unit, for people; "1" when dimensionless."""

    def __post_init__(self):
        if not self.deviation > 0:
            raise ValueError(f"deviation = {self.deviation} must be above 0: for a number that is known, draw nothing")

    def draw(self, generator: np.random.Generator) -> float:
        """One value."""
        return float(generator.normal(self.mean, self.deviation))

    def features(self, value: float) -> np.ndarray:
        """The value, scaled to a mean of 0 and a standard deviation of 1."""
        return np.array([(value - self.mean) / self.deviation])

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The name itself, because there is one quantile."""
        return (name,)

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantile of the value that `draw` returns for this generator, [1]."""
        return np.array([ndtr(generator.standard_normal())])

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return f"normal with mean {self.mean:g} and standard deviation {self.deviation:g}, in {self.unit}"


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
    def quantile_names(self) -> tuple[str, ...]:
        """The names of `quantiles`; none if a distribution is not `WithQuantiles`."""
        distributions = self.distributions
        if not all(isinstance(distribution, WithQuantiles) for distribution in distributions.values()):
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
