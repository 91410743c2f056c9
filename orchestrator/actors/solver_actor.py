"""A solver's process, as a plain class that `workers.py` wraps for Ray; the sense is in solvers/. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from penstock.errors import PenstockError
from penstock.messages import Chunk, Lease
from penstock.orchestrator.config.config import SolverSection
from penstock.orchestrator.ledger import conditions
from penstock.orchestrator.run.logs import log_to
from penstock.orchestrator.solving import Solving
from penstock.solvers import mpi
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.worker import SolverWorker
from penstock.status import Ready

WHERE_BYTES = 48
REFERENCE_RTOL = 1e-8  # of the solutions that surrogates are measured on, whatever the training's,
REFERENCE_ACCURACY = 0.01  # times the training's, where that is relative to a deviation: residuals say nothing of it


def make_worker(solving: Solving, **options: Any) -> SolverWorker:
    """A worker whose validation and prediction draws are solved directly. Raises PenstockError without PETSc.

    options: further ones of `SolverWorker`.
    """
    try:
        mpi.start()
        import petsc4py
    except ImportError as error:
        raise PenstockError(f"solving needs PETSc ({error}): `penstock doctor` says how to get it") from error
    petsc4py.init(["penstock"])  # without the arguments of this process, which are Ray's
    config = solving.config.solver
    strategy = solving.strategy()
    return SolverWorker(
        solving.problem,
        {
            "training": LinearSolver(
                strategy, rtol=config.rtol, accuracy=config.accuracy, of_deviation=config.accuracy_of == "deviation"
            ),
            "validation": reference_solver(config),
            "prediction": reference_solver(config),
        },
        seed=solving.config.seed,
        sort=config.sort,
        deterministic=solving.order.must_repeat,
        **options,
    )


def reference_solver(config: SolverSection) -> LinearSolver:
    """That of validation and prediction."""
    if config.accuracy_of == "deviation":
        return LinearSolver(Direct(), accuracy=REFERENCE_ACCURACY * config.accuracy, of_deviation=True)
    return LinearSolver(Direct(), rtol=REFERENCE_RTOL)


def say_where(file: Path) -> Callable[[int, int | None], None]:
    """An `on_begin` that writes "<lease> <simulation>" to the file, "<lease>" alone while in none: 1 us each.

    So the driver knows what a worker was in that hangs or died, which can't say so itself.
    """
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)

    def say(lease_number: int, simulation: int | None) -> None:
        text = f"{lease_number} {'' if simulation is None else simulation}"
        os.pwrite(descriptor, text.ljust(WHERE_BYTES).encode(), 0)

    return say


def read_where(file: Path) -> tuple[int, int | None] | None:
    """What `say_where` wrote last; None where there is nothing yet."""
    try:
        numbers = [int(word) for word in file.read_text().split()]
    except OSError:
        return None
    return (numbers[0], numbers[1] if len(numbers) > 1 else None) if numbers else None


class SolverActor:
    """One solver process: leases in, chunks out.

    where: a file in which it says where it is, see `say_where`; None where the driver is on another machine.
    """

    def __init__(self, solving: Solving, log: Path, max_bytes: float, where: Path | None):
        log_to(log)
        self._solving = solving
        self._options = {"max_bytes": max_bytes} | ({} if where is None else {"on_begin": say_where(where)})

    def prepare(self) -> Ready:
        """Build the worker. Raises PenstockError, for instance without PETSc."""
        self._worker = make_worker(self._solving, **self._options)
        from petsc4py import PETSc

        petsc = ".".join(map(str, PETSc.Sys.getVersion()))
        threads = os.environ.get("OMP_NUM_THREADS")  # of BLAS; Ray sets it to 1 where the user has not set it
        return Ready(
            pid=os.getpid(),
            conditions=conditions.of_this_process() | {"PETSc": petsc, "OMP_NUM_THREADS": threads},
        )

    def stream(self, lease: Lease) -> Iterator[Chunk]:
        yield from self._worker.stream(lease)
