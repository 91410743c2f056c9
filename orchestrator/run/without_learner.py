"""Simulations solved as in a run, for whoever takes their chunks in this process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import numpy as np

from penstock.arrays.ragged import padded
from penstock.errors import PenstockError
from penstock.id_set import IdSet
from penstock.messages import Chunk, Lease, whole_simulations
from penstock.orchestrator.actors.solver_actor import make_worker
from penstock.orchestrator.ledger.designs import InOrder
from penstock.orchestrator.ledger.ledger import FIRST, Ledger
from penstock.orchestrator.resources.cores import solves_here, split_here
from penstock.orchestrator.run.gathering import Chunks, gathered
from penstock.orchestrator.solving import Solving
from penstock.solvers.problem import RETRIED
from penstock.status import Ended


@contextmanager
def solved(solving: Solving, num: int, done: Collection[int], tell: Callable[[str], None]) -> Iterator[Chunks]:
    """The chunks of training simulations, solved by the workers of a run.

    They are in this process, or are started by Ray, see `solves_here`. Then this is to be called in the environment of
    `set_environment`, and within the block only what was made before prints, see `on_ray`.

    Args:
        solving: the problem, and how it is solved.
        num: number of simulations, from 0 on.
        done: those of them that are not to be solved.
        tell: prints a line for the user.

    Yields:
        The chunks, in which each simulation ends once. The first simulation, which also builds what is
        kept for all, is in a chunk by itself.

    Raises:
        PenstockError: the problem can't be solved; where Ray is needed, see `gathered`.
        SystemExit: a signal came.
    """
    ended = IdSet()
    ended.update(np.array(list(done), np.int64))
    ledger = Ledger(InOrder("training"), num, Ended(ended.to_intervals()))
    if solves_here(solving.config):
        yield Chunks(None, _here(solving, ledger))
        return
    solving.require_ready()
    if solving.config.cluster.address is None:
        split_here(solving.config).require_cores(solving.config.solver)
    with gathered(solving, ledger, tell=tell) as chunks:
        yield chunks


def new_samples(
    solving: Solving, num: int, tell: Callable[[str], None], show: Callable[[int, int], None]
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Solve draws that no surrogate was trained or validated on, in this process.

    Args:
        solving: the problem, and how it is solved.
        num: number of simulations.
        tell: prints a line for the user about each that failed, or was retried.
        show: shows how many have ended, and how many there are.

    Returns:
        The packed samples of the others, padded where points vary, with the simulation and the step of each.

    Raises:
        PenstockError: the problem can't be solved, or every simulation failed.
    """
    lease = Lease(number=0, simulations=tuple(range(num)), design="prediction")
    chunks: list[Chunk] = []
    num_ended = 0
    show(num_ended, num)
    for chunk in make_worker(solving).stream(lease):
        chunks.append(chunk)
        for restart in chunk.restarts:
            tell(f"draw {restart.simulation}: {restart.reason}; {RETRIED}")
        for simulation, reason in chunk.failed.items():
            tell(f"draw {simulation} failed: {reason}")
        num_ended += len(chunk.finished) + len(chunk.failed)
        show(num_ended, num)
    rows, simulations, steps = whole_simulations(chunks)
    if not len(simulations):
        raise PenstockError("every solve failed, there is nothing to compare with", exit_code=3)
    return {name: padded(values) for name, values in rows.items()}, simulations, steps


def _here(solving: Solving, ledger: Ledger) -> Iterator[Chunk]:
    worker, window = make_worker(solving), solving.config.solver.window
    has_finished, lease = False, ledger.lease(0, 1)
    while lease is not None:
        for chunk in worker.stream(lease):
            has_finished |= bool(chunk.finished)
            yield chunk
        lease = ledger.lease(lease.number + 1, window if has_finished else min(window, FIRST - 1))
