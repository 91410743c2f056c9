"""The solver's side of the stream: a lease goes in, chunks of samples come out."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from penstock.arrays.conversion import DTYPE, as_numbers
from penstock.arrays.ragged import Rows, joined
from penstock.errors import PenstockError, Refused, describe, raised_by_signal, text_of
from penstock.layout import Sample
from penstock.machine import own_bytes
from penstock.messages import ACTIVITIES, Chunk, Decision, Lease, SolveRecord
from penstock.solvers.linear import LinearSolver
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problem import LinearSystem, Parameters, Problem, Solution, Solve, SolveError
from penstock.solvers.sorting.sorter import Sorter

if TYPE_CHECKING:  # it imports scipy.stats, which most runs do without
    from penstock.solvers.parameters.point_sets import PointSet

logger = logging.getLogger(__name__)

# A chunk costs about 0.2 ms whatever its size, so samples travel together, in chunks of this size.
CHUNK_BYTES = 1_000_000
# A chunk is sent after this time even if it is small, so that samples reach the learner soon.
CHUNK_SECONDS = 1.0
# A worker is replaced only if its memory has grown by this factor: replacing one that always needs its bound is no use.
GROWTH = 1.5
# The longest traceback of a failure in the log; an error's message may hold a whole matrix.
MAX_TRACE_CHARACTERS = 20_000


class SolverWorker:
    """A worker that draws, sorts, solves and packs the simulations of its leases.

    It lives as long as its process, and its linear solvers with it.

    Args:
        problem: the problem.
        solvers: the LinearSolver of each design; "training" is used for designs not named.
        seed: seed of the run.
        point_sets: by design, where the parameters of its simulations lie; independent draws for designs not named.
        sort: the argument of `Sorter`: True for greedy nearest-neighbour order in every lease, "auto" for sorting where
            it pays.
        must_repeat: a lease gives the same chunks, bit for bit, whatever was solved before it and however long it
            takes: linear solver and sorter begin every lease from nothing, and chunks are cut by their size alone. The
            strategy must ask no clock, nor must `sort`, and the problem must keep nothing of earlier simulations.
        one_geometry: whether the learner keeps one geometry per simulation, as of a trajectory; a simulation whose
            points move then fails.
        max_bytes: bound on the process's private memory. A worker that has grown to it, by half at least since its
            first chunk, ends the lease at hand and solves nothing more: somebody has to replace it.
        on_begin: called with (lease number, simulation) before each simulation, and with (lease number, None) between
            simulations.
        agree: given a value of this rank, returns that of the first one, where the worker is one of several MPI ranks
            that solve the same leases together. What follows from a clock or from memory may differ between them, and
            must not decide what they solve next.
    """

    def __init__(
        self,
        problem: Problem,
        solvers: dict[str, LinearSolver],
        *,
        seed: int,
        point_sets: Mapping[str, PointSet] = MappingProxyType({}),
        sort: bool | Literal["auto"] = "auto",
        must_repeat: bool = False,
        one_geometry: bool = False,
        max_bytes: float = inf,
        on_begin: Callable[[int, int | None], None] = lambda lease_number, simulation: None,
        agree: Callable[[Any], Any] = lambda value: value,
    ):
        self.problem = problem
        self.seed = seed
        self._point_sets = point_sets
        self._solvers = solvers
        self._sorters = {design: Sorter(sort, problem.features, design) for design in solvers}
        self._must_repeat = must_repeat
        self._one_geometry = one_geometry
        self._max_bytes = max_bytes
        self._first_bytes: int | None = None
        self._outgrown_bytes: int | None = None
        self._on_begin = on_begin
        self._agree = agree
        self._blocked_seconds = 0.0
        self._is_sending = False
        """Whether it waits at a `yield`.

        An error raised there (a generator's close) comes from the receiver of the chunks.
        """

    def stream(self, lease: Lease) -> Iterator[Chunk]:
        """Solve a lease and yield its samples in chunks.

        Every simulation is `finished` or `failed` in exactly one chunk. A simulation fails alone, whatever its code
        raises: the reason travels in the chunk, the traceback is logged. A worker that has outgrown its memory leaves
        out the simulations that it has not begun; one that must repeat completes the lease.

        Args:
            lease: the lease.

        Yields:
            Chunks of samples, the last one perhaps without any.
        """
        if self._agree(self._outgrown_bytes is not None):
            return
        solver_name = lease.design if lease.design in self._solvers else "training"
        solver, sorter = self._solvers[solver_name], self._sorters[solver_name]
        chunk = _ChunkBuilder(self.problem, lease.design, inf if self._must_repeat else CHUNK_SECONDS)
        draws, quantiles, solve_seconds = {}, {}, 0.0
        self._is_sending = False  # a stream that was closed at a `yield` never came back from it
        if self._must_repeat:
            solver.reset()
            sorter.reset()
        solver.adopt(lease.decisions, may_try=lease.may_try)
        sorter.begin(lease.simulations, gains_from_order=solver.gains_from_order)
        for simulation in lease.simulations:
            self._on_begin(lease.number, simulation)
            chunk.begin_lap()
            try:
                parameters, quantiles[simulation] = self._draw(lease.design, simulation)
                draws[simulation] = parameters
                sorter.add(simulation, parameters)
            except BaseException as error:  # one bad draw must not end a run of thousands: counted in `failed`
                self._fail(chunk, simulation, error)
            chunk.end_lap("draw")

        def solve(system: LinearSystem) -> Solution:
            nonlocal solve_seconds
            chunk.end_lap("assembly")
            solution = solver(system)
            chunk.end_lap("solve")
            solve_seconds += solution.seconds
            chunk.decisions = [decision for decision in solver.decisions if decision not in lease.decisions]
            chunk.solves.append(
                SolveRecord(
                    strategy=solution.strategy,
                    seconds=solution.seconds,
                    iterations=solution.iterations,
                    relative_residual=solution.relative_residual,
                    family=system.family,
                    reason=solution.reason,
                )
            )
            if not solution.converged:
                raise SolveError(solution.reason)
            return solution

        self._on_begin(lease.number, None)
        for simulation in self._agree(sorter.order()):
            if self._agree(self._outgrown_bytes is not None) and not self._must_repeat:
                break
            self._on_begin(lease.number, simulation)
            retried, steps, num_steps = solver.num_retried, set(), self.problem.num_steps
            geometry = None
            chunk.begin_lap()
            try:
                for sample in self._simulate(draws.pop(simulation), solve):
                    chunk.end_lap("assembly")
                    if sample.step in steps:  # a second copy, as far as the learner knows: it would be dropped
                        raise Refused(f"step {sample.step} was yielded twice: number the samples with Sample(step=)")
                    if num_steps > 1 and not 0 <= sample.step < num_steps:
                        raise Refused(f"step {sample.step} was yielded, and the problem's num_steps is {num_steps}")
                    steps.add(sample.step)
                    if self._one_geometry:
                        geometry = geometry or sample.geometry
                        _require_same(geometry, sample.geometry)
                    chunk.add(simulation, sample, quantiles[simulation])
                    chunk.end_lap("pack")
                    if chunk.is_due():
                        yield from self._send(chunk, lease.number)
                        self._on_begin(lease.number, simulation)
                        chunk.begin_lap()
                if not steps:
                    raise Refused("simulate yielded no sample")
                if 1 < num_steps != len(steps):
                    raise Refused(f"{len(steps)} samples were yielded, and the problem's num_steps is {num_steps}")
                chunk.finished.append(simulation)
            except BaseException as error:  # as above
                self._fail(chunk, simulation, error)
            chunk.end_lap("assembly")
            chunk.retried += solver.num_retried > retried
            if chunk.is_due():
                yield from self._send(chunk, lease.number)
        sorter.end(solve_seconds)
        if not chunk.is_empty():
            yield from self._send(chunk, lease.number)

    def _draw(self, design: str, simulation: int) -> tuple[Parameters, np.ndarray]:
        """The parameters of a simulation, and their quantiles."""
        generator = generator_of(self.seed, design, simulation)
        if design in self._point_sets:
            point = self._point_sets[design].point(simulation)
            return self.problem.at_quantiles(point, generator), point
        if not self.problem.draws_from_space:
            return self.problem.draw_numbered(self.seed, design, simulation), self._quantiles(generator)
        beginning = generator.bit_generator.state  # a second generator would cost five times as much
        parameters = self.problem.draw(generator)
        generator.bit_generator.state = beginning
        return parameters, self._quantiles(generator)

    def _quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantiles of a draw.

        Raises Refused unless there is a number in [0, 1] for each of the problem's `quantile_names`.
        """
        quantiles = as_numbers("quantiles", self.problem.quantiles(generator))
        names = self.problem.quantile_names
        if quantiles.shape != (len(names),) or not ((quantiles >= 0) & (quantiles <= 1)).all():
            raise Refused(f"quantiles must be a number in [0, 1] for each of {names}, not {quantiles}")
        return quantiles

    def _simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        """The problem's samples. Raises Refused for anything else it yields."""
        samples = self.problem.simulate(parameters, solve)
        if not isinstance(samples, Iterable) or isinstance(samples, Sample):
            raise Refused(f"simulate returned a {type(samples).__name__}: it must yield Samples")
        for sample in samples:
            if not isinstance(sample, Sample):
                raise Refused(f"simulate yielded a {type(sample).__name__}: it must yield Samples")
            yield sample

    def _fail(self, chunk: _ChunkBuilder, simulation: int, error: BaseException) -> None:
        """Record what the problem's code raised, be it KeyboardInterrupt.

        An error that is meant to end the worker is raised again.
        """
        if self._is_sending or raised_by_signal(error):
            raise error
        trace = "".join(traceback.format_exception(error)).encode(errors="backslashreplace").decode()
        if len(trace) > MAX_TRACE_CHARACTERS:
            trace = f"{trace[: MAX_TRACE_CHARACTERS // 2]} ... {trace[-MAX_TRACE_CHARACTERS // 2 :]}"
        logger.error("simulation %d of design %r failed\n%s", simulation, chunk.design, trace)
        chunk.fail(simulation, self._reason(error))
        error.__traceback__ = None  # it holds the simulation's arrays, and grows where one error is raised again

    def _reason(self, error: BaseException) -> str:
        """The error in one line, with the last place in the user's files."""
        if isinstance(error, SolveError | Refused | PenstockError):
            return text_of(error)
        strategies = {type(solver.strategy).__module__ for solver in self._solvers.values()}
        modules = [type(self.problem).__module__, *(name for name in strategies if not name.startswith("penstock."))]
        return describe(error, *(getattr(sys.modules.get(name), "__file__", None) for name in modules))

    def _send(self, chunk: _ChunkBuilder, lease_number: int) -> Iterator[Chunk]:
        self._on_begin(lease_number, None)
        self._weigh()
        message = chunk.take(self._blocked_seconds, self._outgrown_bytes)
        before = time.perf_counter()
        self._is_sending = True
        yield message
        self._is_sending = False
        chunk.restart_clock()
        self._blocked_seconds = time.perf_counter() - before  # until the stream lets the worker go on

    def _weigh(self) -> None:
        """Note whether the process has outgrown its bound.

        Replacing one that needs as much from the start would not help.
        """
        now = own_bytes()
        if self._first_bytes is None:
            self._first_bytes = now
        if now > max(self._max_bytes, GROWTH * self._first_bytes):
            self._outgrown_bytes = now


def _require_same(first: Mapping[str, np.ndarray], later: Mapping[str, np.ndarray]) -> None:
    """Raise Refused where a sample's geometry is not that of an earlier step."""
    for name, array in first.items():
        if name not in later or (later[name] is not array and not np.array_equal(later[name], array)):
            raise Refused(
                f"{name!r} changes from step to step, and a trajectory has one geometry: take buffer.draw: samples"
            )


class _ChunkBuilder:
    """The chunk that is being filled."""

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
