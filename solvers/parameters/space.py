"""Parameter spaces and seeded draws."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import exp, inf, log
from typing import Any, Protocol, runtime_checkable
from zlib import crc32

import numpy as np
from scipy.special import ndtr, ndtri

LEAST_MASS = 1e-200  # of a normal distribution that is truncated: less has no digits


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


class Scalar(ABC):
    """A scalar, the inverse of its distribution function at a number drawn from [0, 1)."""

    @abstractmethod
    def at(self, quantile: float) -> Any:
        """The value with this quantile."""

    def draw(self, generator: np.random.Generator) -> Any:
        """One value."""
        return self.at(generator.random())

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The name itself, because there is one quantile."""
        return (name,)

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantile of the value that `draw` returns for this generator, [1]."""
        return np.array([generator.random()])


@dataclass(frozen=True)
class Uniform(Scalar):
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
        _check_interval(self.low, self.high)

    def at(self, quantile: float) -> float:
        """The value with this quantile."""
        return self.low + (self.high - self.low) * quantile

    def features(self, value: float) -> np.ndarray:
        """The value, scaled to [0, 1]."""
        return np.array([(value - self.low) / (self.high - self.low)])

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return f"uniform on [{self.low:g}, {self.high:g}] {self.unit}"


@dataclass(frozen=True)
class LogUniform(Scalar):
    """A scalar whose logarithm is uniform, on [low, high].

    Raises:
        ValueError: `low` is not above 0, or not below `high`.
    """

    low: float
    """The smallest value, above 0."""
    high: float
    """The largest value."""
    unit: str = "1"
    """Physical unit, for people; "1" when dimensionless."""

    def __post_init__(self):
        if not self.low > 0:
            raise ValueError(f"low = {self.low} must be above 0: it has a logarithm")
        _check_interval(self.low, self.high)

    def at(self, quantile: float) -> float:
        """The value with this quantile."""
        value = exp(log(self.low) + (log(self.high) - log(self.low)) * quantile)
        return min(max(value, self.low), self.high)  # rounding may lead beyond

    def features(self, value: float) -> np.ndarray:
        """The logarithm, scaled to [0, 1]."""
        return np.array([(log(value) - log(self.low)) / (log(self.high) - log(self.low))])

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return f"log-uniform on [{self.low:g}, {self.high:g}] {self.unit}"


@dataclass(frozen=True)
class Normal(Scalar):
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
        _check_deviation(self.deviation)

    def at(self, quantile: float) -> float:
        """The value with this quantile."""
        return self.mean + self.deviation * float(ndtri(quantile))

    def draw(self, generator: np.random.Generator) -> float:
        """One value."""
        return float(generator.normal(self.mean, self.deviation))

    def features(self, value: float) -> np.ndarray:
        """The value, scaled to a mean of 0 and a standard deviation of 1."""
        return np.array([(value - self.mean) / self.deviation])

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantile of the value that `draw` returns for this generator, [1]."""
        return np.array([ndtr(generator.standard_normal())])

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return f"normal with mean {self.mean:g} and standard deviation {self.deviation:g}, in {self.unit}"


@dataclass(frozen=True)
class TruncatedNormal(Scalar):
    """A scalar, normal with this mean and standard deviation, given that it lies in [low, high].

    Its own mean and standard deviation are others.

    Raises:
        ValueError: `deviation` is not above 0, `low` is not below `high`, or the normal distribution has next to no
            mass between them.
    """

    mean: float
    """The mean before truncation."""
    deviation: float
    """The standard deviation before truncation."""
    low: float
    """The smallest value; -inf for none."""
    high: float
    """The largest value; inf for none."""
    unit: str = "1"
    """Physical unit, for people; "1" when dimensionless."""

    def __post_init__(self):
        _check_deviation(self.deviation)
        if not self.low < self.high:
            raise ValueError(f"low = {self.low} must be below high = {self.high}")
        if not np.subtract(*self._mass[::-1]) > LEAST_MASS:
            raise ValueError(
                f"[{self.low}, {self.high}] holds less than {LEAST_MASS:g} of a normal distribution with mean "
                f"{self.mean} and deviation {self.deviation}"
            )

    @property
    def _sign(self) -> int:
        """-1 above the mean, where Φ is 1 to rounding: its mirror image below has all digits."""
        return -1 if self.low > self.mean else 1

    @property
    def _mass(self) -> tuple[float, float]:
        """Φ at the lower and the upper end, of the mirror image where there is one."""
        ends = sorted(self._sign * (end - self.mean) / self.deviation for end in (self.low, self.high))
        return tuple(ndtr(ends).tolist())

    def at(self, quantile: float) -> float:
        """The value with this quantile."""
        before, after = self._mass
        share = quantile if self._sign > 0 else 1 - quantile
        value = self.mean + self._sign * self.deviation * float(ndtri(before + share * (after - before)))
        return min(max(value, self.low), self.high)  # rounding may lead beyond

    def features(self, value: float) -> np.ndarray:
        """The quantile of the value."""
        before, after = self._mass
        share = (ndtr(self._sign * (value - self.mean) / self.deviation) - before) / (after - before)
        return np.array([share if self._sign > 0 else 1 - share])

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return (
            f"normal with mean {self.mean:g} and standard deviation {self.deviation:g}, truncated to "
            f"[{self.low:g}, {self.high:g}], in {self.unit}"
        )


@dataclass(frozen=True)
class Discrete(Scalar):
    """One of several values, each with the same probability.

    Raises:
        ValueError: there are fewer than 2 values, or one of them twice.
    """

    values: tuple[Any, ...]
    """The values, numbers or text."""
    unit: str = "1"
    """Physical unit, for people; "1" when dimensionless."""

    def __post_init__(self):
        object.__setattr__(self, "values", tuple(self.values))  # frozen
        if len(self.values) < 2:
            raise ValueError(f"values = {self.values} must be at least 2: for a value that is known, draw nothing")
        if len(set(self.values)) < len(self.values):
            raise ValueError(f"values = {self.values} must differ from one another")

    def at(self, quantile: float) -> Any:
        """The value with this quantile."""
        return self.values[min(int(quantile * len(self.values)), len(self.values) - 1)]

    def features(self, value: Any) -> np.ndarray:
        """A number per value, at which different values have a distance of 1."""
        return np.array([value == other for other in self.values]) / np.sqrt(2)

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return f"one of {', '.join(map(str, self.values))} with the same probability, in {self.unit}"


def _check_interval(low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"low = {low} must be below high = {high}")
    if not -inf < low < high < inf:
        raise ValueError(f"low = {low} and high = {high} must be finite")


def _check_deviation(deviation: float) -> None:
    if not 0 < deviation < inf:
        raise ValueError(f"deviation = {deviation} must be above 0 and finite: for a known number, draw nothing")


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
