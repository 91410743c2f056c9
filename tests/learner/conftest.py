"""What all tests of the learner share: examples that take any time."""

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # on a loaded machine an example may take any time
settings.load_profile("untimed")


@pytest.fixture(scope="module")
def watermark_of_samples():
    """The watermark is reached by samples alone, of however few simulations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.learner.buffers.watermark.MIN_SIMULATIONS", 1)
        yield
