"""Arms of a comparison run in turns, so that what else the machine does meets all of them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch

ROUND_S = 0.5  # an arm's share of a round: long against a GPU's launch queue, short against a noisy neighbour
MIN_ROUNDS = 5
NUM_WARM_UP = 3  # repetitions that no figure counts: allocations, kernels that are picked on first use

Arm = Callable[[int], None]
"""Does its work so many times over; on a GPU it may return before the last is done."""


class Spread(NamedTuple):
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


def spread(values: list[float]) -> Spread:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


class Rounds:
    """seconds: of one repetition, one value a round, by the arm's name."""

    def __init__(self, seconds: Mapping[str, list[float]]):
        self.seconds = seconds

    def time(self, arm: str) -> Spread:
        """Seconds of a repetition."""
        return spread(self.seconds[arm])

    def rate(self, arm: str, amount: float) -> Spread:
        """Of an arm that gets through `amount` at a repetition."""
        return spread([amount / seconds for seconds in self.seconds[arm]])

    def speed(self, arm: str, other: str) -> Spread:
        """How many times as fast as the other an arm is, from pairs of one round."""
        pairs = zip(self.seconds[arm], self.seconds[other], strict=True)
        return spread([seconds_of_other / seconds for seconds, seconds_of_other in pairs])


def measure(arms: Mapping[str, Arm], seconds: float, device: torch.device) -> Rounds:
    """Each arm for about so many seconds, in rounds of all of them, begun by another one each time."""
    round_s = min(ROUND_S, seconds / MIN_ROUNDS)
    counts = {name: _repetitions(arm, round_s, device) for name, arm in arms.items()}
    names = list(arms)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(max(MIN_ROUNDS, round(seconds / round_s))):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(seconds_of(partial(arms[name], counts[name]), device) / counts[name])
    return Rounds(times)


def _repetitions(arm: Arm, round_s: float, device: torch.device) -> int:
    """How many of them fill a round."""
    seconds_of(partial(arm, NUM_WARM_UP), device)
    count = 1
    while (took := seconds_of(partial(arm, count), device)) < round_s / 4:
        count *= 2
    return max(1, math.ceil(count * round_s / took))


def seconds_of(work: Callable[[], None], device: torch.device) -> float:
    """Until all is done that the work queued."""
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Waits for all that is queued; on a CPU nothing is."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
