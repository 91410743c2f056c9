"""Systems that an earlier factorisation serves, and those that it does not."""

from copy import copy

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from mpi4py import MPI
from petsc4py import PETSc

from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.lagged import Lagged
from penstock.solvers.linear.strategy import Tolerance
from penstock.solvers.problem import LinearSystem, Outcome

RTOL = 1e-8
n = 24


class Diffusion:
    """Systems of -∇·(a ∇u) + wind ∂u/∂x₁ = f by finite volumes on n x n cells.

    a = exp(field). One matrix is overwritten.
    """

    def __init__(self, wind: float = 0.0):
        self.is_spd = wind == 0.0
        jump = scipy.sparse.diags_array([np.ones(n), -np.ones(n)], offsets=[0, -1], shape=(n + 1, n)).tocsr()
        inner = scipy.sparse.eye_array(n)
        self.jumps = [scipy.sparse.kron(jump, inner), scipy.sparse.kron(inner, jump)]
        self.upwind = wind * scipy.sparse.kron(jump[:n], inner)
        matrix = self.matrix(np.zeros((n, n)))
        self.csr = (matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32))
        self.A = PETSc.Mat().createAIJ(matrix.shape, csr=(*self.csr, matrix.data), comm=MPI.COMM_SELF)
        self.b = self.A.createVecLeft()
        self.generator = np.random.default_rng(0)
        self.solvers = set()

    def matrix(self, field) -> scipy.sparse.csr_array:
        a = np.exp(np.pad(field, 1, mode="edge"))
        faces = (0.5 * (a[1:, 1:-1] + a[:-1, 1:-1]), 0.5 * (a[1:-1, 1:] + a[1:-1, :-1]))
        terms = [D.T @ scipy.sparse.diags_array(f.ravel()) @ D for D, f in zip(self.jumps, faces, strict=True)]
        matrix = scipy.sparse.csr_array(terms[0] + terms[1] + self.upwind)
        matrix.sort_indices()
        return matrix

    def field(self) -> np.ndarray:
        """A smooth field of unit variance."""
        k = np.arange(n)
        decay = 1 / (4 + k[:, None] ** 2 + k[None, :] ** 2)
        cosines = np.cos(np.pi * np.outer((k + 0.5) / n, k))
        field = cosines @ (decay * self.generator.standard_normal((n, n))) @ cosines.T
        return (field - field.mean()) / field.std()

    def solve(self, solver: LinearSolver, field) -> tuple[int, int]:
        """The iterations, and the number of factorisations.

        The examination of the first system does not count. x is compared with SciPy's.
        """
        matrix = self.matrix(field)
        self.A.setValuesCSR(*self.csr, matrix.data)
        self.A.assemble()
        self.b.array = self.generator.standard_normal(n * n)
        before = num_factorisations()
        solution = solver(LinearSystem(A=self.A, b=self.b, is_spd=self.is_spd))
        assert solution.converged and solution.strategy == "lagged"
        expected = scipy.sparse.linalg.spsolve(matrix.tocsc(), self.b.array_r)
        assert np.linalg.norm(solution.x.array_r - expected) <= 1e-4 * np.linalg.norm(expected)
        assert np.linalg.norm(self.b.array_r - matrix @ solution.x.array_r) <= RTOL * np.linalg.norm(self.b.array_r)
        is_first = solver not in self.solvers
        self.solvers.add(solver)
        return solution.iterations, num_factorisations() - before - is_first


def num_factorisations() -> int:
    PETSc.Log.begin()
    return sum(PETSc.Log.Event(name).getPerfInfo()["count"] for name in ("MatCholFctrNum", "MatLUFactorNum"))


@pytest.mark.parametrize("wind", [0.0, 0.3], ids=["cg", "gmres"])
def test_a_slow_sequence_is_factored_when_the_mean_cost_says_so(wind):
    diffusion = Diffusion(wind)
    first, second = diffusion.field(), diffusion.field()
    rho = 15
    solver = LinearSolver(Lagged(refresh_cost=rho), rtol=RTOL)
    since, num_factored = [], 0
    for angle in np.linspace(0, 1.5, 40):
        is_due = not since or since[-1] > (rho + sum(since)) / len(since)
        iterations, factored = diffusion.solve(solver, np.cos(angle) * first + np.sin(angle) * second)
        assert factored == is_due
        since = [iterations] if factored else [*since, iterations]
        num_factored += factored
    assert 3 <= num_factored <= 15
    assert solver.num_retried == 0


@pytest.mark.parametrize("pc", ["factor", "gamg"])
def test_measured_costs_serve_as_well(pc):
    diffusion = Diffusion()
    first, second = diffusion.field(), diffusion.field()
    solver = LinearSolver(Lagged(pc=pc), rtol=RTOL)
    for angle in np.linspace(0, 0.5, 20):
        iterations, _ = diffusion.solve(solver, np.cos(angle) * first + np.sin(angle) * second)
        assert iterations < 60
    assert solver.num_retried == 0


def test_an_old_hierarchy_still_preconditions_when_the_problem_overwrites_its_matrix():
    diffusion = Diffusion()
    solver = LinearSolver(Lagged(pc="gamg", refresh_cost=1000), rtol=RTOL)
    fresh, _ = diffusion.solve(solver, 0.3 * diffusion.field())
    for _ in range(5):
        iterations, _ = diffusion.solve(solver, 0.3 * diffusion.field())
        assert fresh < iterations < 10 * fresh
    assert solver.num_retried == 0


def test_unrelated_matrices_are_factored_each_after_a_few_trials():
    diffusion = Diffusion()
    rho = 5
    solver = LinearSolver(Lagged(refresh_cost=rho), rtol=RTOL)
    counts = [diffusion.solve(solver, 2 * diffusion.field()) for _ in range(60)]
    assert [factored for _, factored in counts] == [1] * 60
    fresh = counts[0][0]
    tried = [index for index, (iterations, _) in enumerate(counts) if iterations > fresh + 1]
    assert np.diff(tried).tolist() == [1, 2, 3, 5, 9, 17]  # pauses of 0, 1, 2, 4, 8, 16
    assert all(iterations <= rho + 4 * fresh for iterations, _ in counts)


def test_zeros_on_the_diagonal():
    """PETSc's factorisation does not pivot; MUMPS takes over."""
    swap = scipy.sparse.csr_array(np.kron(np.eye(5), [[0.0, 1.0], [1.0, 0.0]]))
    A = PETSc.Mat().createAIJ(
        swap.shape, csr=(swap.indptr.astype(np.int32), swap.indices.astype(np.int32), swap.data), comm=MPI.COMM_SELF
    )
    b = A.createVecLeft()
    b.array = np.arange(1.0, 11.0)
    attempt = Lagged().solve(LinearSystem(A=A, b=b), Tolerance(RTOL))
    assert attempt.outcome is Outcome.CONVERGED
    np.testing.assert_allclose(attempt.x.array_r, swap.toarray() @ b.array_r)


def test_copies_of_a_fresh_one_share_nothing():
    diffusion, pattern = Diffusion(), Lagged()
    solvers = [LinearSolver(copy(pattern), rtol=RTOL) for _ in range(2)]
    for solver in solvers:
        assert diffusion.solve(solver, diffusion.field())[1] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pc": "gam"}, "pc = 'gam' is not known; did you mean 'gamg'"),
        ({"refresh_cost": 0}, "refresh_cost = 0 must be at least 1"),
        ({"max_iterations": 0}, "max_iterations = 0 must be at least 1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Lagged(**options)
