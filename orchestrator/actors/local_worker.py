"""The worker of a process, with MPI and PETSc started in it. No torch."""

from __future__ import annotations

import os
from typing import Any

from penstock.errors import PenstockError
from penstock.machine import keep_freed_arrays
from penstock.orchestrator.config.solver import SolverSection
from penstock.orchestrator.ledger import conditions
from penstock.orchestrator.solving import Solving
from penstock.solvers import mpi
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.preconditioners.by_name import require_built
from penstock.solvers.problem import Unfit
from penstock.solvers.worker import SolverWorker

# Bound on the residual of the solutions that surrogates are measured on, whatever the training's bound.
REFERENCE_RTOL = 1e-8
# Their accuracy, as a multiple of the training's, if that is relative to a deviation, which a residual does not bound.
REFERENCE_ACCURACY = 0.01


def make_local_worker(solving: Solving, **options: Any) -> SolverWorker:
    """A worker as of `make_worker`, in this process, perhaps one of several ranks.

    Args:
        solving: the problem, and how it is solved.
        **options: further arguments of `SolverWorker`.

    Returns:
        The worker.

    Raises:
        PenstockError: PETSc or what the problem needs is missing, or the problem or strategy refuses its options.
    """
    keep_freed_arrays()
    start_petsc()  # before the problem is built, whose code may import petsc4py
    solving.require_ready()
    config = solving.config.solver
    strategy = solving.strategy()
    try:
        require_built(strategy.pc)
    except Unfit as error:
        raise PenstockError(f"solver.strategy.{error}") from error
    draws_samples = solving.config.buffer.draw.name == "samples"
    if not draws_samples:  # each simulation under way takes a slot of the buffer
        options = {"num_at_once": 1} | options
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
        point_sets=solving.point_sets(),
        sort=config.sort,
        must_repeat=solving.order.must_repeat,
        one_geometry=not draws_samples,
        **options,
    )


def conditions_here() -> dict[str, Any]:
    """What a worker's results in this process depend on besides the configuration."""
    from petsc4py import PETSc

    petsc = ".".join(map(str, PETSc.Sys.getVersion()))
    threads = os.environ.get("OMP_NUM_THREADS")  # for BLAS; Ray sets it to 1 unless the user has set it
    return conditions.of_this_process() | {"PETSc": petsc, "OMP_NUM_THREADS": threads}


def start_petsc() -> None:
    """Start MPI and PETSc in this process.

    Raises:
        PenstockError: PETSc is missing.
    """
    try:
        mpi.start()
        import petsc4py
    except ImportError as error:
        raise PenstockError(f"solving needs PETSc ({error}): `penstock doctor` says how to get it") from error
    petsc4py.init(["penstock"])  # not with this process's arguments, which are Ray's


def reference_solver(config: SolverSection) -> LinearSolver:
    """The solver of validation and prediction.

    Args:
        config: section `solver` of the configuration.

    Returns:
        A direct solver, with a separate bound.
    """
    if config.accuracy_of == "deviation":
        return LinearSolver(Direct(), accuracy=REFERENCE_ACCURACY * config.accuracy, of_deviation=True)
    return LinearSolver(Direct(), rtol=REFERENCE_RTOL)
