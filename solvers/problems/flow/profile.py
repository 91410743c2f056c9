"""Random profiles of a velocity between two walls."""

from __future__ import annotations

import numpy as np

from penstock.solvers.parameters.distribution import FunctionOfField
from penstock.solvers.parameters.fields import GaussianField

SPREAD = 0.5  # standard deviation of the logarithm


class Profile(FunctionOfField):
    """A velocity on [0, 1] that is positive with mean 1, and 0 at both ends.

        f(s) = c (4 s (1 - s))^m exp(g(s) / 2),

    g a Gaussian field with covariance (-Δ + 9)^-2, scaled to a variance of 1, and c such that the mean is 1.

    Args:
        num_points: points of the interval, both ends among them.
        power: m; with 1 f rises from the ends at an angle, with 2 smoothly.
    """

    def __init__(self, num_points: int, *, power: int):
        super().__init__(GaussianField(num_points, dimension=1, centring="vertices"))
        self.power = power
        s = np.arange(num_points) / (num_points - 1)
        self.window = (4 * s * (1 - s)) ** power

    def of(self, values: np.ndarray) -> np.ndarray:
        """The profile of a draw of g, float64 [num_points]."""
        profile = self.window * np.exp(SPREAD * values / np.sqrt(self.field.variance))
        return profile * (len(profile) - 1) / profile.sum()

    def features(self, value: np.ndarray) -> np.ndarray:
        """The logarithm of c exp(g / 2) between the ends, scaled."""
        logarithm = np.log(value[1:-1] / self.window[1:-1])
        return logarithm / (SPREAD * np.sqrt(len(logarithm)))

    def describe(self) -> str:
        """One line of prose for the card of an exported model."""
        return (
            f"(4 s (1 - s))^{self.power} times the exponential of a field of standard deviation {SPREAD:g}, "
            f"scaled to a mean of 1: {self.field.describe()}"
        )
