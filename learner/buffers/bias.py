"""How far what is in the buffer is from the distribution that the problem's parameters are drawn from.

Axes:  N units in the buffer, F parameters.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock.learner.buffers.buffer import Buffer

BIAS_EVERY_S = 5.0  # it sorts the buffer's quantiles


class BiasWatch:
    """The `bias` of a buffer, looked at every 5 s. names: of its parameters."""

    def __init__(self, buffer: Buffer, names: Sequence[str]):
        self._buffer = buffer
        self._names = names
        self._last: dict[str, Any] | None = None
        self._at = -math.inf

    def look(self) -> dict[str, Any]:
        if time.monotonic() - self._at >= BIAS_EVERY_S:
            self._last, self._at = bias(self._buffer, self._names), time.monotonic()
        return self._last


def bias(buffer: Buffer, names: Sequence[str]) -> dict[str, Any]:
    """Bias of each parameter in the buffer by name, and how old its units are; None where nothing is in.

        {"parameters": {name: {"mean", "spread", "ks"}}, "steps": {"mean", "spread"}, "age_p95"}

    The quantiles x of a parameter are uniform on [0, 1] under its target distribution, so an unbiased population has

        mean 1/2,   spread (standard deviation) 1/√12 = 0.289,   KS distance sup |F_N(x) - x| about 0.87 / √N,

    with F_N the population's distribution function (Kolmogorov 1933); above 1.36 / √N it is not chance, at 95 %. Where
    several samples of a simulation are in, N is the number of simulations here. age_p95: the 95th percentile of the
    units' age, in samples that arrived since. steps: the samples' numbers in their simulations.

    It sorts [N, F] numbers, outside the buffer's lock: 0.1 s a parameter for 10^6 units. Any thread may ask.
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
    """[F] the largest distance of each column's distribution function from the uniform one on [0, 1], for [N, F]."""
    ordered = np.sort(quantiles, axis=0)
    steps = np.arange(len(ordered) + 1)[:, None] / len(ordered)
    return np.maximum(steps[1:] - ordered, ordered - steps[:-1]).max(axis=0)
