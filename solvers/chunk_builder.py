"""The chunk of samples that a worker is filling."""

from __future__ import annotations

import time

import numpy as np

from penstock.arrays.conversion import DTYPE
from penstock.arrays.room import Room
from penstock.layout import Sample
from penstock.messages import ACTIVITIES, CHUNK_BYTES, Chunk, Decision, Restart, SolveRecord
from penstock.solvers.problem import LinearSystem, Problem, Solution


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

    @property
    def _most_rows(self) -> int:
        dense_bytes = sum(block.num_bytes for block in self._layout.blocks.values() if not block.is_ragged)
        return -(-CHUNK_BYTES // dense_bytes) if dense_bytes else 1

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
        self._rows: list[tuple[int, int, np.ndarray]] = []  # simulation, step, quantiles
        self._room: Room | None = None  # for the rows' arrays, once there is a row
        self.restart_clock()
        self.finished: list[int] = []
        self.failed: dict[int, str] = {}
        self.solves: list[SolveRecord] = []
        self.decisions: list[Decision] = []
        self.restarts: list[Restart] = []
        self.retried = 0

    def add(self, simulation: int, sample: Sample, quantiles: np.ndarray) -> None:
        if self._room is None:
            self._room = Room(self._layout, self._most_rows)
        self._room.add(sample)
        self._rows.append((simulation, sample.step, quantiles))

    def note_solve(self, system: LinearSystem, solution: Solution, *, repeats_matrix: bool) -> None:
        self.solves.append(
            SolveRecord(
                strategy=solution.strategy,
                seconds=solution.seconds,
                iterations=solution.iterations,
                relative_residual=solution.relative_residual,
                family=system.family,
                reason=solution.reason,
                converged=solution.converged,
                repeats_matrix=repeats_matrix,
            )
        )

    def fail(self, simulation: int, reason: str) -> None:
        kept = [number for number, row in enumerate(self._rows) if row[0] != simulation]
        if len(kept) < len(self._rows):
            self._room.keep(kept)
            self._rows = [self._rows[number] for number in kept]
        self.failed[simulation] = reason

    def is_empty(self) -> bool:
        return not (self._rows or self.finished or self.failed)

    def is_due(self) -> bool:
        if self._room is not None and self._room.num_bytes >= CHUNK_BYTES:
            return True
        return not self.is_empty() and time.monotonic() - self._since >= self._max_seconds

    def take(self, outgrown_bytes: int | None) -> Chunk:
        """The gathered samples as a chunk; the next one starts empty."""
        chunk = Chunk(
            design=self.design,
            arrays=self._layout.empty() if self._room is None else self._room.arrays(),
            simulations=np.array([simulation for simulation, *_ in self._rows], np.int64),
            steps=np.array([step for _, step, *_ in self._rows], np.int64),
            quantiles=np.array([quantiles for *_, quantiles in self._rows], DTYPE).reshape(
                len(self._rows), self._num_quantiles
            ),
            finished=tuple(self.finished),
            failed=dict(self.failed),
            solves=tuple(self.solves),
            decisions=tuple(self.decisions),
            restarts=tuple(self.restarts),
            retried=self.retried,
            seconds=self.seconds,
            outgrown_bytes=outgrown_bytes,
        )
        self._clear()
        return chunk
