"""Blocks of right-hand sides against SciPy's direct solution."""

import numpy as np
import pytest
import scipy.sparse.linalg
from mpi4py import MPI
from petsc4py import PETSc

from penstock.solvers.linear.check import check_of
from penstock.solvers.linear.direct.block_factor import SIDES, BlockFactor
from penstock.solvers.problem import LinearSystem

SIZE = 200


def spd() -> scipy.sparse.csr_array:
    """A matrix with an irregular pattern and rows of different size."""
    half = scipy.sparse.random_array((SIZE, SIZE), density=0.02, rng=np.random.default_rng(0), format="csr")
    matrix = (half @ half.T + scipy.sparse.diags_array(np.linspace(0.1, 3.0, SIZE))).tocsr()
    matrix.sort_indices()
    return matrix


def petsc(matrix) -> PETSc.Mat:
    csr = (matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32), matrix.data)
    return PETSc.Mat().createAIJ(matrix.shape, csr=csr, comm=MPI.COMM_SELF)


def systems(A, sides) -> list[LinearSystem]:
    rights = [A.createVecLeft() for _ in sides]
    for b, side in zip(rights, sides, strict=True):
        b.array = side
    return [LinearSystem(A=A, b=b, is_spd=True) for b in rights]


@pytest.mark.parametrize("num", range(1, SIDES + 1))
def test_solutions_and_checks(num):
    matrix = spd()
    sides = np.random.default_rng(1).standard_normal((num, SIZE)) * 10.0 ** np.arange(num)[:, None]
    checks = BlockFactor(petsc(matrix)).solve(systems(petsc(matrix), sides))
    expected = scipy.sparse.linalg.spsolve(matrix.tocsc(), sides.T).reshape(SIZE, num)
    for check, x, b in zip(checks, expected.T, sides, strict=True):
        assert np.linalg.norm(check.x.array_r - x) <= 1e-12 * np.linalg.norm(x)
        alone = check_of(check.system, check.x)
        assert check.norm_b == pytest.approx(np.linalg.norm(b), rel=1e-14)
        assert check.residual_norm == pytest.approx(alone.residual_norm, rel=0.2)  # rounding, summed in another order
        assert check.strict_backward_error == pytest.approx(alone.strict_backward_error, rel=0.2)


def test_a_side_has_the_same_bits_in_any_block_and_beside_one_that_is_not_finite():
    A, rng = petsc(spd()), np.random.default_rng(2)
    factor, side, others = BlockFactor(A), rng.standard_normal(SIZE), rng.standard_normal((7, SIZE))
    (first, *_) = factor.solve(systems(A, [side, *others]))
    others[2] = np.nan
    checks = factor.solve(systems(A, [*others[:5], side]))
    assert checks[5].x.array_r.tobytes() == first.x.array_r.tobytes()
    assert [check is None for check in checks] == [False, False, True, False, False, False]


@pytest.mark.parametrize("least", [0.0, -1.0])
def test_a_matrix_that_is_not_positive_definite_is_refused(least):
    with pytest.raises(np.linalg.LinAlgError):
        BlockFactor(petsc(scipy.sparse.diags_array([1.0, least, 2.0]).tocsr()))
