"""How far the buffer's contents are from the distribution of the parameters.

Axes:  N units in the buffer, F parameters.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock.learner.buffers.buffer import Buffer

BIAS_EVERY_S = 5.0  # each look sorts the buffer's quantiles


class BiasWatch:
    """The `bias` of a buffer, computed at most every 5 s.

    Args:
        buffer: the buffer.
        names: names of the problem's parameters.
    """

    def __init__(self, buffer: Buffer, names: Sequence[str]):
        self._buffer = buffer
        self._names = names
        self._last: dict[str, Any] | None = None
        self._at = -math.inf

    def look(self) -> dict[str, Any]:
        """Return the bias, at most 5 s old."""
        if time.monotonic() - self._at >= BIAS_EVERY_S:
            self._last, self._at = bias(self._buffer, self._names), time.monotonic()
        return self._last


def bias(buffer: Buffer, names: Sequence[str]) -> dict[str, Any]:
    """Return the bias of each parameter in the buffer, and the age of the units.

    The quantiles x of a parameter are uniform on [0, 1] under its target distribution, so an unbiased population has

        mean 1/2,   spread (standard deviation) 1/√12 = 0.289,   KS distance sup |F_N(x) - x| about 0.87 / √N,

    with F_N the population's distribution function (Kolmogorov 1933). A distance above 1.36 / √N arises by chance in
    only 5 % of cases. If the buffer holds several samples of a simulation, N is here the number of simulations.

    It sorts [N, F] numbers outside the buffer's lock, which takes 0.1 s per parameter for 10^6 units. Any thread may
    call it.

    The measures are

        {"parameters": {name: {"mean", "spread", "ks"}}, "steps": {"mean", "spread"}, "age_p95"}

    where "steps" is about the samples' numbers within their simulations, and "age_p95" is the 95th percentile of the
    units' age, in samples that have arrived since.

    Args:
        buffer: the buffer.
        names: names of the parameters, in the order of the quantiles' columns.

    Returns:
        The measures; without parameters, and None for the others, if the buffer holds no whole unit.
    """
    contents = buffer.contents()
    if not len(contents.simulations):
        return {"parameters": {}, "steps": None, "age_p95": None}
    quantiles = contents.quantiles.astype(np.float64)
    distances = kolmogorov_smirnov(quantiles)
    return {
        "parameters": {
            name: {
                "mean": float(quantiles[:, i].mean()),
                "spread": float(quantiles[:, i].std()),
                "ks": float(distances[i]),
            }
            for i, name in enumerate(names)
        },
        "steps": {"mean": float(contents.steps.mean()), "spread": float(contents.steps.std())},
        "age_p95": float(np.quantile(contents.ages, 0.95)),
    }


def kolmogorov_smirnov(quantiles: np.ndarray) -> np.ndarray:
    """Return the Kolmogorov-Smirnov distance of each column from uniformity.

    Args:
        quantiles: [N, F].

    Returns:
        [F], the largest distance of each column's distribution function from the uniform one on [0, 1].
    """
    ordered = np.sort(quantiles, axis=0)
    steps = np.arange(len(ordered) + 1)[:, None] / len(ordered)
    return np.maximum(steps[1:] - ordered, ordered - steps[:-1]).max(axis=0)
