"""What Gaussian fields have in common, however they are computed."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from scipy.special import ndtr, ndtri


class NormalField(ABC):
    """A centred Gaussian field, linear in independent standard normal numbers.

    The first of these numbers belong to its leading modes.
    """

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """One field, float64."""
        return self._of(generator.standard_normal(self._num_normals))

    def at_quantiles(self, quantiles: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The field whose leading modes have these quantiles; the rest of it is drawn."""
        normals = generator.standard_normal(self._num_normals)
        normals[: len(quantiles)] = ndtri(quantiles)
        return self._of(normals)

    def features(self, value: np.ndarray) -> np.ndarray:
        """The field, flattened and scaled so that two draws are about √2 apart."""
        return value.ravel() / np.sqrt(value.size * self.variance)

    def quantile_names(self, name: str) -> tuple[str, ...]:
        """The names of `quantiles`: one per leading mode."""
        return tuple(f"{name}_{mode}" for mode in self._leading)

    def quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantiles Φ(ξ) of the leading modes.

        These carry most of the variance of a smooth field. Φ is the normal distribution's cumulative function.
        """
        return ndtr(generator.standard_normal(self._num_normals)[: len(self._leading)])

    @property
    @abstractmethod
    def variance(self) -> float:
        """The pointwise variance."""

    @abstractmethod
    def describe(self) -> str:
        """One line of prose for the card of an exported model."""

    @property
    @abstractmethod
    def _num_normals(self) -> int:
        """How many numbers are drawn."""

    @property
    @abstractmethod
    def _leading(self) -> list[str]:
        """Names of the leading modes."""

    @abstractmethod
    def _of(self, normals: np.ndarray) -> np.ndarray:
        """The field of these numbers."""
