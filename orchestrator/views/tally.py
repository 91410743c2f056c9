"""Rates and shares of solving, counted as chunks come."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from penstock.errors import PenstockError, shortened
from penstock.messages import ACTIVITIES, Chunk
from penstock.orchestrator.ledger.ledger import FIRST
from penstock.orchestrator.store.failures import Failures, failures
from penstock.orchestrator.store.strategies import Families
from penstock.orchestrator.views.card import further_lines, shares, systems_solved
from penstock.orchestrator.views.numbers import digits
from penstock.solvers.measurement import MatrixTimes
from penstock.solvers.stored.samples import SampleWriter
from penstock.status import Ended


class Tally:
    """What came, and what it took, from the second simulation on.

    Args:
        writer: of the store; None keeps nothing.
        tell: prints a line for the user.
        strategy: name of the strategy that the configuration gives.
        num_workers: of Ray, which solve while this process takes and writes; None where it solves.
        is_external: see `Problem`.
        rest: where to learn more of simulations that fail; "" where there is no more.
    """

    def __init__(
        self,
        writer: SampleWriter | None,
        tell: Callable[[str], None],
        strategy: str,
        num_workers: int | None,
        *,
        is_external: bool,
        rest: str,
    ):
        self.num_ended = 0
        self._writer = writer
        self._tell = tell
        self._num_workers = num_workers
        self._is_external = is_external
        self._came = Counter(samples=0, bytes=0)
        self._first_seconds: float | None = None
        self._failed: dict[int, str] = {}
        self._seconds = dict.fromkeys((*ACTIVITIES, "write"), 0.0)
        self._solved_by: Counter[str] = Counter({strategy: 0})
        self._times: defaultdict[str, MatrixTimes] = defaultdict(MatrixTimes)
        self._failures = Failures(_nowhere, rest)
        self._families = Families(_nowhere)
        self._decisions: set[tuple[str, int]] = set()
        self._since = time.perf_counter()

    @property
    def rate(self) -> float:
        """Samples per second."""
        return self._came["samples"] / (time.perf_counter() - self._since)

    def add(self, chunk: Chunk) -> None:
        """Count a chunk, and write it.

        Raises PenstockError where the first simulations all fail, or where it can't be written.
        """
        for decision in chunk.decisions:
            if (decision.family, decision.number) not in self._decisions:
                self._decisions.add((decision.family, decision.number))
                for line in self._families.chosen([decision]):
                    self._tell(line)
        self.num_ended += len(chunk.finished) + len(chunk.failed)
        self._failed |= chunk.failed
        restarts, failed = self._failures.restarted(chunk.restarts), self._failures.news(training=self._failed)
        for line in (*self._families.news(chunk.solves), *restarts, *failed):
            self._tell(line)
        if len(self._failed) == self.num_ended >= FIRST:
            raise PenstockError(f"the first {self.num_ended} simulations all failed: {self._reason()}", exit_code=3)
        self._write(lambda writer: writer.add(chunk))
        if self._first_seconds is not None:
            self._came.update(samples=len(chunk), bytes=chunk.num_bytes)
            self._solved_by.update(solve.strategy for solve in chunk.solves if solve.converged)
            for solve in chunk.solves:
                self._times[solve.family].add(solve.seconds, repeats_matrix=solve.repeats_matrix)
            for name, seconds in chunk.seconds.items():
                self._seconds[name] += seconds
        elif self.num_ended:
            now = time.perf_counter()
            self._first_seconds, self._since = now - self._since, now

    def end(self, say: Callable[[str], None]) -> dict[str, Any]:
        """Write what is left, and print rates, shares and failures.

        Args:
            say: prints a line for the user.

        Returns:
            The same for scripts: `solved` and `failed` simulations, `first_seconds` of the first of them, `samples`,
            `bytes` and `seconds` of the others, what the time went to (`seconds_of`, summed over workers), and systems
            `solved_by` each strategy.

        Raises:
            PenstockError: all simulations failed, or the store can't be written.
        """
        if len(self._failed) == self.num_ended:
            raise PenstockError(f"all of {self.num_ended} simulations failed: {self._reason()}", exit_code=3)
        self._write(SampleWriter.flush)
        total = time.perf_counter() - self._since
        say(f"{digits(self._first_seconds or 0.0)} s for the first of {self.num_ended} simulations")
        worked, meanwhile = self._times_of(total)
        if num := self._came["samples"]:
            say(
                f"{num} samples of the others in {digits(total)} s: {digits(num / total)} samples/s, "
                f"{digits(self._came['bytes'] / 1e6 / total)} MB/s"
            )
            line = shares(worked, is_external=self._is_external)
            say(line + "".join(f"; meanwhile {n} {100 * each / total:.0f} %" for n, each in meanwhile.items()))
        if self._solved_by.total():
            say(systems_solved(self._solved_by))
            for line in further_lines(self._times):
                say(line)
        if self._failed:
            num_delivered = self.num_ended - len(self._failed)
            say(failures(len(self._failed), num_delivered, Ended([], self._failed).failed_reasons()))
        return {
            "solved": self.num_ended - len(self._failed),
            "failed": len(self._failed),
            "first_seconds": self._first_seconds,
            **self._came,
            "seconds": total,
            "seconds_of": worked | meanwhile,
            "solved_by": dict(self._solved_by),
        }

    def _times_of(self, total: float) -> tuple[dict[str, float], dict[str, float]]:
        """What the workers' time went to, `total` seconds of each, and ours meanwhile."""
        worked = {name: self._seconds[name] for name in ACTIVITIES}
        writes = {} if self._writer is None else {"write": self._seconds["write"]}
        if self._num_workers is None:
            left = total - sum(worked.values()) - sum(writes.values())
            return worked | writes | {"other": max(0.0, left)}, {}
        return worked | {"transport": max(0.0, self._num_workers * total - sum(worked.values()))}, writes

    def _write(self, do: Callable[[SampleWriter], None]) -> None:
        if self._writer is None:
            return
        before = time.perf_counter()
        do(self._writer)
        if self._first_seconds is not None:
            self._seconds["write"] += time.perf_counter() - before

    def _reason(self) -> str:
        return shortened(next(iter(self._failed.values())))


def _nowhere(event: str, **details: Any) -> None:
    """Nothing is recorded of a command that has no run."""
