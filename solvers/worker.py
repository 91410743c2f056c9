"""The solver's side of the stream: a lease goes in, chunks of samples come out."""

from __future__ import annotations

import logging
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from penstock.arrays.conversion import as_numbers
from penstock.errors import PenstockError, Refused, describe, file_of, place_in, raised_by_signal, text_of
from penstock.layout import Sample
from penstock.machine import own_bytes
from penstock.messages import Chunk, Lease, Restart
from penstock.solvers.chunk_builder import ChunkBuilder
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.block_factor import SIDES
from penstock.solvers.parameters.space import Seed, seeds_of
from penstock.solvers.problem import (
    RETRIED,
    InterleavedProblem,
    LinearSystem,
    Parameters,
    Problem,
    Solution,
    SolveError,
    Unfit,
    in_turns,
)
from penstock.solvers.sorting.sorter import Sorter

if TYPE_CHECKING:  # it imports scipy.stats, which most runs do without
    from penstock.solvers.parameters.point_sets import PointSet

logger = logging.getLogger(__name__)

# A chunk is sent after this time even if it is small, so that samples reach the learner soon.
CHUNK_SECONDS = 1.0
# A worker is replaced only if its memory has grown by this factor: replacing one that always needs its bound is no use.
GROWTH = 1.5
# The longest traceback of a failure in the log; an error's message may hold a whole matrix.
MAX_TRACE_CHARACTERS = 20_000
# Errors whose text is the whole reason: a traceback would show penstock's own code.
SAY_EVERYTHING = (SolveError, Refused, PenstockError)


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
        on_begin: called with (lease number, simulation) whenever a simulation begins or goes on, and with (lease
            number, None) between simulations.
        num_at_once: simulations of an `InterleavedProblem` that may be under way at once, 1 to 8, so that their
            systems can be solved together.
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
        num_at_once: int = SIDES,
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
        self._num_at_once = num_at_once
        self._is_sending = False
        """Whether it waits at a `yield`.

        An error raised there (a generator's close) comes from the receiver of the chunks.
        """

    def stream(self, lease: Lease) -> Iterator[Chunk]:
        """Solve a lease and yield its samples in chunks.

        Every simulation is `finished` or `failed` in exactly one chunk. A simulation fails alone, whatever its code
        raises: the reason travels in the chunk and is logged, with the traceback where it is a fault of code. A worker
        that has outgrown its memory leaves out the simulations that it has not begun; one that must repeat completes
        the lease.

        Args:
            lease: the lease.

        Yields:
            Chunks of samples, the last one perhaps without any.

        Raises:
            PenstockError: the strategy's options don't suit the systems.
        """
        if self._agree(self._outgrown_bytes is not None):
            return
        solver_name = lease.design if lease.design in self._solvers else "training"
        solver, sorter = self._solvers[solver_name], self._sorters[solver_name]
        chunk = ChunkBuilder(self.problem, lease.design, inf if self._must_repeat else CHUNK_SECONDS)
        draws, quantiles, solve_seconds = {}, {}, 0.0
        self._is_sending = False  # a stream that was closed at a `yield` never came back from it
        if self._must_repeat:
            solver.reset()
            sorter.reset()
        solver.adopt(lease.decisions, may_try=lease.may_try)
        sorter.begin(lease.simulations, gains_from_order=solver.gains_from_order)
        seeds = seeds_of(self.seed, lease.design, lease.simulations)
        for simulation, seed in zip(lease.simulations, seeds, strict=True):
            self._on_begin(lease.number, simulation)
            chunk.begin_lap()
            try:
                parameters, quantiles[simulation] = self._draw(lease.design, simulation, seed)
                draws[simulation] = parameters
                sorter.add(simulation, parameters)
            except BaseException as error:  # one bad draw must not end a run of thousands: counted in `failed`
                self._fail(chunk, simulation, error)
            chunk.end_lap("draw")

        runs: list[_Run] = []  # those that have begun and not ended

        def solve(run: _Run, system: LinearSystem) -> Solution:
            nonlocal solve_seconds
            chunk.end_lap("assembly")
            solve_waiting()  # their copies are good until a system is solved alone
            num_retried = solver.num_retried
            solution = solver(system)
            chunk.end_lap("solve")
            run.is_retried |= solver.num_retried > num_retried
            solve_seconds += solution.seconds
            chunk.decisions = [decision for decision in solver.decisions if decision not in lease.decisions]
            chunk.note_solve(system, solution, repeats_matrix=solver.repeats_matrix)
            if not solution.converged:
                of_family = "" if system.family == LinearSystem.family else f"family {system.family!r}: "
                raise SolveError(of_family + solution.reason)
            return solution

        def kept(system: LinearSystem) -> LinearSystem | None:
            chunk.end_lap("assembly")
            copy = solver.kept(system)
            chunk.end_lap("solve")
            return copy

        def solve_waiting() -> None:
            nonlocal solve_seconds
            for group in _by_family(runs):
                systems = [run.stop_waiting() for run in group]
                chunk.begin_lap()
                solutions = solver.solve_block(systems)
                chunk.end_lap("solve")
                for run, system, solution in zip(group, systems, solutions, strict=True):
                    if solution is None:
                        run.go_on_with(partial(solve, run, system))
                        continue
                    solve_seconds += solution.seconds
                    chunk.note_solve(system, solution, repeats_matrix=True)  # else it would not have been kept
                    run.go_on_with(lambda solution=solution: solution)

        self._on_begin(lease.number, None)
        queue = deque(self._agree(sorter.order()))
        while True:
            run = next((run for run in runs if run.system is None), None)
            if run is None and queue and len(runs) < self._num_at_once:
                if self._agree(self._outgrown_bytes is not None) and not self._must_repeat:
                    queue.clear()
                    continue
                run = _Run(queue.popleft())
                run.go_on = partial(self._begin, run, draws.pop(run.simulation), solve, kept)
                runs.append(run)
            if run is not None:
                yield from self._run(run, runs, chunk, lease.number, quantiles[run.simulation])
            elif runs:
                solve_waiting()
            else:
                break
        sorter.end(solve_seconds)
        if not chunk.is_empty():
            yield from self._send(chunk, lease.number)

    def _draw(self, design: str, simulation: int, seed: Seed) -> tuple[Parameters, np.ndarray]:
        """The parameters of a simulation, and their quantiles."""
        if design in self._point_sets:
            point = self._point_sets[design].point(simulation)
            return self.problem.at_quantiles(point, seed.generator()), point
        if self.problem.draws_from_space:
            parameters = self.problem.draw(seed.generator())
        else:
            parameters = self.problem.draw_numbered(self.seed, design, simulation)
        return parameters, self._quantiles(seed.generator())

    def _quantiles(self, generator: np.random.Generator) -> np.ndarray:
        """The quantiles of a draw.

        Raises Refused unless there is a number in [0, 1] for each of the problem's `quantile_names`.
        """
        quantiles = as_numbers("quantiles", self.problem.quantiles(generator))
        names = self.problem.quantile_names
        if quantiles.shape != (len(names),) or not ((quantiles >= 0) & (quantiles <= 1)).all():
            raise Refused(f"quantiles must be a number in [0, 1] for each of {names}, not {quantiles}")
        return quantiles

    def _begin(self, run: _Run, parameters: Parameters, solve: Callable, kept: Callable) -> Sample | LinearSystem:
        """The first item of a simulation."""
        problem, solve_own = self.problem, partial(solve, run)
        if self._num_at_once > 1 and type(problem).simulate is InterleavedProblem.simulate:
            run.may_wait = True
            run.items = in_turns(problem.turns(parameters), solve_own, kept)
        else:
            samples = problem.simulate(parameters, solve_own)
            if not isinstance(samples, Iterable) or isinstance(samples, Sample):
                raise Refused(f"simulate returned a {type(samples).__name__}: it must yield Samples")
            run.items = iter(samples)
        return next(run.items)

    def _run(
        self, run: _Run, runs: list[_Run], chunk: ChunkBuilder, lease_number: int, quantiles: np.ndarray
    ) -> Iterator[Chunk]:
        """Let a simulation go on until it waits or has ended.

        Yields the chunks that are due.
        """
        self._on_begin(lease_number, run.simulation)
        if self.problem.is_external:
            self.problem.on_retry = partial(_note_restart, chunk, run)
        chunk.begin_lap()
        try:
            while (item := run.next_item()) is not _END:
                if run.system is not None:
                    return
                chunk.end_lap("assembly")
                self._require_sample(item, run)
                self._add(chunk, run, item, quantiles)
                chunk.end_lap("pack")
                if chunk.is_due():
                    yield from self._send(chunk, lease_number)
                    self._on_begin(lease_number, run.simulation)
                    chunk.begin_lap()
            if not run.steps:
                raise Refused("simulate yielded no sample")
            if 1 < self.problem.num_steps != len(run.steps):
                raise Refused(
                    f"{len(run.steps)} samples were yielded, and the problem's num_steps is {self.problem.num_steps}"
                )
            chunk.finished.append(run.simulation)
        except BaseException as error:  # one bad simulation must not end a run of thousands: counted in `failed`
            self._fail(chunk, run.simulation, error)
        chunk.end_lap("assembly")
        runs.remove(run)
        chunk.retried += run.is_retried
        if chunk.is_due():
            yield from self._send(chunk, lease_number)

    def _require_sample(self, item: Any, run: _Run) -> None:
        """Raise Refused unless it is a sample that may follow those of the simulation."""
        if not isinstance(item, Sample):
            raise Refused(f"simulate yielded a {type(item).__name__}: it must yield Samples")
        num_steps = self.problem.num_steps
        if item.step in run.steps:  # a second copy, as far as the learner knows: it would be dropped
            raise Refused(f"step {item.step} was yielded twice: number the samples with Sample(step=)")
        if num_steps > 1 and not 0 <= item.step < num_steps:
            raise Refused(
                f"step {item.step} was yielded, and steps are 0 to {num_steps - 1} (num_steps is {num_steps})"
            )
        run.steps.add(item.step)
        if self._one_geometry:
            run.geometry = run.geometry or item.geometry
            _require_same(run.geometry, item.geometry)

    def _add(self, chunk: ChunkBuilder, run: _Run, sample: Sample, quantiles: np.ndarray) -> None:
        """Add a sample to the chunk.

        Raises Refused, with the step where there are several.
        """
        try:
            chunk.add(run.simulation, sample, quantiles)
        except Refused as error:
            if max(self.problem.num_steps, len(run.steps)) == 1:
                raise
            raise Refused(f"step {sample.step}: {error}") from error

    def _fail(self, chunk: ChunkBuilder, simulation: int, error: BaseException) -> None:
        """Record what the problem's code raised, be it KeyboardInterrupt.

        An error that is meant to end the worker is raised again, and so is one of the configuration: every other
        simulation would fail of it, too.
        """
        if self._is_sending or raised_by_signal(error):
            raise error
        if isinstance(error, Unfit):
            raise PenstockError(f"solver.strategy.{text_of(error)}") from error
        reason = self._reason(error)
        said = f": {reason}" if isinstance(error, SAY_EVERYTHING) else f"\n{_trace(error)}"
        logger.error("simulation %d of design %r failed%s", simulation, chunk.design, said)
        chunk.fail(simulation, reason)
        error.__traceback__ = None  # it holds the simulation's arrays, and grows where one error is raised again

    def _reason(self, error: BaseException) -> str:
        """The error in one line, with the last place in the user's files."""
        if isinstance(error, SolveError) and not type(self.problem).__module__.startswith("penstock."):
            return text_of(error) + place_in(error, file_of(self.problem))  # that of a user's call of `solve`
        if isinstance(error, SAY_EVERYTHING):
            return text_of(error)
        strategies = [solver.strategy for solver in self._solvers.values()]
        own = [strategy for strategy in strategies if not type(strategy).__module__.startswith("penstock.")]
        return describe(error, *map(file_of, (self.problem, *own)))

    def _send(self, chunk: ChunkBuilder, lease_number: int) -> Iterator[Chunk]:
        self._on_begin(lease_number, None)
        self._weigh()
        message = chunk.take(self._outgrown_bytes)
        self._is_sending = True
        yield message
        self._is_sending = False
        chunk.restart_clock()

    def _weigh(self) -> None:
        """Note whether the process has outgrown its bound.

        Replacing one that needs as much from the start would not help.
        """
        now = own_bytes()
        if self._first_bytes is None:
            self._first_bytes = now
        if now > max(self._max_bytes, GROWTH * self._first_bytes):
            self._outgrown_bytes = now


