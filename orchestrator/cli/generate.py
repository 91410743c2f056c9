"""`penstock generate`: the stream of a run without its training."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import batched
from pathlib import Path
from typing import Any

from rich.console import Console

from penstock.errors import PenstockError, WorkerDied
from penstock.messages import ACTIVITIES, Chunk, Lease
from penstock.orchestrator.actors.solver_actor import make_worker
from penstock.orchestrator.config.config import Config, ProblemSection
from penstock.orchestrator.solving import Solving
from penstock.orchestrator.store.locks import hold
from penstock.orchestrator.views.card import shares
from penstock.orchestrator.views.numbers import digits
from penstock.registry import with_defaults
from penstock.solvers.stored.samples import SampleStore, SampleWriter

MAX_FAILED = 8  # the first simulations; if they all fail, the problem is at fault
DRAWS = ("parameters", "design")  # keys of `problem` that stores before them lack, which were written without them


def generate(config: Config, num: int, output: Path | None) -> None:
    """Solve simulations with one worker in this process.

    Args:
        config: the configuration of a run.
        num: number of simulations, from 0 on; those that the store has are not solved again.
        output: the store to write; None to drop the samples.

    Raises:
        PenstockError: the problem can't be solved, or the store can't be written or holds other samples.
    """
    if config.problem.swap and output is not None:
        raise PenstockError(
            "problem.swap: a store keeps the roles of the problem: leave it out here, and give it where you train: "
            "`problem: {name: store, path: ..., swap: true}`"
        )
    solving = Solving.of(config)
    worker = make_worker(solving)
    with _writer(solving, output) as writer:
        left = [simulation for simulation in range(num) if writer is None or simulation not in writer.ended]
        if not left:
            print(f"{output} has all of {num} simulations: raise --num for more")
            return
        if len(left) < num:
            print(f"{num - len(left)} of {num} simulations are in {output}")
        tally = _Tally(writer)
        # The first simulation also builds what is kept for all, so it is not in the rates.
        leases = [left[:1], *batched(left[1:], config.solver.window)]
        with Console(stderr=True).status("") as status:
            for chunk in _chunks(worker, leases):
                tally.add(chunk)
                status.update(f"{tally.num_ended} of {len(left)} simulations, {digits(tally.rate)} samples/s")
        tally.end()
    if output is not None:
        print(f"wrote {output}; train on it with `problem: {{name: store, path: {output.resolve()}}}`")


def _chunks(worker, leases: Sequence[Sequence[int]]) -> Iterator[Chunk]:
    for number, simulations in enumerate(leases):
        yield from worker.stream(Lease(number=number, simulations=tuple(simulations)))


@contextmanager
def _writer(solving: Solving, output: Path | None) -> Iterator[SampleWriter | None]:
    """The writer of the store, locked; None without a store.

    What has ended is written when a signal, a dead worker or a fault that nobody expects ends the block.
    """
    if output is None:
        yield None
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        lock = hold(output.with_name(f".{output.name}.lock"))  # it stays: who waits for a file that goes holds nothing
    except OSError as error:
        raise PenstockError(f"can't write {output}: {error.strerror}: give another --output") from error
    if lock is None:
        raise PenstockError(f"{output} is being written by another process: wait for its end")
    with lock:
        problem = solving.problem
        card = {"about": type(problem).__doc__, "parameters": problem.space.describe()}
        writer = SampleWriter(output, problem.layout, problem.num_steps, _origin_for(output, solving), card)
        try:
            yield writer
        except BaseException as error:
            # The expected faults are a failed write, and a problem whose every simulation fails.
            if not isinstance(error, PenstockError) or isinstance(error, WorkerDied):
                writer.flush()
            raise


def _origin_for(output: Path, solving: Solving) -> dict[str, Any]:
    """The origin, without defaults that an older store does not name."""
    origin = _origin(solving)
    theirs = SampleStore(output).origin if output.exists() else origin
    defaults = {key: ProblemSection.model_fields[key].default for key in DRAWS}
    return {key: value for key, value in origin.items() if key in theirs or key not in DRAWS or value != defaults[key]}


def _origin(solving: Solving) -> dict[str, Any]:
    """What the samples depend on."""
    config = solving.config
    return {
        "problem": Path(config.problem.name).name,  # where a file lay says nothing elsewhere
        "options": with_defaults(type(solving.problem), config.problem.options),
        **config.problem.model_dump(mode="json", include=set(DRAWS)),
        "source": solving.problem_source,
        "seed": config.seed,
        "solver": config.solver.model_dump(mode="json", include={"strategy", "accuracy", "accuracy_of", "rtol"}),
    }


class _Tally:
    """What came, and what it took, from the second simulation on."""

    def __init__(self, writer: SampleWriter | None):
        self.num_ended = 0
        self._writer = writer
        self._num_samples = self._num_bytes = 0
        self._first_seconds: float | None = None
        self._failed: dict[int, str] = {}
        self._seconds = dict.fromkeys((*ACTIVITIES, *(() if writer is None else ("write",))), 0.0)
        self._strategies: Counter[str] = Counter()
        self._decisions: set[tuple[str, int]] = set()
        self._since = time.perf_counter()

    @property
    def rate(self) -> float:
        """Samples per second."""
        return self._num_samples / (time.perf_counter() - self._since)

    def add(self, chunk: Chunk) -> None:
        """Count a chunk, and write it.

        Raises PenstockError where all simulations fail, or where it can't be written.
        """
        for decision in chunk.decisions:
            if (decision.family, decision.number) not in self._decisions:
                self._decisions.add((decision.family, decision.number))
                print(f"{decision.family}: {decision.reason}")
        self.num_ended += len(chunk.finished) + len(chunk.failed)
        self._failed |= chunk.failed
        if len(self._failed) == self.num_ended >= MAX_FAILED:
            raise PenstockError(f"the first {MAX_FAILED} simulations failed: {self._reason()}", exit_code=3)
        self._write(lambda writer: writer.add(chunk))
        if self._first_seconds is not None:
            self._num_samples += len(chunk)
            self._num_bytes += chunk.num_bytes
            self._strategies.update(solve.strategy for solve in chunk.solves)
            for name, seconds in chunk.seconds.items():
                self._seconds[name] += seconds
        elif self.num_ended:
            now = time.perf_counter()
            self._first_seconds, self._since = now - self._since, now

    def end(self) -> None:
        """Write what is left, and print rates, shares and failures.

        Raises PenstockError where it can't be written.
        """
        self._write(SampleWriter.flush)
        total = time.perf_counter() - self._since
        print(f"{digits(self._first_seconds or 0.0)} s for the first of {self.num_ended} simulations")
        if self._num_samples:
            print(
                f"{self._num_samples} samples of the others in {digits(total)} s: {digits(self._num_samples / total)} "
                f"samples/s, {digits(self._num_bytes / 1e6 / total)} MB/s"
            )
            print(shares(self._seconds | {"other": max(0.0, total - sum(self._seconds.values()))}))
        if self._strategies:
            print("systems: " + ", ".join(f"{count} by {name}" for name, count in self._strategies.most_common()))
        if self._failed:
            print(f"{len(self._failed)} simulations failed, for instance: {self._reason()}")

    def _write(self, do: Callable[[SampleWriter], None]) -> None:
        if self._writer is None:
            return
        before = time.perf_counter()
        do(self._writer)
        if self._first_seconds is not None:
            self._seconds["write"] += time.perf_counter() - before

    def _reason(self) -> str:
        return next(iter(self._failed.values()))
