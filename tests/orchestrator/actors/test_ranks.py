"""A worker on two MPI ranks: mpiexec, its ranks and their deaths, without Ray."""

import os
import time

import numpy as np
import psutil
import pytest

from penstock.errors import PenstockError, WorkerDied
from penstock.messages import Lease, whole_simulations
from penstock.orchestrator.actors.ranks import Ranks
from penstock.orchestrator.actors.solver_actor import make_worker
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.resources.cores import split_here
from penstock.orchestrator.solving import Solving

# A problem without DOLFINx, whose import takes most of the time that a rank takes to start.
CHAIN = """
import os

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import LinearSystem, Problem


class Chain(Problem):
    is_parallel = True

    def __init__(self, *, refused_on: int = -1, refuses_if: str = ""):
        from mpi4py import MPI

        if MPI.COMM_WORLD.rank == refused_on:
            raise ValueError(f"rank {refused_on} has no chain")
        self.refuses_if = refuses_if
        self.space = ParameterSpace(spring=Uniform(0.1, 1.0))
        self.inputs = (FieldSpec(name="spring"),)
        self.outputs = (FieldSpec(name="u", on=Grid((40,))),)

    def simulate(self, parameters, solve):
        from petsc4py import PETSc

        if os.path.exists(self.refuses_if):
            raise ValueError("the chain is cut")
        A = PETSc.Mat().createAIJ((40, 40), nnz=3, comm=self.comm)
        for row in range(*A.getOwnershipRange()):
            for column in range(max(0, row - 1), min(40, row + 2)):
                A[row, column] = 2.0 + parameters["spring"] if row == column else -1.0
        A.assemble()
        b = A.createVecLeft()
        b.set(1.0)
        x = solve(LinearSystem(A=A, b=b, is_spd=True)).x
        yield Sample(inputs=parameters, outputs={"u": np.concatenate(self.comm.allgather(x.array_r))})
"""
LEASE = Lease(number=7, simulations=tuple(range(6)))

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two ranks need two cores")


def solving(problem="darcy", **solver) -> Solving:
    values = {
        "problem": problem,
        "solver": {"strategy": "direct", "ranks": 2} | solver,
        "training": {"stop_after": {"steps": 1}},
    }
    return Solving.of(Config.model_validate(values))


@pytest.fixture
def others() -> set[psutil.Process]:
    """Processes that other tests have left here, such as multiprocessing's tracker of resources."""
    return set(psutil.Process().children(recursive=True))


def ranks_below(process: psutil.Process, others: set[psutil.Process]) -> list[psutil.Process]:
    below = process.children(recursive=True)
    return [child for child in below if child.name().startswith("python") and child not in others]


def assert_solved(chunks) -> None:
    """All simulations, as NumPy solves them."""
    arrays, simulations, _ = whole_simulations(chunks)
    assert sorted(simulations) == list(LEASE.simulations)
    for spring, u in zip(arrays["scalars"].ravel(), arrays["targets"].reshape(-1, 40), strict=True):
        A = (2 + float(spring)) * np.eye(40) - np.eye(40, k=1) - np.eye(40, k=-1)
        assert np.linalg.solve(A, np.ones(40)) == pytest.approx(u, rel=1e-5)  # samples are float32


def test_two_ranks_solve_together_and_a_dead_one_is_seen_at_once_and_replaced(tmp_path, capfd, others):
    (tmp_path / "chain.py").write_text(CHAIN)
    begun = []
    worker = make_worker(
        solving({"name": f"{tmp_path}/chain.py:Chain", "refuses_if": f"{tmp_path}/cut"}),
        on_begin=lambda number, simulation: begun.append((number, simulation)),
    )
    here = psutil.Process()
    try:
        assert_solved(list(worker.stream(LEASE)))
        assert {(7, i) for i in LEASE.simulations} < set(begun) and begun[-1] == (7, None)
        assert worker.conditions["PETSc"]

        (tmp_path / "cut").touch()
        assert [len(chunk.failed) for chunk in worker.stream(LEASE)] == [6]
        (tmp_path / "cut").unlink()
        logged = capfd.readouterr().err
        assert logged.count("ValueError: the chain is cut") == 6 and "rank 1" not in logged  # once, not on each rank

        first, second = ranks_below(here, others)
        second.kill()
        killed_at = time.monotonic()
        with pytest.raises(WorkerDied, match=r"one of its 2 MPI ranks died.*\(mpiexec ended with 9\)"):
            list(worker.stream(LEASE))
        assert time.monotonic() - killed_at < 5
        assert not first.is_running() and not ranks_below(here, others)

        assert_solved(list(worker.stream(LEASE)))  # by new ranks
        stream = worker.stream(LEASE)
        next(stream)
        stream.close()  # in the middle of a lease
        assert not ranks_below(here, others)
    finally:
        worker.close()
    assert set(here.children(recursive=True)) <= others


def test_a_problem_that_one_rank_alone_refuses_ends_all(tmp_path, others):
    (tmp_path / "chain.py").write_text(CHAIN)
    with pytest.raises(PenstockError, match=r"^problem: rank 1 has no chain$"):
        make_worker(solving({"name": f"{tmp_path}/chain.py:Chain", "refused_on": 1}))
    assert set(psutil.Process().children(recursive=True)) <= others


def test_what_can_not_be_distributed_is_refused_by_name():
    with pytest.raises(PenstockError, match=r"^solver.ranks = 2: poisson with these options solves on one rank: give"):
        _ = solving("poisson").problem
    for strategy, why in {
        "petsc": {"name": "direct", "solver": "petsc"},
        "icc": {"name": "cg", "pc": "icc"},
        "multigrid": {"name": "gcrodr", "pc": "multigrid"},
    }.items():
        with pytest.raises(PenstockError, match=rf"^solver.strategy: {why['name']}: .*'{strategy}'.*solver.ranks = 2"):
            solving(strategy=why).strategy()
    for strategy in ("auto", "cg", {"name": "krylov", "pc": "gamg"}):
        solving(strategy=strategy).strategy()


def test_ranks_need_a_core_each():
    cores = len(os.sched_getaffinity(0))
    with pytest.raises(PenstockError, match=rf"^solver.ranks = {cores + 1}: this machine has {cores} cores"):
        Ranks(solving(ranks=cores + 1))
    config = solving(workers=cores).config
    with pytest.raises(
        PenstockError, match=rf"^solver.ranks = 2 with solver.workers = {cores} takes {2 * cores} cores"
    ):
        split_here(config).require_cores(config.solver)
    assert split_here(solving(workers="auto").config).workers == max(1, (cores - 1) // 2)


def test_without_mpiexec_the_cause_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(PenstockError, match=r"^solver.ranks: there is no mpiexec beside Python or on the path"):
        Ranks(solving())
