"""Comparisons whose arms run in turns.

So whatever else the machine does affects all arms.
"""

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
NUM_WARM_UP = 3  # repetitions that are not timed: they allocate, and pick kernels on first use

Arm = Callable[[int], None]
"""Does its work the given number of times; on a GPU it may return before the last is done."""


class Spread(NamedTuple):
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


def spread(values: list[float]) -> Spread:
    """Return the median and the quartiles of values."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


class Rounds:
    """The times of all arms, round by round.

    Args:
        seconds: seconds per repetition, one value per round, by the arm's name.
        processor_seconds: the same in this process's CPU time, which other processes disturb less; where it was taken.
    """

    def __init__(self, seconds: Mapping[str, list[float]], processor_seconds: Mapping[str, list[float]] | None = None):
        self.seconds = seconds
        self._processor_seconds = processor_seconds

    @property
    def on_processor(self) -> Rounds:
        """The same rounds in CPU time of this process, all of its threads together."""
        return Rounds(self._processor_seconds)

    def time(self, arm: str) -> Spread:
        """Return an arm's seconds per repetition."""
        return spread(self.seconds[arm])

    def rate(self, arm: str, amount: float) -> Spread:
        """Return an arm's rate per second.

        Args:
            arm: name of the arm.
            amount: what the arm processes per repetition.

        Returns:
            The rate, in the unit of `amount` per second.
        """
        return spread([amount / seconds for seconds in self.seconds[arm]])

    def speed(self, arm: str, other: str) -> Spread:
        """Return how many times as fast as another arm an arm is.

        Args:
            arm: name of the arm.
            other: name of the other arm.

        Returns:
            The ratio of their speeds, from one pair of times per round.
        """
        pairs = zip(self.seconds[arm], self.seconds[other], strict=True)
        return spread([seconds_of_other / seconds for seconds, seconds_of_other in pairs])


def measure(
    arms: Mapping[str, Arm], seconds: float, device: torch.device, show: Callable[[int, int], None] = lambda *_: None
) -> Rounds:
    """Time arms in rounds, each of which runs all of them.

    Another arm begins each round.

    Args:
        arms: the arms by name.
        seconds: how long each arm runs in all, about.
        device: the device that they run on.
        show: shows how many turns of arms are done, and how many there are.

    Returns:
        Their times.
    """
    round_s = min(ROUND_S, seconds / MIN_ROUNDS)
    num_rounds = max(MIN_ROUNDS, round(seconds / round_s))
    counts = {name: _repetitions(arm, round_s, device) for name, arm in arms.items()}
    names = list(arms)
    times: dict[str, list[float]] = {name: [] for name in names}
    processor_times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(num_rounds):
        first = number % len(names)
        for turn, name in enumerate(names[first:] + names[:first]):
            show(number * len(names) + turn, num_rounds * len(names))
            start = time.process_time()
            times[name].append(seconds_of(partial(arms[name], counts[name]), device) / counts[name])
            processor_times[name].append((time.process_time() - start) / counts[name])
    return Rounds(times, processor_times)


def _repetitions(arm: Arm, round_s: float, device: torch.device) -> int:
    """Number of an arm's repetitions that fill its share of a round."""
    seconds_of(partial(arm, NUM_WARM_UP), device)
    count = 1
    while (took := seconds_of(partial(arm, count), device)) < round_s / 4:
        count *= 2
    return max(1, math.ceil(count * round_s / took))


def seconds_of(work: Callable[[], None], device: torch.device) -> float:
    """Return the seconds until all that some work has queued is done.

    Args:
        work: the work.
        device: the device that it runs on.

    Returns:
        Wall time in seconds.
    """
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait for all work that is queued on a GPU; on a CPU there is none."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
