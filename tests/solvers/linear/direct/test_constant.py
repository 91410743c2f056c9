"""Constant matrices, right-hand sides of low rank."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from mpi4py import MPI
from petsc4py import PETSc

from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.constant import MAX_RANK, Constant, Span
from penstock.solvers.problem import LinearSystem

RTOL = 1e-8
n = 64
RANK = 10


class Poisson:
    """The 5-point Laplacian on n x n points with right-hand sides F c.

    It counts PETSc's back-solves.
    """

    def __init__(self, n: int = n):
        line = scipy.sparse.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
        self.laplacian = scipy.sparse.kronsum(line, line).tocsr()
        self.laplacian.sort_indices()
        self.factor = scipy.sparse.linalg.splu(self.laplacian.tocsc())
        self.csr = (self.laplacian.indptr.astype(np.int32), self.laplacian.indices.astype(np.int32))
        self.A = PETSc.Mat().createAIJ((n * n, n * n), csr=(*self.csr, self.laplacian.data), comm=MPI.COMM_SELF)
        self.b = self.A.createVecLeft()
        self.generator = np.random.default_rng(0)
        self.F = self.generator.standard_normal((n * n, RANK)) * 10.0 ** np.arange(-RANK // 2, RANK // 2)
        PETSc.Log.begin()

    def assemble(self, scale: float = 1.0) -> None:
        self.A.setValuesCSR(*self.csr, scale * self.laplacian.data)
        self.A.assemble()

    def low_rank(self) -> np.ndarray:
        return self.F @ self.generator.standard_normal(RANK)

    def solve(self, solver: LinearSolver, right: np.ndarray, *, scale: float = 1.0) -> dict[str, int]:
        """The number of PETSc's events in the solve; its x is compared with SciPy's."""
        names = ("MatSolve", "MatCholFctrNum", "MatCholFctrSym")
        counts = [PETSc.Log.Event(name).getPerfInfo()["count"] for name in names]
        self.b.array = right
        solution = solver(LinearSystem(A=self.A, b=self.b, is_spd=True))
        assert solution.converged and solution.strategy == "constant"
        expected = self.factor.solve(right) / scale
        error = np.linalg.norm(solution.x.array_r - expected)
        assert error <= 1e-6 * np.linalg.norm(expected)  # RTOL times the condition number, 1700
        assert np.linalg.norm(right - scale * (self.laplacian @ solution.x.array_r)) <= RTOL * np.linalg.norm(right)
        return {
            name: PETSc.Log.Event(name).getPerfInfo()["count"] - count
            for name, count in zip(names, counts, strict=True)
        }


def test_right_hand_sides_of_low_rank_cost_as_many_back_solves_as_their_rank():
    poisson, solver = Poisson(), LinearSolver(Constant(), rtol=RTOL)
    counts = []
    for _ in range(30):
        poisson.assemble()  # the same values again, as from a problem that does not know them to be constant
        counts.append(poisson.solve(solver, poisson.low_rank()))
    assert sum(count["MatCholFctrNum"] for count in counts) == 1
    assert sum(count["MatSolve"] for count in counts) <= 1 + RANK + 1  # with the examination of the first system
    assert all(count["MatSolve"] == 0 for count in counts[-10:])


def test_changed_values_are_seen_and_forgotten():
    poisson, solver = Poisson(), LinearSolver(Constant(), rtol=RTOL)
    num_symbolic = 0
    for scale in (1.0, 3.0, 1.0):
        poisson.assemble(scale)
        counts = [poisson.solve(solver, poisson.low_rank(), scale=scale) for _ in range(3 * RANK)]
        assert [count["MatCholFctrNum"] for count in counts] == [1] + [0] * (3 * RANK - 1)
        assert counts[-1]["MatSolve"] == 0
        num_symbolic += sum(count["MatCholFctrSym"] for count in counts)
    assert num_symbolic == 1 and solver.num_retried == 0


def test_a_single_changed_entry_is_seen():
    poisson, solver = Poisson(), LinearSolver(Constant(), rtol=RTOL)
    for _ in range(RANK + 3):
        poisson.solve(solver, poisson.low_rank())
    poisson.A.setValue(700, 700, 4.0 + 1e-3)
    poisson.A.assemble()
    poisson.laplacian[700, 700] = 4.0 + 1e-3
    poisson.factor = scipy.sparse.linalg.splu(poisson.laplacian.tocsc())
    assert poisson.solve(solver, poisson.low_rank())["MatCholFctrNum"] == 1


def test_full_rank_is_given_up_for_good():
    poisson, solver = Poisson(), LinearSolver(Constant(), rtol=RTOL)
    for _ in range(MAX_RANK + 2):
        poisson.solve(solver, poisson.generator.standard_normal(n * n))
    for _ in range(RANK + 3):
        assert poisson.solve(solver, poisson.low_rank())["MatSolve"] == 1


def test_small_matrices_have_no_span():
    poisson, solver = Poisson(20), LinearSolver(Constant(), rtol=RTOL)
    for _ in range(2 * RANK):
        assert poisson.solve(solver, poisson.low_rank())["MatSolve"] >= 1


def test_matrices_that_go_before_their_spans_pay_have_none(monkeypatch):
    poisson, solver, ranks = Poisson(), LinearSolver(Constant(), rtol=RTOL), []
    append = Span.append
    monkeypatch.setattr(Span, "append", lambda span, *told: (append(span, *told), ranks.append(span.rank)))
    for number in range(5):
        poisson.assemble(1.0 + number)
        for _ in range(RANK):
            poisson.solve(solver, poisson.low_rank(), scale=1.0 + number)
    assert ranks == list(range(1, RANK))  # of the first matrix alone
    counts = [poisson.solve(solver, poisson.low_rank(), scale=5.0) for _ in range(3 * RANK)]
    assert all(count["MatSolve"] == 0 for count in counts[-5:])  # the last one stays


@pytest.mark.parametrize("size", [1e-3, 1e-7, 1e-9])
def test_what_is_outside_the_span_is_seen(size):
    """A right-hand side with one entry far from all others.

    It need not be resolved below RTOL.
    """
    poisson, solver = Poisson(), LinearSolver(Constant(), rtol=RTOL)
    for _ in range(RANK + 3):
        poisson.solve(solver, poisson.low_rank())
    right = poisson.low_rank()
    right[3] += size * np.linalg.norm(right)
    assert poisson.solve(solver, right)["MatSolve"] == (size > RTOL)
    assert solver.num_retried == 0