@dataclass(eq=False)
class _Run:
    """A simulation that has begun."""

    simulation: int
    go_on: Callable[[], Sample | LinearSystem] | None = None
    """Gives the next item."""
    items: Iterator[Sample | LinearSystem] | None = None
    may_wait: bool = False
    """Whether its items may be copies of systems, to be solved with others."""
    system: LinearSystem | None = None
    """The system whose solution it waits for."""
    steps: set[int] = field(default_factory=set)
    geometry: Mapping[str, np.ndarray] | None = None
    is_retried: bool = False

    def next_item(self) -> Any:
        """The next item, `_END` where there is none.

        Where it is a system, it is kept in `system`.
        """
        go_on, self.go_on = self.go_on, None
        try:
            item = next(self.items) if go_on is None else go_on()
        except StopIteration:
            return _END
        if self.may_wait and isinstance(item, LinearSystem):
            self.system = item
        return item

    def stop_waiting(self) -> LinearSystem:
        """The system that it waited for, which is about to be solved."""
        system, self.system = self.system, None
        return system

    def go_on_with(self, solve: Callable[[], Solution]) -> None:
        """Go on with the solution of the system it waited for, or with the error."""
        try:
            self.go_on = partial(self.items.send, solve())
        except Exception as error:
            self.go_on = partial(self.items.throw, error)


