"""What tests of several parts share: `-m gpu` for what needs one, and matrices as SciPy has them."""

import pytest


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")


@pytest.fixture
def to_scipy():
    """A function from a PETSc matrix of one process to SciPy's CSR form."""
    from scipy.sparse import csr_array

    def convert(A):
        indptr, indices, values = A.getValuesCSR()
        return csr_array((values, indices, indptr), shape=A.getSize())

    return convert
