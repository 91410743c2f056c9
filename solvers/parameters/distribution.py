"""What a parameter space asks of a distribution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol, runtime_checkable

import numpy as np


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
class AtQuantiles(Protocol):
    """A distribution whose values can be chosen by their quantiles, as point sets do."""

    def at_quantiles(self, quantiles: np.ndarray, generator: np.random.Generator) -> Any:
        """The value with these quantiles.

        Args:
            quantiles: numbers inside of (0, 1), one per `quantile_names`.
            generator: for what the quantiles leave open.
        """
        ...


@runtime_checkable
class Narrowable(Protocol):
    """A distribution that can be restricted in a configuration."""

    def narrowed(self, given: Any) -> Distribution:
        """The distribution of the values that are `given`, a part of those that it has.

        Raises:
            ValueError: they are none of its values, or not a part of them.
        """
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


class FunctionOfField(ABC):
    """A field that is a function of another one.

    It has the capabilities of that one, see `can`.

    Args:
        field: the other field, such as a `GaussianField`.
    """

    def __init__(self, field: Distribution):
        self.field = field

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """One field, float64 [*grid]."""
        return self.of(self.field.draw(generator))

    def at_quantiles(self, quantiles: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The field of the other field that has these quantiles."""
        return self.of(self.field.at_quantiles(quantiles, generator))

    @abstractmethod
    def of(self, values: np.ndarray) -> np.ndarray:
        """The function of the other field's values."""

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The names of `quantiles`, which are those of the other field."""
        return self.field.quantile_names(name)

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantiles of the other field."""
        return self.field.quantiles(generator)


def can(distribution: Distribution, capability: type) -> bool:
    """Whether a distribution has a capability.

    A function of a field has it if that field has it.

    Args:
        distribution: the distribution.
        capability: `AtQuantiles` or `WithQuantiles`.
    """
    while isinstance(distribution, FunctionOfField):
        distribution = distribution.field
    return isinstance(distribution, capability)
