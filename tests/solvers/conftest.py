import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # BLAS threads would fight over two cores


@pytest.fixture
def to_scipy():
    """A function from a PETSc matrix of one process to SciPy's CSR form."""
    from scipy.sparse import csr_array

    def convert(A):
        indptr, indices, values = A.getValuesCSR()
        return csr_array((values, indices, indptr), shape=A.getSize())

    return convert
