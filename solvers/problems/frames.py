"""Trajectories of one state as samples: from the frames before to the next frame.

Axes:  H frames before, *grid the state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from penstock.layout import Sample

FEEDS = MappingProxyType({"before": "solution"})
"""The `Problem.feeds` of samples from one frame before."""


def check_frames(num_steps: int, interval: float, history: int) -> None:
    """Check the options that all problems with frames have.

    Raises:
        ValueError: one of them is out of its range.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps = {num_steps} is too small: a simulation needs at least 1 step")
    if not 0 < interval < np.inf:
        raise ValueError(f"interval = {interval} is the time between frames: it must be above 0 and finite")
    if history < 1:
        raise ValueError(f"history = {history} is too small: the next frame needs at least 1 before it")


def samples(
    frames: Iterable[np.ndarray], *, interval: float, history: int = 1, constants: Mapping[str, Any] | None = None
) -> Iterator[Sample]:
    """A sample per frame that has enough others before it.

    Args:
        frames: the state [*grid] at the times 0, Δt, 2 Δt, ...
        interval: Δt.
        history: H.
        constants: inputs that all samples of the simulation share, by name.

    Yields:
        Samples from `before` [H, *grid], without its first axis if H is 1, to `solution` [*grid], at the time of
        `solution`.
    """
    before: deque[np.ndarray] = deque(maxlen=history)
    for number, frame in enumerate(frames):
        if number >= history:
            yield Sample(
                inputs={"before": before[0] if history == 1 else np.stack(before)} | dict(constants or {}),
                outputs={"solution": frame},
                step=number - history,
                time=number * interval,
            )
        before.append(frame)