_END = object()


def _note_restart(chunk: ChunkBuilder, run: _Run, fault: str) -> None:
    logger.warning("simulation %d of design %r: %s; %s", run.simulation, chunk.design, fault, RETRIED)
    chunk.restarts.append(Restart(design=chunk.design, simulation=run.simulation, reason=fault))
    run.is_retried = True


def _trace(error: BaseException) -> str:
    """The traceback of an error, shortened."""
    trace = "".join(traceback.format_exception(error)).encode(errors="backslashreplace").decode()
    if len(trace) > MAX_TRACE_CHARACTERS:
        return f"{trace[: MAX_TRACE_CHARACTERS // 2]} ... {trace[-MAX_TRACE_CHARACTERS // 2 :]}"
    return trace


def _by_family(runs: Iterable[_Run]) -> list[list[_Run]]:
    """The simulations that wait, by the family of their systems."""
    groups: dict[str, list[_Run]] = {}
    for run in runs:
        if run.system is not None:
            groups.setdefault(run.system.family, []).append(run)
    return list(groups.values())


def _require_same(first: Mapping[str, np.ndarray], later: Mapping[str, np.ndarray]) -> None:
    """Raise Refused where a sample's geometry is not that of an earlier step."""
    for name, array in first.items():
        if name not in later or (later[name] is not array and not np.array_equal(later[name], array)):
            raise Refused(
                f"{name!r} changes from step to step, and a trajectory has one geometry: take buffer.draw: samples"
            )
