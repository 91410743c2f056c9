"""Distributions of scalars."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from math import exp, inf, isfinite, log
from numbers import Real
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from penstock.solvers.parameters.distribution import Distribution

LEAST_MASS = 1e-200  # of a normal distribution that is truncated: less has no digits


class Scalar(ABC):
    """A scalar: its distribution function, inverted at a number from [0, 1)."""

    @abstractmethod
    def at(self, quantile: float) -> Any:
        """The value with this quantile."""

    def draw(self, generator: np.random.Generator) -> Any:
        """One value."""
        return self.at(generator.random())

    def at_quantiles(self, quantiles: np.ndarray, generator: np.random.Generator) -> Any:
        """The value with this quantile, [1]; nothing else is drawn."""
        return self.at(float(quantiles[0]))

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The name itself, because there is one quantile."""
        return (name,)

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantile of the value that `draw` returns for this generator, [1]."""
        return np.array([generator.random()])


class Interval(Scalar):
    """A scalar with a density on an interval.

    A configuration may narrow it to a part of the interval or to a number.
    """

    low: float
    high: float
    unit: str

    def narrowed(self, given: Any) -> Distribution:
        """The distribution on a part of the interval, or at one of its numbers.

        Args:
            given: [low, high], or a number.

        Raises:
            ValueError: it is neither, is empty, or is not inside of the interval.
        """
        ends = given if isinstance(given, list | tuple) else [given]
        if len(ends) not in (1, 2) or not all(_is_number(end) for end in ends):
            raise ValueError("give a number, or a range [low, high]")
        if not all(self.low <= end <= self.high for end in ends):
            raise ValueError(f"it must lie in [{self.low:g}, {self.high:g}], where the parameter is drawn from")
        if ends is not given:
            return Fixed(float(given), self.unit)
        if len(ends) < 2 or not ends[0] < ends[1]:
            raise ValueError("the range is empty: give [low, high] with low below high, or a number")
        return self.between(*map(float, ends))

    def between(self, low: float, high: float) -> Distribution:
        """The distribution given that the value lies in [low, high], a part of it."""
        return replace(self, low=low, high=high)


@dataclass(frozen=True)
class Uniform(Interval):
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
        return f"uniform on [{self.low:g}, {self.high:g}]{_in(self.unit, ' ')}"


@dataclass(frozen=True)
class LogUniform(Interval):
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
        return f"log-uniform on [{self.low:g}, {self.high:g}]{_in(self.unit, ' ')}"


@dataclass(frozen=True)
class Normal(Interval):
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

    low = -inf
    high = inf

    def __post_init__(self):
        _check_deviation(self.deviation)

    def between(self, low: float, high: float) -> Distribution:
        """The normal distribution truncated to [low, high]."""
        return TruncatedNormal(self.mean, self.deviation, low, high, self.unit)

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
        return f"normal with mean {self.mean:g} and standard deviation {self.deviation:g}{_in(self.unit)}"


@dataclass(frozen=True)
class TruncatedNormal(Interval):
    """A scalar, normal given that it lies in [low, high].

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
        """-1 for an interval above the mean.

        Φ is 1 there to rounding, and its mirror image below the mean has all digits.
        """
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
            f"[{self.low:g}, {self.high:g}]{_in(self.unit)}"
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

    def narrowed(self, given: Any) -> Distribution:
        """The distribution of some of the values, with the same probability each.

        Args:
            given: a list of them, or one of them.

        Raises:
            ValueError: one of those given is none of the values.
        """
        chosen = given if isinstance(given, list | tuple) else [given]
        if not chosen or any(value not in self.values for value in chosen):
            raise ValueError(f"give some of the values {', '.join(map(str, self.values))}, or one of them")
        chosen = [self.values[self.values.index(value)] for value in chosen]  # 3 and not 3.0, as the problem expects
        return Discrete(tuple(chosen), self.unit) if len(chosen) > 1 else Fixed(chosen[0], self.unit)

    def features(self, value: Any) -> np.ndarray:
        """A number per value, at which different values have a distance of 1."""
        return np.array([value == other for other in self.values]) / np.sqrt(2)

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return f"one of {', '.join(map(str, self.values))} with the same probability{_in(self.unit)}"


@dataclass(frozen=True)
class Fixed:
    """A value that is known, in place of a parameter that would be drawn."""

    value: Any
    """The value."""
    unit: str = "1"
    """Physical unit, for people; "1" when dimensionless."""

    def draw(self, generator: np.random.Generator) -> Any:
        """The value; nothing is drawn."""
        return self.value

    def at_quantiles(self, quantiles: np.ndarray, generator: np.random.Generator) -> Any:
        """The value."""
        return self.value

    def features(self, value: Any) -> np.ndarray:
        """Nothing, [0]: draws do not differ."""
        return np.empty(0)

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """No names."""
        return ()

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """No quantiles, [0]."""
        return np.empty(0)

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return f"fixed at {self.value}{_in(self.unit)}"


def _in(unit: str, before: str = ", in ") -> str:
    """The unit at the end of a description; nothing where there is none."""
    return "" if unit == "1" else f"{before}{unit}"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)


def _check_interval(low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"low = {low} must be below high = {high}")
    if not -inf < low < high < inf:
        raise ValueError(f"low = {low} and high = {high} must be finite")


def _check_deviation(deviation: float) -> None:
    if not 0 < deviation < inf:
        raise ValueError(f"deviation = {deviation} must be above 0 and finite: for a known number, draw nothing")
