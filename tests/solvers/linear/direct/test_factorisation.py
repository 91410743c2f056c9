"""The workspace, null pivots and errors of MUMPS."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from mpi4py import MPI
from petsc4py import PETSc

from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct import factorisation
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.direct.factorisation import NULL_PIVOTS, WORKSPACE
from penstock.solvers.linear.direct.lagged import Lagged
from penstock.solvers.linear.strategy import Tolerance
from penstock.solvers.problem import LinearSystem
from tests.support.systems import laplacian, petsc_of, system_of

STRATEGIES = {"direct": lambda: Direct(solver="mumps"), "lagged": Lagged}
GENERATOR = np.random.default_rng(0)


def saddle_point(viscosity: float):
    """A matrix of 500 rows with pivots that MUMPS delays, as in Stokes flow.

    With its default settings MUMPS runs out of workspace.
    """
    stiffness = laplacian(20, 20)
    constraints = scipy.sparse.eye_array(400).tocsr()[::4] @ (stiffness @ stiffness)
    constraints = constraints + 0.1 * abs(constraints)
    return scipy.sparse.block_array([[viscosity * stiffness, constraints.T], [constraints, None]]).tocsr()


def workspace_error(A) -> int:
    """The INFOG(1) of MUMPS with its default settings."""
    pc = PETSc.PC().create(MPI.COMM_SELF)
    pc.setOperators(petsc_of(A))
    pc.setType("lu")
    pc.setFactorSolverType("mumps")
    pc.setUp()
    return pc.getFactorMatrix().getMumpsInfog(1)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_workspace_too_small_is_enlarged_and_stays_so(name):
    """A new matrix object each time gets a new factor, with MUMPS's default settings."""
    assert workspace_error(saddle_point(1e-4)) == -9
    solver = LinearSolver(STRATEGIES[name](), rtol=1e-9)
    for viscosity in (1e-4, 3e-5, 1e-5, 1e-6):
        A, x = saddle_point(viscosity), GENERATOR.standard_normal(500)
        solution = solver(system_of(A, A @ x))
        assert solution.converged and solution.strategy == name
        np.testing.assert_allclose(solution.x.array_r, x, rtol=0, atol=1e-6)  # conditions of 1e6 to 1e8
    assert solver.num_retried == 0


def test_a_workspace_once_enlarged_is_not_tried_small_again():
    PETSc.Log.begin()
    count = lambda: PETSc.Log.Event("MatLUFactorNum").getPerfInfo()["count"]  # noqa: E731
    direct = Direct(solver="mumps")
    direct.solve(system_of(saddle_point(1e-6), np.ones(500)), Tolerance(1e-8))
    before = count()
    direct.solve(system_of(saddle_point(1.1e-6), np.ones(500)), Tolerance(1e-8))
    assert count() - before == 1
    assert direct._ksp.getPC().getFactorMatrix().getMumpsIcntl(WORKSPACE) > 20


def test_what_mumps_said_is_told_with_what_to_do(monkeypatch):
    monkeypatch.setattr(factorisation, "MAX_WORKSPACE_PERCENT", 20)
    with pytest.raises(np.linalg.LinAlgError, match=r"INFOG\(1\) = -9.*workspace 20 % above its estimate is too small"):
        Direct(solver="mumps").solve(system_of(saddle_point(1e-6), np.ones(500)), Tolerance(1e-8))
    structurally_singular = scipy.sparse.csr_array(([1.0, 1.0, 0.0], ([0, 1, 2], [0, 0, 2])), shape=(3, 3))
    with pytest.raises(np.linalg.LinAlgError, match=r"INFOG\(1\) = -\d+.*the matrix is singular"):
        Direct(solver="mumps").solve(system_of(structurally_singular, np.ones(3)), Tolerance(1e-8))


@pytest.mark.parametrize("name", STRATEGIES)
def test_null_pivots_are_no_fault_of_any_new_matrix(name):
    """Graph Laplacians with whole numbers, each another object.

    The last pivot is exactly zero.
    """
    constants = PETSc.NullSpace().create(constant=True, comm=MPI.COMM_SELF)
    strategy = STRATEGIES[name]()
    solver = LinearSolver(strategy, rtol=1e-8)
    for _ in range(4):
        A = laplacian(8, 8, ends=1.0)
        b = GENERATOR.standard_normal(64)
        b -= b.mean()
        solution = solver(system_of(A, b, nullspace=constants))
        assert solution.converged and solution.strategy == name
        np.testing.assert_allclose(solution.x.array_r, np.linalg.pinv(A.toarray(), rcond=1e-10) @ b, rtol=0, atol=1e-6)
    assert solver.num_retried == 0


def test_a_nullspace_that_comes_later_is_told_to_mumps():
    system = system_of(laplacian(8, 8, ends=1.0) + scipy.sparse.eye_array(64), np.ones(64))
    direct = Direct(solver="mumps")
    direct.solve(system, Tolerance(1e-8))
    constants = PETSc.NullSpace().create(constant=True, comm=MPI.COMM_SELF)
    system.A.shift(-1.0)
    system.b.array = np.where(np.arange(64) % 2, -1.0, 1.0)
    later = LinearSystem(A=system.A, b=system.b, nullspace=constants)
    attempt = direct.solve(later, Tolerance(1e-8))
    assert direct._ksp.getPC().getFactorMatrix().getMumpsIcntl(NULL_PIVOTS) == 1
    constants.remove(attempt.x)
    expected = np.linalg.pinv(laplacian(8, 8, ends=1.0).toarray(), rcond=1e-10) @ system.b.array_r
    np.testing.assert_allclose(attempt.x.array_r, expected, rtol=0, atol=1e-6)


def test_symmetry_may_come_and_go_on_one_matrix():
    """A system that is no longer SPD must not use the kept Cholesky factorisation.

    That would take the upper triangle for all of A.
    """
    A = laplacian(8, 8)
    system = system_of(A, GENERATOR.standard_normal(64), is_spd=True)
    direct = Direct(solver="mumps")
    direct.solve(system, Tolerance(1e-8))
    nonsymmetric = A + scipy.sparse.tril(A, -1)
    system.A.setValuesCSR(*petsc_of(nonsymmetric).getValuesCSR())
    system.A.assemble()
    attempt = direct.solve(LinearSystem(A=system.A, b=system.b), Tolerance(1e-8))
    expected = scipy.sparse.linalg.spsolve(nonsymmetric.tocsc(), system.b.array_r)
    np.testing.assert_allclose(attempt.x.array_r, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
