"""How many solver workers keep the reuse of samples at a target.

It reads no clock and knows nothing of Ray.
"""

from __future__ import annotations

import math
from collections import deque

from penstock.orchestrator.config.solver import Steered
from penstock.orchestrator.resources.advice import workers_for

WINDOW_S = 30.0  # reuse is taken over at least this time, which is also the least pause between two changes
SIMULATIONS = 30  # and over as many simulations, because fewer are few to count by
LONGEST_S = 300.0  # but over no longer time, though few simulations have ended in it
FORGET_S = 1800.0  # after which what was seen with another number counts no more
BAND = 1.25  # factor by which reuse may be off before anything is changed
NEAREST = 0.75  # the number that would be right must be further away than this
STEP = 2.0  # factor by which the number changes at most


class Steering:
    """Takes the number of workers that reuse asks for.

    The number follows the ratio of reuse to its target, see `workers_for`. Where the workers hold each other up, the
    number that it came from may have been nearer to the target, and is then not left again for some time.

    Args:
        workers: the bounds of the number, and the target.
    """

    def __init__(self, workers: Steered):
        self._workers = workers
        self._window: deque[tuple[float, int, int, int]] = deque()  # time, unique, trained, simulations
        self._seen: dict[int, tuple[float, float]] = {}  # when and how far off reuse was, by number of workers

    @property
    def target(self) -> float:
        """The reuse that is asked for."""
        return self._workers.reuse

    def pause(self) -> None:
        """Forget the window, whose rates were not those of a steady run."""
        self._window.clear()

    def look(self, now: float, num: int, *, unique: int, trained: int, simulations: int) -> tuple[int, float] | None:
        """The number of workers that there should be.

        Args:
            now: monotonic time.
            num: number of workers, all of them at work.
            unique: samples that reached the buffer so far.
            trained: samples drawn for training so far, with repetition.
            simulations: simulations that have ended so far.

        Returns:
            Another number, and the reuse that asks for it; None to go on with this one.
        """
        window = self._window
        window.append((now, unique, trained, simulations))
        while now - window[0][0] > LONGEST_S:  # till then it widens, so that chance counts less and less
            window.popleft()
        since, unique_before, trained_before, simulations_before = window[0]
        seconds, num_simulations = now - since, simulations - simulations_before
        if seconds < WINDOW_S or (num_simulations < SIMULATIONS and seconds < LONGEST_S):
            return None
        # Without a new sample reuse has no value: it is what one sample would make of it.
        reuse = (trained - trained_before) / max(1, unique - unique_before)
        ratio = max(reuse / self._workers.reuse, 1e-9)
        off = abs(math.log(ratio))
        self._seen[num] = now, off
        wanted = workers_for(num, min(max(ratio, 1.0 / STEP), STEP), 1.0)
        number = min(max(round(wanted), self._workers.min), self._workers.max)
        if number == num or off <= math.log(BAND) or abs(wanted - num) <= NEAREST:
            return None
        at, off_there = self._seen.get(number, (-math.inf, 0.0))
        if now - at <= FORGET_S and off_there >= off:
            return None  # it was no better there
        self.pause()
        return number, reuse
