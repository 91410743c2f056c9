"""A solver's process, as a plain class that `workers.py` wraps for Ray; the sense is in solvers/. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.errors import PenstockError
from penstock.orchestrator import conditions
from penstock.orchestrator.blueprint import Blueprint
from penstock.orchestrator.logs import log_to
from penstock.sample import Chunk, Lease
from penstock.solvers import mpi
from penstock.solvers.krylov import LinearSolver
from penstock.solvers.krylov.direct import Direct
from penstock.solvers.worker import SolverWorker

REFERENCE_RTOL = 1e-8  # of the solutions that surrogates are measured on, whatever the training's


def make_worker(blueprint: Blueprint) -> SolverWorker:
    """A worker whose validation and prediction draws are solved directly. Raises PenstockError without PETSc."""
    try:
        mpi.start()
        import petsc4py
    except ImportError as error:
        raise PenstockError(f"solving needs PETSc ({error}): `penstock doctor` says how to get it") from error
    petsc4py.init(["penstock", "-no_signal_handler"])  # PETSc's would turn every SIGTERM into a page about a crash
    config = blueprint.config.solver
    strategy = blueprint.strategy()
    return SolverWorker(
        blueprint.problem(),
        {
            "training": LinearSolver(strategy, rtol=config.rtol, accuracy=config.accuracy),
            "validation": LinearSolver(Direct(), rtol=REFERENCE_RTOL),
            "prediction": LinearSolver(Direct(), rtol=REFERENCE_RTOL),
        },
        seed=blueprint.config.seed,
        sort=config.sort,
        deterministic=blueprint.config.deterministic,
    )


class SolverActor:
    """One solver process: leases in, chunks out."""

    def __init__(self, blueprint: Blueprint, log: Path):
        log_to(log)
        self._blueprint = blueprint

    def prepare(self) -> dict[str, Any]:
        """Build the worker; returns what the driver keeps of it. Raises PenstockError, for instance without PETSc."""
        self._worker = make_worker(self._blueprint)
        from petsc4py import PETSc

        petsc = ".".join(map(str, PETSc.Sys.getVersion()))
        threads = os.environ.get("OMP_NUM_THREADS")  # of BLAS; Ray sets it to 1 where the user has not set it
        return {
            "pid": os.getpid(),
            "conditions": conditions.of_this_process() | {"PETSc": petsc, "OMP_NUM_THREADS": threads},
        }

    def stream(self, lease: Lease) -> Iterator[Chunk]:
        yield from self._worker.stream(lease)
