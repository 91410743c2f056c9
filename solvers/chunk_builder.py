"""The chunk of samples that a worker is filling."""

from __future__ import annotations

import time

import numpy as np

from penstock.arrays.conversion import DTYPE
from penstock.arrays.ragged import Rows, joined
from penstock.layout import Sample
from penstock.messages import ACTIVITIES, Chunk, Decision, SolveRecord
from penstock.solvers.problem import LinearSystem, Problem, Solution

# A chunk has its cost whatever its size, so samples travel together, in chunks of this size.
CHUNK_BYTES = 1_000_000


class ChunkBuilder:
    """The chunk that is being filled.

    Args:
        problem: the problem.
        design: the design of its simulations.
        max_seconds: age at which it is due, however small.
    """

    def __init__(self, problem: Problem, design: str, max_seconds: float):
        self._layout = problem.layout
        self._num_quantiles = len(problem.quantile_names)
        self._max_seconds = max_seconds
        self.design = design
        self._lap = 0.0
        self._clear()

    def restart_clock(self) -> None:
        """Count the chunk's seconds from now: time that it was held up does not count."""
        self._since = time.monotonic()

    def begin_lap(self) -> None:
        """Count what comes next from now."""
        self._lap = time.perf_counter()

    def end_lap(self, activity: str) -> None:
        """Add the time since the last lap to one of `ACTIVITIES`, and begin the next."""
        now = time.perf_counter()
        self.seconds[activity] += now - self._lap
        self._lap = now

    def _clear(self) -> None:
        self.seconds = dict.fromkeys(ACTIVITIES, 0.0)
        self._rows: list[tuple[int, int, np.ndarray, dict[str, Rows]]] = []
        self._num_bytes = 0
        self.restart_clock()
        self.finished: list[int] = []
        self.failed: dict[int, str] = {}
        self.solves: list[SolveRecord] = []
        self.decisions: list[Decision] = []
        self.retried = 0

    def add(self, simulation: int, sample: Sample, quantiles: np.ndarray) -> None:
        arrays = self._layout.pack([sample])
        self._rows.append((simulation, sample.step, quantiles, arrays))
        self._num_bytes += sum(array.nbytes for array in arrays.values())

    def note_solve(self, system: LinearSystem, solution: Solution) -> None:
        self.solves.append(
            SolveRecord(
                strategy=solution.strategy,
                seconds=solution.seconds,
                iterations=solution.iterations,
                relative_residual=solution.relative_residual,
                family=system.family,
                reason=solution.reason,
                converged=solution.converged,
            )
        )

    def fail(self, simulation: int, reason: str) -> None:
        self._rows = [row for row in self._rows if row[0] != simulation]
        self._num_bytes = sum(array.nbytes for *_, arrays in self._rows for array in arrays.values())
        self.failed[simulation] = reason

    def is_empty(self) -> bool:
        return not (self._rows or self.finished or self.failed)

    def is_due(self) -> bool:
        return self._num_bytes >= CHUNK_BYTES or (
            not self.is_empty() and time.monotonic() - self._since >= self._max_seconds
        )

    def take(self, blocked_seconds: float, outgrown_bytes: int | None) -> Chunk:
        """The gathered samples as a chunk; the next one starts empty."""
        rows = [arrays for *_, arrays in self._rows]
        chunk = Chunk(
            design=self.design,
            arrays={name: joined([row[name] for row in rows]) for name in rows[0]} if rows else self._layout.empty(),
            simulations=np.array([simulation for simulation, *_ in self._rows], np.int64),
            steps=np.array([step for _, step, *_ in self._rows], np.int64),
            quantiles=np.array([quantiles for *_, quantiles, _ in self._rows], DTYPE).reshape(
                len(rows), self._num_quantiles
            ),
            finished=tuple(self.finished),
            failed=dict(self.failed),
            solves=tuple(self.solves),
            decisions=tuple(self.decisions),
            retried=self.retried,
            seconds=self.seconds,
            blocked_seconds=blocked_seconds,
            outgrown_bytes=outgrown_bytes,
        )
        self._clear()
        return chunk
