"""What all tests of the learner share: examples that take any time, and `-m gpu` for what needs one."""

import pytest
import torch
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # on a loaded machine an example may take any time
settings.load_profile("untimed")


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a GPU")


@pytest.fixture(scope="module")
def watermark_of_samples():
    """The watermark is reached by samples alone, of however few simulations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.learner.buffers.MIN_SIMULATIONS", 1)
        yield
