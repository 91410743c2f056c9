"""Factorisations kept and made again, on one rank and two."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from mpi4py import MPI  # noqa: F401  loads the MPI that petsc4py needs
from petsc4py import PETSc

from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.strategy import Tolerance
from penstock.solvers.problem import LinearSystem, Outcome
from tests.support.systems import laplacian, system_of, to_scipy

TOLERANCE = Tolerance(1e-10)
GENERATOR = np.random.default_rng(0)


def assert_solves(direct: Direct, system: LinearSystem) -> None:
    attempt = direct.solve(system, TOLERANCE)
    assert attempt.outcome is Outcome.CONVERGED
    expected = scipy.sparse.linalg.spsolve(to_scipy(system.A).tocsc(), system.b.array_r)
    np.testing.assert_allclose(attempt.x.array_r, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def package_of(direct: Direct) -> str:
    """The package that made the kept factor."""
    return direct._ksp.getPC().getFactorSolverType()


@pytest.mark.parametrize("is_spd", [True, False])
@pytest.mark.parametrize("solver", [None, "mumps", "petsc"])
def test_one_symbolic_factorisation_serves_all_values(solver, is_spd):
    PETSc.Log.begin()
    names = ("MatCholFctrSym", "MatCholFctrNum") if is_spd else ("MatLUFactorSym", "MatLUFactorNum")

    def counts():
        return np.array([PETSc.Log.Event(name).getPerfInfo()["count"] for name in names])

    system = system_of(laplacian(20, 20), is_spd=is_spd)
    direct = Direct(solver=solver)
    before = counts()
    for _ in range(4):
        system.A.setDiagonal(system.A.getDiagonal() * 1.1)
        assert_solves(direct, system)
    assert (counts() - before).tolist() == [1, 4]
    for _ in range(3):  # the numeric factor serves while the values stay
        system.b.array = GENERATOR.standard_normal(400)
        assert_solves(direct, system)
    assert (counts() - before).tolist() == [1, 4]
    system.A.setOption(PETSc.Mat.Option.NEW_NONZERO_ALLOCATION_ERR, False)
    system.A.setValue(3, 300, 0.5)
    system.A.setValue(300, 3, 0.5)
    system.A.assemble()
    assert_solves(direct, system)
    assert (counts() - before).tolist() == [2, 5]


@pytest.mark.parametrize("diagonal", [None, 0.0, 1e-30])
def test_mumps_takes_over_where_pivots_are_needed(diagonal):
    """A matrix of pairs of unknowns, with one entry per row off the diagonal.

    None leaves the diagonal out of the pattern.
    """
    rows = np.arange(10)
    A = scipy.sparse.coo_array((1.0 + rows, (rows, rows ^ 1)), shape=(10, 10))
    if diagonal is not None:
        A = scipy.sparse.coo_array((np.append(A.data, np.full(10, diagonal)), np.hstack([A.coords, [rows, rows]])))
    direct = Direct()
    assert_solves(direct, system_of(A))
    assert package_of(direct) == "mumps"
    assert_solves(direct, system_of(A))
    assert package_of(direct) == "mumps"


def test_a_small_matrix_and_one_that_stays_are_petscs():
    small, large = system_of(laplacian(50, 50), is_spd=True), system_of(laplacian(102, 102), is_spd=True)
    direct = Direct()
    assert_solves(direct, small)
    assert package_of(direct) == "petsc"
    direct = Direct()
    for _ in range(2):
        large.A.scale(1.1)
        for _ in range(7):
            assert_solves(direct, large)
            assert package_of(direct) == "mumps"
    assert_solves(direct, large)
    assert package_of(direct) == "petsc"
    large.A.scale(1.1)
    assert_solves(direct, large)
    assert package_of(direct) == "petsc"  # a matrix that stayed for 8 systems may stay for more
    large.A.scale(1.1)
    assert_solves(direct, large)
    assert package_of(direct) == "mumps"


def test_a_thick_factor_is_mumpss():
    n = 13
    one_dimensional = scipy.sparse.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    system = system_of(scipy.sparse.kronsum(laplacian(n, n), one_dimensional), is_spd=True)
    direct = Direct()
    for _ in range(2):
        system.A.scale(1.1)
        assert_solves(direct, system)
    assert package_of(direct) == "mumps"


def test_a_residual_out_of_reach_is_told():
    """A residual out of reach is no fault, unless the matrix leaves no digits."""
    assert Direct().solve(system_of(laplacian(20, 20), is_spd=True), Tolerance(1e-18)).outcome is Outcome.CONVERGED
    hilbert = scipy.sparse.csr_array(scipy.linalg.hilbert(14))
    assert Direct().solve(system_of(hilbert), Tolerance(1e-18)).outcome is Outcome.STAGNATION


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="solver = 'mump' is not known; did you mean 'mumps'"):
        Direct(solver="mump")


TWO_RANKS = """
import sys
import numpy as np
from mpi4py import MPI
from petsc4py import PETSc
from penstock.solvers.linear import LinearSolver, STRATEGIES
from penstock.solvers.problem import LinearSystem

n = 200
A = PETSc.Mat().createAIJ((n, n), nnz=3, comm=MPI.COMM_WORLD)
for row in range(*A.getOwnershipRange()):
    for column, value in ((row - 1, -1.0), (row, 2.5), (row + 1, -1.0)):
        if 0 <= column < n:
            A[row, column] = value
A.assemble()
dense = np.diag(2.5 * np.ones(n)) - np.diag(np.ones(n - 1), 1) - np.diag(np.ones(n - 1), -1)
generator = np.random.default_rng(0)
basis = generator.standard_normal((n, 3))
solver = LinearSolver(STRATEGIES[sys.argv[1]](), rtol=1e-10)
for scale in (1.0, 1.3):
    A.scale(scale)
    dense *= scale
    for _ in range(8):
        b, right = A.createVecLeft(), basis @ generator.standard_normal(3)
        b.array = right[slice(*A.getOwnershipRange())]
        solution = solver(LinearSystem(A=A, b=b, is_spd=True))
        assert solution.converged and solution.strategy == sys.argv[1], solution
        x = np.concatenate(MPI.COMM_WORLD.allgather(solution.x.array_r))
        assert np.linalg.norm(x - np.linalg.solve(dense, right)) <= 1e-9 * np.linalg.norm(x)
assert solver.num_retried == 0
"""


@pytest.mark.parametrize("name", ["direct", "constant", "lagged"])
def test_two_ranks(name, run_on_ranks):
    run_on_ranks(2, TWO_RANKS, name)
