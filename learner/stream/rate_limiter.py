"""Holds training and ingestion to a given number of batches per simulation."""

from __future__ import annotations

import threading
from collections.abc import Callable

POLL_S = 0.02  # how often a waiter asks its give_up(), of whose change nobody notifies it


class RateLimiter:
    """Keeps training and ingestion within one simulation of T = r D.

    T is the number of batches drawn and D that of simulations delivered since `start`, whatever the speed of either; r
    is `batches_per_simulation`. Training may draw while T < r (D + 1), and ingestion may deliver while r (D - 1) <= T,
    so they never both wait for each other. Before `start`, which ingestion calls once the watermark is reached, both
    are free. A chunk that holds several simulations may carry D further ahead by their number: then the next one waits.

    The limiter yields to the buffer: neither side waits here for the other while that one waits for the buffer. The
    `give_up` of a wait says so.

    Args:
        batches_per_simulation: r, above 0.

    Raises:
        ValueError: r is not above 0.
    """

    def __init__(self, batches_per_simulation: float):
        if not batches_per_simulation > 0:
            raise ValueError(f"batches_per_simulation must be above 0, not {batches_per_simulation}")
        self.batches_per_simulation = batches_per_simulation
        self._started = False
        self._num_batches = 0
        self._num_simulations = 0
        self._changed = threading.Condition()

    def start(self) -> None:
        """Begin to count; later calls change nothing."""
        with self._changed:
            self._started = True

    def add_batch(self) -> None:
        """Count a batch that was drawn; before `start` it does not count."""
        with self._changed:
            self._num_batches += self._started
            self._changed.notify_all()

    def add_simulations(self, count: int) -> None:
        """Count simulations that were delivered; before `start` they don't count.

        Args:
            count: number of simulations.
        """
        with self._changed:
            self._num_simulations += count if self._started else 0
            self._changed.notify_all()

    def may_train(self) -> bool:
        """Whether a batch may be drawn: T < r (D + 1)."""
        return not self._started or self._num_batches < self.batches_per_simulation * (self._num_simulations + 1)

    def may_ingest(self) -> bool:
        """Whether a simulation may be delivered: r (D - 1) <= T."""
        return not self._started or self.batches_per_simulation * (self._num_simulations - 1) <= self._num_batches

    def wait_to_train(self, give_up: Callable[[], bool]) -> None:
        """Wait until training may draw a batch or give_up().

        Args:
            give_up: asked every POLL_S seconds.
        """
        self._wait(self.may_train, give_up)

    def wait_to_ingest(self, give_up: Callable[[], bool]) -> None:
        """Wait until ingestion may take a chunk or give_up().

        Args:
            give_up: asked every POLL_S seconds.
        """
        self._wait(self.may_ingest, give_up)

    def _wait(self, allowed: Callable[[], bool], give_up: Callable[[], bool]) -> None:
        with self._changed:
            while not allowed() and not give_up():
                self._changed.wait(POLL_S)

    def state(self) -> dict[str, bool | float]:
        """Return the counts and the ratio for a checkpoint, as JSON."""
        with self._changed:
            return {
                "started": self._started,
                "num_batches": self._num_batches,
                "num_simulations": self._num_simulations,
                "batches_per_simulation": self.batches_per_simulation,
            }

    def load_state(self, state: dict[str, bool | float]) -> None:
        """Continue from a `state()`.

        If it has another ratio, the counts begin again at 0 with the present one. By the old counts one side would have
        to catch up first: after 5000 batches at r = 1 training would wait for 45,000 simulations at r = 0.1.

        Args:
            state: the state.
        """
        with self._changed:
            self._started = state["started"]
            if state.get("batches_per_simulation") == self.batches_per_simulation:
                self._num_batches = state["num_batches"]
                self._num_simulations = state["num_simulations"]
            self._changed.notify_all()
